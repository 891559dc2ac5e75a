"""Decoding by masked diffusion: [MASK] tokens behind a source are written in a few steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax

from albert_jax.tasks.features import Tokens, sequence_rows
from albert_jax.tasks.task import Batch, BatchSpec, Forward, Sampling


@dataclass(frozen=True)
class SourceTargetFeature:
    """Ids of the source with [CLS] and the last [SEP], and of the whole target."""

    source: np.ndarray
    target: np.ndarray


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
    the best one taken. Special tokens are never written, except for the end.
    """
    vocabulary, size = spec.vocabulary, len(features[0].target)
    steps = min(steps, size)  # Each step fills a position or more.
    target = np.full((len(features), size), vocabulary.mask_id, np.int32)
    rng = spec.rng()
    for step in range(1, steps + 1):
        masked = target == vocabulary.mask_id
        logits = np.array(run(target_rows(features, target, spec))[: len(features)], np.float64)
        logits[..., [vocabulary.mask_id, vocabulary.pad_id, vocabulary.cls_id]] = -np.inf
        ids, confidence = _choose(logits, sampling.temperature, rng)
        # Cumulative quotas spread the positions evenly, and the last step fills all that are left.
        fill = masked.sum(axis=1) - (size * (steps - step)) // steps
        order = np.argsort(np.where(masked, -confidence, np.inf), axis=1, kind="stable")
        rank = np.argsort(order, axis=1)
        target = np.where(masked & (rank < fill[:, None]), ids, target)
        if sampling.show_step:
            sampling.show_step(" | ".join(vocabulary.decode(row.tolist()) for row in target))
    return [vocabulary.decode(_until(row, vocabulary.sep_id)) for row in target]


def _choose(
    logits: np.ndarray, temperature: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Ids [B, T] and their log-probabilities; with a temperature drawn by the Gumbel trick."""
    log_probs = log_softmax(logits, axis=-1)
    picked = log_probs
    if temperature > 0:
        picked = log_probs / temperature + rng.gumbel(size=logits.shape)
    ids = picked.argmax(axis=-1)
    return ids.astype(np.int32), np.take_along_axis(log_probs, ids[..., None], axis=-1)[..., 0]


def _until(ids: np.ndarray, end: int) -> list[int]:
    """The ids before the first end token."""
    ends = np.flatnonzero(ids == end)
    return (ids[: ends[0]] if len(ends) else ids).tolist()


def target_rows(
    features: Sequence[SourceTargetFeature], targets: np.ndarray, spec: BatchSpec
) -> Batch:
    """Rows that show `targets` int32 [features, T] behind the sources.

    mlm_positions [batch_size, T] are the target's positions; labels and weights are 0.
    """
    sequences = [
        Tokens(np.concatenate((feature.source, target)), len(feature.source))
        for feature, target in zip(features, targets, strict=True)
    ]
    batch = sequence_rows(sequences, spec.length, spec.batch_size)
    shape = (spec.batch_size, targets.shape[1])
    batch["mlm_positions"] = np.zeros(shape, np.int32)
    batch["mlm_labels"] = np.zeros(shape, np.int32)
    batch["mlm_weights"] = np.zeros(shape, np.float32)
    for i, tokens in enumerate(sequences):
        batch["mlm_positions"][i] = tokens.first + np.arange(shape[1])
    return batch
