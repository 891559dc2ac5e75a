"""`albert-jax fill-mask`: the words that a model predicts for [MASK]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional

from albert_jax.commands.options import ModelOptions, check_within
from albert_jax.errors import ConfigError, DataError

if TYPE_CHECKING:
    from albert_jax.inference.fill_mask import Candidate
    from albert_jax.model_io.model import Model


@dataclass(frozen=True, kw_only=True)
class FillMask(ModelOptions):
    """Predict the words behind [MASK].

    Without texts: three fixed sentences of the documentation that the default corpus holds out.
    """

    texts: Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="TEXT")]] = ()
    """Texts, each with one [MASK] or more."""
    top_k: int | None = None
    """Predictions per mask of the texts; the default is 5."""

    def run(self) -> None:
        """Prints each text and its predictions with their probabilities."""
        if self.top_k is not None:
            check_within(1, 1000, top_k=self.top_k)
            if not self.texts:
                raise ConfigError("--top-k is for texts of your own: give one, or leave it out")
        from albert_jax.inference.fill_mask import fill_mask

        model = self.load()
        if self.texts:
            print(table(self.texts, fill_mask(model, self.texts, top_k=self.top_k or 5)))
        else:
            print(held_out_table(model))


def table(texts: Sequence[str], predictions: Sequence[Sequence[Sequence[Candidate]]]) -> str:
    """The predictions for each mask of each text as lines."""
    lines = []
    for text, masks in zip(texts, predictions, strict=True):
        lines.append(text)
        for number, candidates in enumerate(masks, start=1):
            if len(masks) > 1:
                lines.append(f"  mask {number}")
            lines += [f"  {c.probability:7.2%}  {c.word}" for c in candidates]
    return "\n".join(lines)


def held_out_table(model: Model) -> str:
    """The held-out sentences, five predictions each, and how often the true word is among them."""
    from albert_jax.data.sources.python_docs import HELD_OUT_SENTENCES
    from albert_jax.inference.fill_mask import fill_mask

    try:
        predictions = fill_mask(model, [sentence.text for sentence in HELD_OUT_SENTENCES])
    except DataError as error:  # A model of another language, or of very short rows.
        raise ConfigError("this model cannot read the fixed sentences: give a text") from error
    lines, hits = [], 0
    for sentence, masks in zip(HELD_OUT_SENTENCES, predictions, strict=True):
        words = [candidate.word for candidate in masks[0]]
        verdict = "not among five"
        if sentence.word in words:
            hits += 1
            verdict = f"number {words.index(sentence.word) + 1} of five"
        lines.append(table([sentence.text], [masks]))
        lines.append(f"  true word: {sentence.word} ({sentence.source}), {verdict}")
    lines.append(f"true word among five: {hits} of {len(HELD_OUT_SENTENCES)}")
    return "\n".join(lines)
