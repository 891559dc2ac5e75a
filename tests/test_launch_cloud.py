"""launch/ for real machines, without them: what is called, what is rendered, what it runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent

# Answers like gcloud: writes down its arguments, reads the states of the request from a file (the
# last line stays), copies files into a folder per node, and runs remote commands there.
GCLOUD = """#!{python}
import json, os, pathlib, shutil, subprocess, sys
place = pathlib.Path({place!r})
arguments = sys.argv[1:]
with open(place / "log", "a") as log:
    log.write(json.dumps(["gcloud", *arguments]) + "\\n")
if arguments[3:4] == ["describe"] or arguments[2:4] == ["queued-resources", "describe"]:
    states = (place / "states").read_text().split()
    (place / "states").write_text("\\n".join(states[1:] or states))
    if states[0] == "absent":
        sys.exit("ERROR: NOT_FOUND: no such request")
    if states[0] == "unknown":
        sys.exit("ERROR: the network is down")
    print(states[0])
elif arguments[3:4] == ["delete"]:
    for host in place.glob("host-*"):
        shutil.rmtree(host)
elif arguments[3:4] == ["scp"]:
    host = place / ("host-" + arguments[5].rstrip(":"))
    host.mkdir(exist_ok=True)
    shutil.copy(arguments[4], host)
elif arguments[3:4] == ["ssh"]:
    host = place / ("host-" + arguments[4])
    host.mkdir(exist_ok=True)
    command = arguments[arguments.index("--command") + 1]
    sys.exit(subprocess.run(["bash", "-c", command], cwd=host, env=os.environ).returncode)
"""

# Stands for the python3 of a host: "installs" a program that answers with the next exit code.
PYTHON3 = """#!/bin/sh
echo "python3 $*" >>{place}/installed
if [ "$1 $2 $3" = "-m uv venv" ]; then
    mkdir -p .venv/bin
    cp {place}/albert-jax .venv/bin/albert-jax
