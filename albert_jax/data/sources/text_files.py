"""Reading plain text, compressed or not, as clean documents in bounded memory.

\\n, \\r\\n, \\r, U+0085, U+2028 and U+2029 all end a line, a byte order mark at the beginning is
dropped, and a line of only white space is blank. Invalid UTF-8, NUL and the other C0 control
characters are bad text: an error that names the file and the byte offset, or, if asked for, lines
that are left out and counted.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import lzma
import os
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Literal

from albert_jax import files
from albert_jax.data.sources.document import Document, ReadCounts
from albert_jax.errors import DataError

TextFormat = Literal["paragraphs", "lines", "file"]
"""End of each document: a blank line, every line, or the end of the file."""

MAX_LINE = 1 << 20
"""Longer lines (in bytes) are cut at white space and counted."""
MAX_DOCUMENT = 1 << 18
"""Longer documents (in characters) are divided into several at the next line."""
MAX_JSON_LINE = 64 << 20
"""Longer lines of JSON (in bytes) are refused."""
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
_NOT_TEXT = {
    ".csv .tsv .xlsx": "a table: write its column of text to a .jsonl or .parquet file (lines for "
    "--phonemes file belong in a .txt)",
    ".json": "JSON: write one object per line and name the file *.jsonl",
    ".warc .wet .wat": "a web archive: write its texts to a .jsonl file",
    ".html .htm .xml": "markup: extract its text to a .txt or .jsonl file",
    ".pdf .doc .docx .odt .epub": "a formatted document: extract its text to a .txt file",
    ".zip .tar .tgz .7z .rar": "an archive: unpack it and name the files in it",
    ".zst .lz4 .lzma .z": "compressed in a way that is not read: unpack it or use .gz, .bz2 or .xz",
    ".npy .npz": "an array: give token ids with --ids instead of --text",
    ".fa .fasta .fna .fastq": "sequences: make token ids (docs/own-text.md) and give --ids",
    ".arrow .tfrecord .array_record": "a file of a dataset: name the dataset, hf:NAME or tfds:NAME",
}
_OTHER_LINE_ENDS = ("\r\n", "\r", "\u0085", "\u2028", "\u2029")
# Bytes that are not UTF-8 are decoded to half surrogate pairs.
_BAD_CHARACTERS = re.compile("[\0-\x08\x0e-\x1f\ud800-\udfff]")
_BLANK = re.compile(r"\n\s*\n")
_BLANK_IN_BYTES = re.compile(rb"\n[ \t\r]*\n\s*")


def is_compressed(path: str) -> bool:
    """Returns whether the file's name says that it is compressed."""
    return path.endswith(tuple(_OPENERS))


@contextmanager
def open_stream(path: str) -> Iterator[IO[bytes]]:
    """Opens a local file or an object of a bucket as a stream of its uncompressed bytes.

    Raises:
      StorageError: The file cannot be opened or read.
      DataError: Its compressed data is damaged or ends early.
    """
    opener = next((f for suffix, f in _OPENERS.items() if path.endswith(suffix)), None)
    with files.storage_errors(path), opened_raw(path) as raw:
        if opener is None:
            yield raw
            return
        try:
            with opener(raw, "rb") as stream:
                yield stream  # type: ignore[misc]
        except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            if getattr(error, "errno", None) is not None:
                raise  # The operating system reports it, and not the decompressor.
            raise DataError(
                f"{path}: compressed data is damaged or ends early: get it again"
            ) from error


def opened_raw(path: str) -> IO[bytes]:
    """Opens a local file or an object of a bucket as it is stored."""
    if files.is_bucket(path):
        import fsspec

        return fsspec.open(path, "rb").open()  # type: ignore[return-value]
    return open(path, "rb")


def read_text(
    path: str, begin: int, end: int, form: TextFormat, *, skip_bad: bool, counts: ReadCounts
) -> Iterator[Document]:
    """Yields the documents between two byte offsets of a file; an `end` of -1 is the file's end.

    Raises:
      DataError: The text is bad and `skip_bad` is false.
    """
    parts: list[str] = []  # the document that is being read
    size = number = 0
    group = ""

    def finished(*, cut: bool = False) -> Document:
        nonlocal parts, size, number, group
        text = "\n".join(parts)
        if cut:  # All parts of a document that is cut are held out together.
            group = group or text
        document = Document(f"{path}@{begin}#{number}", text, group)
        parts, size, number, group = [], 0, number + 1, group if cut else ""
        return document

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
                    yield finished(cut=True)
                if part and not part.isspace():
                    parts.append(part)
                    size += len(part)
        if form == "lines" and parts:
            yield finished()
    if parts:
        yield finished()


def _cut_document(text: str, counts: ReadCounts) -> list[str]:
    """Divides a text between lines into documents of at most about MAX_DOCUMENT characters."""
    if len(text) <= MAX_DOCUMENT:
        return [text]
    documents: list[list[str]] = [[]]
    size = 0
    for line in text.split("\n"):
        parts = cut_at_spaces(line, MAX_LINE)
        counts.cut_lines += len(parts) - 1
        for part in parts:
            if size + len(part) > MAX_DOCUMENT and documents[-1]:
                documents.append([])
                size = 0
            documents[-1].append(part)
            size += len(part)
    return ["\n".join(lines) for lines in documents]


def cut_at_spaces(text: str, limit: int) -> list[str]:
    """Divides a text into parts of at most `limit` characters, at spaces where there are any."""
    parts: list[str] = []
    while len(text) > limit:
        space = text.rfind(" ", 1, limit)
        cut = limit if space < 0 else space
        parts.append(text[:cut])
        text = text[cut:]
    return [*parts, text]


