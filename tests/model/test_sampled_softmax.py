"""The sampled softmax: an estimate of the exact loss, the same for every division of a batch."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax.config import ComputeConfig, ModelConfig, ObjectiveConfig, PhaseConfig
from albert_jax.data.batches.batch import SOFTMAX_SEED
from albert_jax.data.batches.builder import BatchBuilder
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.evaluation.pretraining import held_out_batches
from albert_jax.model.init import init_params
from albert_jax.objectives.masked_lm import masked_lm
from albert_jax.objectives.pretraining import pretraining_loss
from albert_jax.objectives.sampled_softmax import draw, sampled_masked_lm
from albert_jax.parallel.mesh import make_mesh
from albert_jax.train.state import init_state
from albert_jax.train.step import make_train_step
from tests import tiny_models
from tests.parallel.shape_program import QUICK, config_of

MODEL = ModelConfig(
    vocab_size=90, embedding_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=32, max_position_embeddings=24, initializer_range=0.4,
)  # fmt: skip
ORDER = np.random.default_rng(3).permutation(90)
PARAMS = init_params(MODEL, 1)


def _batch(seed: int = 0):
    rng = np.random.default_rng(0)
    return {
        "mlm_labels": jnp.asarray(rng.integers(0, 90, (3, 7)), jnp.int32),
        "mlm_weights": jnp.asarray(rng.integers(0, 2, (3, 7)), jnp.float32),
        SOFTMAX_SEED: jnp.full(3, seed, jnp.int32),
    }


STATES = jnp.asarray(np.random.default_rng(1).normal(size=(3, 7, 16)), jnp.float32)


def _sampled(params, seed, size):
    terms = sampled_masked_lm(
        params, MODEL, STATES, _batch(seed), size=size, by_frequency=ORDER
    ).terms
    return terms["mlm"].total


def test_every_part_of_the_rest_gives_one_token():
    ids = jnp.asarray(ORDER)
    for count in (1, 7, 44, 90):
        for seed in range(5):
            places = np.argsort(ORDER)[np.asarray(draw(jnp.int32(seed), ids, count))]
            parts = (places + 0.5) * count / 90
            assert (np.abs(parts - np.arange(count) - 0.5) <= 0.5 + count / 180).all()
    assert not np.array_equal(draw(jnp.int32(0), ids, 7), draw(jnp.int32(1), ids, 7))


def test_losses_and_gradients_are_right_on_average():
    """The mean over draws approaches the exact loss, and the gradient that of the exact loss."""
    exact = jax.value_and_grad(
        lambda params: masked_lm(params, MODEL, STATES, _batch()).terms["mlm"].total
    )
    sampled = jax.jit(jax.value_and_grad(_sampled), static_argnums=2)
    loss, gradient = exact(PARAMS)
    flat, _ = jax.flatten_util.ravel_pytree(gradient)
    found = [sampled(PARAMS, seed, 60) for seed in range(200)]
    assert np.mean([one for one, _ in found]) == pytest.approx(float(loss), rel=0.01)
    assert np.std([one for one, _ in found]) > 1e-3
    mean = np.mean([jax.flatten_util.ravel_pytree(one)[0] for _, one in found], axis=0)
    assert np.linalg.norm(mean - flat) < 0.1 * np.linalg.norm(flat)


def test_the_tokens_that_are_always_there_are_exact():
    """No draw changes anything if all others have no probability."""
    bias = np.full(90, -40.0, np.float32)
    bias[ORDER[:30]] = 0
    params = {**PARAMS, "mlm_head": {**PARAMS["mlm_head"], "bias": jnp.asarray(bias)}}
    batch = {**_batch(), "mlm_labels": jnp.asarray(ORDER[np.arange(21).reshape(3, 7)], jnp.int32)}
    exact = masked_lm(params, MODEL, STATES, batch)
    found = sampled_masked_lm(params, MODEL, STATES, batch, size=60, by_frequency=ORDER)
    np.testing.assert_allclose(found.terms["mlm"].total, exact.terms["mlm"].total, rtol=1e-5)
    np.testing.assert_array_equal(found.sums["mlm_correct"], exact.sums["mlm_correct"])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return Corpus.open(tiny_models.prepared(tmp_path_factory.mktemp("sampled")))


PHASE = PhaseConfig(
    steps=4, sequence_length=24, batch_size=8, objective=ObjectiveConfig(sampled_softmax_size=20)
)


def test_all_rows_of_a_step_have_its_seed_and_held_out_rows_have_none(corpus):
    vocabulary = tiny_models.vocabulary()
    builder = BatchBuilder([corpus], vocabulary, PHASE, seed=1, phase_index=0)
    seeds = [np.unique(builder.batch(step, np.arange(8))[SOFTMAX_SEED]) for step in range(4)]
    assert all(len(of_step) == 1 for of_step in seeds) and len(np.unique(seeds)) == 4
    np.testing.assert_array_equal(builder.batch(2, np.arange(5, 7))[SOFTMAX_SEED], seeds[2][0])
    [held_out, *_] = held_out_batches([corpus], PHASE, vocabulary, max_samples=8, batch_size=8)
    assert SOFTMAX_SEED not in held_out
    whole = dataclasses.replace(PHASE, objective=ObjectiveConfig())
    builder = BatchBuilder([corpus], vocabulary, whole, seed=1, phase_index=0)
    assert SOFTMAX_SEED not in builder.batch(0, np.arange(8))


@pytest.mark.parametrize(("size", "sampled"), [(0, False), (20, True), (64, False), (99, False)])
def test_a_small_vocabulary_is_taken_whole(size, sampled):
    objective = ObjectiveConfig(sampled_softmax_size=size)
    assert objective.softmax_size(ModelConfig(vocab_size=64)) == (size if sampled else 0)


def test_one_step_is_the_same_in_one_part_and_in_four(corpus):
    config = config_of("", {}, 1)
    model = dataclasses.replace(MODEL, vocab_size=64)
    config = dataclasses.replace(config, model=model)
    builder = BatchBuilder([corpus], tiny_models.vocabulary(), PHASE, seed=1, phase_index=0)
    batch = builder.batch(0, np.arange(8))
    mesh = make_mesh(config.parallel, jax.devices()[:1])
    scalars = {"learning_rate": np.float32(0.01), "seed": np.int32(1)}
    compute = ComputeConfig(dtype="float32", attention="xla")
    results = []
    for parts, objective in ((1, PHASE.objective), (4, PHASE.objective), (1, ObjectiveConfig())):
        phase = dataclasses.replace(PHASE, gradient_accumulation_steps=parts)
        loss = pretraining_loss(model, compute, objective=objective)
        state = init_state(config, init_params(model, 0), mesh)
        step = make_train_step(config, phase, mesh, loss).lower(state, batch, scalars)
        results.append(step.compile(QUICK)(state, batch, scalars)[1])
    one, four, exact = (float(metrics["mlm_loss"]) for metrics in results)
    assert one == pytest.approx(four, rel=1e-5) and one != pytest.approx(exact, rel=1e-5)
    assert float(results[0]["grad_norm"]) == pytest.approx(float(results[1]["grad_norm"]), rel=1e-4)
