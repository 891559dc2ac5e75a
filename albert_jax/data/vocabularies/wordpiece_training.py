"""Learning a WordPiece vocabulary (vocab.txt), of characters alone or of pieces of words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from albert_jax.data.vocabularies.wordpiece import SPECIAL, WordPiece, basic_tokenize
from albert_jax.errors import DataError

Kind = Literal["characters", "wordpiece"]


def train(texts: Sequence[str], kind: Kind, vocab_size: int, *, lower_case: bool) -> WordPiece:
    """A vocabulary of `vocab_size` tokens, the special ones first, or as many as the text supports.

    Characters are the most frequent ones, which stand for themselves inside a word as "##c", as
    letters and digits do; a Chinese character is a word. Raises DataError for pieces of words if
    the text has more characters than the vocabulary tokens.
    """
    words = [basic_tokenize(text, lower_case) for text in texts]
    tokens = _characters(words) if kind == "characters" else _pieces(words, vocab_size)
    if kind == "wordpiece" and len(tokens) > vocab_size - len(SPECIAL):
        raise DataError(
            f"vocabulary size {vocab_size} is less than the characters of the text: give at least "
            f"{len(tokens) + len(SPECIAL)}, or --kind characters, which leaves rare ones out"
        )
    lines = [*SPECIAL, *tokens[: vocab_size - len(SPECIAL)]]
    return WordPiece(("\n".join(lines) + "\n").encode(), lower_case=lower_case)


def _characters(texts: Sequence[str]) -> list[str]:
    """The characters of some cleaned texts, the most frequent first."""
    words = Counter(word for text in texts for word in text.split())
    counts: Counter[str] = Counter()
    for word, count in words.items():
        counts[word[0]] += count
        for character in word[1:]:
            counts[f"##{character}"] += count
    return sorted(counts, key=lambda token: (-counts[token], token))


def _pieces(texts: Sequence[str], vocab_size: int) -> list[str]:
    """The tokens that the trainer of the tokenizers library learns, in its order."""
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # The trainer would number the characters inside words differently on each run, and it breaks
    # ties by number. As special tokens they have fixed numbers.
    inner = sorted({f"##{c}" for text in texts for word in set(text.split()) for c in word[1:]})
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL, *inner],
        continuing_subword_prefix="##",
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    ids = tokenizer.get_vocab()
    return sorted(ids.keys() - set(SPECIAL), key=lambda token: ids[token])
