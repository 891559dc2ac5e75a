"""The style of all figures: fonts, colors with one meaning each, and the bytes of a file."""

from __future__ import annotations

import functools
import io
import os
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ImageFormat = Literal["png", "svg"]

COLORS = {
    "masked": "#1f5fa8",
    "top five": "#5aa5d6",
    "order": "#b3541e",
    "cut": "#7a4fa3",
    "loss": "#222222",
    "task": "#1f7a4d",
    "state": "#6b7681",
}
"""A color for each quantity, wherever it is drawn."""
SCORES = ("#1f5fa8", "#b3541e", "#1f7a4d", "#7a4fa3", "#a8861f", "#6b7681")
"""Colors of things that have no color of their own, in their order."""
FAINT = "#9aa5b1"
"""Borders, reference lines, and numbers of the training data beside held-out ones."""

_CJK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "PingFang SC",
    "Hiragino Sans GB", "Heiti TC", "Microsoft YaHei", "SimHei", "WenQuanYi Micro Hei",
    "Arial Unicode MS",
)  # fmt: skip


_CJK_FILES = ("sanscjk", "sourcehansans", "pingfang", "hiragino", "msyh", "simhei", "wqy")
"""Parts of the names of files that hold such fonts."""


@functools.cache
def fonts() -> list[str]:
    """Families in the order in which a character is looked for, with an installed CJK font."""
    from matplotlib import font_manager

    known = set(font_manager.get_font_names())
    chosen = [name for name in _CJK_FONTS if name in known][:1]
    if not chosen:
        # matplotlib lists the fonts once, and this one may have been installed since.
        paths = sorted(
            path
            for path in font_manager.findSystemFonts()
            if any(part in os.path.basename(path).lower() for part in _CJK_FILES)
        )
        for path in sorted(paths, key=lambda path: "regular" not in path.lower())[:1]:
            font_manager.fontManager.addfont(path)
            chosen = [font_manager.FontProperties(fname=path).get_name()]
    return ["DejaVu Sans", *chosen]


@contextmanager
def style_context() -> Iterator[None]:
    """The style for figures that are made and saved inside; the caller's settings come back."""
    import matplotlib

    settings: Mapping[str, Any] = {
        "font.family": fonts(),
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.formatter.use_mathtext": False,
        "grid.alpha": 0.25,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "lines.linewidth": 1.4,
        "lines.markersize": 4,
        # A name may be a dollar sign, which would begin a formula.
        "text.parse_math": False,
        # Text stays text, so that a browser draws it with its own fonts.
        "svg.fonttype": "none",
        "svg.hashsalt": "albert_jax",
    }
    with matplotlib.rc_context(settings):  # pyright: ignore[reportArgumentType]
        yield


def figure(width: float, height: float, title: str, note: str = "") -> Figure:
    """A figure of some inches with a title, and a note below; the caller's backend stays."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(made)
    made.suptitle(title, x=0.01, ha="left", fontsize=12)
    if note:
        # Some 13 characters of this size take an inch.
        lines = (textwrap.fill(line, int(13 * width)) for line in note.splitlines())
        made.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8.5, color="#444444")
    return made


def figure_bytes(made: Figure, kind: ImageFormat = "png") -> bytes:
    """The figure as a file; the same figure gives the same bytes."""
    data = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with warnings.catch_warnings():
        # Without a font for it a character is a box, or in an SVG what the browser has for it.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        made.savefig(data, format=kind, metadata=metadata)
    return data.getvalue()
