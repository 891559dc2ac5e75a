"""Plain text, compressed or not, to clean documents: a stream of bounded memory.

Line ends are \\n, \\r\\n, \\r, U+0085, U+2028 and U+2029 alike; a byte order mark at the beginning
is dropped; a line of nothing but white space is blank. Anything else that is not UTF-8, and NUL
and the other C0 control bytes, is bad text: an error with file and byte offset, or lines that
are left out and counted.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Literal

from albert_jax import files
from albert_jax.data.sources.document import Document
from albert_jax.errors import DataError

Format = Literal["paragraphs", "lines", "file"]
"""Where documents end: at blank lines, at every line, or at the end of the file."""

MAX_LINE = 1 << 20
"""Bytes; longer lines are cut at white space, counted, and told once."""
MAX_DOCUMENT = 1 << 18
"""Characters; longer documents go on as further documents at the next line."""
MAX_RECORD = 64 << 20
"""Bytes; longer JSON lines are refused."""
_BLOCK = 1 << 20

_OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_KINDS = {
    b"\x1f\x8b": "gzip data: name it *.gz",
    b"BZh": "bzip2 data: name it *.bz2",
    b"\xfd7zXZ": "xz data: name it *.xz",
    b"PK\x03\x04": "a zip archive: unpack it",
    b"\x28\xb5\x2f\xfd": "zstandard data: unpack it",
    b"PAR1": "Parquet: name it *.parquet",
    b"%PDF": "a PDF: give its text",
    b"\xff\xfe": "UTF-16 text: convert it to UTF-8",
    b"\xfe\xff": "UTF-16 text: convert it to UTF-8",
}
_BAD_BYTES = bytes(c for c in range(32) if chr(c) not in "\t\n\v\f\r")
_OTHER_LINE_ENDS = ("\r\n", "\r", "\u0085", "\u2028", "\u2029")
_BLANK = re.compile(r"\n\s*\n")


@dataclass
class Tally:
    """What a reader left out or changed."""

    bad_lines: int = 0
    """Lines left out because of invalid UTF-8 or control bytes."""
    cut_lines: int = 0
    """Cuts in lines longer than MAX_LINE."""
    cut_documents: int = 0
    """Cuts in documents longer than MAX_DOCUMENT."""


def compressed(path: str) -> bool:
    """Whether the name says that the file is compressed."""
    return path.endswith(tuple(_OPENERS))


@contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """A local or bucket file as a stream of its uncompressed bytes.

    Raises:
      StorageError: it cannot be opened or read.
      DataError: compressed data that is damaged or ends early.
    """
    with files.storage_errors(path):
        try:
            with _raw(path) as raw:
                opener = next((f for suffix, f in _OPENERS.items() if path.endswith(suffix)), None)
                if opener is None:
                    yield raw
                    return
                with opener(raw, "rb") as stream:
                    yield stream  # type: ignore[misc]
        except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
            raise _damaged(path) from error
        except OSError as error:
            if compressed(path) and error.errno is None:  # bz2 says it so
                raise _damaged(path) from error
            raise


def _damaged(path: str) -> DataError:
    return DataError(f"{path}: compressed data is damaged or ends early: get it again")


def _raw(path: str) -> IO[bytes]:
    if files.is_bucket(path):
        import fsspec

        return fsspec.open(path, "rb").open()  # type: ignore[return-value]
    return open(path, "rb")


def read_text(
    path: str,
    begin: int,
    end: int,
    form: Format,
    *,
    skip_bad: bool,
    tally: Tally,
) -> Iterator[Document]:
    """Documents of bytes begin to end of a file (end -1: to its end), numbered from 0.

    Raises:
      DataError: bad text, with file and byte offset, unless skip_bad.
    """
    parts: list[str] = []  # of the document that is being read
    size = number = 0

    def finished() -> Document:
        nonlocal parts, size, number
        text = "\n".join(parts)
        name = f"{path}@{begin}#{number}"
        parts, size, number = [], 0, number + 1
        return Document(name, text)

    tail = ""  # white space at the end of the text before: half of a blank line, perhaps
    for text in _texts(path, begin, end, skip_bad, tally):
        pieces = text.split("\n") if form == "lines" else _BLANK.split(tail + text)
        tail = text[len(text.rstrip()) :]
        for i, piece in enumerate(pieces):
            if i and parts and form != "file":
                yield finished()
            for part in _cut_document(piece.strip("\n"), tally):
                if size and size + len(part) > MAX_DOCUMENT:
                    tally.cut_documents += 1
                    yield finished()
                if part and not part.isspace():
                    parts.append(part)
                    size += len(part)
        if form == "lines" and parts:
            yield finished()
    if parts:
        yield finished()


def _cut_document(text: str, tally: Tally) -> list[str]:
    """Runs of whole lines of at most about MAX_DOCUMENT characters."""
    if len(text) <= MAX_DOCUMENT:
        return [text]
    runs: list[str] = []
    run: list[str] = []
    size = 0
    for line in text.split("\n"):
        for part in _cut_line(line, tally):
            if size + len(part) > MAX_DOCUMENT and run:
                runs.append("\n".join(run))
                run, size = [], 0
            run.append(part)
            size += len(part)
    return [*runs, "\n".join(run)]


def _cut_line(line: str, tally: Tally) -> list[str]:
    parts: list[str] = []
    while len(line) > MAX_LINE:
        space = line.rfind(" ", 1, MAX_LINE)
        place = MAX_LINE if space < 0 else space
        parts.append(line[:place])
        line = line[place:]
        tally.cut_lines += 1
    return [*parts, line]


def _texts(path: str, begin: int, end: int, skip_bad: bool, tally: Tally) -> Iterator[str]:
    """The file in runs of whole lines, decoded, with \\n as the only line end."""
    with opened(path) as stream:
        if begin:
            stream.seek(begin)
        offset, rest = begin, b""
        left = end - begin if end >= 0 else -1
        while True:
            block = stream.read(_BLOCK if left < 0 else min(_BLOCK, left))
            left -= len(block) if left >= 0 else 0
            if offset == 0 and not rest:
                _check_kind(path, block)
            data = rest + block
            if not data:
                return
            cut = _last_line_end(data) if block else len(data)
            if not cut and len(data) >= MAX_LINE:
                cut = data.rfind(b" ", 1, MAX_LINE) + 1 or _between_characters(data, MAX_LINE)
                tally.cut_lines += 1
            data, rest = data[:cut], data[cut:]
            if data:
                yield _decoded(path, data, offset, skip_bad, tally)
                offset += len(data)


def _last_line_end(data: bytes) -> int:
    """Where the last whole line ends; a lone \\r at the very end may be half of \\r\\n."""
    feed = data.rfind(b"\n") + 1
    if not feed and b"\r" in data[:-1]:
        return data.rfind(b"\r", 0, -1) + 1
    return feed


def _between_characters(data: bytes, place: int) -> int:
    while place > 1 and data[place : place + 1] and 0x80 <= data[place] < 0xC0:
        place -= 1
    return place


def _check_kind(path: str, head: bytes) -> None:
    for magic, kind in _KINDS.items():
        if head.startswith(magic):
            raise DataError(f"{path}: is no plain text but {kind}")


def _decoded(path: str, data: bytes, offset: int, skip_bad: bool, tally: Tally) -> str:
    start = 3 if not offset and data.startswith(b"\xef\xbb\xbf") else 0
    try:
        text = data[start:].decode("utf-8")
        bad = _first_control(data)
        if bad >= 0 and not skip_bad:
            raise DataError(
                f"{path}: control byte 0x{data[bad]:02x} at byte {offset + bad}: mend the file or "
                "give --on-bad-text skip"
            )
    except UnicodeDecodeError as error:
        bad = error.start + start
        if not skip_bad:
            raise DataError(
                f"{path}: invalid UTF-8 at byte {offset + bad}: convert the file to UTF-8 or give "
                "--on-bad-text skip"
            ) from error
        text = ""
    if bad >= 0:
        text = _good_lines(data[start:], tally)
    return _one_line_end(text)


def _one_line_end(text: str) -> str:
    for mark in _OTHER_LINE_ENDS[: 2 if text.isascii() else None]:
        if mark in text:  # five scans at memory speed; one expression for all is ten times slower
            text = text.replace(mark, "\n")
    return text


def _good_lines(data: bytes, tally: Tally) -> str:
    good: list[str] = []
    for line in data.split(b"\n"):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            text = None
        if text is None or _first_control(line) >= 0:
            tally.bad_lines += 1
        else:
            good.append(text)
    return "\n".join(good)


def _first_control(data: bytes) -> int:
    # One byte after the other at memory speed; one expression for all is twenty times slower.
    return min((place for byte in _BAD_BYTES if (place := data.find(byte)) >= 0), default=-1)


def line_cuts(path: str, size: int, part_bytes: int) -> list[int]:
    """Byte offsets behind line feeds that divide a file of records, one a line, into parts of
    about `part_bytes`."""
    found: list[int] = []
    with opened(path) as stream:
        for about in range(part_bytes, size - part_bytes // 2, part_bytes):
            stream.seek(about)
            place = about + len(stream.readline(MAX_RECORD))
            if (found or [0])[-1] < place < size:
                found.append(place)
    return found


def cuts(path: str, size: int, part_bytes: int, at_blank: bool) -> list[int]:
    """Byte offsets that divide a text of `size` bytes into parts of about `part_bytes`.

    Each lies just behind a blank line (or, if not at_blank, a line feed); where there is none
    within MAX_LINE bytes, behind a line feed, and if there is none either, behind a space.
    """
    found: list[int] = []
    blank = re.compile(rb"\n[ \t\r]*\n\s*")
    with opened(path) as stream:
        for about in range(part_bytes, size - part_bytes // 2, part_bytes):
            stream.seek(about)
            window = stream.read(MAX_LINE)
            match = blank.search(window) if at_blank else None
            place = match.end() if match else window.find(b"\n") + 1 or window.rfind(b" ") + 1
            if place and (found or [0])[-1] < about + place < size:
                found.append(about + place)
    return found


def clean_document(text: str, where: str, skip_bad: bool, tally: Tally) -> list[str]:
    """A text that came as one string, under the rules of text files, cut where it is too long.

    Raises:
      DataError: control characters or halves of surrogate pairs, unless skip_bad.
    """
    if _BAD_CHARACTERS.search(text):
        if not skip_bad:
            raise DataError(
                f"{where}: holds control characters or broken surrogates: mend the record or give "
                "--on-bad-text skip"
            )
        lines = text.split("\n")
        good = [line for line in lines if not _BAD_CHARACTERS.search(line)]
        tally.bad_lines += len(lines) - len(good)
        text = "\n".join(good)
    text = _BLANK.sub("\n", _one_line_end(text.removeprefix("\ufeff"))).strip("\n")
    runs = _cut_document(text, tally)
    tally.cut_documents += len(runs) - 1
    return runs


_BAD_CHARACTERS = re.compile("[\0-\x08\x0e-\x1f\ud800-\udfff]")
