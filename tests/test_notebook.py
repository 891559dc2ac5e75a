"""The notebook is executed as it stands, in a process of its own, and its model learns."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import tiny_models

NOTEBOOK = Path(__file__).resolve().parent.parent / "docs" / "fine-tune.ipynb"


def test_notebook_runs_and_learns(tmp_path: Path) -> None:
    directory = tiny_models.directory(
        tmp_path,
        hidden_size=64,
        embedding_size=32,
        num_attention_heads=4,
        intermediate_size=128,
        initializer_range=0.1,
    )
    program = "\n\n".join(
        "".join(cell["source"])
        for cell in json.loads(NOTEBOOK.read_text())["cells"]
        if cell["cell_type"] == "code"
    )
    environment = {
        **os.environ,
        "ALBERT_JAX_MODEL": directory,
        "PYTHONPATH": str(NOTEBOOK.parent.parent),
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=NOTEBOOK.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    before, after = (
        float(re.search(rf"accuracy {when}: ([\d.]+)", done.stdout)[1])  # type: ignore[index]
        for when in ("before", "after")
    )
    assert before < 0.75 < 0.9 < after


def test_notebook_is_clean() -> None:
    notebook = json.loads(NOTEBOOK.read_text())
    assert notebook["nbformat"] == 4
    names = [cell["id"] for cell in notebook["cells"]]
    assert len(set(names)) == len(names)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
