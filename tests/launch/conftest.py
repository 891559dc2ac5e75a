"""A machine from which launch/tpu_vm.sh is called."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.stand_ins import ALBERT, GCLOUD, PYTHON3, program

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cloud(tmp_path):
    """A machine with a recorded gcloud; `vm` calls launch/tpu_vm.sh."""

    class Cloud:
        place = tmp_path / "cloud"

        def says(self, *states: str, codes: tuple[int, ...] = ()) -> None:
            (self.place / "states").write_text("\n".join(states))
            (self.place / "codes").write_text("".join(f"{code}\n" for code in codes))

        def vm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                ["bash", str(ROOT / "launch" / "tpu_vm.sh"), *arguments],
                env={
                    "PATH": f"{self.place / 'bin'}:{os.environ['PATH']}",
                    "HOME": str(tmp_path),
                    "TPU_VM_PAUSE": "0.05",
                },
                capture_output=True, text=True, timeout=600,
            )  # fmt: skip

        def calls(self, verb: str) -> list[list[str]]:
            lines = (self.place / "log").read_text().splitlines()
            return [call[1:] for line in lines if verb in (call := json.loads(line))]

        def runs(self) -> list[str]:
            return (self.place / "runs").read_text().splitlines()

    made = Cloud()
    (made.place / "bin").mkdir(parents=True)
    values = {"python": sys.executable, "place": str(made.place)}
    program(made.place / "bin" / "gcloud", GCLOUD.format(**values))
    program(made.place / "bin" / "python3", PYTHON3.format(**values))
    program(made.place / "albert-jax", ALBERT.format(**values))
    return made
