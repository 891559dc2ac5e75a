"""The one call for an accelerator: what it says of a machine, its budget, and a trial on a CPU."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_models import prepared

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "accelerator.sh"


@pytest.fixture(scope="module")
def machine(benchmark) -> Any:
    return benchmark("accelerator_machine")


@pytest.fixture(scope="module")
def driver(benchmark) -> Any:
    return benchmark("accelerator")


def test_versions_lie_in_ranges(machine) -> None:
    assert machine.fits("0.10.2", ">= 0.10.2, < 0.13")
    assert machine.fits("0.11.0+cuda13", ">= 0.10.2, < 0.13")
    assert not machine.fits("0.9.9", ">= 0.10.2, < 0.13")
    assert not machine.fits("0.13.0", ">= 0.10.2, < 0.13")
    assert machine.fits("3.12.1 (main)", ">=3.11") and machine.fits("1", "")


def test_what_is_missing_is_named_as_pip_takes_it(machine) -> None:
    there = {"jax": "0.11.0", "grain": "0.1.0", "optax": "0.2.8"}
    wanted = ["jax >= 0.10.2, < 0.13", "grain >= 0.2.16, < 0.3", "optax >= 0.2.8, < 0.3",
              "tyro >= 1.0.16, < 2", "matplotlib >= 3.9, < 4"]  # fmt: skip
    assert machine.missing(wanted, there.get) == ["grain>=0.2.16,<0.3", "tyro>=1.0.16,<2"]
    with pytest.raises(ValueError, match=r"^jax 0.11.0 is installed, and >= 0.12 is needed, with "):
        machine.missing(["jax >= 0.12"], there.get)
    with pytest.raises(ValueError, match="^jax is missing, and >= 0.12 is needed, with "):
        machine.missing(["jax >= 0.12"], lambda name: None)


@pytest.mark.parametrize(
    ("report", "fault"),
    [
        ("NVIDIA H100 80GB HBM3, 4, 81559, 9.0\n", None),
        ("NVIDIA H100, 4, 81559, 9.0\nNVIDIA H100, 41000, 81559, 9.0\n",
         "NVIDIA H100 is busy: others use 41000 of 81559 MiB"),
        ("Tesla T4, 3, 15360, 7.5\n", "Tesla T4 is too old: it has compute capability 7.5"),
        ("", None),
    ],
)  # fmt: skip
def test_a_busy_or_old_gpu_is_one_line(machine, report: str, fault: str | None) -> None:
    found = machine.gpu_fault(report)
    assert found is None if fault is None else found.startswith(fault) and "\n" not in found


def _options(tmp_path: Path, **given: Any) -> argparse.Namespace:
    options = {"out": tmp_path, "corpus": tmp_path, "pairs": None, "tiny": False}
    return argparse.Namespace(**options | given)


def test_later_stages_keep_their_time_and_pretraining_takes_the_rest(driver, tmp_path) -> None:
    plan = driver.stages(_options(tmp_path))
    names = [stage.name for stage in plan]
    ours, peers = (sum(n.startswith(kind) for n in names) for kind in ("step:", "peer:"))
    assert ours == peers == 8 and names[-5:] == [
        "pretrain", "continue", "evaluate", "score", "export"]  # fmt: skip
    for took in (0.3, 1.0):  # Fast stages, and stages that take all that they may.
        left, given = 660.0, {}
        for number, stage in enumerate(plan):
            given[stage.name] = driver.time_for(stage, plan[number + 1 :], left)
            left -= given[stage.name] * (1.0 if stage.open_ended else took)
        assert left >= 0 and all(given[name] for name in names[-5:])
        assert given["pretrain"] >= 50 and given["step:base-v2:256x128"] == 45
        assert (given["peer:xxlarge-v2:16x512"] == 0) == (took == 1.0)
    assert driver.time_for(plan[0], plan[1:], 60.0) == 0


def _record(driver: Any, tmp_path: Path) -> Any:
    return driver.Record(tmp_path)


def _stage(driver: Any, code: str, limit: float = 20.0) -> Any:
    return driver.Stage("test:a", [sys.executable, "-c", code], limit, 1.0)


def test_a_result_is_written_the_moment_it_exists_and_a_stage_fails_alone(driver, tmp_path) -> None:
    record = _record(driver, tmp_path)
    hangs = _stage(driver, "import time; print('{\"a\": 1}', flush=True); time.sleep(60)")
    assert driver.run(hangs, 2.0, record) == "took longer than its 2 s: ended"
    assert json.loads((tmp_path / "results.jsonl").read_text()) == {"stage": "test:a", "a": 1}
    breaks = _stage(driver, "print('words'); raise SystemExit('no such thing')")
    assert driver.run(breaks, 20.0, record) == "exit code 1: no such thing"
    assert driver.run(_stage(driver, 'print(\'{"failed": "it"}\')'), 20.0, record) == "failed: it"
    assert driver.run(_stage(driver, "print('{}')"), 20.0, record) == "ok"
    assert len(record.results) == 2


def test_the_table_sets_both_sides_side_by_side(driver, tmp_path) -> None:
    record = _record(driver, tmp_path)
    both = {"config": "base-v2", "shape": "8x128", "tokens_per_second": 1000, "share": 0.5}
    record.add("step:base-v2:8x128", both | {"step_ms": 10.0})
    record.add("peer:base-v2:8x128", both | {"step_ms": 15.0})
    record.stages.append({"name": "step:base-v2:8x128", "seconds": 3.0, "ended": "ok"})
    lines = driver.table(record)
    assert any(line.split()[:2] == ["base-v2", "8x128"] and line.endswith("1.50") for line in lines)
    record.close({"began": "now"})
    assert json.loads((tmp_path / "results.json").read_text())["results"] == record.results


def _call(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT), *map(str, arguments)], capture_output=True, text=True,
        env={**os.environ, "PYTHON": sys.executable, **environment}, timeout=800,
    )  # fmt: skip


def test_a_package_without_a_wheel_is_named(tmp_path) -> None:
    (tmp_path / "wheels").mkdir()
    # An interpreter that has nothing but jax: a stand-in that hides the others.
    hidden = tmp_path / "python"
    hidden.write_text(
        f'#!/bin/bash\ncase $1 in *accelerator_machine.py) echo "no-such-package>=1" ;; '
        f'*) exec {sys.executable} "$@" ;; esac\n'
    )
    hidden.chmod(0o755)
    arguments = ("--out", tmp_path / "out", "--corpus", tmp_path)
    found = _call(*arguments, "--wheels", tmp_path / "wheels", PYTHON=str(hidden))
    assert found.returncode == 2, found.stderr
    assert found.stderr == (
        f"accelerator.sh: {tmp_path}/wheels has no wheel of no-such-package>=1: add it\n"
    )
    found = _call(*arguments, PYTHON=str(hidden))
    assert found.stderr.startswith("accelerator.sh: no-such-package>=1 must be installed: give ")


def test_a_platform_that_is_not_there_is_one_line(tmp_path) -> None:
    found = _call("--out", tmp_path / "out", "--corpus", tmp_path, "--platform", "tpu")
    assert found.returncode == 2 and len(found.stderr.splitlines()) == 1, found.stderr
    assert found.stderr.startswith("accelerator.sh: JAX_PLATFORMS=tpu: ")
    found = _call("--out", tmp_path / "out", "--corpus", tmp_path, "--platform", "cpu")
    assert found.stderr.startswith("accelerator.sh: jax finds no accelerator: ")


@pytest.mark.slow
@pytest.mark.parity
def test_the_whole_call_on_a_cpu_with_what_such_a_machine_has(tmp_path) -> None:
    lacking = tmp_path / "lacking"
    for name in ("matplotlib", "pyarrow", "sentencex", "sklearn", "tensorboardX"):
        (lacking / name).mkdir(parents=True)
        (lacking / name / "__init__.py").write_text("raise ImportError('this machine lacks it')")
    pairs = tmp_path / "pairs.jsonl"
    pair = {"sentence_good": "the file is found", "sentence_bad": "the file are found", "UID": "a"}
    pairs.write_text(json.dumps(pair) + "\n")
    out = tmp_path / "out"
    found = _call("--tiny", "--out", out, "--corpus", prepared(tmp_path), "--pairs", pairs,
                  "--minutes", 20,
                  PYTHONPATH=str(lacking))  # fmt: skip
    whole = json.loads((out / "results.json").read_text())
    assert found.returncode == 0, found.stdout + found.stderr
    assert {stage["ended"] for stage in whole["stages"]} == {"ok"}
    by_stage = {result["stage"]: result for result in whole["results"]}
    assert by_stage["pretrain"]["exit_code"] == 75 and by_stage["continue"]["exit_code"] == 0
    assert by_stage["continue"]["last_row"] == by_stage["continue"]["steps"]
    assert by_stage["export"]["largest_difference"] < 1e-4
    assert by_stage["peer:tiny:8x32"]["step_ms"] > 0
    assert "ok" in found.stdout.splitlines()[-8]
