from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from albert_jax import tree
from albert_jax.model.init import init_params
from albert_jax.objectives.loss_terms import LossTerm, LossTerms
from albert_jax.objectives.pretraining import pretraining_loss
from albert_jax.parallel.mesh import make_mesh
from albert_jax.train import state as state_module
from albert_jax.train import step as step_module
from albert_jax.train.state import abstract_state, init_state
from albert_jax.train.step import frozen_parameters, make_eval_step, make_train_step
from tests.parallel.shape_program import QUICK, batch_of, config_of

SCALARS = {"learning_rate": np.float32(0.01), "seed": np.int32(1)}
CONFIG = config_of("", {}, 1)
CONFIG = dataclasses.replace(CONFIG, optimizer=dataclasses.replace(CONFIG.optimizer, ema_decay=0.9))
PARAMS = {"head": {"kernel": np.ones((4, 3), np.float32), "bias": np.zeros(3, np.float32)}}


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(CONFIG.parallel, jax.devices()[:1])


def toy(params, batch, *, dropout, num_layers) -> LossTerms:
    """A loss whose gradient one can write down: sum of w * (x . kernel + bias)."""
    out = batch["x"] @ params["head"]["kernel"] + params["head"]["bias"]
    return LossTerms(
        {"toy": LossTerm(jnp.sum(batch["toy_weights"] * out.sum(-1)), "toy_weights")}, {}
    )


def bits(tree_) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree_)]


def toy_batch(x: float) -> dict[str, np.ndarray]:
    return {"x": np.full((8, 4), x, np.float32), "toy_weights": np.ones(8, np.float32)}


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(mesh):
    step = make_train_step(CONFIG, CONFIG.phases[0], mesh, toy, params=PARAMS)
    state = init_state(CONFIG, PARAMS, mesh)
    state, _ = step(state, toy_batch(1.0), SCALARS)
    before = bits((state.params, state.opt_state, state.ema))
    for number, bad in enumerate((np.nan, np.inf), start=1):
        state, metrics = step(state, toy_batch(bad), SCALARS)
        assert bits((state.params, state.opt_state, state.ema)) == before
        assert int(state.skipped_in_a_row) == number == int(metrics["skipped"])
        assert not np.isfinite(metrics["loss"])
    state, metrics = step(state, toy_batch(1.0), SCALARS)
    assert bits(state.params) != before[: len(bits(state.params))]
    assert (int(state.step), int(state.skipped), int(state.skipped_in_a_row)) == (4, 2, 0)


def test_clipping_norm_and_average(mesh):
    step = make_train_step(CONFIG, CONFIG.phases[0], mesh, toy, params=PARAMS)
    state, metrics = step(init_state(CONFIG, PARAMS, mesh), toy_batch(2.0), SCALARS)
    # Gradient of the mean: 2 for each of the 12 kernel entries, 1 for each of the 3 biases.
    norm = np.sqrt(12 * 4 + 3)
    assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-6)
    assert float(metrics["loss"]) == pytest.approx(24.0, rel=1e-6)
    np.testing.assert_allclose(
        optax.tree_utils.tree_get(state.opt_state, "mu")["head"]["kernel"],
        0.1 * 2 / norm,
        rtol=1e-5,
    )
    expected = 0.9 * 1.0 + 0.1 * np.asarray(state.params["head"]["kernel"])
    np.testing.assert_allclose(state.ema["head"]["kernel"], expected, rtol=1e-6)


def test_the_callers_parameters_survive_donation(mesh):
    copies = jax.tree.map(np.copy, PARAMS)
    step = make_train_step(CONFIG, CONFIG.phases[0], mesh, toy, params=PARAMS)
    state = init_state(CONFIG, PARAMS, mesh)
    old = state.params["head"]["kernel"]
    step(state, toy_batch(1.0), SCALARS)
    assert bits(copies) == bits(PARAMS) and old.is_deleted()


def test_no_weight_at_all_gives_zero(mesh):
    batch = {**toy_batch(3.0), "toy_weights": np.zeros(8, np.float32)}
    step = make_train_step(CONFIG, CONFIG.phases[0], mesh, toy, params=PARAMS)
    state, metrics = step(init_state(CONFIG, PARAMS, mesh), batch, SCALARS)
    assert float(metrics["loss"]) == 0.0 and int(state.skipped) == 0


