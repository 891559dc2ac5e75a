"""The steps after which a pretraining run has seen given numbers of words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from albert_jax.checkpoint.manager import WORDS_MILESTONE
from albert_jax.config import Config
from albert_jax.data.batches.batch import Batch, unmasked_ids
from albert_jax.data.batches.builder import BatchBuilder
from albert_jax.data.vocabularies.sentencepiece import SPACE
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import ConfigError

COUNTED_ROWS = 1 << 14
"""Rows of a phase whose words are counted, in whole batches; the mean is within about 0.3 %."""


def word_beginnings(vocabulary: Vocabulary) -> np.ndarray:
    """bool [V]: the tokens of which each word between spaces has one.

    Those have the mark of a space. In a vocabulary without such tokens a word begins with a letter
    or digit.
    """
    tokens = [vocabulary.id_to_token(number) for number in range(vocabulary.size)]
    marked = np.array([token.startswith(SPACE) for token in tokens])
    named = np.array([token[:1].isalnum() for token in tokens])
    return marked if marked.any() else named & np.asarray(vocabulary.starts_word, bool)


def words_in(batch: Batch, begins: np.ndarray) -> int:
    """Words in the rows of a batch, as they were before the masks."""
    return int(np.count_nonzero(begins[unmasked_ids(batch)] & (batch["segment_ids"] > 0)))


def words_per_step(builder: BatchBuilder, begins: np.ndarray) -> np.ndarray:
    """Words in each batch of a phase, float64 [steps].

    They are counted in COUNTED_ROWS rows, and taken to be their mean in later steps, because the
    order of rows is random.
    """
    phase, rows = builder.phase, np.arange(builder.phase.batch_size)
    steps = min(phase.steps, -(-COUNTED_ROWS // phase.batch_size))
    counted = np.array([words_in(builder.batch(step, rows), begins) for step in range(steps)])
    return np.concatenate([counted, np.full(phase.steps - steps, counted.mean())])


def steps_at_words(
    config: Config, builders: Sequence[BatchBuilder], vocabulary: Vocabulary
) -> dict[int, dict[str, float]]:
    """For each of run.save_at_words the first step with as many words seen, repetitions included.

    The values are the milestone and the words seen by then, which a checkpoint keeps. Raises
    ConfigError for a milestone beyond the run, or two for one step.
    """
    found: dict[int, dict[str, float]] = {}
    if not config.run.save_at_words:
        return found
    begins = word_beginnings(vocabulary)
    seen = np.cumsum(np.concatenate([words_per_step(builder, begins) for builder in builders]))
    for words in config.run.save_at_words:
        if words > seen[-1]:
            raise ConfigError(
                f"run.save_at_words has {words:,}, but the run sees {int(seen[-1]):,} words: leave "
                "it out or give the phases more steps"
            )
        step = int(np.searchsorted(seen, words)) + 1
        if step in found:
            raise ConfigError(
                f"run.save_at_words has two numbers for step {step}: a step sees about "
                f"{int(seen[step - 1] / step):,} words; leave one out"
            )
        found[step] = {WORDS_MILESTONE: float(words), "words_seen": float(round(seen[step - 1]))}
    return found
