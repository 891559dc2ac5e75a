"""FLOPs by formula, against figures worked out by hand and against a count of the matrices."""

import pytest

from albert_jax.config import Config, ModelConfig, ObjectiveConfig, PhaseConfig
from albert_jax.model import flops
from albert_jax.train.report import eta_seconds

LARGE = ModelConfig(
    hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
)
XXLARGE = ModelConfig(hidden_size=4096, num_attention_heads=64, intermediate_size=16384)


@pytest.mark.parametrize(
    ("model", "short", "long"),
    [(ModelConfig(), 0.528, 0.570), (LARGE, 1.854, 1.967), (XXLARGE, 14.58, 14.81)],
)
def test_published_sizes(model: ModelConfig, short: float, long: float) -> None:
    at_128 = flops.forward_per_token(model, sequence_length=128, predictions=20)
    at_512 = flops.forward_per_token(model, sequence_length=512, predictions=76)
    assert (3 * at_128 / 1e9, 3 * at_512 / 1e9) == (
        pytest.approx(short, rel=1e-3),
        pytest.approx(long, rel=1e-3),
    )


def test_every_matrix_product_is_counted_once() -> None:
    model = ModelConfig(
        vocab_size=50,
        embedding_size=4,
        hidden_size=8,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=16,
        inner_group_num=2,
    )
    length, predictions, blocks = 10, 3, 6
    products = blocks * [(length, 8, 8)] * 4 + blocks * [(length, 8, 16), (length, 16, 8)]
    products += blocks * [(length, 8, length), (length, length, 8)]
    products += [(length, 4, 8), (predictions, 8, 4), (predictions, 4, 50), (1, 8, 8), (1, 8, 2)]
    expected = sum(2 * m * k * n for m, k, n in products)
    counted = flops.forward_per_token(model, sequence_length=length, predictions=predictions)
    assert counted * length == pytest.approx(expected)


def test_no_projection_where_the_embedding_is_as_wide() -> None:
    wide = ModelConfig(embedding_size=768)
    assert flops.forward_per_token(wide, sequence_length=128, predictions=0) == pytest.approx(
        flops.forward_per_token(ModelConfig(), sequence_length=128, predictions=0) - 2 * 128 * 768
    )


def test_positions_for_masks() -> None:
    assert PhaseConfig(sequence_length=128).max_predictions_per_seq == 19
    assert PhaseConfig(sequence_length=512).max_predictions_per_seq == 77
    diffusion = PhaseConfig(sequence_length=40, objective=ObjectiveConfig(mask_rate=1.0))
    assert diffusion.max_predictions_per_seq == 40


def test_time_left_follows_the_cost_of_the_phases() -> None:
    short = PhaseConfig(steps=10, sequence_length=128, batch_size=8)
    config = Config(phases=(short, PhaseConfig(steps=10, sequence_length=512, batch_size=8)))
    ratio = flops.per_step(config.model, config.phases[1]) / flops.per_step(config.model, short)
    assert ratio > 4
    assert eta_seconds(config, 4, seconds_per_step=2.0) == pytest.approx(6 * 2.0 + 10 * 2.0 * ratio)
    assert eta_seconds(config, 15, seconds_per_step=2.0) == pytest.approx(10.0)
    assert eta_seconds(config, 20, seconds_per_step=2.0) == 0


def test_drawn_depths_count_with_their_mean() -> None:
    phase = PhaseConfig(depths=(2, 4))
    both = flops.per_step(ModelConfig(), phase)
    two = flops.per_step(ModelConfig(), phase, num_layers=2)
    four = flops.per_step(ModelConfig(), phase, num_layers=4)
    assert both == pytest.approx((two + four) / 2) and four > 1.9 * two
