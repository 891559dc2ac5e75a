"""Held-out numbers of a pretrained model beside those of simpler references.

A loss means little alone. Beside the masked-language loss stands the cross-entropy of the same
masked tokens under the unigram frequencies of the training corpus (a small ALBERT can stay at
that value for ever), and beside the accuracy of sentence order that of a rule which sees only
where the segments were cut (sentence_order.py).
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from albert_jax.config import Config, PhaseConfig
from albert_jax.data.batches import pipeline
from albert_jax.data.batches.batch import Batch
from albert_jax.data.batches.builder import BatchBuilder
from albert_jax.data.corpus.corpus import Corpus, read_manifest
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import DataError
from albert_jax.evaluation.sentence_order import CutRule
from albert_jax.inference.layer_similarity import mean_cosines
from albert_jax.model import flops
from albert_jax.model_io import run_record
from albert_jax.model_io.model import Model
from albert_jax.objectives.loss_terms import weight_names
from albert_jax.objectives.pretraining import pretraining_loss

BatchSums = Callable[[Batch], Mapping[str, float]]
"""Sums over one batch, as the evaluation step of train/step.py gives them: "mlm_sum", "sop_sum"
(weighted losses in nats) and "mlm_correct", "mlm_top5_correct", "sop_correct" (weighted correct
predictions), and the same of any other objective. Other keys are ignored."""

TOP_K = 5
"""Number of best predictions that mlm_top5_accuracy considers (`top_k` of pretraining_loss)."""

SEED = 1_000_003
"""Held-out rows and their masks are the same for every run, whatever its seed."""

MASK_RATE, SHORT_SEQ_PROB = 0.15, 0.1
"""Share of held-out tokens that are predicted, and of sequences with a random length (the paper's),
whatever a phase trains with: phases and runs that differ in these can then be compared."""

BATCH_SIZE = 64

CUT_ROWS = 4096
"""Training rows from which the cut rule learns."""


@dataclass(frozen=True)
class Reference:
    """The unigram model that held-out rows are compared with, from the training corpus."""

    unigram_nats: np.ndarray
    """-ln frequency of each token in the training corpus, float64 [V]."""
    token_bytes: np.ndarray
    """UTF-8 bytes of each token, int [V]."""

    @classmethod
    def from_corpora(cls, corpora: Sequence[Corpus], vocabulary: Vocabulary) -> Reference:
        """From all training corpora of a run."""
        counts = np.sum([corpus.unigram for corpus in corpora], axis=0)
        return cls.from_counts(counts, vocabulary.token_bytes)

    @classmethod
    def from_counts(cls, counts: np.ndarray, token_bytes: np.ndarray) -> Reference:
        """From counts [V]: (count + 1) / (N + V), so that no held-out token is impossible."""
        counts = counts.astype(np.float64)
        return cls(-np.log((counts + 1) / (counts.sum() + counts.size)), token_bytes)

    @property
    def by_frequency(self) -> np.ndarray:
        """All token ids [V], the most frequent one first."""
        return np.argsort(self.unigram_nats, kind="stable")

    @property
    def entropy(self) -> float:
        """Expected loss in nats of the frequencies on text like the training corpus.

        A model that has learned nothing but frequencies stays at this value.
        """
        return float(np.sum(np.exp(-self.unigram_nats) * self.unigram_nats))


def evaluate(
    model: Model,
    *,
    num_layers: Sequence[int] = (),
    max_samples: int | None = None,
    cosines: bool = False,
) -> dict[int, dict[str, float]]:
    """The numbers of a pretraining run by depth, on its held-out text in its last phase's shape.

    Beside the numbers of `measure` stand sop_cut_accuracy (how well the cut alone predicts the
    order), forward_flops_per_token and, with `cosines`, the mean cosine of each layer. Without
    `num_layers` the model's own depth is measured; `max_samples` is the most held-out rows to
    read, by default run.max_eval_samples. Raises DataError if the prepared text is gone or is not
    the one that the run was trained on.
    """
    config, params = model.run_config, model.params
    phase = config.phases[-1]
    train = training_corpora(model)
    held_out = held_out_corpora(train)
    if config.data.on_damage == "skip":
        for corpus in (*train, *held_out):
            corpus.leave_out_damage()
    batches = held_out_batches(
        held_out,
        phase,
        model.vocabulary,
        max_samples=max_samples or config.run.max_eval_samples,
        batch_size=min(phase.batch_size, BATCH_SIZE),
    )
    reference = Reference.from_corpora(train, model.vocabulary)
    cut_accuracy = _cut_accuracy(phase, train, model.vocabulary, batches)
    results = {}
    for depth in num_layers or (config.model.num_hidden_layers,):
        numbers = measure(batches, local_sums(params, config, depth), reference) | cut_accuracy
        numbers["forward_flops_per_token"] = flops.forward_per_token(
            config.model,
            sequence_length=phase.sequence_length,
            predictions=phase.max_predictions_per_seq,
            num_layers=depth,
            word_prediction=phase.objective.word_prediction,
        )
        if cosines:
            numbers |= mean_cosines(params, config.model, config.compute, batches, num_layers=depth)
        results[depth] = numbers
    return results


def training_corpora(model: Model) -> list[Corpus]:
    """The training text of a pretraining run, in the folders that its config names.

    Raises DataError if a folder is gone or holds other text than the run's record says.
    """
    folders = model.run_config.data.prepared
    try:
        corpora = [Corpus.open(folder, "train") for folder in folders]
    except DataError as error:
        raise DataError(f"{error}; if it was moved, name its folder with --data") from error
    recorded = run_record.read(model.source).get("data")
    if recorded is not None and recorded != [corpus.content for corpus in corpora]:
        raise DataError(
            f"{', '.join(folders)}: {model.source} was not trained on this data: name its prepared "
            "folders, in their order, with --data"
        )
    return corpora


def held_out_corpora(train: Sequence[Corpus]) -> list[Corpus]:
    """The held-out text of the folders of training corpora; a folder without any is left out.

    Raises DataError if no folder has held-out text.
    """
    folders = [corpus.directory for corpus in train]
    holding = [
        folder
        for folder in folders
        if any(entry["tokens"] for entry in read_manifest(folder)["splits"].get("validation", ()))
    ]
    return [Corpus.open(folder, "validation") for folder in holding or folders[:1]]


def held_out_batches(
    corpora: Sequence[Corpus],
    phase: PhaseConfig,
    vocabulary: Vocabulary,
    *,
    max_samples: int,
    batch_size: int,
) -> list[dict[str, np.ndarray]]:
    """Batches of the held-out rows of all corpora, one corpus after the other.

    They have the shape of the phase, but the masks of the paper, so that runs can be compared:
    n-grams (words, where words are predicted) and MASK_RATE, unless the phase draws a rate for
    each row (uniform_mask_rate) or masks nothing, and at most SHORT_SEQ_PROB.
    `max_samples` is divided among the corpora by their numbers of tokens, at least one row each.
    Rows and masks do not depend on `batch_size`. Raises DataError for a corpus without a row.
    """
    objective = dataclasses.replace(phase.objective, sampled_softmax_size=0)
    if objective.word_prediction == "none":
        objective = dataclasses.replace(objective, mask_unit="ngram", max_ngram=3)
    if objective.mask_rate > 0 and not objective.uniform_mask_rate:
        objective = dataclasses.replace(objective, mask_rate=MASK_RATE)
    short_seq_prob = min(phase.short_seq_prob, SHORT_SEQ_PROB)
    phase = dataclasses.replace(phase, objective=objective, short_seq_prob=short_seq_prob)
    total = sum(corpus.num_tokens for corpus in corpora)
    return [
        batch
        for corpus in corpora
        for batch in pipeline.held_out(
            corpus,
            phase,
            vocabulary,
            max_rows=max(1, max_samples * corpus.num_tokens // max(1, total)),
            batch_size=batch_size,
            seed=SEED,
        )
    ]


def measure(
    batches: Iterable[Batch], batch_sums: BatchSums, reference: Reference
) -> dict[str, float]:
    """Held-out numbers over all batches, each a mean over what has a weight above 0.

    Of an objective X, whose weights are the column "X_weights", they are X_loss in nats and
    X_accuracy: mlm, sop, word. Beside mlm_loss stand unigram_loss (the same tokens under the
    frequencies of the corpus), nats_below_unigram, both losses per byte, and mlm_top5_accuracy.
    masked_tokens and sop_pairs count the targets. A mean over nothing is left out.
    """
    sums: dict[str, float] = {}
    totals: dict[str, float] = defaultdict(float)  # of the weights, by objective
    unigram = weight_bytes = 0.0
    for batch in batches:
        for name, value in batch_sums(batch).items():
            sums[name] = sums.get(name, 0.0) + float(value)
        for column in weight_names(batch):
            totals[column.removesuffix("_weights")] += float(batch[column].sum(dtype=np.float64))
        weights = batch["mlm_weights"].astype(np.float64)
        unigram += float(np.sum(weights * reference.unigram_nats[batch["mlm_labels"]]))
        weight_bytes += float(np.sum(weights * reference.token_bytes[batch["mlm_labels"]]))
    numbers: dict[str, float] = {}
    if tokens := totals["mlm"]:
        numbers["mlm_loss"] = sums["mlm_sum"] / tokens
        numbers["unigram_loss"] = unigram / tokens
        numbers["nats_below_unigram"] = numbers["unigram_loss"] - numbers["mlm_loss"]
        if weight_bytes:
            numbers["mlm_loss_per_byte"] = sums["mlm_sum"] / weight_bytes
            numbers["unigram_loss_per_byte"] = unigram / weight_bytes
    for objective, total in sorted(totals.items()):
        if not total:
            continue
        numbers[f"{objective}_loss"] = sums[f"{objective}_sum"] / total
        for name, value in sums.items():
            if name.startswith(f"{objective}_") and name.endswith("_correct"):
                numbers[f"{name.removesuffix('correct')}accuracy"] = value / total
    return numbers | {"masked_tokens": totals["mlm"], "sop_pairs": totals["sop"]}


def local_sums(
    params: Mapping[str, Any], config: Config, num_layers: int | None = None
) -> BatchSums:
    """The sums of the last phase's objective on this process's first device.

    `num_layers` None is the model's own depth; each depth compiles anew.
    """
    objective = config.phases[-1].objective
    loss = pretraining_loss(config.model, config.compute, objective=objective, top_k=TOP_K)

    @jax.jit
    def sums(params: Any, batch: Any) -> dict[str, jax.Array]:
        terms = loss(params, batch, dropout=None, num_layers=num_layers)
        return {f"{name}_sum": term.total for name, term in terms.terms.items()} | terms.sums

    return lambda batch: jax.device_get(sums(params, batch))


def _cut_accuracy(
    phase: PhaseConfig, train: list[Corpus], vocabulary: Vocabulary, batches: Sequence[Batch]
) -> dict[str, float]:
    """{"sop_cut_accuracy": ...}, or nothing where the objective has no sentence order."""
    if phase.objective.sentence_order == "none":
        return {}
    phase = dataclasses.replace(phase, batch_size=CUT_ROWS)
    builder = BatchBuilder(train, vocabulary, phase, seed=SEED, phase_index=0)
    rule = CutRule.learn(builder.batch(0, np.arange(CUT_ROWS)), vocabulary.starts_word)
    accuracy = rule.accuracy(batches)
    return {"sop_cut_accuracy": accuracy} if np.isfinite(accuracy) else {}
