"""`albert-jax tokenizer train`: the command that learns a vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from albert_jax.commands.data import ReadingOptions
from albert_jax.commands.options import Directory, log


@dataclass(frozen=True, kw_only=True)
class TokenizerTrain(ReadingOptions):
    """Learn a vocabulary from text."""

    vocab_size: int
    """Most tokens, the special ones included; a small text supports fewer."""
    out: Directory
    """Directory to make."""
    kind: Literal["sentencepiece", "characters", "wordpiece"] = "sentencepiece"
    """SentencePiece, or a vocab.txt of characters (Chinese) or of pieces of words."""
    lower_case: bool = True
    """Treat upper and lower case as the same."""
    keep_accents: bool = False
    """Keep the accents of letters."""
    keep_width: bool = False
    """Keep full-width punctuation different from ASCII, with --keep-accents True."""
    sample_bytes: int = 4_000_000
    """Bytes of text that the trainer sees."""
    seed: int = 0
    """Seed of the sample of documents."""

    def run(self) -> None:
        """Writes the directory; progress goes to stderr."""
        from albert_jax.data.vocabularies.training import TrainingOptions, train

        options = TrainingOptions(
            vocab_size=self.vocab_size,
            seed=self.seed,
            kind=self.kind,
            lower_case=self.lower_case,
            keep_accents=self.keep_accents,
            keep_width=self.keep_width,
            sample_bytes=self.sample_bytes,
            reading=self.reading(),
            sentences=self.sentences,
            language=self.language,
        )
        train(self.text, self.out, options, log)
