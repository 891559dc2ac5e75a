"""launch/slurm.sbatch with recorded srun and scontrol, and launch/Dockerfile."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.launch.stand_ins import OPTIONS, program

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def slurm(tmp_path):
    """Runs launch/slurm.sbatch as SLURM would, with recorded srun and scontrol."""

    checkout = tmp_path / "a checkout"
    checkout.mkdir()

    def run(code: int, *arguments: str, **env: str):
        log = tmp_path / "log"
        log.write_text("")
        (tmp_path / "bin").mkdir(exist_ok=True)
        for name, end in (("srun", code), ("scontrol", 0)):
            program(
                tmp_path / "bin" / name,
                f'#!/bin/sh\nfor word in {name} "$@"; do printf "%s|" "$word"; done >>{log}\n'
                f"echo >>{log}\nexit {end}\n",
            )
        done = subprocess.run(
            ["bash", str(ROOT / "launch" / "slurm.sbatch"), *arguments],
            env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "7",
                 "SLURM_SUBMIT_DIR": str(checkout), **env},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        lines = log.read_text().replace(f"{checkout}/", "").splitlines()
        return done.returncode, [line[:-1].split("|") for line in lines]

    return run


def test_slurm_runs_one_process_per_gpu_and_requeues(slurm):
    srun = ["srun", "--cpus-per-task=8", "--gpu-bind=none",
            ".venv/bin/albert-jax", "pretrain", *OPTIONS]  # fmt: skip
    requeue = ["scontrol", "requeue", "7"]
    assert slurm(0, *OPTIONS) == (0, [srun])
    assert slurm(75, *OPTIONS) == (75, [srun, requeue])
    assert slurm(6, *OPTIONS) == (6, [srun, requeue])
    for lost in (134, 137, 139, 253):
        assert slurm(lost, *OPTIONS) == (lost, [srun, requeue])
    # The sixth loss in a row is the last; a preemption is none.
    assert slurm(6, *OPTIONS) == (6, [srun])
    assert slurm(75, *OPTIONS) == (75, [srun, requeue])
    assert slurm(6, *OPTIONS) == (6, [srun, requeue])
    assert slurm(3, *OPTIONS) == (3, [srun])
    directives = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2]
        for line in (ROOT / "launch" / "slurm.sbatch").read_text().splitlines()
        if line.startswith("#SBATCH")
    )
    assert directives["gpus-per-node"] == directives["ntasks-per-node"]
    # To the processes, not to the shell (which would be B:TERM).
    assert directives["signal"].startswith("TERM@") and "requeue" in directives


def test_dockerfile_copies_what_it_installs():
    import configparser

    text = (ROOT / "launch" / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (.*)$", text, re.M):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists(), name
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    cases = dict(re.findall(r"(\w+)\) extras=([\w,]+)", text))
    assert set(cases) == {"tpu", "gpu", "cpu"}
    for extras in cases.values():
        assert set(extras.split(",")) <= set(setup["options.extras_require"])
    assert 'ENTRYPOINT ["albert-jax"]' in text
