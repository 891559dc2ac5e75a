"""Runs on one text, scored at the same masks: what does masking whole words teach?

    python benchmarks/chinese_words.py PREPARED RUN ...

PREPARED is a folder of `albert-jax data prepare --words jieba`. The runs have its vocabulary and
were trained on it, or on the same text prepared without words. Printed for each run, for masks of
whole words and of single tokens: nats below unigram, the share of masked tokens that are right, and
the share of masked words of which all tokens are.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping

import jax
import numpy as np

from albert_jax.data.batches.builder import BatchBuilder
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.evaluation import pretraining
from albert_jax.model import albert
from albert_jax.model_io import model as models

UNITS = ("word", "token")


def words_right(batch: Mapping[str, np.ndarray], right: np.ndarray) -> np.ndarray:
    """For each word with masks whether all of them are `right` [B, P]; bool [words]."""
    begins = batch["word_starts"] | (np.diff(batch["segment_ids"], axis=1, prepend=0) != 0)
    row, place = np.nonzero(batch["mlm_weights"])
    word = np.cumsum(begins, axis=1)[row, batch["mlm_positions"][row, place]]
    _, number = np.unique(row * begins.shape[1] + word, return_inverse=True)
    wrong = np.bincount(number, weights=~right[row, place])
    return wrong == 0


def predictor(model: models.Model) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """The likeliest token at each masked place of a batch, int [B, P]."""

    @jax.jit
    def predict(params: albert.Params, batch: Mapping[str, jax.Array]) -> jax.Array:
        states = albert.encode(
            params, model.config, batch, compute=model.run_config.compute,
            positions=batch["mlm_positions"],
        )  # fmt: skip
        return albert.mlm_logits(params, model.config, states).argmax(-1)

    return lambda batch: np.asarray(predict(model.params, dict(batch)))


def held_out(prepared: str, model: models.Model, unit: str) -> list[dict[str, np.ndarray]]:
    """Held-out batches with the column word_starts, 15% of their tokens masked."""
    run = model.run_config
    objective = dataclasses.replace(
        run.phases[-1].objective, mask_unit=unit, mask_rate=pretraining.MASK_RATE
    )
    phase = dataclasses.replace(
        run.phases[-1], objective=objective, batch_size=pretraining.BATCH_SIZE
    )
    corpora = [Corpus.open(prepared, "validation")]
    builder = BatchBuilder(corpora, model.vocabulary, phase, seed=pretraining.SEED, phase_index=0)
    count = min(run.run.max_eval_samples, builder.rows_per_epoch()) // phase.batch_size
    rows = np.arange(phase.batch_size)
    return [builder.batch(step, rows, columns=True) for step in range(max(1, count))]


def measure(prepared: str, model: models.Model, unit: str) -> tuple[dict[str, float], float]:
    """The numbers of evaluation/pretraining.py, and the share of words that are right."""
    batches = held_out(prepared, model, unit)
    train = [Corpus.open(prepared, "train")]
    reference = pretraining.Reference.from_corpora(train, model.vocabulary)
    score, predict = pretraining.local_sums(model.params, model.run_config), predictor(model)
    right = [words_right(batch, predict(batch) == batch["mlm_labels"]) for batch in batches]
    return pretraining.measure(batches, score, reference), float(np.concatenate(right).mean())


def main() -> None:
    """Prints a line per run and unit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prepared")
    parser.add_argument("runs", nargs="+")
    options = parser.parse_args()
    for run in options.runs:
        model = models.load(run)
        for unit in UNITS:
            found, words = measure(options.prepared, model, unit)
            print(
                f"{run}: masks of a {unit}: {found['nats_below_unigram']:.3f} nats below unigram, "
                f"tokens {found['mlm_accuracy']:.1%}, words {words:.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
