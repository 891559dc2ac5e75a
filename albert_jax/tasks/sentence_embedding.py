"""Sentence embedding: texts that mean the same lie close to each other (contrastive learning)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from albert_jax.config import ModelConfig
from albert_jax.config_fields import bounded
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import DataError
from albert_jax.json_files import json_bytes
from albert_jax.tasks.registry import register
from albert_jax.tasks.support import columns, metrics, rows, typed_line
from albert_jax.tasks.support.columns import LABEL_NAMES, SCORE_NAMES, TableConfig, TextExample
from albert_jax.tasks.support.page_form import PAIRS, PageForm
from albert_jax.tasks.support.rows import BatchSpec
from albert_jax.tasks.support.transformers_class import TransformersClass
from albert_jax.tasks.task import Axes, Prediction, Scores, Task

if TYPE_CHECKING:
    from albert_jax.objectives.loss_terms import LossTerms
    from albert_jax.tasks.support.encoder import Encoder

log = logging.getLogger(__name__)

SIMILARITY_NAMES = SCORE_NAMES + LABEL_NAMES
RETRIEVED_AT_ONCE = 1024
"""Texts whose similarities with all partners are in memory together."""


@dataclass(frozen=True, kw_only=True)
class SentenceEmbeddingConfig(TableConfig):
    """Settings of sentence embedding."""

    name: str = "sentence-embedding"
    """The task."""
    pairs_per_row: int = bounded(8, 1)
    """Pairs of a row, among which each text must find its partner."""
    temperature: float = bounded(0.05, 1e-4, 1e4)
    """Divides the cosines while training."""


@dataclass(frozen=True)
class PairFeature:
    """Two texts that mean the same, each a sequence of its own."""

    first: rows.TokenSequence
    second: rows.TokenSequence


@register
class SentenceEmbedding(Task[SentenceEmbeddingConfig, TextExample, PairFeature]):
    """Vectors whose cosine tells how alike two texts are."""

    name = "sentence-embedding"
    config_class = SentenceEmbeddingConfig
    metrics = ("spearman", "retrieval")
    confidence_interval = False
    embeds = True
    page = PageForm(
        title="Similarity of two texts",
        fields=("first text", "second text"),
        examples=PAIRS,
    )
    card_note = "The vector is the normalized mean of the last states; the pooler is not trained."
    transformers = TransformersClass(
        name="AlbertModel",
        pipeline="sentence-similarity",
        usage=(
            "from sentence_transformers import SentenceTransformer",
            "",
            'vectors = SentenceTransformer("THIS_FOLDER").encode(["a text", "another"])',
        ),
    )

    def read_examples(self, path: str, *, labelled: bool) -> list[TextExample]:
        """Pairs of texts; a label is their similarity, where there is one."""
        return columns.read_texts(
            path, self.config, SIMILARITY_NAMES, labelled=labelled, required=False
        )

    def read_for_prediction(self, path: str, names: tuple[str, ...] | None) -> list[TextExample]:
        """Pairs without their similarity."""
        task = self if names is None else self.with_config(columns=names, text_columns=())
        return task.read_examples(path, labelled=False)

    def parse_line(self, line: str, where: str) -> TextExample:
        """Two texts with a tab between them."""
        return TextExample(where, typed_line.parse_parts(line, where, self.name, 2, 2))

    def resolve(self, train: Sequence[TextExample], dev: Sequence[TextExample]) -> Self:
        """Correlations where all dev examples have a similarity, else retrieval of the partner."""
        if any(example.label is not None for example in train):
            log.warning(
                "the similarities of the training pairs are not used, and every pair counts as two "
                "texts of one meaning: leave the others out"
            )
        rated = all(example.label is not None for example in dev)
        for example in dev if rated else ():
            columns.parse_score(example.where, example.label)
        return self.with_metrics(("spearman", "pearson") if rated else ("retrieval",))

    def featurize(
        self, vocabulary: Vocabulary, examples: Sequence[TextExample], length: int
    ) -> list[PairFeature]:
        """[CLS] text [SEP] for each of the two."""
        features = []
        for example, texts in rows.encode_texts(vocabulary, examples, self.texts):
            if len(texts) != 2:
                raise DataError(f"{example.where}: {self.name} needs two texts; name both columns")
            first, second = (rows.sequence(vocabulary, [ids], length) for ids in texts)
            features.append(PairFeature(first, second))
        return features

    def feature_length(self, feature: PairFeature) -> int:
        """The longer text decides."""
        return max(len(feature.first.ids), len(feature.second.ids))

    def is_truncated(self, feature: PairFeature) -> bool:
        """One of both texts is enough."""
        return feature.first.is_truncated or feature.second.is_truncated

    @property
    def features_per_row(self) -> int:
        """Each row holds several pairs."""
        return self.config.pairs_per_row

    def for_prediction(self) -> Self:
        """One pair per row."""
        return self.with_config(pairs_per_row=1)

    def collate(self, features: Sequence[PairFeature], spec: BatchSpec) -> rows.Batch:
        """Rows of sequences [batch_size, 2 * pairs_per_row, length], pair p at 2p and 2p + 1.

        pair_weights float32 [batch_size, pairs_per_row] is 0 where a row lacks a pair, and for a
        pair that is alone in its row: there is nothing to compare it with.
        """
        size = self.config.pairs_per_row
        groups = [features[i : i + size] for i in range(0, len(features), size)]
        sequences = [[t for pair in group for t in (pair.first, pair.second)] for group in groups]
        batch = rows.grouped_rows(sequences, 2 * size, spec.length, spec.batch_size)
        batch["pair_weights"] = np.zeros((spec.batch_size, size), np.float32)
        for i, group in enumerate(groups):
            batch["pair_weights"][i, : len(group)] = float(len(group) > 1)
        return batch

    def loss(self, encoder: Encoder, batch: Any) -> LossTerms:
        """Each text must find its partner among the other texts of its row; term "pair".

        Both directions are averaged (InfoNCE, van den Oord et al. 2018).
        """
        import jax.numpy as jnp

        from albert_jax.objectives.loss_terms import LossTerm, LossTerms, cross_entropy

        vectors = self.logits(encoder, batch)  # [B, 2G, H]
        pairs = vectors.reshape(len(vectors), -1, 2, vectors.shape[-1])
        logits = jnp.einsum("bgh,bkh->bgk", pairs[:, :, 0], pairs[:, :, 1])
        logits = logits / self.config.temperature
        weights = batch["pair_weights"]
        # Empty pairs are not negatives; rows without weight keep finite logits.
        absent = (weights == 0) & jnp.any(weights > 0, axis=1, keepdims=True)
        partner = jnp.broadcast_to(jnp.arange(weights.shape[1]), weights.shape)
        forward = jnp.where(absent[:, None, :], rows.NEGATIVE, logits)
        backward = jnp.where(absent[:, None, :], rows.NEGATIVE, jnp.swapaxes(logits, 1, 2))
        losses = (cross_entropy(forward, partner) + cross_entropy(backward, partner)) / 2
        # A pair without weight compares itself with nothing: its loss may be huge, never NaN.
        losses = jnp.where(weights > 0, losses, 0.0)
        correct = jnp.sum(weights * (jnp.argmax(forward, -1) == partner))
        terms = {"pair": LossTerm(jnp.sum(weights * losses), "pair_weights")}
        return LossTerms(terms, {"pair_correct": correct})

    def logits(self, encoder: Encoder, batch: Any) -> Any:
        """Mean-pooled vectors of length 1: [B, H] for plain rows, [B, G, H] for grouped ones.

        Zero vectors stay zero, with a finite gradient.
        """
        import jax
        import jax.numpy as jnp

        shape = batch["input_ids"].shape
        if len(shape) == 3:
            encoder, batch = encoder.flattened(batch)
        means = encoder.pool(encoder.hidden_states(batch), batch, "mean")
        square = jnp.sum(jnp.square(means), axis=-1, keepdims=True)
        vectors = means * jax.lax.rsqrt(jnp.maximum(square, 1e-24))
        return vectors.reshape(*shape[:-1], -1)

    def predict(
        self, examples: Sequence[TextExample], features: Sequence[PairFeature], outputs: Any
    ) -> list[Prediction]:
        """Both vectors and their cosine."""
        vectors = np.asarray(outputs).reshape(len(features), 2, -1)
        return [
            {"cosine": float(a @ b), "first": a.tolist(), "second": b.tolist()} for a, b in vectors
        ]

    def score(self, examples: Sequence[TextExample], predictions: Sequence[Prediction]) -> Scores:
        """Correlations with the given similarities, else how often the partner is nearest."""
        if all(example.label is not None for example in examples):
            cosines = np.array([p["cosine"] for p in predictions])
            true = np.array([columns.parse_score(x.where, x.label) for x in examples])
            return metrics.correlations(cosines, true)
        first, second = (np.array([p[name] for p in predictions]) for name in ("first", "second"))
        partners = [example.texts[1] for example in examples]
        found = [
            partners[nearest]
            for begin in range(0, len(first), RETRIEVED_AT_ONCE)
            for nearest in (first[begin : begin + RETRIEVED_AT_ONCE] @ second.T).argmax(1)
        ]
        return {"retrieval": float(np.mean([a == b for a, b in zip(found, partners, strict=True)]))}

    def transformers_files(self, length: int, model: ModelConfig) -> dict[str, bytes]:
        """The files by which sentence-transformers pools and normalizes."""
        modules = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(
                [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
            )
        ]
        modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
        pooling: dict[str, Any] = {f"pooling_mode_{mode}": mode == "mean_tokens" for mode in modes}
        pooling["word_embedding_dimension"] = model.hidden_size
        settings = {"max_seq_length": length, "do_lower_case": False}
        return {
            "modules.json": json_bytes(modules),
            "1_Pooling/config.json": json_bytes(pooling),
            "sentence_bert_config.json": json_bytes(settings),
        }

    def graph_outputs(self, model: ModelConfig) -> dict[str, Axes]:
        """One vector per text."""
        return {"sentence_embedding": ("batch", model.hidden_size)}

    def onnx_outputs(self, graph: Any, hidden: str) -> list[str]:
        """The normalized mean of the tokens."""
        return [graph.normalized(graph.sentence_vector(hidden, "mean"))]
