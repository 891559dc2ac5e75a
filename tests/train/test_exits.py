"""Every stage of a process times every end: code, last line, disk, processes, and the next start.

`bash launch/test.sh --all` runs four cells, `--slow` all of them; docs/reliability.md has the table.
"""

from __future__ import annotations

import dataclasses
import re
import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from albert_jax import configfile, exits
from albert_jax.config import Config
from albert_jax.train import pretraining
from tests import tiny_models
from tests.train.ended import Ended, environment, run_to_end, temporary_files
from tests.train.exits_program import ENDS
from tests.train.test_pretraining import assert_same, final_state, micro

PROGRAM = "tests.train.exits_program"
IN_A_LOOP = ("compile", "data", "step", "save", "retention", "evaluation")
STAGES = ("start", *IN_A_LOOP, "export", "serve")
QUICK = {
    ("save", "foreign exception"),
    ("step", "SIGTERM thrice"),
    ("step", "worker gone"),
    ("export", "SIGTERM"),
}
KILLED = -9
CODES = {
    "done": 0, "our error": 3, "foreign exception": 70, "SIGTERM": 75, "SIGTERM thrice": 75,
    "SIGINT": 75, "SIGINT twice": 130, "kill -9": KILLED, "parent gone": 0, "disk full": 7,
    "worker gone": 6, "peer gone": 6,
}  # fmt: skip
OTHER_CODES = {
    ("start", "SIGINT"): (130,),
    ("export", "SIGINT"): (130,),
    # A server has no other end than a signal; the second one may come when it has ended.
    ("serve", "SIGTERM"): (0,),
    ("serve", "SIGTERM thrice"): (0,),
    ("serve", "SIGINT"): (0,),
    ("serve", "SIGINT twice"): (0, 130),
}
"""Where the stage decides the code."""
SPEAKS = {3, 6, 7, 70, 75, 130}
"""Codes after which the last line of stderr is ours."""


def cells() -> list[object]:
    """All cells that exist, with the slow ones marked."""
    found = []
    for stage in STAGES:
        for end in ENDS:
            if stage == "serve" and end in ("done", "parent gone", "disk full"):
                continue  # It goes on, and writes nothing.
            if end == "worker gone" and stage in ("start", "compile", "export", "serve"):
                continue
            if end == "peer gone" and stage in ("retention", "export", "serve"):
                continue  # Process 1 takes no part in these.
            marks = () if (stage, end) in QUICK else (pytest.mark.slow,)
            found.append(pytest.param(stage, end, marks=marks, id=f"{stage}-{end}"))
    return found


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    """60 steps, of which workers build less than 30 ahead."""
    made = micro(tiny_models.prepared(tmp_path_factory.mktemp("data")))
    run = dataclasses.replace(
        made.run, save_steps=10, eval_steps=20, save_total_limit=1, watchdog_seconds=60
    )
    phases = (dataclasses.replace(made.phases[0], steps=60),)
    return dataclasses.replace(made, phases=phases, run=run)


def check(ended: Ended, codes: tuple[int, ...], folder: Path, *, peer: bool = False) -> None:
    """Checks the promises that hold for every end."""
    assert ended.code in codes, ended.err[-3000:]
    assert ended.silent_seconds < 30, ended.err
    assert not ended.processes and not ended.segments
    if ended.code in SPEAKS:
        assert ended.last_line.startswith("albert-jax: "), ended.err[-3000:]
        assert "Traceback" not in ended.err
        assert len(ended.err.splitlines()) < 8 or peer, ended.err
    if ended.code not in (KILLED, 130) and not peer:
        assert not temporary_files(folder)


def ended_run(config: Config, folder: Path, stage: str, end: str) -> Ended:
    """A pretraining run in folder/run that ends at `stage`."""
    workers = 2 if end == "worker gone" else 0
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, workers=workers))
    path = folder / "config.toml"
    path.write_text(configfile.dumps(config))
    arguments = ["pretrain", "--config", str(path), "--out", str(folder / "run")]
    options = {"module": PROGRAM, "orphan": end == "parent gone", "STAGE": stage, "END": end}
    if end != "peer gone":
        return run_to_end(arguments, folder, **options)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    cluster = {"ALBERT_JAX_COORDINATOR": address, "ALBERT_JAX_PROCESSES": "2"}
    peers = []

    def begin_other(_: object) -> None:
        peers.append(start_peer(arguments, folder, stage, cluster))

    try:
        return run_to_end(
            arguments, folder, while_running=begin_other, **options, **cluster,
            ALBERT_JAX_PROCESS="0",
        )  # fmt: skip
    finally:
        for other in peers:
            other.kill()
            other.wait()


def start_peer(
    arguments: list[str], folder: Path, stage: str, cluster: dict[str, str]
) -> subprocess.Popen[bytes]:
    """Process 1, which kills itself at the stage."""
    with open(folder / "peer.txt", "wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", PROGRAM, *arguments], stdout=output, stderr=output,
            env=environment(STAGE=stage, END="peer gone", ALBERT_JAX_PROCESS="1", **cluster),
        )  # fmt: skip


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("stage", "end"), cells())
@pytest.mark.thorough
def test_cell(request, config, tmp_path, stage, end):
    codes = OTHER_CODES.get((stage, end), (CODES[end],))
    peer = end == "peer gone"
    if stage in ("export", "serve"):
        directory = tiny_models.directory(tmp_path)
        exports = ["export", directory, "--out", str(tmp_path / "out")]
        arguments = exports if stage == "export" else ["serve", directory, "--port", "0"]
        orphan = end == "parent gone"
        ended = run_to_end(arguments, tmp_path, module=PROGRAM, orphan=orphan, STAGE=stage, END=end)
        check(ended, (KILLED,) if orphan else codes, tmp_path)
        assert (tmp_path / "out").exists() == (stage == "export" and codes == (0,))
        return
    whole = request.getfixturevalue("whole")
    ended = ended_run(config, tmp_path, stage, end)
    if end == "parent gone":
        assert ended.code == KILLED and "done, 60 steps" in ended.out  # The code is the shell's.
    check(ended, (KILLED,) if end == "parent gone" else codes, tmp_path, peer=peer)
    if codes == (75,) and stage in IN_A_LOOP:
        assert "saved after step" in ended.last_line
    pretraining.run(config, str(tmp_path / "run"))
    if peer:  # Two devices add in another order.
        assert final_state(tmp_path / "run", config)[".step"] == config.steps
    else:
        assert_same(whole, tmp_path / "run", config)
    assert not temporary_files(tmp_path / "run")


def test_a_device_out_of_memory_has_the_code_and_the_advice_of_the_page(capsys):
    error = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")
    assert exits.report_error(error) == 6
    line = capsys.readouterr().err
    assert "ran out of memory: in training raise --phases.N.gradient-accumulation-steps" in line
    assert exits.report_error(jax.errors.JaxRuntimeError("INTERNAL: else")) == 70


def test_the_page_has_a_row_for_every_code():
    from albert_jax import errors

    page = (Path(__file__).resolve().parents[2] / "docs" / "reliability.md").read_text()
    rows = dict(re.findall(r"^\| (\d+) \| ([^|]+) \|", page, re.M))
    codes = {error.exit_code for error in vars(errors).values() if hasattr(error, "exit_code")}
    codes |= {exits.USAGE, exits.INTERNAL, exits.INTERRUPTED, exits.BROKEN_PIPE, 0}
    assert codes == set(map(int, rows))
    assert "SIGTERM" in rows["75"] and "full disk" in rows["7"]
