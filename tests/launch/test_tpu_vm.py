"""launch/tpu_vm.sh and host.sh against a recorded gcloud, and every command of docs/cloud-tpu.md."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.launch.jobset_schema import BASE, JOBSET, check, jobset
from tests.launch.stand_ins import OPTIONS, SIGNALLED, inputs, program

ROOT = Path(__file__).resolve().parents[2]


def test_tpu_vm_runs_from_nothing(cloud):
    cloud.says("absent", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE", codes=(0,))
    done = cloud.vm("run", "base", "--type", "v5litepod-16", "--", *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert cloud.calls("create") == [
        ["compute", "tpus", "queued-resources", "create", "base", "--node-id", "base",
         "--accelerator-type", "v5litepod-16", "--runtime-version", "v2-alpha-tpuv5-lite"]
    ]  # fmt: skip
    assert [call[5] for call in cloud.calls("scp")] == ["base:"]
    assert cloud.runs() == [f"albert-jax pretrain {' '.join(OPTIONS)}"]
    assert "this run ends with 0" in done.stdout
    host = cloud.place / "host-base" / "albert_jax"
    for name in ("setup.cfg", "constraints.txt", "albert_jax/cli.py", "configs/base-v1.toml"):
        assert (host / name).read_bytes() == (ROOT / name).read_bytes()
    assert "--constraint constraints.txt --editable .[tpu,gcs]" in (
        cloud.place / "installed"
    ).read_text()  # fmt: skip
    # All hosts, and more of them than gcloud takes at once by itself.
    for call in cloud.calls("scp"):
        assert call[call.index("--worker") + 1] == call[call.index("--batch-size") + 1] == "all"


def test_tpu_vm_asks_again_after_a_preemption_and_goes_on(cloud):
    cloud.says(
        "absent", "ACTIVE", "SUSPENDING", "SUSPENDING", "SUSPENDED", "absent", "ACTIVE",
        codes=(75, 0),
    )  # fmt: skip
    done = cloud.vm("run", "base", "--type", "v6e-8", "--spot", "--", *OPTIONS)
    assert done.returncode == 0, done.stderr
    created = cloud.calls("create")
    assert len(created) == 2 and created[0] == created[1] and created[0][-1] == "--spot"
    assert "v2-alpha-tpuv6e" in created[0]
    assert len(cloud.calls("delete")) == 1 and len(cloud.calls("scp")) == 2
    first, second = cloud.runs()
    assert first == second


def test_tpu_vm_without_spot_stops_when_the_machines_are_gone(cloud):
    cloud.says("ACTIVE", "SUSPENDED", codes=(6,))
    done = cloud.vm("run", "base", "--type", "v6e-8", "--", *OPTIONS)
    assert done.returncode == 2 and "taken away" in done.stderr
    assert not cloud.calls("delete")


@pytest.mark.parametrize("code", [2, 3, 4, 5, 7, 70])
def test_tpu_vm_leaves_with_what_no_restart_can_mend(cloud, code):
    cloud.says("ACTIVE", codes=(code, 0))
    done = cloud.vm("run", "base", "--type", "v6e-8", "--spot", "--", *OPTIONS)
    assert done.returncode == code and len(cloud.runs()) == 1


@pytest.mark.thorough
def test_tpu_vm_gives_up_on_a_run_that_fails_again_and_again(cloud):
    cloud.says("ACTIVE", codes=(6,) * 9)
    done = cloud.vm("run", "base", "--type", "v6e-8", "--spot", "--", *OPTIONS)
    assert done.returncode == 6 and len(cloud.runs()) == 5


def test_tpu_vm_survives_an_answer_that_does_not_come(cloud):
    cloud.says("unknown", "ACTIVE", codes=(0,))
    done = cloud.vm("run", "base", "--type", "v6e-8", "--", *OPTIONS)
    assert done.returncode == 0 and "the network is down" in done.stderr
    assert not cloud.calls("create")


def test_tpu_vm_runs_several_slices_as_one_job(cloud):
    cloud.says("absent", "ACTIVE", codes=(0, 0))
    done = cloud.vm("run", "big", "--type", "v5litepod-256", "--slices", "2", "--", *OPTIONS)
    assert done.returncode == 0, done.stderr
    (create,) = cloud.calls("create")
    assert create[5:9] == ["--node-count", "2", "--node-prefix", "big"]
    assert [call[5] for call in cloud.calls("scp")] == ["big-0:", "big-1:"]
    assert len(cloud.runs()) == 2
    assert all(run.endswith("--parallel.slice 2") for run in cloud.runs())


def test_tpu_vm_setup_logs_and_delete(cloud):
    cloud.says("ACTIVE", codes=(0,))
    for verb in ("setup", "run", "setup", "logs", "delete"):
        done = cloud.vm(
            verb, "base", "--type", "v6e-8", *(["--", *OPTIONS] if verb == "run" else [])
        )
        assert done.returncode == 0, done.stderr
        if verb == "logs":
            assert "this run ends with 0" in done.stdout
    (deleted,) = cloud.calls("delete")
    assert deleted == [
        "compute", "tpus", "queued-resources", "delete", "base", "--force", "--quiet",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(["run"], "a command and a name"), (["run", "Base"], "Base"), (["go", "base"], "unknown command go"),
     (["run", "base", "--typ", "x"], "--typ"), (["run", "base", "--type"], "--type needs"),
     (["create", "base", "--type", "7x-8"], "7x-8"), (["create", "base"], "--type"),
     (["run", "base", "--slices", "0"], "--slices 0"),
     (["run", "base", "--type", "v6e-8"], "PRETRAIN OPTIONS")],
)  # fmt: skip
def test_tpu_vm_answers_wrong_usage(cloud, arguments, text):
    cloud.says("absent")
    done = cloud.vm(*arguments)
    assert done.returncode == 2 and text in done.stderr
    assert not (cloud.place / "log").exists() or not cloud.calls("create")


def test_tpu_vm_help_is_its_head(cloud):
    done = cloud.vm("--help")
    assert done.returncode == 0
    for word in ("run ", "create ", "setup ", "logs ", "stop ", "delete ", "--type", "gs://"):
        assert word in done.stdout
    assert "set -" not in done.stdout


@pytest.fixture
def host(tmp_path):
    """A host's checkout; `run` calls launch/host.sh there."""
    folder = tmp_path / "a host"
    (folder / "launch").mkdir(parents=True)
    (folder / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(ROOT / "launch" / "host.sh", folder / "launch")
    program(folder / ".venv" / "bin" / "albert-jax", SIGNALLED)

    def run(*arguments):
        return subprocess.run(
            ["bash", str(folder / "launch" / "host.sh"), *arguments],
            cwd=tmp_path, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    yield run
    run("stop")


def test_host_starts_once_and_stops(host, tmp_path):
    nothing = host("follow")
    assert nothing.returncode == 2 and "nothing was started" in nothing.stderr
    assert host("start", "pretrain").returncode == 0
    pid = (tmp_path / "a host" / "run.pid").read_text()
    host("start", "pretrain")
    assert (tmp_path / "a host" / "run.pid").read_text() == pid
    assert host("code").stdout == "none\n"
    log = tmp_path / "a host" / "run.log"
    while log.read_text() != "started\n":
        assert host("code").stdout == "none\n"
    host("stop")
    host("follow")
    assert host("code").stdout == "stopped\n"
    assert (tmp_path / "a host" / "run.code").read_text() == "75\n"
    # A stop between two tries counts; only a new start forgets it.
    assert host("again", "pretrain").returncode == 0
    assert (tmp_path / "a host" / "run.pid").read_text() == pid
    assert host("code").stdout == "stopped\n"
    assert host("restart").returncode == 2


@pytest.mark.thorough
def test_every_command_of_the_page_is_taken(cloud, monkeypatch, capsys):
    """docs/cloud-tpu.md against the recorded gcloud, and its pretrain options against the command."""
    from albert_jax import cli
    from albert_jax.commands.pretrain import Pretrain

    monkeypatch.setattr(Pretrain, "run", lambda self: None)
    page = (ROOT / "docs" / "cloud-tpu.md").read_text().replace("\\\n", " ")
    lines = [shlex.split(line) for line in re.findall(r"^    (\w.*)$", page, re.M)]
    own = [words for words in lines if any(word.startswith("launch/") for word in words)]
    for words in own:
        if "--" in words:
            options = words[words.index("--") + 1 :]
            options = options[: options.index("|")] if "|" in options else options
            assert cli.main(["pretrain", *options]) == 0, f"{words}: {capsys.readouterr().err}"
        if words[1] == "launch/jobset.py":
            done = jobset(*words[2 : words.index("|")])
            check(yaml.safe_load(done.stdout), JOBSET)
        elif words[1] == "launch/tpu_vm.sh":
            cloud.says("ACTIVE", codes=(0, 0))
            done = cloud.vm(*words[2:])
        else:
            assert words[:2] == ["docker", "build"] and words[3] == "launch/Dockerfile", words
            continue
        assert done.returncode == 0, f"{words}: {done.stderr}"
    assert {words[2] for words in own if words[1] == "launch/tpu_vm.sh"} >= {
        "run",
        "stop",
        "delete",
    }


@pytest.mark.slow
def test_what_is_rendered_trains(cloud, tmp_path):
    """The commands of tpu_vm.sh and of the JobSet's container, on this machine's CPU."""
    from albert_jax import cli

    text, config = inputs(tmp_path, steps=4)
    words = {name: str(tmp_path / name) for name in ("tokenizer", "data", "run")}
    source = ["--text", str(text)]
    assert not cli.main(
        ["tokenizer", "train", *source, "--vocab-size", "300", "--out", words["tokenizer"]]
    )
    assert not cli.main(
        ["data", "prepare", *source, "--tokenizer", words["tokenizer"], "--out", words["data"],
         "--workers", "1"]
    )  # fmt: skip
    options = ["--config", str(config), "--data", words["data"], "--out", words["run"]]
    environment = f"JAX_PLATFORMS=cpu PYTHONPATH={shlex.quote(str(ROOT))}"
    line = f'exec env {environment} {shlex.quote(sys.executable)} -m albert_jax "$@"\n'
    program(cloud.place / "albert-jax", f"#!/bin/sh\n{line}")
    cloud.says("ACTIVE")
    done = cloud.vm("run", "nano", "--type", "v6e-8", "--", *options)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert (tmp_path / "run" / "complete" / "4").exists()

    # The same command again, as a restarted Pod gives it, finds that all is done.
    manifest = yaml.safe_load(jobset(*BASE, "--slice", "v6e-8", "--", *options).stdout)
    (job,) = manifest["spec"]["replicatedJobs"]
    (container,) = job["template"]["spec"]["template"]["spec"]["containers"]
    again = subprocess.run(
        [str(cloud.place / "albert-jax"), *container["args"]], capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
