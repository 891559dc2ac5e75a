"""Every command of the README: known to this test, and run as it stands there."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from albert_jax import cli, configfile
from albert_jax.data.sources import python_docs

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.S)
    for line in block.splitlines()
    if line
]
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.S)
PAGES = sorted((ROOT / "docs").glob("*.md")) + [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "examples/README.md")
]
QUICK = ["--phases.0.steps", "4", "--phases.1.steps", "2", "--run.max-eval-samples", "16"]
LAUNCH = {
    "bash launch/local.sh": "test_launch.py runs it",
    "bash launch/local.sh --text 'my/*.txt'": "test_launch.py runs it",
    "bash launch/test.sh": "test_launch.py runs it",
    "bash launch/test.sh --all": "test_launch.py runs it",
}


def _albert(commands):
    return [command for command in commands if command.startswith("albert-jax ")]


def test_every_command_is_of_a_kind_that_is_tested():
    for command in COMMANDS:
        known = command in LAUNCH or command.startswith(("albert-jax ", "pip install -e "))
        assert known, command
    assert set(LAUNCH) <= set(COMMANDS)


def test_named_extras_exist():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for command in COMMANDS:
        if found := re.fullmatch(r"pip install -e '\.\[(.*)\]'", command):
            assert set(found[1].split(",")) <= set(setup["options.extras_require"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_parses(page, monkeypatch, capsys):
    """Also those that need a bucket or a TPU: verbs, options and fields exist."""
    import importlib

    text = page.read_text().replace("\\\n", " ")
    for line in re.findall(r"^(?:    )?(albert-jax .*)$", text, re.M):
        words = shlex.split(line)[1:]
        # Names that stand for a reader's own file are presets here.
        words = [w.replace("longer.toml", "tiny").replace("mine.toml", "tiny") for w in words]
        words = [
            "tiny" if w == "RUN" and words[i - 1] == "--config" else w for i, w in enumerate(words)
        ]
        verb = " ".join(words[:2]) if " ".join(words[:2]) in cli.VERBS else words[0]
        module, name = cli.VERBS[verb][0].split(":")
        command = getattr(importlib.import_module(module), name)
        run = Mock(return_value=None)
        monkeypatch.setattr(command, "run", run)
        assert cli.main(words) == 0 and run.called, f"{line}: {capsys.readouterr().err}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_named_presets_exist():
    for name in re.findall(r"`((?:tiny|x*large|base)[\w-]*)`", TEXT):
        assert name in configfile.presets()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with text in my/, and `albert-jax` on the path that trains few steps only."""
    place = tmp_path_factory.mktemp("reader")
    (place / "my").mkdir()
    documents = python_docs.documents()
    for i in range(2):
        text = "\n\n".join(document.text for document in documents[i::2])
        (place / "my" / f"{i}.txt").write_text(text)
    (place / "bin").mkdir()
    program = place / "bin" / "albert-jax"
    quick = " ".join(QUICK)
    program.write_text(
        f'#!/bin/sh\nif [ "$1" = pretrain ]; then set -- "$@" {quick}; fi\n'
        f'exec {shlex.quote(sys.executable)} -m albert_jax "$@"\n'
    )
    program.chmod(0o755)
    return place


def _environment(place):
    return {
        **os.environ,
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
    }


@pytest.mark.slow
def test_commands_work_one_after_the_other(place):
    for command in _albert(COMMANDS):
        if "gs://" in command:
            continue
        done = subprocess.run(
            command, shell=True, cwd=place, env=_environment(place), capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parity
def test_python_works_on_what_the_commands_made(place):
    pytest.importorskip("transformers")
    pytest.importorskip("torch")
    if not (place / "work" / "export").exists():
        test_commands_work_one_after_the_other(place)
    for code in PYTHON:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=place, env=_environment(place), capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "score" in done.stdout


@pytest.mark.slow
def test_the_first_command_works_and_continues(place, tmp_path):
    """launch/local.sh with the environment that runs the tests, on few steps."""
    checkout = tmp_path / "the checkout"
    shutil.copytree(ROOT / "launch", checkout / "launch")
    for name in ("setup.cfg", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, checkout)
    stub = tmp_path / "python"
    stub.write_text(
        "#!/bin/sh\n"
        'if [ "$2" = venv ]; then mkdir -p "$3/bin"\n'
        f'cp {shlex.quote(str(place / "bin" / "albert-jax"))} "$3/bin/albert-jax"\n'
        'printf "#!/bin/sh\\nif [ \\"\\$2\\" = pip ]; then exit 0; fi\\n'
        f'exec {shlex.quote(sys.executable)} \\"\\$@\\"\\n" > "$3/bin/python"\n'
        'chmod +x "$3/bin/python"; exit 0; fi\n'
        f'exec {shlex.quote(sys.executable)} "$@"\n'
    )
    stub.chmod(0o755)
    for turn in range(2):
        done = subprocess.run(
            ["bash", str(checkout / "launch" / "local.sh")],
            cwd=tmp_path, env={**_environment(place), "PYTHON": str(stub)},
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        assert "true word among five" in done.stdout
        assert ("== export: complete, skipped" in done.stdout) == bool(turn)
    assert (checkout / "runs" / "tiny" / "export" / "model.safetensors").is_file()