fi
"""
ALBERT = """#!/bin/bash
echo "albert-jax $*" >>{place}/runs
code=$(head -n 1 {place}/codes)
sed -i 1d {place}/codes
echo "this run ends with $code"
exit "$code"
"""
SIGNALLED = """#!/bin/bash
trap 'kill $!; exit 75' TERM
echo started
sleep 60 &
wait
"""


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


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
    _program(made.place / "bin" / "gcloud", GCLOUD.format(**values))
    _program(made.place / "bin" / "python3", PYTHON3.format(**values))
    _program(made.place / "albert-jax", ALBERT.format(**values))
    return made


OPTIONS = ["--config", "base-v1", "--data", "gs://a bucket/data", "--out", "gs://b/run"]


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
     (["run", "base", "--slices", "0"], "--slices 0")],
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


@pytest.fixture
def host(tmp_path):
    """A host's checkout; `run` calls launch/host.sh there."""
    folder = tmp_path / "a host"
    (folder / "launch").mkdir(parents=True)
    (folder / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(ROOT / "launch" / "host.sh", folder / "launch")
    _program(folder / ".venv" / "bin" / "albert-jax", SIGNALLED)

    def run(*arguments):
        return subprocess.run(
            ["bash", str(folder / "launch" / "host.sh"), *arguments],
            cwd=tmp_path, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    yield run
    run("stop")


def test_host_starts_once_and_stops(host, tmp_path):
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
    assert host("restart").returncode == 2


# The part of JobSet v1alpha2 (and of the Job and Pod in it) that we use: a field that is not here
# is refused, so a misspelt one is found without a cluster.
MAP = {"*": str}
POD = {
    "restartPolicy": {"Never"},
    "hostNetwork": bool,
    "dnsPolicy": {"ClusterFirstWithHostNet"},
    "terminationGracePeriodSeconds": int,
    "nodeSelector": MAP,
    "containers": [
        {
            "name": str,
            "image": str,
            "args": [str],
            "resources": {"requests": {"google.com/tpu": int}, "limits": {"google.com/tpu": int}},
            "volumeMounts": [{"name": str, "mountPath": str}],
        }
    ],
    "volumes": [{"name": str, "emptyDir": {"medium": {"Memory"}}}],
}
JOB = {
    "parallelism": int,
    "completions": int,
    "completionMode": {"Indexed"},
    "backoffLimit": int,
    "podFailurePolicy": {
        "rules": [
            {
                "action": {"FailJob"},
                "onExitCodes": {"containerName": str, "operator": {"In"}, "values": [int]},
            }
        ]
    },
    "template": {"spec": POD},
}
JOBSET = {
    "apiVersion": {"jobset.x-k8s.io/v1alpha2"},
    "kind": {"JobSet"},
    "metadata": {"name": str, "labels": MAP, "annotations": MAP},
    "spec": {
        "failurePolicy": {
            "maxRestarts": int,
            "rules": [
                {
                    "name": str,
                    "action": {"FailJobSet"},
                    "onJobFailureReasons": [{"PodFailurePolicy"}],
                }
            ],
        },
        "replicatedJobs": [{"name": str, "replicas": int, "template": {"spec": JOB}}],
    },
}


def _check(value: Any, schema: Any, where: str = "") -> None:
    """Every field is known, of its type, and there."""
    if isinstance(schema, dict) and "*" in schema:
        assert isinstance(value, dict), where
        for key, item in value.items():
            _check(item, schema["*"], f"{where}.{key}")
    elif isinstance(schema, dict):
        assert isinstance(value, dict) and set(value) == set(schema), f"{where}: {value}"
        for key, item in value.items():
            _check(item, schema[key], f"{where}.{key}")
    elif isinstance(schema, list):
        assert isinstance(value, list) and value, where
        for item in value:
            _check(item, schema[0], where)
    elif isinstance(schema, set):
        assert value in schema, f"{where}: {value}"
    else:
        assert type(value) is schema, f"{where}: {value!r}"


def _jobset(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "launch" / "jobset.py"), *arguments],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


BASE = ["--name", "base", "--image", "a.b/c:d"]


@pytest.mark.parametrize(
    ("name", "accelerator", "topology", "hosts", "chips"),
    [("v5e-1", "tpu-v5-lite-podslice", "1x1", 1, 1), ("v5e-256", "tpu-v5-lite-podslice", "16x16", 64, 4),
     ("v6e-8", "tpu-v6e-slice", "2x4", 1, 8), ("v6e-16", "tpu-v6e-slice", "4x4", 4, 4),
     ("7x-4", "tpu7x", "2x2x1", 1, 4), ("7x-64", "tpu7x", "4x4x4", 16, 4)],
)  # fmt: skip
def test_jobset_is_what_the_cluster_takes(name, accelerator, topology, hosts, chips):
    done = _jobset(*BASE, "--slice", name, "--", *OPTIONS)
    assert done.returncode == 0, done.stderr
    manifest = yaml.safe_load(done.stdout)
    _check(manifest, JOBSET)
    (slices,) = manifest["spec"]["replicatedJobs"]
    job = slices["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert (slices["replicas"], job["parallelism"], job["completions"]) == (1, hosts, hosts)
    assert container["resources"]["limits"] == {"google.com/tpu": chips}
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": accelerator,
        "cloud.google.com/gke-tpu-topology": topology,
    }
    assert container["args"] == ["pretrain", *OPTIONS]
    names = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} <= names
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"]


