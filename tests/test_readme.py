"""Every command of the README: known to this test, and run as it stands there."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from unittest.mock import Mock

import pytest

from albert_jax import cli, configfile
from albert_jax.data.sources import python_docs

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()
CHINESE = (ROOT / "README.zh.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


COMMANDS = [
    line
    for block in blocks(TEXT, "bash")
    for line in block.replace("\\\n", " ").splitlines()
    if line
]
PYTHON = blocks(TEXT, "python")
PAGES = sorted((ROOT / "docs").glob("*.md")) + [
    ROOT / name
    for name in (
        "README.md", "README.zh.md", "CONTRIBUTING.md", "examples/README.md",
        "benchmarks/leaderboard/README.md",
    )
]  # fmt: skip
QUICK = {
    "pretrain": "--phases.0.steps 4 --phases.1.steps 2 --run.max-eval-samples 16",
    "finetune": "--max-steps 4",
}
"""Options that shorten a command."""
LAUNCH = {
    "bash launch/local.sh": "tests/launch runs it",
    "bash launch/local.sh --text 'my/*.txt'": "tests/launch runs it",
    "bash launch/test.sh": "tests/launch runs it",
    "bash launch/test.sh --all": "tests/launch runs it",
    "git clone ADDRESS albert_jax && cd albert_jax": "the tests run in a clone",
    "source .venv/bin/activate": "tests/launch makes the environment",
    "pip install --constraint constraints.txt transformers torch": "the extra parity has them",
}


def _albert(commands):
    return [command for command in commands if command.startswith("albert-jax ")]


def test_every_command_is_of_a_kind_that_is_tested():
    for command in COMMANDS:
        kinds = ("albert-jax ", "pip install --constraint constraints.txt -e ")
        assert command in LAUNCH or command.startswith(kinds), command
    assert set(LAUNCH) <= set(COMMANDS)


def test_named_extras_exist():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    pattern = r"pip install --constraint constraints\.txt -e '\.\[(.*)\]'"
    named = [found[1] for command in COMMANDS if (found := re.fullmatch(pattern, command))]
    assert len(named) == 2
    for extras in named:
        assert set(extras.split(",")) <= set(setup["options.extras_require"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_parses(page, monkeypatch, capsys):
    """Also those that need a bucket or a TPU: commands, options and fields exist."""
    import importlib

    text = page.read_text().replace("\\\n", " ")
    inline = re.findall(r"^- .*?`(albert-jax [^`]*)`", text, re.M)
    for line in inline + re.findall(r"^(?:    )?(albert-jax .*)$", text, re.M):
        words = shlex.split(line)[1:]
        # Names that stand for a reader's own file are presets here.
        words = [w.replace("longer.toml", "tiny").replace("mine.toml", "tiny") for w in words]
        words = [
            "tiny" if w == "RUN" and words[i - 1] == "--config" else w for i, w in enumerate(words)
        ]
        command = " ".join(words[:2]) if " ".join(words[:2]) in cli.COMMANDS else words[0]
        module, name = cli.COMMANDS[command][0].split(":")
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
    for name in re.findall(r"`((?:tiny|small|medium|plbert|x*large|base)[\w-]*)`", TEXT):
        assert name in configfile.presets()


def outline(text: str) -> dict[str, object]:
    """The parts that two languages of one page must have in common."""
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    tables = re.findall(r"^\|.*\|$", prose, re.M)
    return {
        "code": [blocks(text, language) for language in ("bash", "python")],
        "headings": [len(marks) for marks in re.findall(r"^(#+) ", prose, re.M)],
        "links": Counter(
            target for target in re.findall(r"\]\(([^)]+)\)", prose) if "README" not in target
        ),
        "tables": [(row.count(" |"), *re.findall(r"`[^`]+`", row)) for row in tables],
        "names": Counter(re.findall(r"`[^`]+`", prose)),
        "measured": Counter(re.findall(r"\d[\d.,e-]*\d", "".join(tables[:11]))),
    }


def test_the_chinese_readme_is_the_english_one():
    own = "jupyter lab docs/tutorial{}.ipynb"
    assert own.format("") in TEXT and own.format(".zh") in CHINESE
    english = outline(TEXT)
    chinese = outline(CHINESE.replace(own.format(".zh"), own.format("")))
    for part, expected in english.items():
        assert chinese[part] == expected, part
    assert "](README.zh.md)" in TEXT and "](README.md)" in CHINESE
    for heading in re.findall(r"^## (.*)", CHINESE, re.M):
        assert re.search(r"[\u4e00-\u9fff]", heading), heading


def test_extras_are_named_as_a_clone_installs_them():
    """The package is on no index, so that advice to install it by name would fail."""
    for path in ROOT.rglob("*"):
        if path.suffix in (".py", ".md", ".ipynb", ".sh", ".sbatch", ".cfg", ".html"):
            parts = path.relative_to(ROOT).parts
            if parts[0] in ("build", "runs") or any(p.startswith(".") for p in parts[:-1]):
                continue
            advice = re.search(r"pip install (-\S+ )*\W?albert[-_]jax\b", path.read_text())
            assert advice is None, f"{path}: {advice}"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with text in my/, and `albert-jax` on the path that trains few steps only."""
    place = tmp_path_factory.mktemp("reader")
    (place / "my").mkdir()
    documents = python_docs.documents()
    for i in range(2):
        text = "\n\n".join(document.text for document in documents[i::2])
        (place / "my" / f"{i}.txt").write_text(text)
    shutil.copytree(ROOT / "examples", place / "examples")
    (place / "bin").mkdir()
    program = place / "bin" / "albert-jax"
    cases = " ".join(f'{command}) set -- "$@" {options} ;;' for command, options in QUICK.items())
    program.write_text(
        f"#!/bin/sh\ncase $1 in {cases} esac\n"
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


def call(command: str, place: Path) -> str:
    done = subprocess.run(
        command, shell=True, cwd=place, env=_environment(place), capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(place):
    """The same place, with the run of `bash launch/local.sh` and what the commands make."""
    script = (ROOT / "launch" / "local.sh").read_text()
    corpus = "--text python-docs:"
    assert corpus in script and "runs/$name" in script and "run=$out/run" in script
    for command in (
        f"tokenizer train {corpus} --vocab-size 4000 --out runs/tiny/tokenizer",
        f"data prepare {corpus} --tokenizer runs/tiny/tokenizer --out runs/tiny/data",
        "pretrain --config tiny --data runs/tiny/data --out runs/tiny/run",
        *(c.removeprefix("albert-jax ") for c in _albert(COMMANDS) if "gs://" not in c),
    ):
        call(f"albert-jax {command}", place)
    return place


@pytest.mark.slow
def test_commands_work_one_after_the_other(made):
    for result in ("evaluation.json", "curves.png", "vocabulary"):
        assert (made / "runs" / "reviews" / result).exists(), result
    assert (made / "runs" / "reviews-why" / "explain.html").is_file()
    assert (made / "runs" / "reviews-export" / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parity
def test_python_works_on_what_the_commands_made(made):
    pytest.importorskip("transformers")
    pytest.importorskip("torch")
    for code in PYTHON:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=made, env=_environment(made), capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "score" in done.stdout
        assert "UNEXPECTED" not in done.stdout + done.stderr


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
