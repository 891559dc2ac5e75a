"""Words of text whose tokens do not show them: Chinese, whose WordPiece tokens are characters.

Words are found by jieba (extra "zh"), or are those between the spaces of a file that is segmented
already. They only tell where words begin; the ids are the same without them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import metadata
from typing import Any, Literal

import numpy as np

from albert_jax.data.corpus.columns import Encoded
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.data.vocabularies.wordpiece import WordPiece
from albert_jax.errors import ConfigError

Words = Literal["none", "jieba", "spaces"]


def check(words: Words, vocab: Vocabulary, *, phonemes: bool) -> None:
    """Raises ConfigError if words cannot be found, or the tokens are not those of WordPiece."""
    if words != "none" and not phonemes and not isinstance(vocab, WordPiece):
        raise ConfigError(
            f"--words {words} needs a WordPiece vocabulary: make one with "
            "`albert-jax tokenizer train --kind characters`"
        )
    description(words)


def description(words: Words) -> str:
    """The name and version of the segmenter; equal descriptions give equal words."""
    if words != "jieba":
        return words
    try:
        return f"jieba {metadata.version('jieba')}"
    except metadata.PackageNotFoundError as error:
        raise ConfigError(
            "--words jieba needs jieba: pip install -e '.[zh]' in the checkout, or separate the "
            "words by spaces and give --words spaces"
        ) from error


def segmenter(words: Words) -> Callable[[str], Iterator[str]]:
    """A function that cuts a text into its words, which together are the text."""
    return _jieba() if words == "jieba" else _between_spaces


def encode(texts: Sequence[str], counts: np.ndarray, words: Words, vocab: WordPiece) -> Encoded:
    """The tokens of sentences, of which each document has `counts`, with the starts of words.

    A token starts a word if it begins in another word than the token before it. A token "##..."
    never does, because it continues a run of letters or digits.
    """
    ids, lengths, begins = vocab.encode_with_offsets(texts)
    ends = np.cumsum(lengths)
    starts = vocab.starts_word[ids]
    find = segmenter(words)
    for text, begin, end in zip(texts, ends - lengths, ends, strict=True):
        word = np.searchsorted(np.cumsum(list(map(len, find(text)))), begins[begin:end], "right")
        starts[begin + 1 : end] &= word[1:] != word[:-1]
        starts[begin : min(begin + 1, end)] = True
    return Encoded(ids, lengths, counts, starts)


def _between_spaces(text: str) -> Iterator[str]:
    """Parts that make up the text: each word with the white space after it."""
    begin, inside = 0, True
    for place, character in enumerate(text):
        if not character.isspace() and not inside:
            yield text[begin:place]
            begin = place
        inside = not character.isspace()
    yield text[begin:]


@cache
def _jieba() -> Callable[[str], Iterator[str]]:
    """jieba's function that cuts a text into words, which together are the text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It was written for older Pythons.
        import jieba  # pyright: ignore[reportMissingImports]
    tokenizer: Any = jieba.Tokenizer()
    # Its own way to initialize reads and writes a cache in the machine's folder of temporary files,
    # where anybody may have put another one.
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    return tokenizer.cut
