from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from albert_jax.config import Config, OptimizerConfig, PhaseConfig
from albert_jax.optim.optimizer import (
    MUON_RMS,
    is_excluded,
    is_stacked,
    make_optimizer,
    map_state,
    trust_ratio,
)
from albert_jax.optim.schedule import learning_rate, warmup_steps


def test_rules_go_by_name():
    assert is_excluded("encoder/attention/key/bias") and is_excluded("mlm_head/bias")
    assert is_excluded("embeddings/layer_norm/scale") and not is_excluded("sop_head/kernel")
    assert not is_excluded("embeddings/word_embeddings/embedding")
    assert is_stacked("encoder/ffn/output/kernel") and not is_stacked("pooler/kernel")


@pytest.mark.parametrize("name", ["lamb", "adamw"])
def test_stacking_changes_no_number(name):
    """Two sets of very different size in one leaf move as two parameters of their own."""
    draw = np.random.default_rng(0)
    sets = [draw.normal(size=(5, 4)).astype(np.float32) * scale for scale in (1.0, 10.0)]
    gradients = [draw.normal(size=(5, 4)).astype(np.float32) for _ in sets]
    optimizer = make_optimizer(OptimizerConfig(name=name), 0.1)

    def update(params, gradient):
        moved, _ = optimizer.update(gradient, optimizer.init(params), params)
        return moved

    together = update(
        {"encoder": {"ffn": {"kernel": jnp.stack(sets)}}},
        {"encoder": {"ffn": {"kernel": jnp.stack(gradients)}}},
    )["encoder"]["ffn"]["kernel"]
    for i in range(2):
        alone = update({"pooler": {"kernel": sets[i]}}, {"pooler": {"kernel": gradients[i]}})
        np.testing.assert_allclose(together[i], alone["pooler"]["kernel"], rtol=1e-6)
    if name == "lamb":
        ratios = trust_ratio(jnp.stack(sets), jnp.stack(gradients), per_entry=True)
        assert ratios.shape == (2, 1, 1) and float(ratios[1, 0, 0] / ratios[0, 0, 0]) > 5


def test_with_bias_correction_adamw_is_that_of_optax():
    draw = np.random.default_rng(0)
    params = {"pooler": {"kernel": jnp.asarray(draw.normal(size=(5, 4)))}}
    config = OptimizerConfig(name="adamw", bias_correction=True, weight_decay=0.1)
    optimizers = make_optimizer(config, 0.01), optax.adamw(0.01, eps=config.eps, weight_decay=0.1)
    ours, theirs = params, params
    states = [optimizer.init(params) for optimizer in optimizers]
    for _ in range(5):
        gradient = {"pooler": {"kernel": jnp.asarray(draw.normal(size=(5, 4)))}}
        step, states[0] = optimizers[0].update(gradient, states[0], ours)
        ours = optax.apply_updates(ours, step)
        step, states[1] = optimizers[1].update(gradient, states[1], theirs)
        theirs = optax.apply_updates(theirs, step)
        np.testing.assert_allclose(ours["pooler"]["kernel"], theirs["pooler"]["kernel"], rtol=1e-6)


def test_two_steps_of_lamb_by_hand():
    draw = np.random.default_rng(0)
    config = OptimizerConfig(name="lamb", weight_decay=0.1)
    kernel, bias = draw.normal(size=(5, 4)), draw.normal(size=4)
    params = {"pooler": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}}
    optimizer = make_optimizer(config, 0.01)
    state = optimizer.init(params)
    moments = [(np.zeros_like(w), np.zeros_like(w)) for w in (kernel, bias)]
    for _ in range(2):
        gradients = [draw.normal(size=w.shape) for w in (kernel, bias)]
        updates, state = optimizer.update(
            {"pooler": dict(zip(("kernel", "bias"), gradients, strict=True))}, state, params
        )
        params = optax.apply_updates(params, updates)
        moments = [
            (config.b1 * m + (1 - config.b1) * g, config.b2 * v + (1 - config.b2) * g**2)
            for (m, v), g in zip(moments, gradients, strict=True)
        ]
        of_kernel, of_bias = (m / (np.sqrt(v) + config.eps) for m, v in moments)
        of_kernel = of_kernel + 0.1 * kernel  # A bias has neither decay nor a trust ratio.
        kernel = kernel - 0.01 * np.linalg.norm(kernel) / np.linalg.norm(of_kernel) * of_kernel
        bias = bias - 0.01 * of_bias
        np.testing.assert_allclose(params["pooler"]["kernel"], kernel, rtol=1e-5)
        np.testing.assert_allclose(params["pooler"]["bias"], bias, rtol=1e-5)


