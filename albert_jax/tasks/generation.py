"""Generation by masked diffusion: text is written into [MASK] tokens after its source.

A row is [CLS] source [SEP] target, where the target is one text, its end ([SEP]), and more end
tokens up to `max_target_length`, so that the length is learned too. In training the share of masked
target positions is uniform per row, and some rows are masked completely.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy.special import log_softmax

from albert_jax.config import ModelConfig, TaskConfig
from albert_jax.config_fields import bounded
from albert_jax.data.sources.tables import Record, text_field
from albert_jax.data.vocabularies.vocabulary import Vocabulary, special_ids
from albert_jax.errors import ConfigError, DataError
from albert_jax.tasks.registry import register
from albert_jax.tasks.support import columns, metrics, rows, typed_line
from albert_jax.tasks.support.page_form import PageForm
from albert_jax.tasks.support.prediction import Sampling
from albert_jax.tasks.support.rows import BatchSpec
from albert_jax.tasks.support.transformers_class import TransformersClass
from albert_jax.tasks.task import Axes, Forward, Prediction, Scores, Task

if TYPE_CHECKING:
    from albert_jax.tasks.support.encoder import Encoder

MAX_TURNS = 1000
"""Most turns of a dialogue on a typed line."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class GenerationConfig(TaskConfig):
    """Settings of generation."""

    name: str = "generation"
    """The task."""
    columns: tuple[str, ...] = ()
    """Names of a table's columns, in order, if it has no header."""
    max_target_length: int = bounded(32, 2)
    """Positions of the generated text, its end included."""
    full_mask_prob: float = bounded(0.25, 0.0, 1.0)
    """Share of training rows whose target is masked completely."""
    padding_weight: float = bounded(0.3, 0.0)
    """Weight of the end tokens after the first one, which are easy."""
    denoising_steps: int = bounded(8, 1)
    """Forward passes that write a text."""
    max_turns: int = bounded(0, 0)
    """Most turns of a training example's source: above 1 for dialogues; 0: counted by finetune."""


@dataclass(frozen=True)
class SourceTarget:
    """A source (turns of a dialogue, one text, or nothing) and the target text to write."""

    where: str
    source: tuple[str, ...]
    target: str | None = None


@dataclass(frozen=True)
class SourceTargetFeature:
    """Ids of the source with [CLS] and the last [SEP], and of the whole target.

    The source `is_truncated` if it lost its oldest tokens. `reference` is the target, where there
    is one, as the vocabulary writes it (in lower case, for example).
    """

    source: np.ndarray
    target: np.ndarray
    is_truncated: bool = False
    reference: str | None = None


