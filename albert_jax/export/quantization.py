"""Weights as int8 with a scale per output channel, and what that changes.

A value is int8 x scale, where the scale of a channel is its largest magnitude / 127. Kernels have
one channel per output, and the word table has one per token. Biases, LayerNorms and the other
tables, which are small together, stay float32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.config import ModelConfig
from albert_jax.errors import AlbertError, DataError
from albert_jax.export.programs import EXACT
from albert_jax.export.transformers_classes import Head
from albert_jax.inference import fill_mask
from albert_jax.inference.predict import predict, task_of
from albert_jax.model import albert
from albert_jax.model_io.model import Model
from albert_jax.tasks import features
from albert_jax.tree import flatten, unflatten

_WORD_TABLE = "embeddings/word_embeddings/embedding"
_DRIFT_TEXTS, _DRIFT_LENGTH = 16, 128
"""How much text the drift is measured on."""


@dataclass(frozen=True)
class Int8:
    """One parameter; those of the encoder have a leading axis of parameter sets."""

    values: np.ndarray
    """int8, in the parameter's shape."""
    scales: np.ndarray
    """float32 [channels], or [sets, channels]."""
    axis: int
    """Axis of the channels in one set."""

    def restored(self) -> np.ndarray:
        """The float32 values that are stored approximately."""
        scales = self.scales[:, None] if self.axis == 0 else self.scales[..., None, :]
        return self.values.astype(np.float32) * scales


def quantize(params: Mapping[str, Any]) -> tuple[dict[str, Int8], dict[str, Any]]:
    """(the weights that become int8, by path; all parameters with these weights restored)."""
    stored, restored = {}, {}
    for path, leaf in flatten(params).items():
        restored[path] = leaf
        if path == _WORD_TABLE or path.endswith("/kernel"):
            stored[path] = _rounded(np.asarray(leaf, np.float32), 0 if path == _WORD_TABLE else 1)
            restored[path] = stored[path].restored()
    return stored, unflatten(restored)


def _rounded(array: np.ndarray, axis: int) -> Int8:
    over = 1 if axis == 0 else -2
    # The scale of a channel of zeros must not be 0.
    scales = np.maximum(np.abs(array).max(over, keepdims=True), 1e-30) / np.float32(127)
    values = np.rint(array / scales).astype(np.int8)
    return Int8(values, scales.squeeze(over).astype(np.float32), axis)


def measure(
    model: Model, params: Mapping[str, Any], restored: Mapping[str, Any], head: Head | None
) -> tuple[dict[str, Any], list[str]]:
    """What int8 weights change, as a record and as lines of text.

    It is the difference of the states after each layer, and the scores of a fine-tuned run on its
    dev examples.
    """
    effects: dict[str, Any] = {}
    lines: list[str] = []
    texts = [sentence.text for sentence in fill_mask.HELD_OUT_SENTENCES]
    if model.run_config.task is not None and head is None:
        try:
            score, texts = _scores(model, params, restored)
            lines = [
                f"{name}: {score['float32'][name]:.4f} in float32, {score['int8'][name]:.4f} in "
                f"int8 ({score['examples']} examples of {score['file']})"
                for name in score["float32"]
            ]
        except AlbertError as error:  # The dev examples of the run cannot be read.
            score = {"not measured": str(error)}
            lines = [f"score not measured: {error}"]
        effects["score"] = score
    length = min(_DRIFT_LENGTH, model.config.max_position_embeddings)
    try:
        ids = model.vocabulary.encode(texts[:_DRIFT_TEXTS])
    except DataError:  # A vocabulary of bare ids has no text.
        rng = np.random.default_rng(0)
        ids = list(rng.integers(0, model.config.vocab_size, (_DRIFT_TEXTS, length)))
    tokens = [features.single(model.vocabulary, row, length) for row in ids]
    batch = features.sequence_rows(tokens, length)
    effects["layers"] = drift(params, restored, model.config, batch)
    table = [
        f"{row['layer']:>35}  {row['cosine']:>11.6f}  {row['max_difference']:>18.4g}"
        for row in effects["layers"]
    ]
    header = "int8 to float32, states after layer:  mean cosine  largest difference"
    return effects, [header, *table, *lines]


def _scores(
    model: Model, params: Mapping[str, Any], restored: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """(scores on the dev examples with both weights, texts of the examples)."""
    task = task_of(model)
    config = task.config
    examples = task.read_examples(config.dev, labelled=True)
    examples = examples[: model.run_config.run.max_eval_samples]
    scores: dict[str, Any] = {"file": config.dev, "examples": len(examples)}
    exact = dataclasses.replace(model.run_config, compute=EXACT)
    for name, weights in (("float32", params), ("int8", restored)):
        variant = dataclasses.replace(model, run_config=exact, params=dict(weights))
        values = task.score(examples, predict(variant, examples))
        scores[name] = {key: values[key] for key in config.metrics if key in values}
    return scores, [text for example in examples for text in task.texts(example) if text]


def drift(
    params: Mapping[str, Any],
    changed: Mapping[str, Any],
    model: ModelConfig,
    batch: Mapping[str, Any],
) -> list[dict[str, float]]:
    """Mean cosine and largest difference of the tokens' states after each layer, for other
    (`changed`) parameters against `params`."""

    @jax.jit
    def compare(a: Any, b: Any) -> tuple[jax.Array, jax.Array]:
        a, b = (albert.encode_all_layers(p, model, batch, compute=EXACT)[1] for p in (a, b))
        real = jnp.asarray(batch["segment_ids"] > 0)
        cosines = jnp.sum(a * b, -1) / (jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1))
        mean = jnp.sum(jnp.where(real, cosines, 0), (1, 2)) / jnp.sum(real)
        return mean, jnp.max(jnp.where(real[..., None], jnp.abs(a - b), 0), (1, 2, 3))

    pairs = zip(*(np.asarray(x).tolist() for x in compare(params, changed)), strict=True)
    return [
        {"layer": number, "cosine": cosine, "max_difference": difference}
        for number, (cosine, difference) in enumerate(pairs, 1)
    ]