def test_jobset_of_several_spot_slices_in_a_queue():
    done = _jobset(
        *BASE, "--slice", "v6e-16", "--slices", "3", "--spot", "--queue", "team",
        "--", *OPTIONS, "--seed", "$(HOME) ${name} 'x' \"y\"",
    )  # fmt: skip
    manifest = yaml.safe_load(done.stdout)
    _check(manifest, JOBSET)
    assert manifest["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "team"}
    (slices,) = manifest["spec"]["replicatedJobs"]
    pod = slices["template"]["spec"]["template"]["spec"]
    assert slices["replicas"] == 3
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    arguments = pod["containers"][0]["args"]
    assert arguments[-2:] == ["--parallel.slice", "3"]
    assert arguments[-3] == "$$(HOME) ${name} 'x' \"y\""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(["--slice", "v5e-12"], "v5e-12"), (["--slice", "v4-8"], "v4-8"), (["--slice", "7x"], "7x"),
     (["--slice", "v6e-8", "--slices", "2"], "--slices 2"),
     (["--slice", "v6e-8", "--name", "Base_1"], "Base_1")],
)  # fmt: skip
def test_jobset_refuses_what_the_cluster_would(arguments, text):
    done = _jobset(*BASE, *arguments, "--", *OPTIONS)
    assert done.returncode == 2 and text in done.stderr and not done.stdout


def test_the_schema_finds_a_misspelt_field_and_a_wrong_type():
    text = _jobset(*BASE, "--slice", "v6e-8", "--", *OPTIONS).stdout
    for right, wrong in [("backoffLimit:", "backofLimit:"), ("backoffLimit: 0", "backoffLimit: no"),
                         ("hostNetwork", "hostNetworks"), ("Never", "never")]:  # fmt: skip
        with pytest.raises(AssertionError):
            _check(yaml.safe_load(text.replace(right, wrong)), JOBSET)


def test_exit_codes_that_end_a_job_are_those_that_no_restart_mends():
    from albert_jax import errors, exits

    mended = {errors.PeerError.exit_code, errors.Stopped.exit_code}
    known = {
        error.exit_code for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.AlbertError)
    } | {exits.USAGE, exits.INTERNAL}  # fmt: skip
    text = (ROOT / "launch" / "jobset.yaml").read_text()
    assert set(map(int, re.search(r"values: \[(.*)\]", text)[1].split(","))) == known - mended
    cases = re.search(r"^ +0 ((?:\| \d+ ?)+)\)", (ROOT / "launch" / "tpu_vm.sh").read_text(), re.M)
    assert set(map(int, cases[1].split("|")[1:])) == known - mended


@pytest.fixture
def slurm(tmp_path):
    """Runs launch/slurm.sbatch as SLURM would, with recorded srun and scontrol."""

    def run(code: int, *arguments: str, **env: str):
        log = tmp_path / "log"
        log.write_text("")
        (tmp_path / "bin").mkdir(exist_ok=True)
        for name, end in (("srun", code), ("scontrol", 0)):
            _program(
                tmp_path / "bin" / name,
                f'#!/bin/sh\nfor word in {name} "$@"; do printf "%s|" "$word"; done >>{log}\n'
                f"echo >>{log}\nexit {end}\n",
            )
        done = subprocess.run(
            ["bash", str(ROOT / "launch" / "slurm.sbatch"), *arguments],
            env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "7",
                 "SLURM_SUBMIT_DIR": "/a checkout", **env},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return done.returncode, [line[:-1].split("|") for line in log.read_text().splitlines()]

    return run


def test_slurm_runs_one_process_per_gpu_and_requeues(slurm):
    srun = ["srun", "--cpus-per-task=8", "--gpu-bind=none", "--kill-on-bad-exit=1",
            "/a checkout/.venv/bin/albert-jax", "pretrain", *OPTIONS]  # fmt: skip
    requeue = ["scontrol", "requeue", "7"]
    assert slurm(0, *OPTIONS) == (0, [srun])
    assert slurm(75, *OPTIONS) == (75, [srun, requeue])
    assert slurm(6, *OPTIONS) == (6, [srun, requeue])
    assert slurm(134, *OPTIONS) == (134, [srun, requeue])
    assert slurm(6, *OPTIONS, SLURM_RESTART_COUNT="5") == (6, [srun])
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


