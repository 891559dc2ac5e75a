"""Reading plain text, compressed or not, as clean documents in bounded memory.

\\n, \\r\\n, \\r, U+0085, U+2028 and U+2029 all end a line, a byte order mark at the beginning is
dropped, and a line of only white space is blank. Invalid UTF-8, NUL and the other C0 control
characters are bad text: an error that names the file and the byte offset, or, if asked for, lines
that are left out and counted.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Literal

from albert_jax import files
from albert_jax.data.sources.document import Document, ReadCounts
from albert_jax.errors import DataError

Format = Literal["paragraphs", "lines", "file"]
"""Where documents end: at blank lines, at every line, or at the end of the file."""

MAX_LINE = 1 << 20
"""Longer lines (in bytes) are cut at white space and counted."""
MAX_DOCUMENT = 1 << 18
"""Longer documents (in characters) are divided into several at the next line."""
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
_BAD_CHARACTERS = re.compile("[\0-\x08\x0e-\x1f\ud800-\udfff]")
_BLANK = re.compile(r"\n\s*\n")


def is_compressed(path: str) -> bool:
    """Whether the file's name says that it is compressed."""
    return path.endswith(tuple(_OPENERS))


@contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """Opens a local file or an object of a bucket as a stream of its uncompressed bytes.

    Raises:
      StorageError: The file cannot be opened or read.
      DataError: Its compressed data is damaged or ends early.
    """
    damaged = DataError(f"{path}: compressed data is damaged or ends early: get it again")
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
            raise damaged from error
        except OSError as error:
            if is_compressed(path) and error.errno is None:  # bz2 reports it in this way
                raise damaged from error
            raise


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
    counts: ReadCounts,
) -> Iterator[Document]:
    """Yields the documents between two byte offsets of a file; an `end` of -1 is the file's end.

    Raises:
      DataError: The text is bad and `skip_bad` is false.
    """
    parts: list[str] = []  # the document that is being read
    size = number = 0

    def finished() -> Document:
        nonlocal parts, size, number
        text = "\n".join(parts)
        name = f"{path}@{begin}#{number}"
        parts, size, number = [], 0, number + 1
        return Document(name, text)

    tail = ""  # white space at the end of the previous text, which may be half of a blank line
    for text in _texts(path, begin, end, skip_bad, counts):
        paragraphs = text.split("\n") if form == "lines" else _BLANK.split(tail + text)
        tail = text[len(text.rstrip()) :]
        for i, paragraph in enumerate(paragraphs):
            if i and parts and form != "file":
                yield finished()
            for part in _cut_document(paragraph.strip("\n"), counts):
                if size and size + len(part) > MAX_DOCUMENT:
                    counts.cut_documents += 1
                    yield finished()
                if part and not part.isspace():
                    parts.append(part)
                    size += len(part)
        if form == "lines" and parts:
            yield finished()
    if parts:
        yield finished()


def _cut_document(text: str, counts: ReadCounts) -> list[str]:
    """Divides a text into runs of whole lines of at most about MAX_DOCUMENT characters."""
    if len(text) <= MAX_DOCUMENT:
        return [text]
    runs: list[str] = []
    run: list[str] = []
    size = 0
    for line in text.split("\n"):
        for part in _cut_line(line, counts):
            if size + len(part) > MAX_DOCUMENT and run:
                runs.append("\n".join(run))
                run, size = [], 0
            run.append(part)
            size += len(part)
    return [*runs, "\n".join(run)]


def _cut_line(line: str, counts: ReadCounts) -> list[str]:
    parts: list[str] = []
    while len(line) > MAX_LINE:
        space = line.rfind(" ", 1, MAX_LINE)
        cut = MAX_LINE if space < 0 else space
        parts.append(line[:cut])
        line = line[cut:]
        counts.cut_lines += 1
    return [*parts, line]


