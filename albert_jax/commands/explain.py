"""`albert-jax explain`: the attention, predictions and attributions of a model for a text."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import Positional

from albert_jax.commands.options import DepthOptions, Directory, check_within
from albert_jax.observe.console import terminal_width

if TYPE_CHECKING:
    from albert_jax.inference.explain import Explanation


@dataclass(frozen=True, kw_only=True)
class Explain(DepthOptions):
    """Show what a model does with a text: attention of every head in every layer, the words
    behind [MASK] and the label after each layer, and for a classifier the contribution of each
    word to its label.
    """

    text: Positional[Annotated[str, tyro.conf.arg(metavar="TEXT")]]
    """A text, or two with a tab between; [MASK] for a word that is to be predicted."""
    out: Directory
    """Folder to make, with explain.html; it must not exist."""
    top_k: int = 3
    """Predictions per mask."""

    def run(self) -> None:
        """Prints a table and writes the folder: explain.html with everything drawn, and the
        numbers as explain.json and attention.npy."""
        check_within(1, 100, top_k=self.top_k)
        import numpy as np

        from albert_jax.files import new_folder, write_files
        from albert_jax.inference import explain, explain_page
        from albert_jax.json_files import json_bytes

        model = self.load()
        explanation = explain.explain(
            model, self.text, num_layers=self.num_layers, top_k=self.top_k
        )
        attention = io.BytesIO()
        np.save(attention, explanation.attention, allow_pickle=False)
        contents = {
            "explain.html": explain_page.page(explanation).encode(),
            "explain.json": json_bytes(as_json(explanation)),
            "attention.npy": attention.getvalue(),
        }
        with new_folder(self.out) as folder:
            write_files(folder, contents)
        print(table(explanation))
        print(f"{self.out}/explain.html shows it")


def table(explanation: Explanation) -> str:
    """The layers as lines of text, and the contributions of the words."""
    from albert_jax.inference.explain_page import mask_names

    rows = [["layer  cosine to the layer before", *mask_names(explanation)]]
    rows[0] += ["label"] if explanation.classes is not None else []
    for layer, cosine in enumerate(explanation.cosines):
        cells = [f"{layer + 1:5}  {cosine:.4f}"]
        cells += [
            "  ".join(f"{c.word} {c.probability:.1%}" for c in mask[layer])
            for mask in explanation.masked
        ]
        if explanation.classes is not None:
            best = int(explanation.classes[layer].argmax())
            cells.append(f"{explanation.labels[best]} {explanation.classes[layer, best]:.1%}")
        rows.append(cells)
    widths = [max(map(terminal_width, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell + " " * (width - terminal_width(cell))
            for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
    attribution = explanation.attribution
    if attribution is not None:
        label = explanation.labels[attribution.label]
        lines.append(f"contributions to {label} in points of probability, and in logits:")
        for word in explanation.words:
            tokens = slice(word.first, word.end)
            points = 100 * attribution.in_probability[tokens].sum()
            lines.append(f"  {points:+6.1f}  {attribution.values[tokens].sum():+8.4f}  {word.text}")
        lines += [attribution.in_words(label), str(attribution)]
    return "\n".join(lines)


def as_json(explanation: Explanation) -> dict[str, Any]:
    """Plain JSON of everything but attention."""
    values: dict[str, Any] = {
        "model": explanation.source,
        "text": explanation.text,
        "tokens": list(explanation.tokens),
        "words": [word._asdict() for word in explanation.words],
        "cosines": explanation.cosines.tolist(),
        "masked": [[[c._asdict() for c in row] for row in mask] for mask in explanation.masked],
    }
    if explanation.classes is not None:
        values["labels"] = list(explanation.labels)
        values["probabilities"] = explanation.classes.tolist()
    attribution = explanation.attribution
    if attribution is not None:
        values["attribution"] = attribution._asdict() | {
            "label": explanation.labels[attribution.label],
            "values": attribution.values.tolist(),
            "convergence_delta": attribution.convergence_delta,
            "complete": attribution.complete,
        }
    return values