def test_scripts_for_machines_are_clean_shell():
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed (extra test)")
    names = ["launch/tpu_vm.sh", "launch/host.sh", "launch/slurm.sbatch"]
    done = subprocess.run([shellcheck, *names], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


NANO = (
    'extends = "tiny"\n[model]\nvocab_size = 300\nhidden_size = 32\nembedding_size = 16\n'
    "intermediate_size = 64\n[[phases]]\nsteps = STEPS\nsequence_length = 16\nbatch_size = 8\n"
    "[optimizer]\nwarmup_steps = 1\n[run]\nmax_eval_samples = 8\nlogging_steps = 1\n"
)
"""A config for seconds."""


def _inputs(folder: Path, steps: int) -> tuple[Path, Path]:
    """(a little text, a config that fits it)."""
    from albert_jax.data.sources import python_docs

    text, config = folder / "text.txt", folder / "nano.toml"
    documents = python_docs.documents()[:300]
    text.write_text("\n\n".join(document.text for document in documents))
    config.write_text(NANO.replace("STEPS", str(steps)))
    return text, config


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
            done = _jobset(*words[2 : words.index("|")])
            _check(yaml.safe_load(done.stdout), JOBSET)
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

    text, config = _inputs(tmp_path, steps=4)
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
    program = f'exec env {environment} {shlex.quote(sys.executable)} -m albert_jax "$@"\n'
    _program(cloud.place / "albert-jax", f"#!/bin/sh\n{program}")
    cloud.says("ACTIVE")
    done = cloud.vm("run", "nano", "--type", "v6e-8", "--", *options)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert (tmp_path / "run" / "complete" / "4").exists()

    # The same command again, as a restarted Pod gives it, finds that all is done.
    manifest = yaml.safe_load(_jobset(*BASE, "--slice", "v6e-8", "--", *options).stdout)
    (job,) = manifest["spec"]["replicatedJobs"]
    (container,) = job["template"]["spec"]["template"]["spec"]["containers"]
    again = subprocess.run(
        [str(cloud.place / "albert-jax"), *container["args"]], capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr


NOTEBOOK = ROOT / "docs" / "free-tpu.ipynb"


def test_notebook_is_clean():
    notebook = json.loads(NOTEBOOK.read_text())
    names = [cell["id"] for cell in notebook["cells"]]
    assert notebook["nbformat"] == 4 and len(set(names)) == len(names)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            compile("".join(cell["source"]), cell["id"], "exec")
    text = "".join(line for cell in notebook["cells"] for line in cell["source"])
    assert "untried" in text


@pytest.mark.slow
def test_notebook_is_interrupted_and_goes_on(tmp_path):
    """A session that ends in the middle of the run, and the next one that finishes it."""
    steps = 1500
    text, config = _inputs(tmp_path, steps)
    program = "\n\n".join(
        "".join(cell["source"])
        for cell in json.loads(NOTEBOOK.read_text())["cells"]
        if cell["cell_type"] == "code"
    )
    environment = {
        **os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT),
        "ALBERT_JAX_DISK": str(tmp_path), "ALBERT_JAX_TEXT": str(text),
        "ALBERT_JAX_CONFIG": str(config),
    }  # fmt: skip
    run = tmp_path / "albert_jax_runs" / "nano" / "run"
    told = tmp_path / "told"
    # A shell starts its background jobs with the signal ignored, and they hand that down.
    heard = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n\n"
    with open(told, "w") as file:
        session = subprocess.Popen(
            [sys.executable, "-c", heard + program], env=environment, cwd=tmp_path,
            stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
    while session.poll() is None and not (run / "metrics.jsonl").exists():
        time.sleep(0.05)
    session.send_signal(signal.SIGINT)
    assert session.wait(timeout=300) == 1, told.read_text()
    assert "run all cells again" in told.read_text()
    (saved,) = (int(path.name) for path in (run / "complete").iterdir())
    assert 0 < saved < steps
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert (run / "complete" / str(steps)).exists()
    assert (run.parent / "export" / "config.json").exists()
