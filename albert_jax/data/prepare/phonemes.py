"""Front ends of speech: text to phonemes, each with the word that it belongs to.

`EspeakReader` speaks text with espeak-ng, clause by clause, so that a word sounds as it does among
its neighbors. `FileReader` takes phonemes that another front end has made: lines of a sentence, a
tab, and its phonemes, with as many words as phonemic words. Rows hold the symbols of a table, a
space between words.
"""

from __future__ import annotations

import importlib
import itertools
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from albert_jax.data.corpus.columns import Encoded
from albert_jax.data.prepare import spoken_words
from albert_jax.data.prepare.plan import PrepareOptions
from albert_jax.data.prepare.spoken_words import WordOrMark, label_of
from albert_jax.data.prepare.word_segmentation import segmenter
from albert_jax.data.sources.document import Document
from albert_jax.data.sources.sentences import sentences
from albert_jax.data.vocabularies.symbols import MASK, PAD, SEPARATOR, Symbols
from albert_jax.errors import ConfigError, DataError, nearest

FILE = "file"
"""The value of --phonemes for text that comes with its phonemes."""
UNKNOWN = "<unk>"
UNKNOWN_LABEL, SEPARATOR_LABEL = range(2)
"""The label of words outside the vocabulary of words, and that of the space between two."""
MAX_LACKING = 1000
"""One in so many symbols, and three more, may be missing in the table; they are left out."""
_CACHED_WORDS = 1 << 17


class Reader(Protocol):
    """Finds the words of documents, and their phonemes."""

    def sentences(self, document: Document) -> list[list[WordOrMark]]:
        """The units of each sentence, perhaps without their phonemes."""
        ...

    def spoken(self, units: Sequence[WordOrMark]) -> list[str]:
        """The phonemes of each unit of a sentence."""
        ...


def reader(options: PrepareOptions, vocabulary: Symbols) -> Reader:
    """The reader for the phonemes of some options. Raises ConfigError."""
    marks = frozenset(s for s in vocabulary.table if spoken_words.is_mark(s))
    return FileReader(marks) if options.phonemes == FILE else EspeakReader(options, marks)


def description(phonemes: str) -> str:
    """Front end and language; equal descriptions give equal phonemes. Raises ConfigError."""
    if phonemes == FILE:
        return FILE
    return f"espeak-ng {'.'.join(map(str, _espeak(phonemes).version))} {phonemes}"


class EspeakReader:
    """Text in a language that espeak-ng speaks."""

    def __init__(self, options: PrepareOptions, marks: frozenset[str]) -> None:
        self._espeak, self._marks = _espeak(options.phonemes), marks
        self._options = options
        self._cut = iter if options.words == "none" else segmenter(options.words)
        self._alone: dict[str, str] = {}

    def sentences(self, document: Document) -> list[list[WordOrMark]]:
        """The words and marks of the sentences of a text."""
        texts = sentences(document.text, self._options.sentences, self._options.language)
        return [spoken_words.units(text, self._marks, self._cut) for text in texts]

    def spoken(self, units: Sequence[WordOrMark]) -> list[str]:
        """Speaks clause by clause."""
        found: list[str] = []
        for _, group in itertools.groupby(units, key=lambda unit: unit.clause):
            clause = list(group)
            words = [unit.word for unit in clause if unit.spoken is None]
            parts = iter(())
            if words:
                parts = iter(
                    spoken_words.align_phonemes(words, self._say(" ".join(words)), self._say_alone)
                )
            found += [next(parts) if unit.spoken is None else unit.spoken for unit in clause]
        return found

    def _say(self, text: str) -> str:
        # Phonemes come with "_" between them, and names of languages in parentheses.
        phonemes = self._espeak.text_to_phonemes(text).replace("_", "")
        while (begin := phonemes.find("(")) >= 0 and (end := phonemes.find(")", begin)) >= 0:
            phonemes = phonemes[:begin] + phonemes[end + 1 :]
        return phonemes

    def _say_alone(self, word: str) -> str:
        if word not in self._alone:
            if len(self._alone) >= _CACHED_WORDS:
                self._alone.clear()
            self._alone[word] = self._say(word)
        return self._alone[word]


class FileReader:
    """Lines with a sentence, a tab, and its phonemes."""

    def __init__(self, marks: frozenset[str]) -> None:
        self._marks = marks

    def sentences(self, document: Document) -> list[list[WordOrMark]]:
        """The words and phonemes of each line. Raises DataError for a line of another form."""
        return [self._units(line, document) for line in document.text.split("\n") if line.strip()]

    def spoken(self, units: Sequence[WordOrMark]) -> list[str]:
        """The phonemes that stood in the file."""
        return [unit.spoken or "" for unit in units]

    def _units(self, line: str, document: Document) -> list[WordOrMark]:
        text, _, spoken = line.partition("\t")
        words, sounds = text.split(), spoken.split()
        if len(words) != len(sounds):
            raise DataError(
                f"{_place(document, line)}: {len(words)} words, but {len(sounds)} phonemic words, "
                f"in {line[:60]!r}: write a sentence, a tab, and its phonemes with a space between "
                "two words wherever the sentence has one"
            )
        found: list[WordOrMark] = []
        for word, sound in zip(words, sounds, strict=True):
            inner = spoken_words.without_marks(sound)
            before, _, after = sound.partition(inner) if inner else (sound, "", "")
            spaced = bool(found)
            for name, part in (
                *self._known_marks(before),
                (spoken_words.without_marks(word) or word, inner),
                *self._known_marks(after),
            ):
                if part:
                    found.append(WordOrMark(name, part, spaced, 0))
                    spaced = False
        return found

    def _known_marks(self, text: str) -> list[tuple[str, str]]:
        marks = (spoken_words.known_mark(mark, self._marks) for mark in text)
        return [(mark, mark) for mark in marks if mark]


