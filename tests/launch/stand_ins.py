"""Programs that stand for gcloud and for the Python of a host, and a run for seconds."""

from __future__ import annotations

from pathlib import Path

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


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


OPTIONS = ["--config", "base-v1", "--data", "gs://a bucket/data", "--out", "gs://b/run"]


NANO = (
    'extends = "tiny"\n[model]\nvocab_size = 300\nhidden_size = 32\nembedding_size = 16\n'
    "intermediate_size = 64\n[[phases]]\nsteps = STEPS\nsequence_length = 16\nbatch_size = 8\n"
    "[optimizer]\nwarmup_steps = 1\n[run]\nmax_eval_samples = 8\nlogging_steps = 1\n"
)
"""A config for seconds."""


def inputs(folder: Path, steps: int) -> tuple[Path, Path]:
    """(a little text, a config that fits it)."""
    from albert_jax.data.sources import python_docs

    text, config = folder / "text.txt", folder / "nano.toml"
    documents = python_docs.documents()[:300]
    text.write_text("\n\n".join(document.text for document in documents))
    config.write_text(NANO.replace("STEPS", str(steps)))
    return text, config
