"""`albert-jax tokenizer train`: the verb that learns a vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

from albert_jax.commands.data import TextOptions, log
from albert_jax.commands.options import Directory


@dataclass(frozen=True, kw_only=True)
class TokenizerTrain(TextOptions):
    """Learn a SentencePiece vocabulary from text."""

    vocab_size: int
    """Number of tokens, the special ones included."""
    out: Directory
    """Directory to make."""
    lower_case: bool = True
    """Whether upper and lower case are the same."""
    keep_accents: bool = False
    """Whether letters keep their accents."""
    sample_bytes: int = 4_000_000
    """How much of the text the trainer sees."""
    seed: int = 0
    """Decides which documents are sampled."""

    def run(self) -> None:
        """Writes the directory; progress goes to stderr."""
        from albert_jax.data.vocabularies.training import TrainingOptions, train

        options = TrainingOptions(
            vocab_size=self.vocab_size,
            seed=self.seed,
            lower_case=self.lower_case,
            keep_accents=self.keep_accents,
            sample_bytes=self.sample_bytes,
            reading=self.reading(),
            rule=self.rule,
            language=self.language,
        )
        train(self.text, self.out, options, log)
