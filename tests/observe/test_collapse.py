"""A collapsed run gets a message; a healthy, a young and a short one get none."""

import math
from typing import Any

import pytest

from albert_jax.config import ModelConfig
from albert_jax.observe.collapse import WINDOW, diagnose

SMALL = ModelConfig(hidden_size=128, num_attention_heads=4)


def rows(mlm: float, sop: float | None, *, first: int = 1000) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for i in range(WINDOW):
        row: dict[str, Any] = {"kind": "train", "step": first + 10 * i, "mlm_loss": mlm}
        made.append(row if sop is None else {**row, "sop_loss": sop})
    return made


def diagnosis(history: list[dict[str, Any]], **changes) -> str | None:
    return diagnose(
        history, **{"model": SMALL, "warmup_steps": 100, "unigram_loss": 6.27, **changes}
    )


def test_both_at_chance_names_numbers_and_fixes() -> None:
    message = diagnosis(rows(6.25, math.log(2)))
    assert message is not None and "\n" not in message
    for part in (
        "6.25",
        "6.27",
        "ln 2",
        "lower optimizer.learning_rate",
        "0.049",
        "short_seq_prob",
    ):
        assert part in message


def test_plateau_with_sop_learnt() -> None:
    message = diagnosis(rows(6.22, 0.3))
    assert message is not None and "word frequencies" in message and "ln 2" not in message


def test_initializer_that_fits_is_not_blamed() -> None:
    model = ModelConfig(hidden_size=128, num_attention_heads=4, initializer_range=0.05)
    message = diagnosis(rows(6.25, 0.3), model=model)
    assert message is not None and "initializer" not in message
    wide = diagnosis(rows(6.25, 0.3), model=ModelConfig(initializer_range=0.05))
    assert wide is not None and "lower model.initializer_range from 0.05 to 0.020" in wide


@pytest.mark.parametrize(
    "history",
    [
        rows(5.9, 0.4),
        rows(6.25, 0.69, first=299),
        rows(6.25, 0.69)[1:],
        [],
        rows(5.0, math.log(2)),
    ],
    ids=["healthy", "warming up", "too few rows", "no rows", "MLM learns without SOP"],
)
def test_silence(history: list[dict[str, Any]]) -> None:
    assert diagnosis(history) is None


def test_lost_numbers_are_passed_over() -> None:
    history = rows(6.25, 0.3)
    history[3]["mlm_loss"] = None
    assert diagnosis(history) is not None