class PhonemesFrontEnd:
    """Documents as symbols with the beginnings of words, and the word of each symbol.

    Its reader finds the words; `labels` are the words by number.
    """

    def __init__(self, reader: Reader, vocabulary: Symbols, labels: Sequence[str]) -> None:
        self._reader, self._vocabulary = reader, vocabulary
        self._label_of = {word: number for number, word in enumerate(labels)}
        self._ids = np.full(0x110000, -1, np.int32)
        for symbol, id in vocabulary.table.items():
            if id not in (vocabulary.pad_id, vocabulary.mask_id):
                self._ids[ord(symbol)] = id
        self.lacking: Counter[str] = Counter()  # As `front_ends.FrontEnd` has it
        self._symbols = 0

    def encode(self, documents: Sequence[Document]) -> Encoded:
        """The symbols of documents, and of each its word.

        Raises DataError for more symbols than a few that the table lacks.
        """
        pieces: list[str] = []
        words: list[str] = []
        ends: list[int] = []  # Pieces through each sentence
        counts: list[int] = []
        for document in documents:
            found = self._reader.sentences(document)
            counts.append(len(found))
            for number, units in enumerate(found):
                for unit, spoken in zip(units, self._reader.spoken(units), strict=True):
                    if spoken:
                        pieces += [SEPARATOR, spoken] if unit.spaced else [spoken]
                        words += [SEPARATOR, unit.word] if unit.spaced else [unit.word]
                if units and number < len(found) - 1:
                    pieces.append(SEPARATOR)
                    words.append(SEPARATOR)
                ends.append(len(pieces))
        text = "".join(pieces)
        ids = self._ids[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)]
        piece = np.repeat(np.arange(len(pieces)), list(map(len, pieces)))
        missing = np.flatnonzero(ids < 0)
        self._symbols += len(ids)
        self.lacking.update(text[i] for i in missing.tolist())
        if self.lacking.total() > 3 + self._symbols / MAX_LACKING:
            first = int(piece[missing[0]])
            word = f"in {words[first]!r}, spoken {pieces[first]!r}"
            raise self._lacks(documents[0].id, text[missing[0]], word)
        kept = ids >= 0
        ids, piece = ids[kept], piece[kept]
        separators = ids == self._vocabulary.separator_id
        labels = [self._label_of.get(label_of(word), UNKNOWN_LABEL) for word in words]
        return Encoded(
            ids,
            np.diff(np.searchsorted(piece, ends), prepend=0),
            np.array(counts),
            word_starts=(np.diff(piece, prepend=-1) != 0) & ~separators,
            # A space may also stand inside of what is written as one word.
            labels=np.where(separators, SEPARATOR_LABEL, np.array(labels, np.int64)[piece]),
        )

    def _lacks(self, where: str, symbol: str, word: str) -> DataError:
        """The error for symbols that the table lacks."""
        new = "".join(symbol for symbol, _ in self.lacking.most_common())
        advice = f"--tokenizer {shlex.quote(f'TABLE+{new}')} adds them to one"
        if PAD in new or MASK in new:
            advice = f"{PAD} is padding and {MASK} the mask there: write other symbols for them"
        return DataError(
            f"near {where}: the table lacks {self.lacking.total():,} of {self._symbols:,} symbols, "
            f"the first one {symbol!r} (U+{ord(symbol):04X}) {word}: give a table that has them; "
            f"{advice}"
        )


@lru_cache(maxsize=2)
def _espeak(voice: str) -> Any:
    """The library of espeak-ng, speaking a language. Raises ConfigError."""
    try:
        wrapper = importlib.import_module("phonemizer.backend.espeak.wrapper").EspeakWrapper
        loader = importlib.import_module("espeakng_loader")
    except ImportError as error:
        raise ConfigError(
            f"--phonemes {voice} needs phonemizer and espeakng-loader: pip install -e '.[speech]' "
            "in the checkout, or give text with its phonemes and --phonemes file"
        ) from error
    if "PHONEMIZER_ESPEAK_LIBRARY" not in os.environ:
        wrapper.set_library(loader.get_library_path())
        wrapper.set_data_path(loader.get_data_path())
    espeak = wrapper()
    known = {v.language for v in espeak.available_voices()}
    if voice not in known:
        raise ConfigError(
            f"--phonemes {voice}: espeak-ng does not know this language{nearest(voice, known)}"
        )
    espeak.set_voice(voice)
    return espeak


def _place(document: Document, line: str) -> str:
    """The line of a plain text file that holds a line of a document, or else the document."""
    path = document.id.rpartition("@")[0]
    if os.path.isfile(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            for number, found in enumerate(file, 1):
                if found.rstrip("\r\n") == line:
                    return f"{path}, line {number}"
    return document.id
