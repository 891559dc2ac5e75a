"""Front ends: what turns documents into tokens, with the columns that it knows of them.

A `FrontEnd` stands between documents and shards. Which one a preparation uses, and which columns
its documents have, is decided before the first document is read.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from albert_jax import files
from albert_jax.data.corpus.columns import LABELS, Columns, Encoded, read_labels
from albert_jax.data.prepare import phonemes, word_segmentation
from albert_jax.data.prepare.phonemes import PhonemesFrontEnd
from albert_jax.data.prepare.plan import Plan
from albert_jax.data.sources.document import Document
from albert_jax.data.sources.sentences import sentences
from albert_jax.data.vocabularies.symbols import Symbols
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.data.vocabularies.wordpiece import WordPiece
from albert_jax.errors import ConfigError, DataError


class FrontEnd(Protocol):
    """A front end. It knows the options of its plan."""

    @property
    def lacking(self) -> Mapping[str, int]:
        """Symbols that the vocabulary lacks and that were left out, with their number.

        There are none where the vocabulary has an unknown token.
        """
        return {}

    def encode(self, documents: Sequence[Document]) -> Encoded:
        """The tokens of some documents, with the columns of the plan."""
        ...


def front_end(plan: Plan, kind: str, vocab: Vocabulary) -> FrontEnd:
    """The front end for the parts of this kind (`Part.kind`)."""
    if kind == "ids":
        return IdsFrontEnd(columns(plan), vocab)
    if plan.options.phonemes:
        labels = read_labels(files.join(plan.out_dir, LABELS))
        return PhonemesFrontEnd(reader(plan, vocab), require_symbols(vocab), labels)
    if plan.options.words != "none" and isinstance(vocab, WordPiece):
        return WordsFrontEnd(plan, vocab)
    return TextFrontEnd(plan, vocab)


def reader(plan: Plan, vocab: Vocabulary) -> phonemes.Reader:
    """The reader of a plan with phonemes, which finds the words of its text. Raises ConfigError."""
    return phonemes.reader(plan.options, require_symbols(vocab))


def require_symbols(vocab: Vocabulary) -> Symbols:
    """The vocabulary of phonemes. Raises ConfigError for one of another kind."""
    if not isinstance(vocab, Symbols):
        raise ConfigError("phonemes need a table of symbols: give --tokenizer plbert or a file")
    return vocab


def columns(plan: Plan) -> Columns:
    """The columns that all documents of a plan have, once its file of labels is written."""
    labels = files.join(plan.out_dir, LABELS)
    return Columns(
        word_starts="word_starts" in plan.columns,
        num_labels=len(read_labels(labels)) if "labels" in plan.columns else 0,
    )


def split(plan: Plan, documents: Sequence[Document]) -> tuple[list[str], np.ndarray]:
    """The sentences of some documents as the plan finds them, and their number in each."""
    rule, language = plan.options.sentences, plan.options.language
    texts = [sentences(document.text, rule, language) for document in documents]
    return list(itertools.chain.from_iterable(texts)), np.array(list(map(len, texts)))


class TextFrontEnd(FrontEnd):
    """Text by the vocabulary alone."""

    def __init__(self, plan: Plan, vocab: Vocabulary) -> None:
        self.plan, self.vocab = plan, vocab

    def encode(self, documents: Sequence[Document]) -> Encoded:
        """The tokens of documents that have text."""
        texts, counts = split(self.plan, documents)
        return Encoded(*self.vocab.encode_flat(texts), counts)


class WordsFrontEnd(FrontEnd):
    """Text by a WordPiece vocabulary, with the words that its tokens do not show."""

    def __init__(self, plan: Plan, vocab: WordPiece) -> None:
        self.plan, self.vocab = plan, vocab

    def encode(self, documents: Sequence[Document]) -> Encoded:
        """The tokens of documents that have text, and where their words begin."""
        texts, counts = split(self.plan, documents)
        return word_segmentation.encode(texts, counts, self.plan.options.words, self.vocab)


class IdsFrontEnd(FrontEnd):
    """Token ids that came without text, with the columns that came with them."""

    def __init__(self, columns: Columns, vocab: Vocabulary) -> None:
        self.columns, self.vocab = columns, vocab

    def encode(self, documents: Sequence[Document]) -> Encoded:
        """The tokens of documents that have ids, without the padding at their ends.

        Raises DataError for special ids inside a document, which only the model adds and masks, and
        for an id or label outside its vocabulary.
        """
        parts = [self._stripped(document) for document in documents]
        arrays = zip(*parts, strict=True)
        joined = [None if array[0] is None else np.concatenate(array) for array in arrays]
        return Encoded(*joined)  # pyright: ignore[reportArgumentType]

    def _stripped(self, document: Document) -> Encoded:
        ids, lengths, vocab = document.ids, document.lengths, self.vocab
        assert ids is not None and lengths is not None
        text = np.flatnonzero(ids != vocab.pad_id)
        count = int(text[-1]) + 1 if len(text) else 0
        special = (vocab.pad_id, vocab.cls_id, vocab.sep_id, vocab.mask_id)
        outside = np.flatnonzero((ids < 0) | (ids >= vocab.size))
        if len(outside):
            raise DataError(
                f"{document.id}: id {int(ids[outside[0]])} at position {int(outside[0])} is "
                f"outside the {vocab.size} of the vocabulary: fix it or --vocab-size"
            )
        inside = np.flatnonzero(np.isin(ids[:count], special))
        if len(inside):
            raise DataError(
                f"{document.id}: holds the special id {int(ids[inside[0]])} at position "
                f"{int(inside[0])}: leave special ids out; padding may stand at the end only"
            )
        lengths = np.diff(np.minimum(np.cumsum(lengths), count), prepend=0)
        lengths = lengths[lengths > 0]
        starts, labels = document.word_starts, document.labels
        if labels is not None:
            labels = labels[:count]
            bad = np.flatnonzero((labels < 0) | (labels >= self.columns.num_labels))
            if len(bad):
                raise DataError(
                    f"{document.id}: label {int(labels[bad[0]])} at position {int(bad[0])} is "
                    f"outside the {self.columns.num_labels} words of the file of labels: fix one"
                )
        return Encoded(
            *(ids[:count], lengths, np.array([len(lengths)])),
            word_starts=None if starts is None else starts[:count],
            labels=labels,
        )
