"""Curves come out of any rows, also of few."""

from pathlib import Path

import pytest

from albert_jax.config import Config, OptimizerConfig, PhaseConfig
from albert_jax.errors import DataError
from albert_jax.observe import curves, style
from albert_jax.observe.metrics import MetricsWriter

PNG = b"\x89PNG\r\n\x1a\n"


def test_png_from_the_metrics_of_a_run(tmp_path: Path) -> None:
    writer = MetricsWriter(str(tmp_path))
    for step in range(1, 4):
        row = {"step": step, "mlm_loss": 6.0 / step, "learning_rate": 1e-3, "grad_norm": None}
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


def drawn(rows, config=None):
    """Titles of the panels that have numbers, with what stands in their legends."""
    panels = {}
    for panel in curves.panels_of(rows, config):
        found = [(q.field, kind) for q, kind, *_ in curves.curves_of(rows, panel)]
        if found:
            panels.setdefault(panel.title, []).extend([*found, *panel.lines.values()])
    return panels


def test_fine_tuning_shows_loss_and_score() -> None:
    from albert_jax.tasks.classification import ClassificationConfig

    task = ClassificationConfig(labels=("a", "b"), metrics=("accuracy", "f1"))
    rows = [
        {"kind": "train", "step": s, "loss": 0.7, "class_loss": 0.7, "example_accuracy": 0.5}
        for s in (1, 2)
    ]
    rows.append({"kind": "evaluation", "step": 2, "accuracy": 0.75, "f1": 0.7})
    panels = drawn(rows, Config(task=task))
    assert panels["Loss"] == [("loss", "train"), pytest.approx(0.6931, abs=1e-4)]
    assert panels["Score"] == [
        ("accuracy", "evaluation"), ("f1", "evaluation"), ("example_accuracy", "train"),
    ]  # fmt: skip
    assert "fine-tuning for classification" in curves.title("runs/x", Config(task=task))[0]
    assert curves.render(rows, "runs/x", Config(task=task)).startswith(PNG)


def test_pretraining_shows_chance_and_where_a_phase_begins() -> None:
    rows = [
        {"kind": "train", "step": s, "phase": s // 3, "mlm_loss": 5.0, "sop_loss": 0.6,
         "sop_accuracy": 0.6}
        for s in (1, 2, 3, 4)
    ]  # fmt: skip
    rows.append({"kind": "evaluation", "step": 4, "mlm_loss": 4.5, "unigram_loss": 6.1})
    panels = drawn(rows)
    assert panels["Masked tokens: loss"][-1] == 6.1
    assert panels["Sentence order: loss"][-1] == pytest.approx(0.6931, abs=1e-4)
    assert panels["Accuracy"][-1] == 0.5
    assert curves.phase_starts(rows) == [2]
    phases = (PhaseConfig(steps=2, sequence_length=24), PhaseConfig(steps=2, sequence_length=48))
    config = Config(phases=phases, optimizer=OptimizerConfig(name="muon"))
    first, *others = curves.title("far/away/tiny/run", config)
    assert first.startswith("tiny/run: pretraining, 4 steps") and "muon" in first
    assert "24 tokens" in others[0] and "48 tokens" in others[1] and "dotted" in others[1]


def test_a_quantity_has_one_color_in_all_panels() -> None:
    colors: dict[str, set[str]] = {}
    for panel in curves.panels_of([{"kind": "train", "step": 1}]):
        for quantity in panel.quantities:
            colors.setdefault(quantity.field.split("_")[0], set()).add(quantity.color)
    assert colors["mlm"] >= {style.COLORS["masked"]} and style.COLORS["order"] in colors["sop"]
    assert not colors["mlm"] & colors["sop"]


def test_a_font_with_chinese_is_chosen_if_one_is_installed(monkeypatch) -> None:
    from matplotlib import font_manager

    monkeypatch.setattr(font_manager, "get_font_names", lambda: ["DejaVu Sans", "SimHei", "X"])
    style.fonts.cache_clear()
    assert style.fonts() == ["DejaVu Sans", "SimHei"]
    monkeypatch.setattr(font_manager, "get_font_names", lambda: ["DejaVu Sans"])
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: ["/fonts/Other.ttf"])
    style.fonts.cache_clear()
    assert style.fonts() == ["DejaVu Sans"]
    monkeypatch.undo()
    style.fonts.cache_clear()


def test_a_font_that_matplotlib_has_not_listed_yet_is_found(monkeypatch, tmp_path) -> None:
    """Its file is that of another font here, which has the name of one with Chinese."""
    from matplotlib import font_manager

    path = tmp_path / "NotoSansCJK-Regular.ttf"
    path.write_bytes(Path(font_manager.findfont("DejaVu Serif")).read_bytes())
    before = list(font_manager.fontManager.ttflist)
    monkeypatch.setattr(font_manager, "get_font_names", lambda: ["DejaVu Sans"])
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: ["/x/Other.ttf", str(path)])
    style.fonts.cache_clear()
    try:
        assert style.fonts() == ["DejaVu Sans", "DejaVu Serif"]
    finally:
        font_manager.fontManager.ttflist[:] = before
        style.fonts.cache_clear()
