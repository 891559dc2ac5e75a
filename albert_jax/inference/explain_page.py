"""An explanation drawn as one HTML file.

The page loads nothing and has no script, and its policy says so. Attention is a table, so that any
browser finds the fonts for its tokens and shows a number where the pointer is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from albert_jax.inference.explain import Explanation
from albert_jax.inference.fill_mask import Candidate

MAX_CELLS = 100_000
"""Most cells of all tables of attention; of more, the mean of the heads is drawn."""
OPEN_CELLS = 30_000
"""With more cells than this only the last layer is unfolded."""
FAINTEST = 0.01
"""Smaller shares of attention are left blank."""
FULL_COLOR = 0.5
"""Change of a probability that has the full color."""

_STYLE = """
:root { color-scheme: light dark; --line: rgb(128 128 128 / .35); --note: #555;
  --for: 42 111 187; --against: 200 60 45; }
@media (prefers-color-scheme: dark) {
  :root { --note: #aaa; --for: 95 160 240; --against: 235 105 90; } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin-top: 2em; }
p { max-width: 50em; } .note { color: var(--note); font-size: .9rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; } .wide { overflow-x: auto; }
.layers td, .layers th { padding: .2em .6em; border: 1px solid var(--line); text-align: left; }
.layers td { background: rgb(var(--for) / calc(var(--a, 0) * .6)); }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
.words { display: flex; flex-wrap: wrap; gap: .3em; }
.token { padding: .1em .3em; border-radius: .25em; text-align: center; white-space: pre;
  background: rgb(var(--for) / calc(var(--a, 0) * .8)); }
.token.against { background: rgb(var(--against) / calc(var(--a, 0) * .8)); }
.token small { display: block; font-size: .7rem; font-variant-numeric: tabular-nums; }
.scale { display: flex; align-items: center; flex-wrap: wrap; gap: .2em .5em; margin: 1em 0; }
.scale span { white-space: nowrap; }
.scale i { display: inline-block; vertical-align: -.15em; margin-right: .4em; width: 1.6em;
  height: 1.1em; border: 1px solid var(--line);
  background: rgb(var(--for) / var(--a, 0)); }
.scale i.against { background: rgb(var(--against) / var(--a, 0)); }
summary { font-weight: 600; margin: .8em 0 .3em; cursor: pointer; }
.heads { display: flex; flex-wrap: wrap; gap: 1em 2em; }
figure { margin: 0; max-width: 100%; } figcaption { color: var(--note); }
.matrix { border-collapse: separate; border-spacing: 1px; font-size: calc(var(--cell) * .75);
  line-height: 1; }
.matrix tbody td { width: var(--cell); max-width: var(--cell); min-width: var(--cell);
  height: var(--cell); padding: 0;
  background: rgb(var(--for) / var(--a, 0)); box-shadow: inset 0 0 0 1px rgb(128 128 128 / .13); }
.matrix tbody td:hover { outline: 2px solid currentColor; }
.matrix tr:hover th, .matrix th:hover { color: rgb(var(--for)); }
.matrix th { font-weight: normal; white-space: pre; padding: 0 .3em; text-align: right; }
.matrix thead th { vertical-align: bottom; padding: .3em 0; max-width: var(--cell); }
.matrix thead span { writing-mode: vertical-rl; }
"""


def page(explanation: Explanation) -> str:
    """HTML with the contributions of words, a table of the layers, and tables of attention."""
    parts = [f'<h1>{escape(explanation.text)}</h1><p class="note">{escape(explanation.source)}</p>']
    if explanation.attribution is not None:
        parts.append(_contributions(explanation))
    parts.append(f"<h2>Layer by layer</h2>{_layers(explanation)}")
    parts.append(f"<h2>Attention</h2>{_attention(explanation)}")
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(explanation.text)}</title><style>{_STYLE}</style></head><body>"
        + "\n".join(parts)
        + "</body></html>\n"
    )


def mask_names(explanation: Explanation) -> list[str]:
    """Headings of the columns of masks."""
    masks = len(explanation.masked)
    return ["[MASK]"] if masks == 1 else [f"mask {i + 1}" for i in range(masks)]


def _contributions(explanation: Explanation) -> str:
    attribution = explanation.attribution
    assert attribution is not None
    label, points = explanation.labels[attribution.label], attribution.in_probability
    spans = []
    for word in explanation.words:
        share = float(points[word.first : word.end].sum())
        told = " ".join(
            f"{explanation.tokens[i]} {attribution.values[i]:+.4f}"
            for i in range(word.first, word.end)
        )
        kind = "token against" if share < 0 else "token"
        spans.append(
            f'<span class="{kind}" title="{escape(told)}" style="{_shade(share)}">'
            f"{escape(word.text)}<small>{100 * share:+.1f}</small></span>"
        )
    steps = (-0.5, -0.2, -0.05, 0.0, 0.05, 0.2, 0.5)
    swatches = " ".join(
        f'<span><i class="{"against" if step < 0 else "for"}" style="{_shade(step, 0.8)}">'
        f"</i>{100 * step:+.0f}</span>"
        for step in steps
    )
    return (
        f"<h2>What speaks for <em>{escape(label)}</em></h2>"
        f'<div class="words">{"".join(spans)}</div>'
        f"<p>{escape(attribution.in_words(label))}</p>"
        f'<div class="scale note">{swatches} points of probability (blue for the label, red '
        "against it; a color means the same in every text)</div>"
        '<p class="note">By integrated gradients from a row in which every token is [MASK]. Under '
        "a word stands its part in the change of the probability, which may be larger than the "
        "change, because other words take some of it back. The pointer shows the logits of its "
        f"tokens: {escape(str(attribution))}.</p>"
    )


def _shade(share: float, most: float = 1.0) -> str:
    """The strength of a color, by the square root, so that small changes are visible."""
    return f"--a:{most * min(1.0, math.sqrt(abs(share) / FULL_COLOR)):.2f}"


def _layers(explanation: Explanation) -> str:
    heading = ["layer", "cosine to the layer before", *mask_names(explanation)]
    heading += [escape(label) for label in explanation.labels]
    rows = ["".join(f"<th>{cell}</th>" for cell in heading)]
    for layer, cosine in enumerate(explanation.cosines):
        cells = [f'<td class="n">{layer + 1}</td><td class="n">{cosine:.4f}</td>']
        cells += [f"<td>{_candidates(mask[layer])}</td>" for mask in explanation.masked]
        if explanation.classes is not None:
            cells += [
                f'<td class="n" style="--a:{probability:.2f}">{probability:.1%}</td>'
                for probability in explanation.classes[layer]
            ]
        rows.append("".join(cells))
    table = "".join(f"<tr>{row}</tr>" for row in rows)
    guesses = "The other columns show what the model would answer if it ended after that layer. "
    return (
        f'<div class="wide"><table class="layers">{table}</table></div><p class="note">'
        f"{guesses if len(heading) > 2 else ''}The cosine compares the vector of a token after the "
        "layer with its vector before, as a mean over the tokens: at 1 the layer left all "
        "directions as they were, at 0 nothing of them is left. Where it comes close to 1, "
        "further layers change little.</p>"
    )


def _candidates(candidates: Sequence[Candidate]) -> str:
    return " ".join(
        f'<span class="token" style="--a:{c.probability:.2f}">'
        f"{escape(c.word)} {c.probability:.1%}</span>"
        for c in candidates
    )


def _attention(explanation: Explanation) -> str:
    """A table for each head in each layer, or for the mean of the heads of a long text."""
    attention = explanation.attention
    inside = {i for word in explanation.words for i in range(word.first + 1, word.end)}
    names = [
        f"##{token.removeprefix('##')}" if i in inside else token
        for i, token in enumerate(explanation.tokens)
    ]
    note = f"Shares under {FAINTEST:.0%} are left blank."
    if averaged := attention.size > MAX_CELLS:
        attention = attention.mean(axis=1, keepdims=True)
        note += " The text is long, so the mean of the heads is drawn; attention.npy has each head."
    cell = max(0.55, min(1.2, 24 / len(names)))
    parts = [
        "<p>In a table each row is a token that attends, and each column a token that is attended "
        f"to. The shares of a row add up to 100%. {note}</p>",
        '<div class="scale note">'
        + " ".join(
            f'<span><i style="--a:{s**0.5:.2f}"></i>{s:.0%}</span>'
            for s in (0.01, 0.05, 0.2, 0.5, 1.0)
        )
        + " of a row; the pointer shows the number of a cell</div>",
    ]
    for number, layer in enumerate(attention, start=1):
        unfolded = attention.size <= OPEN_CELLS or number == len(attention)
        figures = "".join(
            f"<figure><figcaption>{'mean of the heads' if averaged else f'head {head}'}"
            f"</figcaption>{_matrix(names, shares)}</figure>"
            for head, shares in enumerate(layer, start=1)
        )
        parts.append(
            f"<details{' open' if unfolded else ''}><summary>layer {number}</summary>"
            f'<div class="heads wide" style="--cell:{cell:.2f}rem">{figures}</div></details>'
        )
    return "".join(parts)


def _matrix(names: Sequence[str], shares: np.ndarray) -> str:
    """Attention [S, S] as a table. A color is the square root of a share."""
    safe = [escape(name) for name in names]
    head = "".join(f"<th><span>{name}</span></th>" for name in safe)
    rows = []
    for name, row in zip(safe, shares.tolist(), strict=True):
        cells = "".join(
            f'<td style="--a:{share**0.5:.2f}" title="{name} \u2192 {other} {share:.1%}">'
            if share >= FAINTEST
            else "<td>"
            for other, share in zip(safe, row, strict=True)
        )
        rows.append(f"<tr><th>{name}</th>{cells}</tr>")
    return (
        f'<table class="matrix"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
