"""The objective of words: its loss, in blocks and at once, and its place beside the others."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax.config import ComputeConfig, ModelConfig, ObjectiveConfig
from albert_jax.model import albert, heads, layers
from albert_jax.model.init import init_params
from albert_jax.objectives.pretraining import pretraining_loss
from albert_jax.objectives.word_prediction import word_prediction

MODEL = ModelConfig(
    vocab_size=40, embedding_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=32, max_position_embeddings=24, initializer_range=0.2, word_vocab_size=11,
)  # fmt: skip
COMPUTE = ComputeConfig(dtype="float32", attention="xla")


def _batch(words):
    rng, rows, length, masked = np.random.default_rng(0), 3, 24, 5
    shape = (rows, length if words == "all" else masked)
    labels = rng.integers(-1, MODEL.word_vocab_size, shape)
    batch = {
        "input_ids": rng.integers(0, 40, (rows, length)),
        "token_type_ids": np.zeros((rows, length)),
        "segment_ids": np.ones((rows, length)),
        "positions": np.tile(np.arange(length), (rows, 1)),
        "mlm_positions": np.stack([rng.permutation(length)[:masked] for _ in range(rows)]),
        "mlm_labels": rng.integers(0, 40, (rows, masked)),
        "cls_positions": np.zeros((rows, 1)),
        "word_labels": labels,
    }
    batch = {name: jnp.asarray(column, jnp.int32) for name, column in batch.items()}
    return batch | {
        "mlm_weights": jnp.ones((rows, masked), jnp.float32),
        "word_weights": jnp.asarray(labels >= 0, jnp.float32),
    }


@pytest.mark.parametrize("max_logits", [1, 11 * 3 * 7, 1 << 20])
def test_blocks_equal_the_whole(max_logits):
    """Loss, accuracy and gradients, with places that fill no whole block."""
    params, batch = init_params(MODEL, 1), _batch("all")
    states = jnp.asarray(np.random.default_rng(1).normal(size=(3, 24, 16)), jnp.float32)

    def blocks(params, states):
        found = word_prediction(params, MODEL, states, batch, max_logits=max_logits)
        return found.terms["word"].total, found.sums["word_correct"]

    def whole(params, states):
        logits = layers.bind(heads.WordHead, MODEL, params["word_head"])(states)
        known = batch["word_labels"] >= 0
        losses = -jax.nn.log_softmax(logits)
        chosen = jnp.take_along_axis(losses, jnp.abs(batch["word_labels"])[..., None], 2)[..., 0]
        right = (logits.argmax(-1) == batch["word_labels"]) & known
        return jnp.sum(jnp.where(known, chosen, 0.0)), jnp.sum(right)

    differentiate = [jax.value_and_grad(f, (0, 1), has_aux=True) for f in (blocks, whole)]
    (ours, correct), gradients = differentiate[0](params, states)
    (theirs, expected), wanted = differentiate[1](params, states)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert float(correct) == float(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradients, wanted)


def test_no_more_logits_than_allowed_are_computed():
    """The compiled step of 24 places has no array with the logits of more than two of them."""
    params, batch = init_params(MODEL, 1), _batch("all")

    def loss(params, states):
        found = word_prediction(params, MODEL, states, batch, max_logits=11 * 3 * 2)
        return found.terms["word"].total

    program = jax.jit(jax.grad(loss)).lower(params, jnp.zeros((3, 24, 16))).as_text()
    assert "tensor<3x2x11xf32>" in program
    assert "x24x11xf32>" not in program and "12x3x2x11x" not in program


@pytest.mark.parametrize("words", ["masked", "all"])
@pytest.mark.parametrize("unroll", [False, True])
def test_the_objective_stands_beside_the_masked_symbols(words, unroll):
    """The states that it reads are those at its places, and the other terms do not change."""
    params, batch = init_params(MODEL, 1), _batch(words)
    compute = dataclasses.replace(COMPUTE, unroll=unroll)
    found = {}
    for name in ("none", words):
        objective = ObjectiveConfig(sentence_order="none", word_prediction=name)
        loss = pretraining_loss(MODEL, compute, objective=objective)
        found[name] = loss(params, batch, dropout=None, num_layers=None)
    assert set(found["none"].terms) == {"mlm"} and set(found[words].terms) == {"mlm", "word"}
    np.testing.assert_allclose(
        found[words].terms["mlm"].total, found["none"].terms["mlm"].total, rtol=1e-6
    )
    places = np.arange(24)[None] if words == "all" else batch["mlm_positions"]
    states = albert.encode(params, MODEL, batch, compute=COMPUTE)
    states = jnp.take_along_axis(states, jnp.asarray(places)[:, :, None], 1)
    direct = word_prediction(params, MODEL, states, batch)
    np.testing.assert_allclose(
        found[words].terms["word"].total, direct.terms["word"].total, rtol=1e-5
    )


def test_without_words_there_is_no_head():
    config = dataclasses.replace(MODEL, word_vocab_size=0)
    assert "word_head" not in albert.abstract_params(config)
    assert albert.abstract_params(MODEL)["word_head"]["kernel"].shape == (16, 11)
