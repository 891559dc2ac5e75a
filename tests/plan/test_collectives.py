"""The budget of what a step sends, checked in the program compiled for a TPU slice."""

from __future__ import annotations

import importlib.util
import json

import pytest

from tests.plan import golden_collectives as golden

ENTRIES = json.loads(golden.FILE.read_text())
SCALARS = 1024
"""Bytes up to which an operation is one of scalars, which are free."""

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed (extra tpu-plan)",
)


def _check_data_parallel(entry: dict) -> None:
    gradient = 4 * entry["parameters"]
    assert all(
        "bf16" not in one["types"] and "f16" not in one["types"] for one in entry["collectives"]
    )
    big = [one for one in entry["collectives"] if one["bytes"] > SCALARS]
    assert not [one for one in entry["collectives"] if one["in_loop"]]
    assert {(one["kind"], *one["types"]) for one in big} == {("all-reduce", "f32")}
    assert gradient <= sum(one["bytes"] for one in big) <= 1.01 * gradient


def _check_fsdp(entry: dict) -> None:
    """Each parameter is gathered once and its gradient reduced once in float32, none in a loop.

    What is gathered may be in bfloat16 already: the compiler moves the cast of a weight that only
    matrix products read in front of its gathering. It also gathers a few biases by an all-reduce.
    """
    elements, sent = entry["parameters"], {"all-gather": 0.0}
    for one in entry["collectives"]:
        assert not one["in_loop"]
        if one["bytes"] > max(SCALARS, 1e-3 * 4 * elements):
            kind = one["kind"] if one["kind"] == "all-gather" else "reduction"
            assert one["types"] == ["f32"] or kind == "all-gather"
            size = {"f32": 4, "bf16": 2}[one["types"][0]]
            sent[kind] = sent.get(kind, 0.0) + one["bytes"] / size
    assert 0.9 * elements <= sent["all-gather"] <= 1.01 * elements
    assert 0.9 * elements <= sent["reduction"] <= 1.02 * elements


def _check(name: str, entry: dict) -> None:
    _check_fsdp(entry) if name.endswith(" fsdp") else _check_data_parallel(entry)


def _sent(entry: dict) -> dict[tuple, int]:
    """Bytes by kind, type and place; the number of operations is the compiler's affair."""
    return {
        (one["kind"], *one["types"], one["in_loop"]): one["bytes"]
        for one in entry["collectives"]
        if one["bytes"] > SCALARS
    }


@needs_libtpu
@pytest.mark.parametrize(
    "name",
    [
        name if name == "tiny" else pytest.param(name, marks=pytest.mark.slow)
        for name in golden.NAMES
    ],
)
def test_a_step_compiled_for_four_chips_keeps_its_budget(name):
    entry = json.loads(json.dumps(golden.compiled(name)))
    _check(name, entry)
    assert entry["parameters"] == ENTRIES[name]["parameters"]
    # Scalars are free, also where the compiler sends them along with something larger.
    assert _sent(entry) == pytest.approx(_sent(ENTRIES[name]), rel=0, abs=SCALARS)