def _texts(path: str, begin: int, end: int, skip_bad: bool, counts: ReadCounts) -> Iterator[str]:
    """Yields the file in runs of whole lines, decoded, with \\n as the only line end."""
    with opened(path) as stream:
        if begin:
            stream.seek(begin)
        offset, rest = begin, b""
        left = end - begin if end >= 0 else -1
        while True:
            block = stream.read(_BLOCK if left < 0 else min(_BLOCK, left))
            left -= len(block) if left >= 0 else 0
            if offset == 0 and not rest:
                check_kind(path, block)
            data = rest + block
            if not data:
                return
            cut = _last_line_end(data) if block else len(data)
            if not cut and len(data) >= MAX_LINE:
                cut = data.rfind(b" ", 1, MAX_LINE) + 1 or _between_characters(data, MAX_LINE)
                counts.cut_lines += 1
            data, rest = data[:cut], data[cut:]
            if data:
                yield _decoded(path, data, offset, skip_bad, counts)
                offset += len(data)


def _last_line_end(data: bytes) -> int:
    """The offset after the last complete line. A \\r at the very end may be half of \\r\\n."""
    feed = data.rfind(b"\n") + 1
    if not feed and b"\r" in data[:-1]:
        return data.rfind(b"\r", 0, -1) + 1
    return feed


def _between_characters(data: bytes, offset: int) -> int:
    while offset > 1 and data[offset : offset + 1] and 0x80 <= data[offset] < 0xC0:
        offset -= 1
    return offset


def check_kind(path: str, head: bytes) -> None:
    """Raises DataError for the first bytes of a file that is not plain text."""
    for magic, kind in _KINDS.items():
        if head.startswith(magic):
            raise DataError(f"{path}: is not plain text but {kind}")


def _decoded(path: str, data: bytes, offset: int, skip_bad: bool, counts: ReadCounts) -> str:
    start = 3 if not offset and data.startswith(b"\xef\xbb\xbf") else 0
    try:
        text = data[start:].decode("utf-8")
        bad = _first_control(data)
        if bad >= 0 and not skip_bad:
            raise DataError(
                f"{path}: control byte 0x{data[bad]:02x} at byte {offset + bad}: fix the file or "
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
        text = _good_lines(data[start:], counts)
    return _one_line_end(text)


def _one_line_end(text: str) -> str:
    for mark in _OTHER_LINE_ENDS[: 2 if text.isascii() else None]:
        if mark in text:  # one regular expression is ten times slower than five scans
            text = text.replace(mark, "\n")
    return text


def _good_lines(data: bytes, counts: ReadCounts) -> str:
    good: list[str] = []
    for line in data.split(b"\n"):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            text = None
        if text is None or _first_control(line) >= 0:
            counts.bad_lines += 1
        else:
            good.append(text)
    return "\n".join(good)


def _first_control(data: bytes) -> int:
    # One regular expression for all bytes is twenty times slower than a scan for each.
    return min((offset for byte in _BAD_BYTES if (offset := data.find(byte)) >= 0), default=-1)


def cuts(path: str, size: int, part_bytes: int, at_blank: bool) -> list[int]:
    """Byte offsets that divide a text of `size` bytes into parts of about `part_bytes`.

    Each is just after a blank line, or after a line feed if `at_blank` is false. Where there is
    none within MAX_LINE bytes, it is after a line feed, and failing that, after a space.
    """
    offsets: list[int] = []
    blank = re.compile(rb"\n[ \t\r]*\n\s*")
    with opened(path) as stream:
        for target in range(part_bytes, size - part_bytes // 2, part_bytes):
            stream.seek(target)
            window = stream.read(MAX_LINE)
            match = blank.search(window) if at_blank else None
            cut = match.end() if match else window.find(b"\n") + 1 or window.rfind(b" ") + 1
            if cut and (offsets or [0])[-1] < target + cut < size:
                offsets.append(target + cut)
    return offsets


def clean_document(text: str, where: str, skip_bad: bool, counts: ReadCounts) -> list[str]:
    """Applies the rules of text files to one string; returns it, divided where it is too long.

    Raises:
      DataError: It has control characters or half surrogate pairs, and `skip_bad` is false.
    """
    if _BAD_CHARACTERS.search(text):
        if not skip_bad:
            raise DataError(
                f"{where}: holds control characters or half surrogate pairs: fix the record or "
                "give --on-bad-text skip"
            )
        lines = text.split("\n")
        good = [line for line in lines if not _BAD_CHARACTERS.search(line)]
        counts.bad_lines += len(lines) - len(good)
        text = "\n".join(good)
    text = _BLANK.sub("\n", _one_line_end(text.removeprefix("\ufeff"))).strip("\n")
    runs = _cut_document(text, counts)
    counts.cut_documents += len(runs) - 1
    return runs
