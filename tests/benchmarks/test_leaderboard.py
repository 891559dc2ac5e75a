"""The page of the leaderboard: what counts as a record."""

from __future__ import annotations

import json

import pytest


@pytest.fixture(scope="module")
def leaderboard(benchmark):
    return benchmark("leaderboard")


def row(name: str, nats: list[float], *, seconds: float = 180.0, track: str = "A") -> dict:
    runs = [
        {"seed": i, "nats": x, "seconds": seconds, "steps": 2800, "tokens": 6400000, "blimp": None}
        for i, x in enumerate(nats)
    ]
    return {
        "track": track, "name": name, "date": "2026-11-28", "processor": "2 x CPU",
        "command": "albert-jax pretrain --config tiny", "note": f"the note of {name}", "runs": runs,
    }  # fmt: skip


def test_a_record_is_better_than_the_best_row_before_and_in_time(leaderboard):
    page = leaderboard.page([
        row("first", [1.40, 1.44, 1.42, 1.43, 1.41]),
        row("by chance", [1.41, 1.44, 1.43, 1.45, 1.42]),
        row("worse", [1.20, 1.21, 1.19, 1.20, 1.22]),
        row("slow", [2.00, 2.01, 1.99, 2.02, 2.00], seconds=200.0),
        row("better", [1.50, 1.52, 1.51, 1.49, 1.53]),
        row("few seeds", [9.0, 9.1]),
        row("other track", [2.17], track="C"),
    ])  # fmt: skip
    cells = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")]
        for line in page.splitlines()
        if line.startswith("| ")
    }
    records = {name: cells[name][5] for name in cells if name != "row"}
    assert records == {
        "first": "yes", "by chance": "", "worse": "", "slow": "too slow", "better": "yes",
        "few seeds": "",
        "other track": "yes",
    }  # fmt: skip
    assert cells["first"][3] == "1.420 ± 0.016" and cells["first"][4] == ""
    assert float(cells["by chance"][4]) > 0.01 and float(cells["better"][4]) < 0.01
    # A row that failed stays, with its command and note.
    assert "- worse: `albert-jax pretrain --config tiny`. the note of worse" in page


def test_the_kept_page_is_that_of_the_kept_rows(leaderboard):
    if not leaderboard.ROWS.is_file():
        pytest.skip("no row yet")
    rows = [json.loads(line) for line in leaderboard.ROWS.read_text().splitlines()]
    assert leaderboard.PAGE.read_text() == leaderboard.page(rows)
