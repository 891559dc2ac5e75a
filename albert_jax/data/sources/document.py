"""Common types of all sources: parts that are read alone, documents, and counts of bad text."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Part:
    """A range of one source that can be read alone, by any process."""

    kind: str
    """Kind of the source ("text", "jsonl", ...), which selects the reader."""
    path: str
    begin: int
    """The first byte, record or row group."""
    end: int
    """One after the last, or -1 for the end of the source."""
    weight: int
    """Approximate size in bytes."""
    state: tuple[int, int] = (0, 0)
    """Size and modification time of a local file when the part was planned."""

    def identity(self) -> str:
        """A name that differs if the source's size has changed."""
        if self.kind == "python-docs":
            return f"{self.path} {platform.python_version()}"
        return f"{self.path} {self.begin}:{self.end} {self.state[0] or self.weight}"


def record_parts(
    kind: str, path: str, count: int, num_bytes: int, max_records: int, max_bytes: int = sys.maxsize
) -> list[Part]:
    """Divides a source of `count` records into parts of neither too many records nor bytes."""
    size = max(1, num_bytes // max(count, 1))
    step = max(1, min(max_records, max_bytes // size))
    ranges = [(begin, min(begin + step, count)) for begin in range(0, count, step)]
    return [Part(kind, path, begin, end, (end - begin) * size) for begin, end in ranges]


@dataclass(frozen=True, slots=True)
class Document:
    """The unit of reading, of deduplication and of the held-out split."""

    id: str
    """Origin of the document, for messages."""
    text: str
    """Paragraphs or sentences, one per line. Empty if there are ids."""
    group: str = ""
    """Documents of one group are held out together. If empty, the document is its own group."""
    ids: np.ndarray | None = None
    """Token ids [tokens] of a document that came without text."""
    lengths: np.ndarray | None = None
    """Tokens of each sentence [sentences] of such a document."""
    word_starts: np.ndarray | None = None
    """bool [tokens]: True if a word of such a document begins at the token, if that is known."""
    labels: np.ndarray | None = None
    """Label of each token [tokens] of such a document, if it has labels."""

    def content(self) -> bytes:
        """The bytes that two copies of a document have in common."""
        if self.ids is not None:
            columns = (self.ids, self.word_starts, self.labels)
            return b"".join(np.asarray(c, "<i8").tobytes() for c in columns if c is not None)
        return self.text.encode("utf-8", "surrogatepass")


@dataclass
class ReadCounts:
    """Counts of the text that a reader left out or cut."""

    bad_lines: int = 0
    """Lines left out because of invalid UTF-8 or control characters."""
    cut_lines: int = 0
    """Cuts in lines that were too long."""
    cut_documents: int = 0
    """Cuts in documents that were too long."""
