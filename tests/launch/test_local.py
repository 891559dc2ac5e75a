"""launch/local.sh and test.sh: stages in order, complete ones skipped, odd places; clean shell."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from albert_jax.checkpoint.manifest import Layout

ROOT = Path(__file__).resolve().parents[2]

# Stands for python3: makes a virtual environment whose pip and programs only write down how they
# were called, so that a script runs as it is, but installs and trains nothing.
PYTHON = """#!{python}
import os, pathlib, stat, sys
arguments = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write("python " + " ".join(a.replace("\\n", " ") for a in arguments[:3]) + "\\n")
if arguments[:2] == ["-m", "venv"]:
    folder = pathlib.Path(arguments[2]) / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("python", "albert-jax", "ruff", "pyright"):
        stub = {albert!r} if name == "albert-jax" else {other!r}
        (folder / name).write_text(stub)
        (folder / name).chmod(0o755)
else:
    os.execv({python!r}, [{python!r}, *arguments])
"""
MARKERS = Path(Layout("run").markers).name
"""The folder in a run that changes when a checkpoint is complete."""
OTHER = """#!/bin/sh
if [ "$1" = - ]; then exec {python} "$@"; fi
echo "$(basename "$0") $*" >> {log}
[ "$(basename "$0") $2" != "${{FAIL:-}}" ]
"""
ALBERT = """#!/bin/sh
echo "albert-jax $*" >> {log}
if [ "$1" = config ]; then echo 4000; exit; fi
if [ "$1" = "${{FAIL:-}}" ]; then exit 3; fi
case $1 in
pretrain) while [ "$1" != --out ]; do shift; done; mkdir -p "$2/{markers}" ;;
evaluate) touch "$2/evaluation.json" ;;
data) while [ "$1" != --out ]; do shift; done; mkdir -p "$2"; touch "$2/manifest.json" ;;
tokenizer) while [ "$1" != --out ]; do shift; done; mkdir -p "$2" ;;
export) mkdir "$4" && touch "$4/config.json" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """A copy of what the scripts need, in a folder with a space; `run` calls one of them."""

    class Checkout:
        root = tmp_path / "a checkout"
        log = tmp_path / "log"

        def run(self, script, *arguments, cwd=tmp_path, **env):
            self.log.write_text("")
            done = subprocess.run(
                ["bash", str(self.root / script), *arguments],
                env={"PATH": os.environ["PATH"], "PYTHON": str(tmp_path / "python"), **env},
                cwd=cwd, capture_output=True, text=True, timeout=300,
            )  # fmt: skip
            return done, self.log.read_text().replace(str(self.root), "ROOT")

    made = Checkout()
    for folder in ("launch", ".ci"):
        shutil.copytree(ROOT / folder, made.root / folder)
    for name in ("setup.cfg", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, made.root)
    values = {"python": sys.executable, "log": str(made.log), "markers": MARKERS}
    stub = PYTHON.format(albert=ALBERT.format(**values), other=OTHER.format(**values), **values)
    (tmp_path / "python").write_text(stub)
    (tmp_path / "python").chmod(0o755)
    return made


def _verbs(log):
    return re.findall(r"^albert-jax (tokenizer|data|pretrain|evaluate|export|fill-mask)", log, re.M)


ALL = ["tokenizer", "data", "pretrain", "evaluate", "export", "fill-mask"]


def test_local_runs_the_stages_and_skips_what_is_complete(checkout, tmp_path):
    done, log = checkout.run("launch/local.sh")
    assert done.returncode == 0, done.stderr
    assert _verbs(log) == ALL
    assert "-m pip install" in log and "--constraint ROOT/constraints.txt" in log
    assert "--text python-docs: --vocab-size 4000 --out ROOT/runs/tiny/tokenizer" in log
    assert re.search(
        r"pretrain --config tiny --data ROOT/runs/tiny/data --out ROOT/runs/tiny/run$", log, re.M
    )
    for stage in ("tokenizer", "prepare", "pretrain", "evaluate", "export"):
        assert re.search(rf"^== {stage}: \d+ s$", done.stdout, re.M)

    done, log = checkout.run("launch/local.sh", cwd=checkout.root / "launch")
    assert done.returncode == 0 and _verbs(log) == ["pretrain", "fill-mask"]
    assert "pip" not in log
    assert "== export: complete, skipped" in done.stdout

    # The run went on: what was made of it is old.
    os.utime(checkout.root / "runs/tiny/run" / MARKERS, (2e9, 2e9))
    done, log = checkout.run("launch/local.sh")
    assert done.returncode == 0, done.stderr
    assert _verbs(log) == ["pretrain", "evaluate", "export", "fill-mask"]


def test_local_stops_where_a_stage_fails_and_goes_on_there(checkout):
    done, log = checkout.run("launch/local.sh", FAIL="data")
    assert done.returncode == 3 and _verbs(log) == ALL[:2]
    done, log = checkout.run("launch/local.sh")
    assert done.returncode == 0 and _verbs(log) == ALL[1:]


def test_local_installs_again_when_the_pins_change(checkout):
    checkout.run("launch/local.sh")
    with open(checkout.root / "constraints.txt", "a") as file:
        file.write("# newer\n")
    _, log = checkout.run("launch/local.sh")
    assert "-m pip install" in log