def _texts(path: str, begin: int, end: int, skip_bad: bool, counts: ReadCounts) -> Iterator[str]:
    """Yields the file in blocks of complete lines, decoded, with \\n as the only line end."""
    with open_stream(path) as stream:
        stream.seek(begin)
        offset, rest = begin, b""
        left = (end if end >= 0 else sys.maxsize) - begin
        while True:
            block = stream.read(min(_BLOCK, left))
            left -= len(block)
            if offset == 0 and not rest:
                check_kind(path, block)
            data = rest + block
            if not data:
                return
            cut = _last_line_end(data) if block else len(data)
            if not cut and len(data) >= MAX_LINE:
                # Without a space it is cut between two characters.
                whole = codecs.utf_8_decode(data[:MAX_LINE], "ignore", False)[1]
                cut = data.rfind(b" ", 1, MAX_LINE) + 1 or whole
                counts.cut_lines += 1
            data, rest = data[:cut], data[cut:]
            if data:
                yield _decoded(path, data, offset, skip_bad, counts)
                offset += len(data)


def _last_line_end(data: bytes) -> int:
    """The offset after the last complete line. A \\r at the very end may be half of \\r\\n."""
    return data.rfind(b"\n") + 1 or data.rfind(b"\r", 0, -1) + 1


def check_extension(path: str) -> None:
    """Raises DataError for the name of a file that is known to hold no plain text."""
    stem = os.path.splitext(path)[0] if is_compressed(path) else path
    extension = os.path.splitext(stem)[1].lower()
    for extensions, problem in _NOT_TEXT.items():
        if extension in extensions.split():
            raise DataError(f"{path}: a {extension} file is not plain text but {problem}")


def check_kind(path: str, head: bytes) -> None:
    """Raises DataError for the first bytes of a file that is not plain text."""
    for magic, kind in _KINDS.items():
        if head.startswith(magic):
            raise DataError(f"{path}: is not plain text but {kind}")


def _decoded(path: str, data: bytes, offset: int, skip_bad: bool, counts: ReadCounts) -> str:
    if offset == 0 and data.startswith(codecs.BOM_UTF8):
        data, offset = data[len(codecs.BOM_UTF8) :], len(codecs.BOM_UTF8)
    text = data.decode("utf-8", "surrogateescape")
    bad = _BAD_CHARACTERS.search(text)
    if bad and not skip_bad:
        place = offset + len(text[: bad.start()].encode())
        problem = f"control byte 0x{ord(bad[0]):02x}" if bad[0] < " " else "invalid UTF-8"
        fix = "convert it from GB18030 to UTF-8" if _is_chinese(data) else "fix the file"
        raise DataError(f"{path}: {problem} at byte {place}: {fix} or give --on-bad-text skip")
    return _clean_lines(text, bad is not None, counts)


def _is_chinese(data: bytes) -> bool:
    """Returns whether the first lines that are not ASCII are in GB2312, most of GB18030."""
    line = next((line for line in data[:65536].splitlines() if not line.isascii()), b"")
    with contextlib.suppress(UnicodeDecodeError):
        return any("\u4e00" <= character <= "\u9fff" for character in line.decode("gb2312"))
    return False


def _clean_lines(text: str, has_bad: bool, counts: ReadCounts) -> str:
    """Ends all lines in \\n, and leaves out those with bad characters."""
    for mark in _OTHER_LINE_ENDS:  # Five scans are faster than one regular expression.
        text = text.replace(mark, "\n")
    if has_bad:
        lines = text.split("\n")
        good = [line for line in lines if not _BAD_CHARACTERS.search(line)]
        counts.bad_lines += len(lines) - len(good)
        text = "\n".join(good)
    return text


def cuts(path: str, size: int, part_bytes: int, form: TextFormat | Literal["jsonl"]) -> list[int]:
    """Returns the offsets of parts of about `part_bytes` in a file of `size` bytes, and its end.

    Parts begin after a blank line if `form` is "paragraphs", else after a line. Where there is none
    within MAX_LINE bytes, they begin after a space, but JSON Lines are never cut inside a line.
    """
    offsets = [0]
    with open_stream(path) as stream:
        for target in range(part_bytes, size - part_bytes // 2, part_bytes):
            stream.seek(target)
            if form == "jsonl":
                distance = len(stream.readline(MAX_JSON_LINE))
            else:
                window = stream.read(MAX_LINE)
                blank = _BLANK_IN_BYTES.search(window) if form == "paragraphs" else None
                line_end = window.find(b"\n") + 1 or window.rfind(b" ") + 1
                distance = blank.end() if blank else line_end
            if distance and offsets[-1] < target + distance < size:
                offsets.append(target + distance)
    return [*offsets, size]


def clean_document(text: str, where: str, skip_bad: bool, counts: ReadCounts) -> list[str]:
    """Applies the rules of text files to one string; returns it, divided where it is too long.

    Raises:
      DataError: It has control characters or half surrogate pairs, and `skip_bad` is false.
    """
    has_bad = _BAD_CHARACTERS.search(text) is not None
    if has_bad and not skip_bad:
        raise DataError(
            f"{where}: holds control characters or half surrogate pairs: fix the record or "
            "give --on-bad-text skip"
        )
    text = _clean_lines(text, has_bad, counts)
    documents = _cut_document(_BLANK.sub("\n", text.removeprefix("\ufeff")).strip("\n"), counts)
    counts.cut_documents += len(documents) - 1
    return documents