@register
class Generation(Task[GenerationConfig, SourceTarget, SourceTargetFeature]):
    """Write a text that answers another text or a dialogue."""

    name = "generation"
    config_class = GenerationConfig
    metrics = ("bleu", "chrf", "exact")
    confidence_interval = False
    loss_name = "target"
    label_column = "mlm_labels"
    weight_column = "mlm_weights"
    generates = True
    page = PageForm(
        title="Writing",
        fields=("source",),
        repeats_last=True,
        examples={
            "en": (("My computer is very slow.",), ("The old man buys the lamp.",)),
            "zh": (("我的电脑很慢。",), ("老人买了这盏灯。",)),
        },
    )
    card_note = (
        "A text is written into {max_target_length} [MASK] tokens after the source, the most "
        "confident first, in {denoising_steps} steps: `python generate.py TEXT`."
    )
    transformers = TransformersClass(
        name="AlbertForMaskedLM", modules=("mlm_head",), pipeline="fill-mask"
    )

    def read_examples(self, path: str, *, labelled: bool) -> list[SourceTarget]:
        """Records with "source" (a text, or in JSON a list of turns, or absent) and "target"."""
        records = columns.load_records(path, self.config.columns)
        return [_example(record, labelled) for record in records]

    def parse_line(self, line: str, where: str) -> SourceTarget:
        """The turns with tabs between them."""
        return SourceTarget(where, typed_line.parse_parts(line, where, self.name, 1, MAX_TURNS))

    def resolve(self, train: Sequence[SourceTarget], dev: Sequence[SourceTarget]) -> Self:
        """Counts the turns; without sacrebleu the share of equal texts is the only score."""
        known = self.metrics if metrics.bleu_chrf(["a"], ["a"]) else ("exact",)
        if known == ("exact",):
            if {"bleu", "chrf"} & {*self.config.metrics}:
                raise ConfigError("BLEU and chrF need sacrebleu: pip install sacrebleu")
            log.warning("the score is the share of exact texts; pip install sacrebleu for BLEU")
        turns = self.config.max_turns or max(len(example.source) for example in train)
        return self.with_metrics(known).with_config(max_turns=turns)

    def texts(self, example: SourceTarget) -> Sequence[str]:
        """Source and target."""
        return (*example.source, *([example.target] if example.target else []))

    def featurize(
        self, vocabulary: Vocabulary, examples: Sequence[SourceTarget], length: int
    ) -> list[SourceTargetFeature]:
        """Ids of sources and targets; an unknown target is empty.

        Turns of a dialogue are separated by [SEP], and a source that is too long loses its oldest
        tokens. Raises DataError for a target that does not fit with its end.
        """
        size = self.config.max_target_length
        max_source = length - size - 2
        if max_source < 0:
            raise ConfigError(f"task.max_target_length {size}: give 2 to {length - 2} for {length}")
        ids = rows.encode_all(vocabulary, (text for x in examples for text in self.texts(x)))
        features = []
        for example in examples:
            turns: list[int] = []
            for number, turn in enumerate(example.source):
                turns += ([vocabulary.sep_id] if number else []) + ids(turn).tolist()
            excess = max(0, len(turns) - max_source)
            turns = turns[excess:]
            source = np.array([vocabulary.cls_id, *turns, vocabulary.sep_id], np.int32)
            text = ids(example.target) if example.target else np.zeros(0, np.int32)
            if len(text) >= size:
                raise DataError(
                    f"{example.where}: the target has {len(text)} tokens and needs one more for "
                    f"its end, but task.max_target_length is {size}: raise it or shorten the target"
                )
            target = np.full(size, vocabulary.sep_id, np.int32)
            target[: len(text)] = text
            written = None if example.target is None else vocabulary.decode(text.tolist())
            features.append(SourceTargetFeature(source, target, excess > 0, written))
        return features

    def feature_length(self, feature: SourceTargetFeature) -> int:
        """Source and target."""
        return len(feature.source) + len(feature.target)

    def is_truncated(self, feature: SourceTargetFeature) -> bool:
        """Only sources are; a target that does not fit is an error."""
        return feature.is_truncated

    def fitting_settings(self, length: int) -> dict[str, int]:
        """The target takes at most half of a row."""
        return {"max_target_length": length // 2}

    def collate(self, features: Sequence[SourceTargetFeature], spec: BatchSpec) -> rows.Batch:
        """Training rows, whose masked target positions have labels and weights.

        A row's mask rate is uniform in (0, 1], or 1 with probability full_mask_prob; at least one
        position is masked. End tokens after the first weigh padding_weight.
        """
        rng, vocabulary = spec.rng(), spec.vocabulary
        true = np.stack([feature.target for feature in features])
        count, size = true.shape
        full = rng.random(count) < self.config.full_mask_prob
        rates = np.where(full, 1.0, 1.0 - rng.random(count))
        masked_count = np.maximum(1, np.rint(rates * size)).astype(np.int64)
        order = np.argsort(rng.random((count, size)), axis=1)
        masked = np.argsort(order, axis=1) < masked_count[:, None]
        shown = np.where(masked, vocabulary.mask_id, true).astype(np.int32)
        batch = target_rows(features, shown, spec)
        ended = true == vocabulary.sep_id
        padding = ended & np.concatenate([np.zeros((count, 1), bool), ended[:, :-1]], axis=1)
        batch["mlm_labels"][:count] = np.where(masked, true, 0)
        batch["mlm_weights"][:count] = masked * np.where(padding, self.config.padding_weight, 1.0)
        return batch

    @property
    def predicted_positions(self) -> int:
        """The target."""
        return self.config.max_target_length

    def pretrained_modules(self) -> tuple[str, ...]:
        """The pretrained MLM head, which is trained further; no new head is added."""
        return ("mlm_head",)

    def logits(self, encoder: Encoder, batch: Any) -> Any:
        """Logits over the vocabulary [B, P, V] at mlm_positions."""
        hidden = encoder.hidden_states(batch)
        return encoder.mlm_logits(hidden, batch["mlm_positions"])

    def forward(
        self, features: Sequence[Any], run: Forward, spec: BatchSpec, sampling: Sampling
    ) -> list[str]:
        """The generated texts."""
        return decode(features, run, spec, self.config.denoising_steps, sampling)

    def predict(
        self,
        examples: Sequence[SourceTarget],
        features: Sequence[SourceTargetFeature],
        outputs: Any,
    ) -> list[Prediction]:
        """The texts; beside each stands the target, where there is one, for `score`."""
        return [
            {"text": text} | ({} if one.reference is None else {"target": one.reference})
            for text, one in zip(outputs, features, strict=True)
        ]

    def is_perfect(self, scores: Scores) -> bool:
        """Returns whether all texts are exact."""
        return scores.get("exact") == 1.0

    def score(self, examples: Sequence[SourceTarget], predictions: Sequence[Prediction]) -> Scores:
        """BLEU, chrF, and the share of texts that are equal apart from white space."""
        predicted, pairs = [p["text"] for p in predictions], zip(predictions, examples, strict=True)
        true = [prediction.get("target", example.target or "") for prediction, example in pairs]
        same = [a.split() == b.split() for a, b in zip(predicted, true, strict=True)]
        return {**metrics.bleu_chrf(predicted, true), "exact": float(np.mean(same))}

    def transformers_config(self, length: int) -> dict[str, Any]:
        """Entries of config.json for the decoding script."""
        sizes = {"max_target_length": self.config.max_target_length, "length": length}
        return {"generation": sizes | {"denoising_steps": self.config.denoising_steps}}

    def transformers_files(self, length: int, model: ModelConfig) -> dict[str, bytes]:
        """The decoding script, which needs only torch and transformers."""
        script = resources.files("albert_jax.tasks.support").joinpath("generate_script.py")
        return {"generate.py": script.read_bytes()}

    def graph_outputs(self, model: ModelConfig) -> dict[str, Axes]:
        """Logits of every position."""
        return {"logits": ("batch", "length", model.vocab_size)}

    def onnx_outputs(self, graph: Any, hidden: str) -> list[str]:
        """The MLM head."""
        return [graph.mlm_logits(hidden)]


def _example(record: Record, targeted: bool) -> SourceTarget:
    source: Any = record.fields.get("source", ())
    if isinstance(source, list):
        for turn in source:
            if not isinstance(turn, str) or not turn.strip():
                raise DataError(
                    f"{record.where}: a turn of 'source' is {str(turn)[:60]!r}, not a text; "
                    "give a list of texts"
                )
    elif "source" in record.fields:
        source = (text_field(record, "source"),)
    if not source and "target" not in record.fields:
        raise DataError(
            f"{record.where}: neither 'source' nor 'target' among {', '.join(record.fields)}; "
            "name the columns so"
        )
    target = text_field(record, "target") if targeted else None
    return SourceTarget(record.where, tuple(source), target)


def decode(
    features: Sequence[SourceTargetFeature],
    run: Forward,
    spec: BatchSpec,
    steps: int,
    sampling: Sampling,
) -> list[str]:
    """Writes texts in at most `steps` forward passes, which compile once.

    Each step fills those masked positions whose best token is most probable, an equal share of all
    positions. Filled positions keep their token. With a temperature tokens are drawn instead of
    the best one taken, by the seed and the source alone. Of special tokens only [SEP] is written.
    """
    vocabulary, size = spec.vocabulary, len(features[0].target)
    never = sorted({*special_ids(vocabulary)} - {vocabulary.sep_id})
    steps = min(steps, size)  # Each step fills a position or more.
    target = np.full((len(features), size), vocabulary.mask_id, np.int32)
    generators = [np.random.default_rng([sampling.seed, *x.source.tolist()]) for x in features]
    for step in range(1, steps + 1):
        masked = target == vocabulary.mask_id
        logits = np.array(run(target_rows(features, target, spec))[: len(features)], np.float64)
        logits[..., never] = -np.inf
        ids, confidence = _choose(logits, sampling.temperature, generators)
        # Cumulative quotas spread the positions evenly, and the last step fills all that are left.
        fill = masked.sum(axis=1) - (size * (steps - step)) // steps
        order = np.argsort(np.where(masked, -confidence, np.inf), axis=1, kind="stable")
        rank = np.argsort(order, axis=1)
        target = np.where(masked & (rank < fill[:, None]), ids, target)
        if sampling.show_step:
            sampling.show_step(" | ".join(vocabulary.decode(row.tolist()) for row in target))
    ends = [np.append(np.flatnonzero(row == vocabulary.sep_id), size)[0] for row in target]
    return [vocabulary.decode(row[:end].tolist()) for row, end in zip(target, ends, strict=True)]


def _choose(
    logits: np.ndarray, temperature: float, generators: Sequence[np.random.Generator]
) -> tuple[np.ndarray, np.ndarray]:
    """Ids [B, T] and their log-probabilities; with a temperature drawn by the Gumbel trick."""
    log_probs = log_softmax(logits, axis=-1)
    picked = log_probs
    if temperature > 0:
        noise = np.stack([generator.gumbel(size=logits.shape[1:]) for generator in generators])
        picked = log_probs / temperature + noise
    ids = picked.argmax(axis=-1)
    return ids.astype(np.int32), np.take_along_axis(log_probs, ids[..., None], axis=-1)[..., 0]


def target_rows(
    features: Sequence[SourceTargetFeature], targets: np.ndarray, spec: BatchSpec
) -> rows.Batch:
    """Rows that show `targets` int32 [features, T] after the sources.

    mlm_positions [batch_size, T] are the target's positions; labels and weights are 0.
    """
    sequences = [
        rows.TokenSequence(np.concatenate((feature.source, target)), len(feature.source))
        for feature, target in zip(features, targets, strict=True)
    ]
    batch = rows.sequence_rows(sequences, spec.length, spec.batch_size)
    shape = (spec.batch_size, targets.shape[1])
    batch["mlm_positions"] = np.zeros(shape, np.int32)
    batch["mlm_labels"] = np.zeros(shape, np.int32)
    batch["mlm_weights"] = np.zeros(shape, np.float32)
    for i, tokens in enumerate(sequences):
        batch["mlm_positions"][i] = tokens.segment_a_length + np.arange(shape[1])
    return batch
