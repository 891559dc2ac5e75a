"""An explanation drawn: attention as one picture, and all of it as one HTML file.

The page loads nothing: its picture is inside it, it has no script, and its policy says so.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from albert_jax.inference.fill_mask import Candidate

if TYPE_CHECKING:
    from albert_jax.inference.explain import Explanation

LABELLED = 40
"""Longest row whose pieces are written beside its attention."""

_STYLE = """
body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222; }
table { border-collapse: collapse; }
td, th { padding: .2em .6em; border: 1px solid #ddd; text-align: left; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
span.piece { padding: .1em .25em; margin: .1em; border-radius: .2em; display: inline-block; }
img { max-width: 100%; }
"""


def page(found: Explanation, picture: bytes) -> str:
    """HTML with the pieces, a table of the passes, the shares and the picture of attention."""
    parts = [f"<h1>{escape(found.text)}</h1><p>{escape(found.source)}</p>"]
    if found.attribution is not None:
        label = escape(found.labels[found.attribution.label])
        parts.append(
            f"<h2>What speaks for <em>{label}</em></h2><p>{_shares(found)}</p>"
            "<p>Blue speaks for it, red against it (integrated gradients): "
            f"{escape(str(found.attribution))}.</p>"
        )
    parts.append(f"<h2>Pass by pass</h2>{_passes(found)}")
    parts.append(
        "<h2>Attention</h2><p>Rows of panels are passes, columns are heads; in a panel each row "
        "is a piece that looks, each column one that is looked at.</p>"
        f'<img alt="attention of every head in every pass" src="data:image/png;base64,'
        f'{base64.b64encode(picture).decode()}">'
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{escape(found.text)}</title><style>{_STYLE}</style></head><body>"
        + "\n".join(parts)
        + "</body></html>\n"
    )


def attention_png(found: Explanation) -> bytes:
    """A panel [S, S] for every pass (down) and head (across), white 0 to dark 1."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    num_layers, heads, size, _ = found.attention.shape
    edge = min(2.4, max(1.2, 0.09 * size))
    wide, high = edge * heads + 1.2, edge * num_layers + 1.2
    figure = Figure(figsize=(wide, high), dpi=100)
    FigureCanvasAgg(figure)
    panels = figure.subplots(num_layers, heads, squeeze=False)
    # An inch for the names at the left and below; a layout that measures them takes far longer.
    figure.subplots_adjust(1.1 / wide, 1.1 / high, 1 - 0.1 / wide, 1 - 0.1 / high, 0.05, 0.05)
    places = range(size) if size <= LABELLED else range(0)
    pieces = [found.pieces[i] for i in places]
    for number in range(num_layers):
        for head in range(heads):
            axes = panels[number, head]
            axes.imshow(found.attention[number, head], cmap="Blues", vmin=0, vmax=1)
            axes.set_xticks(places if number == num_layers - 1 else [])
            axes.set_yticks(places if head == 0 else [])
            # A piece may be a dollar sign, which would begin a formula.
            if number == num_layers - 1:
                axes.set_xticklabels(pieces, fontsize=5, rotation=90, parse_math=False)
                axes.set_xlabel(f"head {head + 1}", fontsize=7)
            if head == 0:
                axes.set_yticklabels(pieces, fontsize=5, parse_math=False)
                axes.set_ylabel(f"pass {number + 1}", fontsize=7)
    data = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # drawn as boxes
        figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


def _shares(found: Explanation) -> str:
    assert found.attribution is not None
    shares = found.attribution.shares
    largest = max(float(np.abs(shares).max()), 1e-12)
    spans = []
    for piece, share in zip(found.pieces, shares, strict=True):
        colour = "60, 120, 220" if share > 0 else "220, 70, 60"
        spans.append(
            f'<span class="piece" title="{share:+.4f}" '
            f'style="background: rgba({colour}, {abs(share) / largest:.3f})">{escape(piece)}</span>'
        )
    return " ".join(spans)


def _passes(found: Explanation) -> str:
    masks = len(found.masked)
    heading = ["pass", "cosine to the pass before"]
    heading += [f"mask {i + 1}" if masks > 1 else "[MASK]" for i in range(masks)]
    heading += [escape(label) for label in found.labels]
    lines = ["".join(f"<th>{cell}</th>" for cell in heading)]
    for number, cosine in enumerate(found.cosines):
        cells = [f'<td class="n">{number + 1}</td><td class="n">{cosine:.4f}</td>']
        cells += [f"<td>{_guesses(mask[number])}</td>" for mask in found.masked]
        if found.classes is not None:
            cells += [
                f'<td class="n" style="background: rgba(60, 120, 220, {share * 0.6:.3f})">'
                f"{share:.1%}</td>"
                for share in found.classes[number]
            ]
        lines.append("".join(cells))
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _guesses(row: Sequence[Candidate]) -> str:
    return " ".join(
        '<span class="piece" style="background: rgba(60, 120, 220, '
        f'{guess.probability * 0.6:.3f})">{escape(guess.word)} {guess.probability:.1%}</span>'
        for guess in row
    )
