"""Notebooks are executed as they stand, in a process of their own, and the model learns."""

import ast
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import tiny_models
from tests.launch.stand_ins import inputs

DOCS = Path(__file__).resolve().parent.parent / "docs"
NOTEBOOK = DOCS / "fine-tune.ipynb"
FREE_TPU = DOCS / "free-tpu.ipynb"
TUTORIALS = (DOCS / "tutorial.ipynb", DOCS / "tutorial.zh.ipynb")


def cells(notebook: Path, kind: str) -> list[dict[str, Any]]:
    everything = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in everything if cell["cell_type"] == kind]


def sources(notebook: Path, kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in cells(notebook, kind)]


def execute(notebook: Path, timeout: float, **variables: str) -> str:
    """The output of the code cells; they need neither Jupyter nor IPython."""
    done = subprocess.run(
        [sys.executable, "-c", "\n\n".join(sources(notebook, "code"))],
        cwd=DOCS,
        env={**os.environ, "PYTHONPATH": str(DOCS.parent), "MPLBACKEND": "Agg", **variables},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    return done.stdout


CODE = {
    **{
        f"{path.name}[{i}]": cell
        for path in sorted(DOCS.glob("*.ipynb"))
        for i, cell in enumerate(sources(path, "code"))
    },
    **{path.name: path.read_text() for path in sorted((DOCS.parent / "benchmarks").glob("*.py"))},
}


@pytest.mark.parametrize("name", CODE)
def test_what_notebooks_and_benchmarks_import_exists(name: str) -> None:
    """They run for minutes or hours, so that nothing else would notice a renamed module soon."""
    for node in ast.walk(ast.parse(CODE[name])):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("albert_jax"):
            module = importlib.import_module(str(node.module))
            for imported in node.names:
                inside = f"{node.module}.{imported.name}"
                assert hasattr(module, imported.name) or importlib.util.find_spec(inside), inside


@pytest.mark.thorough
def test_notebook_runs_and_learns(tmp_path: Path) -> None:
    directory = tiny_models.directory(
        tmp_path,
        hidden_size=64,
        embedding_size=32,
        num_attention_heads=4,
        intermediate_size=128,
        initializer_range=0.1,
    )
    printed = execute(NOTEBOOK, 300, ALBERT_JAX_MODEL=directory)
    before, after = (
        float(re.search(rf"accuracy {when}: ([\d.]+)", printed)[1])  # type: ignore[index]
        for when in ("before", "after")
    )
    assert before < 0.75 < 0.9 < after


@pytest.mark.parametrize("notebook", [NOTEBOOK, FREE_TPU], ids=lambda path: path.stem)
def test_notebook_is_clean(notebook: Path) -> None:
    whole = json.loads(notebook.read_text())
    assert whole["nbformat"] == 4
    names = [cell["id"] for cell in whole["cells"]]
    assert len(set(names)) == len(names)
    for cell in cells(notebook, "code"):
        assert cell["outputs"] == [] and cell["execution_count"] is None
        compile("".join(cell["source"]), cell["id"], "exec")


def test_free_tpu_says_that_it_is_untried() -> None:
    assert "untried" in "".join(sources(FREE_TPU, "markdown"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_tutorial_runs_with_few_steps(tmp_path: Path) -> None:
    printed = execute(TUTORIALS[0], 3600, TUTORIAL_QUICK="1", TUTORIAL_FOLDER=str(tmp_path))
    assert "BERT-base by formula:   109,482,240" in printed
    # Every part of the tutorial left its result.
    for name in ("run", "reviews", "reviews-zh", "tags", "questions", "translation", "light"):
        assert (tmp_path / name / "record.json").exists(), name
    assert (tmp_path / "export" / "config.json").exists()


def test_tutorial_has_the_same_code_in_both_languages() -> None:
    english, chinese = TUTORIALS
    assert sources(english, "code") == sources(chinese, "code")
    prose = sources(english, "markdown"), sources(chinese, "markdown")
    for one, other in zip(*prose, strict=True):
        assert re.findall(r"^#+", one, re.M) == re.findall(r"^#+", other, re.M)
        assert not re.search(r"[\u4e00-\u9fff]", one) and re.search(r"[\u4e00-\u9fff]", other)
        assert re.findall(r"\]\((.*?)\)", one) == re.findall(r"\]\((.*?)\)", other)
        assert all((DOCS / link).exists() for link in re.findall(r"\]\((.*?)\)", one))


@pytest.mark.parametrize("notebook", TUTORIALS, ids=lambda path: path.name)
def test_tutorial_keeps_its_outputs(notebook: Path) -> None:
    assert notebook.stat().st_size < 1_500_000
    pictures = 0
    for number, cell in enumerate(cells(notebook, "code"), start=1):
        assert cell["execution_count"] == number, "execute it whole, from the top"
        kinds = [output["output_type"] for output in cell["outputs"]]
        assert kinds and "error" not in kinds, cell["source"]
        printed = "".join("".join(output.get("text", "")) for output in cell["outputs"])
        assert "(quick)" not in printed and "/tmp" not in printed
        pictures += kinds.count("display_data")
    assert pictures >= 8


@pytest.mark.slow
def test_free_tpu_is_interrupted_and_goes_on(tmp_path: Path):
    """A session that ends in the middle of the run, and the next one that finishes it."""
    steps = 1500
    text, config = inputs(tmp_path, steps)
    program = "\n\n".join(
        "".join(cell["source"])
        for cell in json.loads(FREE_TPU.read_text())["cells"]
        if cell["cell_type"] == "code"
    )
    environment = {
        **os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(DOCS.parent),
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
