"""Held-out numbers against figures worked out by hand, and against brute force on a model."""

import math

import numpy as np
import pytest

from albert_jax.commands.evaluate import table
from albert_jax.config import ComputeConfig, Config, ModelConfig, ObjectiveConfig, PhaseConfig
from albert_jax.evaluation.pretraining import Reference, local_sums, measure
from albert_jax.model.init import init_params

MODEL = ModelConfig(
    vocab_size=40,
    embedding_size=8,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=16,
    initializer_range=0.5,
)
FLOAT32 = ComputeConfig(dtype="float32")
CONFIG = Config(model=MODEL, compute=FLOAT32)


def rows(seed: int, count: int = 3) -> dict[str, np.ndarray]:
    """Random rows of 12 places with 3 places for masks, some without weight."""
    draw = np.random.default_rng(seed)
    return {
        "input_ids": draw.integers(5, 40, (count, 12), dtype=np.int32),
        "token_type_ids": np.tile(np.repeat([0, 1], 6).astype(np.int32), (count, 1)),
        "segment_ids": np.ones((count, 12), np.int32),
        "positions": np.tile(np.arange(12, dtype=np.int32), (count, 1)),
        "mlm_positions": draw.integers(1, 12, (count, 3), dtype=np.int32),
        "mlm_labels": draw.integers(5, 40, (count, 3), dtype=np.int32),
        "mlm_weights": draw.integers(0, 2, (count, 3)).astype(np.float32),
        "cls_positions": np.zeros((count, 1), np.int32),
        "sop_labels": draw.integers(0, 2, (count, 1), dtype=np.int32),
        "sop_weights": np.array([[1.0]] * (count - 1) + [[0.0]], np.float32),
    }


def test_reference_smooths_so_that_nothing_is_impossible() -> None:
    reference = Reference.from_counts(np.array([6, 0, 0]), np.array([0, 1, 2]))
    np.testing.assert_allclose(np.exp(-reference.unigram_nats), [7 / 9, 1 / 9, 1 / 9])
    expected = -(7 / 9 * math.log(7 / 9) + 2 / 9 * math.log(1 / 9))
    assert reference.entropy == pytest.approx(expected)


def test_means_are_over_all_batches_and_weights() -> None:
    reference = Reference.from_counts(np.zeros(40), np.full(40, 3))
    first, second = rows(0), rows(1)
    first["mlm_weights"][:] = 1
    second["mlm_weights"][:] = 0
    second["mlm_weights"][0, 0] = 1
    sums = iter(
        [
            {"mlm_sum": 18.0, "mlm_correct": 4.0, "sop_sum": 1.0, "sop_correct": 2.0},
            {"mlm_sum": 12.0, "mlm_correct": 1.0, "sop_sum": 3.0, "sop_correct": 0.0},
        ]
    )
    found = measure([first, second], lambda batch: next(sums), reference)
    assert found["mlm_loss"] == 3.0
    assert found["mlm_accuracy"] == 0.5
    assert found["mlm_loss_per_byte"] == 1.0
    assert found["unigram_loss"] == pytest.approx(math.log(40))
    assert found["nats_below_unigram"] == pytest.approx(math.log(40) - 3)
    assert (found["sop_loss"], found["sop_accuracy"]) == (1.0, 0.5)
    assert (found["masked_tokens"], found["sop_pairs"]) == (10, 4)
    assert "mlm_top5_accuracy" not in found


def test_nothing_asked_gives_no_means() -> None:
    batch = rows(0)
    batch["mlm_weights"][:] = 0
    batch["sop_weights"][:] = 0
    zero = {"mlm_sum": 0.0, "sop_sum": 0.0, "mlm_correct": 0.0, "sop_correct": 0.0}
    found = measure([batch], lambda batch: zero, Reference.from_counts(np.ones(40), np.ones(40)))
    assert found == {"masked_tokens": 0, "sop_pairs": 0}


def test_score_of_a_model_equals_brute_force() -> None:
    from albert_jax.model import albert

    params = init_params(MODEL, 0)
    batch = rows(3, 4)
    hidden = albert.encode(params, MODEL, batch, compute=FLOAT32)  # type: ignore[arg-type]
    logits = np.asarray(
        albert.mlm_logits(params, MODEL, hidden, batch["mlm_positions"]),  # type: ignore[arg-type]
        np.float64,
    )
    loss = correct = top5 = 0.0
    for row, place in zip(*np.nonzero(batch["mlm_weights"]), strict=True):
        scores, label = logits[row, place], batch["mlm_labels"][row, place]
        loss += math.log(np.exp(scores).sum()) - scores[label]
        ranked = list(np.argsort(-scores))
        correct += ranked[0] == label
        top5 += label in ranked[:5]
    found = local_sums(params, CONFIG)(batch)
    assert found["mlm_sum"] == pytest.approx(loss, rel=1e-5)
    assert (found["mlm_correct"], found["mlm_top5_correct"]) == (correct, top5)
    assert loss > 1 and top5 > 0


def test_depth_changes_the_score() -> None:
    params, batch = init_params(MODEL, 0), rows(3)
    shallow, deep = (local_sums(params, CONFIG, n)(batch) for n in (1, 2))
    assert shallow["mlm_sum"] != deep["mlm_sum"]
    assert local_sums(params, CONFIG)(batch) == deep


def test_the_objective_of_the_phase_is_scored() -> None:
    params, batch = init_params(MODEL, 0), rows(3)
    phase = PhaseConfig(objective=ObjectiveConfig(sentence_order="none"))
    alone = local_sums(params, Config(model=MODEL, compute=FLOAT32, phases=(phase,)))(batch)
    assert alone["mlm_sum"] == local_sums(params, CONFIG)(batch)["mlm_sum"]
    assert "sop_sum" not in alone and "sop_correct" not in alone


def test_table_aligns_results_with_holes() -> None:
    text = table({"2 layers": {"mlm_loss": 5.5, "sop_accuracy": 0.875}, "x": {"mlm_loss": 4.0}})
    lines = text.split("\n")
    assert len({len(line) for line in lines}) == 1
    assert "5.5000" in lines[1] and "87.5%" in lines[2]