def test_local_installs_again_after_an_installation_that_failed(checkout):
    done, log = checkout.run("launch/local.sh", FAIL="python pip")
    assert done.returncode == 1 and not _verbs(log)
    _, log = checkout.run("launch/local.sh")
    assert "-m pip install" in log and _verbs(log) == ALL


def test_local_takes_own_text(checkout, tmp_path):
    (tmp_path / "my text").mkdir()
    for name in ("a 1", "b"):
        (tmp_path / "my text" / f"{name}.txt").write_text(name)
    done, log = checkout.run("launch/local.sh", "--text", "my text/*.txt", "--", "--seed", "3")
    assert done.returncode == 0, done.stderr
    name = re.search(r"ROOT/runs/(tiny-\w+)/run", log)[1]
    assert "--text my text/*.txt --vocab-size" in log
    assert re.search(r"pretrain --config tiny .* --seed 3$", log, re.M)
    assert _verbs(log) == ALL[:-1]  # the fixed sentences are of the default corpus
    _, log = checkout.run("launch/local.sh", "--text", "my text/a 1.txt", "my text/b.txt")
    assert f"runs/{name}/" in log
    (tmp_path / "my text" / "b.txt").write_text("changed")
    _, log = checkout.run("launch/local.sh", "--text", "my text/*.txt")
    assert f"runs/{name}/" not in log and _verbs(log)[0] == "tokenizer"
    # A folder that is named by hand holds the results of one text.
    done, _ = checkout.run("launch/local.sh", "--text", "my text/b.txt", "--out", "mine")
    assert done.returncode == 0, done.stderr
    done, log = checkout.run("launch/local.sh", "--out", "mine")
    assert done.returncode == 2 and "holds tiny-" in done.stderr and "pretrain" not in log


def test_local_passes_the_options_of_a_text_on(checkout, tmp_path):
    (tmp_path / "a.txt").write_text("Die Tür.")
    checkout.run("launch/local.sh", "--text", "a.txt")
    arguments = ["--text", "a.txt", "--language", "de", "--keep-accents", "True"]
    done, log = checkout.run("launch/local.sh", *arguments)
    assert done.returncode == 0, done.stderr
    verbs = ["tokenizer", "data"]
    train, prepare = (next(s for s in log.splitlines() if f"albert-jax {v}" in s) for v in verbs)
    assert "--text a.txt --language de --vocab-size 4000 --keep-accents True --out" in train
    assert "--text a.txt --language de --tokenizer" in prepare and "accents" not in prepare


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(["--txt", "x"], "unknown option --txt"), (["--text"], "--text needs"),
     (["--text", "none*.txt"], "none*.txt"), (["--config"], "--config needs"),
     (["--language", "de"], "--language is for a text of yours")],
)  # fmt: skip
def test_local_answers_wrong_usage(checkout, arguments, text):
    done, log = checkout.run("launch/local.sh", *arguments)
    assert done.returncode in (1, 2) and text in done.stderr
    assert not _verbs(log)


def test_local_trains_with_several_processes(checkout):
    done, log = checkout.run("launch/local.sh", "--processes", "2")
    assert "python ROOT/launch/local_processes.py 2 ROOT/.venv/bin/albert-jax pretrain " in log
    assert _verbs(log)[:2] == ALL[:2]  # these two alone
    done, _ = checkout.run("launch/local.sh", "--processes", "two")
    assert done.returncode == 2 and "--processes two: give a number" in done.stderr


def test_local_refuses_an_old_python(checkout, tmp_path):
    (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")
    done, _ = checkout.run("launch/local.sh")
    assert done.returncode == 2 and "3.11" in done.stderr


def test_test_runs_all_checks_and_reports_any_failure(checkout):
    done, log = checkout.run("launch/test.sh", "-x")
    assert done.returncode == 0, done.stderr
    assert "--editable ROOT[test]\n" in log
    checks = [line for line in log.splitlines() if not line.startswith("python -")]
    assert [line.split()[0] for line in checks] == ["ruff", "ruff", "pyright"]
    assert log.endswith("python -m pytest -n 2 --dist loadfile -m not slow and not thorough -x\n")
    done, log = checkout.run("launch/test.sh", FAIL="ruff .")
    assert done.returncode == 1 and "pytest" in log


def test_ci_compares_with_other_programs(checkout):
    done, log = checkout.run(".ci/run")
    assert done.returncode == 0, done.stderr
    assert "--editable ROOT[test,parity,tpu-plan,gcs,gcs-emulator]\n" in log
    assert log.endswith("python -m pytest -n 2 --dist loadfile -m not slow\n")


def test_slow_tests_run_on_request(checkout):
    done, log = checkout.run("launch/test.sh", "--slow")
    assert done.returncode == 0, done.stderr
    assert log.endswith("python -m pytest -n 2 --dist loadfile\n")


def test_scripts_are_clean_shell():
    others = (".ci/run", "launch/slurm.sbatch", "benchmarks/accelerator.sh", "tests/first_hour.sh")
    scripts = [*(ROOT / "launch").glob("*.sh"), *(ROOT / name for name in others)]
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed (extra test)")
    done = subprocess.run(
        [shellcheck, "--external-sources", *map(str, scripts)],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
