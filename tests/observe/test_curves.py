"""Curves come out of any rows, also of few."""

from pathlib import Path

import pytest

from albert_jax.errors import DataError
from albert_jax.observe import curves
from albert_jax.observe.metrics import MetricsWriter

PNG = b"\x89PNG\r\n\x1a\n"


def test_png_from_the_metrics_of_a_run(tmp_path: Path) -> None:
    writer = MetricsWriter(str(tmp_path))
    for step in range(1, 4):
        row = {"step": step, "mlm_loss": 6.0 / step, "learning_rate": 1e-3, "gradient_norm": None}
        writer.write(row)
    writer.write({"kind": "evaluation", "step": 3, "mlm_loss": 3.0, "unigram_loss": 6.0})
    path = curves.draw(str(tmp_path))
    assert path == str(tmp_path / "curves.png")
    assert Path(path).read_bytes().startswith(PNG)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["curves.png", "events", "metrics.jsonl"]


def test_held_out_numbers_change_the_picture() -> None:
    train = [{"kind": "train", "step": s, "mlm_loss": 5.0} for s in (1, 2)]
    held_out = {"kind": "evaluation", "step": 2, "mlm_loss": 4.0, "unigram_loss": 6.0}
    assert curves.render(train) != curves.render([*train, held_out])
    assert curves.render(train) == curves.render(list(train))


def test_rows_without_numbers_make_no_panel() -> None:
    assert curves.render([{"kind": "train", "step": 1, "mlm_loss": None}]).startswith(PNG)


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        curves.draw(str(tmp_path))


def test_backend_of_the_caller_stays() -> None:
    import matplotlib

    before = matplotlib.rcParams._get("backend")
    curves.render([{"kind": "train", "step": 1, "mlm_loss": 1.0}])
    assert matplotlib.rcParams._get("backend") == before