def test_abstract_and_real_state_agree(mesh):
    shapes, state = abstract_state(CONFIG, PARAMS, mesh), init_state(CONFIG, PARAMS, mesh)
    assert jax.tree.structure(shapes) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(shapes), jax.tree.leaves(state), strict=True):
        assert (a.shape, a.dtype, a.sharding) == (b.shape, b.dtype, b.sharding)
    plain = dataclasses.replace(
        CONFIG, optimizer=dataclasses.replace(CONFIG.optimizer, ema_decay=0)
    )
    assert init_state(plain, PARAMS, mesh).ema is None


def test_any_optax_optimizer_fits_the_state(mesh, monkeypatch):
    """A state with a counter beside the moments: replicated, restored by a bad step, frozen."""
    for module in (state_module, step_module):
        monkeypatch.setattr(module, "make_optimizer", lambda config, rate=0.0: optax.adam(rate))
    params = {"encoder": PARAMS["head"], "head": PARAMS["head"]}
    phase = dataclasses.replace(CONFIG.phases[0], freeze="encoder")
    shapes, state = abstract_state(CONFIG, params, mesh), init_state(CONFIG, params, mesh)
    assert [(leaf.shape, leaf.sharding) for leaf in jax.tree.leaves(shapes)] == [
        (leaf.shape, leaf.sharding) for leaf in jax.tree.leaves(state)
    ]
    step = make_train_step(CONFIG, phase, mesh, toy, params=params)
    for x, count in ((1.0, 1), (np.nan, 1), (1.0, 2)):
        state, _ = step(state, toy_batch(x), SCALARS)
        assert int(optax.tree_utils.tree_get(state.opt_state, "count")) == count
    for name, trained in (("encoder", False), ("head", True)):
        moment = optax.tree_utils.tree_get(state.opt_state, "nu")[name]["kernel"]
        assert bool(np.any(moment)) == trained
        assert np.array_equal(state.params[name]["kernel"], PARAMS["head"]["kernel"]) != trained


def test_a_frozen_encoder_keeps_its_values_and_moments(mesh):
    phase = dataclasses.replace(CONFIG.phases[0], freeze="encoder")
    params = init_params(CONFIG.model, 0)
    loss = pretraining_loss(CONFIG.model, CONFIG.compute)
    state = init_state(CONFIG, params, mesh)
    step = make_train_step(CONFIG, phase, mesh, loss)
    batch = batch_of(0, 16)
    state, metrics = step.lower(state, batch, SCALARS).compile(QUICK)(state, batch, SCALARS)
    before, after = tree.flatten(params), tree.flatten(state.params)
    for path, leaf in after.items():
        same = np.array_equal(leaf, before[path])
        assert same == path.startswith("encoder/"), path
    moments = optax.tree_utils.tree_get(state.opt_state, "mu")
    assert all(not leaf.any() for leaf in jax.tree.leaves(moments["encoder"]))
    assert all(leaf.any() for leaf in jax.tree.leaves(moments["embeddings"]))

    # Nothing trains a head without its loss: it would only decay.
    for changed, heads in (
        ({"sentence_order": "none"}, {"pooler", "sop_head"}),
        ({"mask_rate": 0.0}, {"mlm_head"}),
    ):
        objective = dataclasses.replace(phase.objective, **changed)
        other = dataclasses.replace(phase, objective=objective)
        for pretraining in (True, False):
            frozen = tree.flatten(frozen_parameters(params, other, pretraining=pretraining))
            names = {path.split("/")[0] for path, is_frozen in frozen.items() if is_frozen}
            assert names == {"encoder"} | (heads if pretraining else set())

    # The sums of an evaluation are those of the loss itself, dropout off.
    sums = make_eval_step(mesh, loss, params)(state.params, batch)
    direct = loss(state.params, batch, dropout=None, num_layers=None)
    assert float(sums["mlm_sum"]) == pytest.approx(float(direct.terms["mlm"].total), rel=1e-6)
    assert float(sums["sop_weights"]) == batch["sop_weights"].sum()
    assert float(sums["sop_correct"]) == float(direct.sums["sop_correct"])
