"""An explanation drawn: attention as a picture, and everything as one HTML file.

The page loads nothing: its picture is inside it, it has no script, and its policy says so.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Sequence
from html import escape

import numpy as np

from albert_jax.inference.explain import Explanation
from albert_jax.inference.fill_mask import Candidate

LABELED = 40
"""Longest row whose tokens are written beside a picture with several panels."""

_STYLE = """
body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222; }
table { border-collapse: collapse; }
td, th { padding: .2em .6em; border: 1px solid #ddd; text-align: left; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
span.token { padding: .1em .25em; margin: .1em; border-radius: .2em; display: inline-block; }
img { max-width: 100%; }
"""


def page(explanation: Explanation, picture: bytes) -> str:
    """HTML with a table of the layers, the attributions and the picture of attention."""
    parts = [f"<h1>{escape(explanation.text)}</h1><p>{escape(explanation.source)}</p>"]
    if explanation.attribution is not None:
        label = escape(explanation.labels[explanation.attribution.label])
        parts.append(
            f"<h2>Contributions to <em>{label}</em></h2><p>{_attributions(explanation)}</p>"
            "<p>Blue tokens speak for the label, red ones against it (integrated gradients): "
            f"{escape(str(explanation.attribution))}.</p>"
        )
    parts.append(f"<h2>Layer by layer</h2>{_layers(explanation)}")
    parts.append(
        "<h2>Attention</h2><p>Rows of panels are layers, columns are heads. In a panel each row "
        "is a token that attends, each column a token that is attended to.</p>"
        f'<img alt="attention of every head in every layer" src="{data_url(picture)}">'
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{escape(explanation.text)}</title><style>{_STYLE}</style></head><body>"
        + "\n".join(parts)
        + "</body></html>\n"
    )


def data_url(picture: bytes) -> str:
    """A PNG as the source of an image, so that a page loads nothing."""
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def attention_png(tokens: Sequence[str], attention: np.ndarray) -> bytes:
    """Draws attention [L, N, S, S] as panels, layers down and heads across.

    Darkness is the square root of a share, so that small shares are visible. A single panel is
    drawn large, without names of layer and head.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    num_layers, heads, size, _ = attention.shape
    single = num_layers == heads == 1
    edge = max(2.4, 0.18 * size) if single else min(2.4, max(1.2, 0.09 * size))
    width, height = edge * heads + 1.2, edge * num_layers + 1.2
    figure = Figure(figsize=(width, height), dpi=100)
    FigureCanvasAgg(figure)
    panels = figure.subplots(num_layers, heads, squeeze=False)
    # An inch for the names at the left and below; a layout that measures them takes far longer.
    figure.subplots_adjust(1.1 / width, 1.1 / height, 1 - 0.1 / width, 1 - 0.1 / height, 0.05, 0.05)
    ticks = range(size) if single or size <= LABELED else range(0)
    # A token may be a dollar sign, which would begin a formula.
    names = {"labels": [tokens[i] for i in ticks], "parse_math": False}
    names["fontsize"] = 9 if single else 5
    for layer in range(num_layers):
        for head in range(heads):
            axes = panels[layer, head]
            axes.imshow(np.sqrt(attention[layer, head]), cmap="Blues", vmin=0, vmax=1)
            axes.set_xticks([])
            axes.set_yticks([])
            if layer == num_layers - 1:
                axes.set_xticks(ticks, rotation=90, **names)
                axes.set_xlabel("" if single else f"head {head + 1}", fontsize=7)
            if head == 0:
                axes.set_yticks(ticks, **names)
                axes.set_ylabel("" if single else f"layer {layer + 1}", fontsize=7)
    data = io.BytesIO()
    with warnings.catch_warnings():
        # A glyph that the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


def _attributions(explanation: Explanation) -> str:
    assert explanation.attribution is not None
    values = explanation.attribution.values
    largest = max(float(np.abs(values).max()), 1e-12)
    spans = []
    for token, value in zip(explanation.tokens, values, strict=True):
        color = "60, 120, 220" if value > 0 else "220, 70, 60"
        spans.append(_span(f"rgba({color}, {abs(value) / largest:.3f})", token, f"{value:+.4f}"))
    return " ".join(spans)


def mask_names(explanation: Explanation) -> list[str]:
    """Headings of the columns of masks."""
    masks = len(explanation.masked)
    return ["[MASK]"] if masks == 1 else [f"mask {i + 1}" for i in range(masks)]


def _layers(explanation: Explanation) -> str:
    heading = ["layer", "cosine to the layer before", *mask_names(explanation)]
    heading += [escape(label) for label in explanation.labels]
    rows = ["".join(f"<th>{cell}</th>" for cell in heading)]
    for layer, cosine in enumerate(explanation.cosines):
        cells = [f'<td class="n">{layer + 1}</td><td class="n">{cosine:.4f}</td>']
        cells += [f"<td>{_candidates(mask[layer])}</td>" for mask in explanation.masked]
        if explanation.classes is not None:
            cells += [
                f'<td class="n" style="background: {_blue(probability)}">{probability:.1%}</td>'
                for probability in explanation.classes[layer]
            ]
        rows.append("".join(cells))
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def _candidates(candidates: Sequence[Candidate]) -> str:
    return " ".join(
        _span(_blue(c.probability), f"{c.word} {c.probability:.1%}") for c in candidates
    )


def _blue(probability: float) -> str:
    return f"rgba(60, 120, 220, {probability * 0.6:.3f})"


def _span(background: str, text: str, title: str = "") -> str:
    return (
        f'<span class="token" title="{title}" style="background: {background}">'
        f"{escape(text)}</span>"
    )
