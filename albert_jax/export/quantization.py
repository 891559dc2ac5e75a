"""Weights as int8 with a scale per output channel, and what that changes.

A value is int8 x scale, where the scale of a channel is its largest magnitude / 127. Kernels have
one channel per output, and the word table has one per token. Biases, LayerNorms and the other
tables, which together are small, stay float32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from albert_jax.config import ModelConfig
from albert_jax.data.sources import python_docs
from albert_jax.errors import AlbertError, DataError
from albert_jax.export import Head
from albert_jax.inference.layer_similarity import cosine
from albert_jax.inference.predict import predict, task_of
from albert_jax.model import albert
from albert_jax.model.albert import FLOAT32
from albert_jax.model_io.model import Model
from albert_jax.tasks.support import rows
from albert_jax.tasks.support.prediction import evenly_spaced
from albert_jax.tree import flatten, unflatten

_WORD_TABLE = "embeddings/word_embeddings/embedding"


class Int8(NamedTuple):
    """One parameter; those of the encoder have a leading axis of parameter sets."""

    values: np.ndarray
    """int8, in the parameter's shape."""
    scales: np.ndarray
    """float32, in the parameter's shape but for the axis (of size 1) that a channel runs over."""


def quantize(params: Mapping[str, Any]) -> tuple[dict[str, Int8], dict[str, Any]]:
    """(the weights that become int8, by path; all parameters with these weights restored)."""
    stored, restored = {}, {}
    for path, leaf in flatten(params).items():
        restored[path] = leaf
        if path == _WORD_TABLE or path.endswith("/kernel"):
            array, axis = np.asarray(leaf, np.float32), -1 if path == _WORD_TABLE else -2
            # The scale of a channel of zeros must not be 0.
            scales = np.maximum(np.abs(array).max(axis, keepdims=True), 1e-30) / np.float32(127)
            scales = scales.astype(np.float32)
            stored[path] = Int8(np.rint(array / scales).astype(np.int8), scales)
            restored[path] = stored[path].values.astype(np.float32) * scales
    return stored, unflatten(restored)


def measure(
    model: Model, restored: Mapping[str, Any], head: Head | None
) -> tuple[dict[str, Any], list[str]]:
    """Returns the effect of int8 weights, as a record and as lines of text.

    The effect is the difference of the states of some sentences after each layer, and of the
    scores of a fine-tuned run on its dev examples.
    """
    length = min(128, model.config.max_position_embeddings)
    try:
        ids = model.vocabulary.encode([s.text for s in python_docs.HELD_OUT_SENTENCES])
    except DataError:  # A vocabulary of bare ids has no text.
        rng = np.random.default_rng(0)
        ids = list(rng.integers(0, model.config.vocab_size, (16, length)))
    tokens = [rows.sequence(model.vocabulary, [row], length) for row in ids]
    batch = rows.sequence_rows(tokens, length)
    record: dict[str, Any] = {"layers": drift(model.params, restored, model.config, batch)}
    lines = ["int8 to float32, states after layer:  mean cosine  largest difference"]
    lines += [
        f"{row['layer']:>35}  {row['cosine']:>11.6f}  {row['max_difference']:>18.4g}"
        for row in record["layers"]
    ]
    if model.run_config.task is not None and head is None:
        try:
            record["score"] = score = _scores(model, restored)
            lines += [
                f"{name}: {score['float32'][name]:.4f} in float32, {score['int8'][name]:.4f} in "
                f"int8 ({score['examples']} examples of {score['file']})"
                for name in score["float32"]
            ]
        except AlbertError as error:  # The dev examples of the run cannot be read.
            lines.append(f"score not measured: {error}")
    return record, lines


def _scores(model: Model, restored: Mapping[str, Any]) -> dict[str, Any]:
    """Scores on the dev examples with both weights."""
    task = task_of(model)
    examples = task.read_examples(task.config.dev, labelled=True)
    examples = evenly_spaced(examples, model.run_config.run.max_eval_samples)
    scores: dict[str, Any] = {"file": task.config.dev, "examples": len(examples)}
    for name, weights in (("float32", model.params), ("int8", dict(restored))):
        variant = dataclasses.replace(model, params=weights)
        values = task.score(examples, predict(variant, examples))
        scores[name] = {key: values[key] for key in task.config.metrics if key in values}
    return scores


def drift(
    params: Mapping[str, Any],
    changed: Mapping[str, Any],
    model: ModelConfig,
    batch: Mapping[str, Any],
) -> list[dict[str, float]]:
    """Mean cosine and largest difference of the tokens' states after each layer."""
    encode = jax.jit(lambda p: albert.encode_all_layers(p, model, batch, compute=FLOAT32)[1])
    real = batch["segment_ids"] > 0
    inner = model.inner_group_num  # A layer ends with the last of its blocks.
    before, after = (
        np.asarray(encode(weights))[inner - 1 :: inner, real] for weights in (params, changed)
    )
    return [
        {
            "layer": number,
            "cosine": float(np.mean(cosine(a, b))),
            "max_difference": float(np.abs(a - b).max()),
        }
        for number, (a, b) in enumerate(zip(before, after, strict=True), 1)
    ]
