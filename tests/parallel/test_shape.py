"""The same losses on one device and on every mesh; what the compiled step sends, and where."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.thorough

SAME = 2e-6


def _run(root, *cases: str) -> dict[str, dict]:
    environment = {**os.environ, "PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.parallel.shape_program", *cases],
        cwd=root, env=environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return {found["case"]: found for found in map(json.loads, done.stdout.splitlines())}


@pytest.fixture(scope="module")
def found(root) -> dict[str, dict]:
    return _run(root, "one", "micro", "data", "cube")


def _same(reference: dict, other: dict) -> float:
    assert len(reference["losses"]) == 10 and len(set(reference["losses"])) == 10
    worst = max(
        abs(a - b) / abs(a) for a, b in zip(reference["losses"], other["losses"], strict=True)
    )
    print(f"{other['case']}: losses within {worst:.1e} relative")
    return worst


@pytest.mark.parametrize("case", ["micro", "data", "cube"])
def test_losses_do_not_depend_on_the_mesh(found, case):
    assert _same(found["one"], found[case]) <= SAME
    for path, total in found["one"]["sums"].items():
        if not path.endswith("key/bias"):  # its gradient is 0 but for rounding
            assert found[case]["sums"][path] == pytest.approx(total, rel=1e-4, abs=1e-4), path


def test_gradients_are_reduced_once_in_float32(found):
    """Data parallelism: one reduction of the parameters' size, none in a loop."""
    run = found["data"]
    assert run["collectives"]
    assert not any(c["loop"] for c in run["collectives"])
    assert {kind for c in run["collectives"] for kind in c["types"]} == {"f32"}
    assert {c["kind"] for c in run["collectives"]} == {"all-reduce"}
    sent = sum(c["elements"] for c in run["collectives"])
    assert run["parameters"] <= sent <= 1.01 * run["parameters"]
    assert found["one"]["collectives"] == []


@pytest.mark.slow
def test_sharded_parameters_are_gathered_once_outside_every_loop(root):
    runs = _run(root, "one", "fsdp", "slices")
    for case in ("fsdp", "slices"):
        assert _same(runs["one"], runs[case]) <= SAME
        assert not any(c["loop"] for c in runs[case]["collectives"])
    kinds = {}
    for c in runs["fsdp"]["collectives"]:
        kinds[c["kind"]] = kinds.get(c["kind"], 0) + c["elements"]
    assert 0.9 * runs["fsdp"]["parameters"] <= kinds["all-gather"] <= runs["fsdp"]["parameters"]
    assert kinds["all-reduce"] <= 0.02 * runs["fsdp"]["parameters"]


@pytest.mark.slow
def test_losses_with_the_splash_kernel(root):
    runs = _run(root, "splash:one", "splash:data", "splash:cube")
    for case in ("splash:data", "splash:cube"):
        assert _same(runs["splash:one"], runs[case]) <= SAME


@pytest.mark.slow
def test_muon_treats_sharded_matrices_as_one(root):
    runs = _run(root, "muon:one", "muon:cube")
    assert _same(runs["muon:one"], runs["muon:cube"]) <= 10 * SAME
