from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax.config import Config, OptimizerConfig, PhaseConfig
from albert_jax.optim.lamb import trust_ratio
from albert_jax.optim.optimizer import build
from albert_jax.optim.parameter_groups import excluded, stacked
from albert_jax.optim.schedule import learning_rate


def test_rules_go_by_name():
    assert excluded("encoder/attention/key/bias") and excluded("mlm_head/bias")
    assert excluded("embeddings/layer_norm/scale") and not excluded("sop_head/kernel")
    assert not excluded("embeddings/word_embeddings/embedding")
    assert stacked("encoder/ffn/output/kernel") and not stacked("pooler/kernel")


@pytest.mark.parametrize("name", ["lamb", "adamw"])
def test_stacking_changes_no_number(name):
    """Two sets of very different size in one leaf move as two parameters of their own."""
    draw = np.random.default_rng(0)
    sets = [draw.normal(size=(5, 4)).astype(np.float32) * scale for scale in (1.0, 10.0)]
    gradients = [draw.normal(size=(5, 4)).astype(np.float32) for _ in sets]
    rule = build(OptimizerConfig(name=name))

    def update(params, gradient):
        moved, _ = rule.update(gradient, rule.init(params), params, learning_rate=0.1)
        return moved

    together = update(
        {"encoder": {"ffn": {"kernel": jnp.stack(sets)}}},
        {"encoder": {"ffn": {"kernel": jnp.stack(gradients)}}},
    )["encoder"]["ffn"]["kernel"]
    for i in range(2):
        alone = update({"pooler": {"kernel": sets[i]}}, {"pooler": {"kernel": gradients[i]}})
        np.testing.assert_allclose(together[i], alone["pooler"]["kernel"], rtol=1e-6)
    if name == "lamb":
        ratios = trust_ratio(jnp.stack(sets), jnp.stack(gradients), per_set=True)
        assert ratios.shape == (2, 1, 1) and float(ratios[1, 0, 0] / ratios[0, 0, 0]) > 5


def test_a_zero_norm_has_ratio_one():
    zero, one = jnp.zeros(3), jnp.ones(3)
    assert float(trust_ratio(zero, one, per_set=False)) == 1.0
    assert float(trust_ratio(one, zero, per_set=False)) == 1.0


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
