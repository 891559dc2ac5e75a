"""Executes docs/tutorial.ipynb whole and keeps its outputs in the notebooks of both languages.

    python -m tests.execute_tutorial

It needs nbclient and ipykernel (extra docs), takes about 20 minutes of two cores, and begins anew:
runs/tutorial must not exist.
"""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

DOCS = Path(__file__).resolve().parent.parent / "docs"


def main() -> None:
    folder = DOCS.parent / "runs" / "tutorial"
    if folder.exists():
        raise SystemExit(f"{folder} exists: remove it, so that the outputs show whole runs")
    os.environ["PYTHONPATH"] = f"{DOCS.parent}:{os.environ.get('PYTHONPATH', '')}"
    executed = nbformat.read(DOCS / "tutorial.ipynb", 4)
    client = NotebookClient(
        executed,
        timeout=None,
        kernel_name="python3",
        resources={"metadata": {"path": str(DOCS)}},
        coalesce_streams=True,
        record_timing=False,
    )
    client.execute()
    kept = [cell for cell in executed.cells if cell.cell_type == "code"]
    for name in ("tutorial.ipynb", "tutorial.zh.ipynb"):
        notebook = nbformat.read(DOCS / name, 4)
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for number, (cell, done) in enumerate(zip(cells, kept, strict=True), start=1):
            cell.outputs, cell.execution_count = done.outputs, number
        nbformat.write(notebook, DOCS / name)


if __name__ == "__main__":
    main()