def test_the_learning_rate_of_a_run():
    config = Config(
        phases=(PhaseConfig(steps=60), PhaseConfig(steps=40)),
        optimizer=OptimizerConfig(learning_rate=1.0, warmup_steps=10),
    )
    found = [learning_rate(config, step) for step in (0, 5, 9, 10, 50, 99, 100)]
    assert found == pytest.approx([0, 0.5, 0.9, 0.9, 0.5, 0.01, 0], abs=1e-6)


def test_a_zero_norm_has_ratio_one():
    zero, one = jnp.zeros(3), jnp.ones(3)
    assert float(trust_ratio(zero, one, per_entry=False)) == 1.0
    assert float(trust_ratio(one, zero, per_entry=False)) == 1.0


def test_segments_of_phases():
    config = Config(
        phases=(
            PhaseConfig(steps=10, schedule="warmup"),
            PhaseConfig(steps=20, schedule="constant"),
            PhaseConfig(steps=10, schedule="decay"),
        ),
        optimizer=OptimizerConfig(learning_rate=1.0, end_learning_rate=0.1),
    )
    rates = [learning_rate(config, step) for step in (0, 5, 9, 10, 29, 30, 35, 40, 50)]
    assert rates == pytest.approx([0, 0.5, 0.9, 1, 1, 1, 0.55, 0.1, 0.1])
    assert warmup_steps(config) == 10
    constant = dataclasses.replace(config, phases=config.phases[1:])
    assert warmup_steps(constant) == 0
    assert warmup_steps(Config(optimizer=OptimizerConfig(warmup_steps=7))) == 7


def test_muon_orthogonalizes_the_weight_matrices_one_by_one():
    """Each entry of a stacked leaf gets an orthogonal step of its own, and decays by itself."""
    draw = np.random.default_rng(0)

    def tree(scale):
        return {
            "encoder": {"ffn": {"kernel": draw.normal(size=(2, 16, 8)) * scale}},
            "sop_head": {"kernel": draw.normal(size=(8, 2)) * scale},
            "mlm_head": {"bias": draw.normal(size=8) * scale},
        }

    params, gradients = (
        jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), tree(scale)) for scale in (1.0, 0.1)
    )
    optimizer = make_optimizer(OptimizerConfig(name="muon", weight_decay=0.1), 0.01)
    updates, state = optimizer.update(gradients, optimizer.init(params), params)
    kernel, weights = updates["encoder"]["ffn"]["kernel"], params["encoder"]["ffn"]["kernel"]
    for update, weight in zip(kernel, weights, strict=True):
        step = update + 0.01 * 0.1 * weight
        singular = np.linalg.svd(step, compute_uv=False)
        assert singular.min() > 0.5 * singular.max()
        rms = float(jnp.sqrt(jnp.mean(jnp.square(step))))
        assert rms == pytest.approx(0.01 * MUON_RMS, rel=0.2)
    lamb = make_optimizer(OptimizerConfig(weight_decay=0.1), 0.01)
    others, _ = lamb.update(gradients, lamb.init(params), params)
    for name in ("sop_head", "mlm_head"):
        jax.tree.map(np.testing.assert_array_equal, updates[name], others[name])
    # A matrix has one moment, every other parameter has two.
    ones = map_state(optimizer, lambda leaf: leaf.ndim, state, others=lambda _: 0)
    assert sorted(jax.tree.leaves(ones)) == [0, 0, 1, 1, 2, 2, 3]
