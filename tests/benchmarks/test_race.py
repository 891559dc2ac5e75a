"""The race with Transformers: seconds to a mark, and one short true race."""

from __future__ import annotations

import json
import sys

import pytest

from tests import tiny_models

CONFIG = """
extends = "tiny"

[model]
vocab_size = 64
embedding_size = 8
hidden_size = 16
num_attention_heads = 2
intermediate_size = 32

[[phases]]
steps = 24
sequence_length = 16
batch_size = 4

[optimizer]
warmup_steps = 2
"""


def test_seconds_to_a_mark_are_between_its_neighbors(benchmark):
    seconds_to = benchmark("race").seconds_to
    curve = [(10.0, 0.4), (20.0, 0.6), (30.0, 0.5)]
    assert seconds_to(curve, 0.2) == pytest.approx(5.0)
    assert seconds_to(curve, 0.5) == pytest.approx(15.0)
    assert seconds_to(curve, 0.7) is None


@pytest.mark.slow
def test_a_short_race(benchmark, monkeypatch, tmp_path):
    for package in ("torch", "transformers", "accelerate"):
        pytest.importorskip(package)
    program = benchmark("race")
    config = tmp_path / "config.toml"
    config.write_text(CONFIG)
    out = tmp_path / "out"
    options = {
        "--config": config, "--data": tiny_models.prepared(tmp_path), "--out": out,
        "--seconds": 2, "--trial-seconds": 1, "--rates": 1e-3, "--initializers": 0.05,
        "--lengths": 8,
    }  # fmt: skip
    words = [str(word) for pair in options.items() for word in pair]
    monkeypatch.setattr(sys, "argv", ["race.py", *words])
    program.main()
    report = json.loads((out / "race.json").read_text())
    assert set(report["curves"]) == {
        "albert-jax", "Transformers, tuned", "Transformers, run_mlm as it ships",
    }  # fmt: skip
    for curve in report["curves"].values():
        seconds = [point[0] for point in curve]
        assert seconds == sorted(seconds) and len(seconds) >= program.POINTS // 2
    assert report["tuned"]["length"] == 8
    assert "<svg" in (out / "race.svg").read_text()
