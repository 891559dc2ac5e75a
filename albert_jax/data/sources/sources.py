"""Where documents come from, behind one interface.

A source is named by a line of text: a file or glob of text (``books/*.txt``, ``gs://b/*.txt.gz``),
``*.jsonl`` and ``*.parquet`` with a field of text, ``tfds:NAME[:SPLIT]``, ``hf:NAME[:SPLIT]``
(Hugging Face datasets, when installed), ``ids:FILE`` (id_rows.py) or ``python-docs:``
(python_docs.py). Each is divided into parts that can be read alone, in any order and by any
process; the division depends on the files alone.
"""

from __future__ import annotations

import glob
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from albert_jax import files
from albert_jax.data.sources import python_docs, records, text_files
from albert_jax.data.sources import token_ids as id_rows
from albert_jax.data.sources.document import Document
from albert_jax.data.sources.text_files import Tally
from albert_jax.errors import DataError

__all__ = ["Document", "Part", "ReadOptions", "Tally", "documents", "parts", "read"]

PART_BYTES = 32 << 20
"""Size of a part of a large file."""


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How files are understood."""

    format: text_files.Format = "paragraphs"
    """Where documents of text files end: blank lines, every line, or the end of the file."""
    field: str = "text"
    """Field or column that holds the text in JSONL, Parquet, TFDS and Hugging Face sets."""
    on_bad_text: Literal["stop", "skip"] = "stop"
    """Invalid UTF-8 and control bytes: an error, or lines left out and counted."""
    unit_tokens: int = 32
    """Length of the units that rows of ids without units are cut into."""


@dataclass(frozen=True)
class Part:
    """A stretch of one source."""

    kind: str
    path: str
    begin: int
    """First byte, record or row group."""
    end: int
    """One after the last; -1: to the end."""
    weight: int
    """About how many bytes it has."""
    state: tuple[int, int] = (0, 0)
    """Size and time of change of a local file when the part was planned."""

    def identity(self) -> str:
        """Names the part and its size, so that other inputs are noticed."""
        if self.kind == "python-docs":
            return f"{self.path} {platform.python_version()}"
        return f"{self.path} {self.begin}:{self.end} {self.state[0] or self.weight}"


def parts(specs: Sequence[str], options: ReadOptions, part_bytes: int = PART_BYTES) -> list[Part]:
    """Divides sources into parts, in the order of the specs and of the names of their files.

    Raises:
      DataError: a spec that matches nothing, a folder, an empty file, or an unknown set.
    """
    found: list[Part] = []
    for spec in specs:
        if spec == python_docs.SPEC:
            found.append(Part("python-docs", spec, 0, -1, 2 << 20))
        elif spec.startswith("ids:"):
            for path in _matches(spec.removeprefix("ids:")):
                rows = id_rows.parts(path)
                found += [Part(*row, _state(path)) for row in rows]  # type: ignore[misc]
        elif spec.startswith(("tfds:", "hf:")):
            found += [Part(*row) for row in records.set_parts(spec, options.field, part_bytes)]
        else:
            for path in _matches(spec):
                found += _file_parts(path, options, part_bytes)
    if not found:
        raise DataError("no source of text was given: name files with --text")
    return found


def read(part: Part, options: ReadOptions, tally: Tally) -> Iterator[Document]:
    """The documents of a part, in order; `tally` counts what is left out on the way.

    Raises:
      DataError: bad text, damaged files, a missing field, or a file that changed meanwhile.
      StorageError: a file that cannot be opened.
    """
    skip = options.on_bad_text == "skip"
    if part.kind == "python-docs":
        yield from python_docs.documents()
    elif part.kind == "ids":
        yield from id_rows.read(part.path, part.begin, part.end, options.unit_tokens)
    elif part.kind == "text":
        yield from text_files.read_text(
            part.path, part.begin, part.end, options.format, skip_bad=skip, tally=tally
        )
    else:
        raw = records.texts(
            part.kind, part.path, part.begin, part.end, options.field, tally if skip else None
        )
        for number, (where, text) in enumerate(raw):
            pieces = text_files.clean_document(text, where, skip, tally)
            # The pieces of a document that was cut are held out together.
            group = pieces[0] if len(pieces) > 1 else ""
            for i, piece in enumerate(pieces):
                yield Document(f"{part.path}@{part.begin}#{number}.{i}", piece, group)
    if part.state != (0, 0) and _state(part.path) != part.state:
        raise DataError(f"{part.path}: changed while it was read: start again when it is at rest")


def documents(specs: Sequence[str], options: ReadOptions | None = None) -> Iterator[Document]:
    """All documents of some sources, one part after the other."""
    options = options or ReadOptions()
    tally = Tally()
    for part in parts(specs, options):
        yield from read(part, options, tally)


def _matches(spec: str) -> list[str]:
    if files.is_bucket(spec):
        with files.storage_errors(spec):
            scheme = spec.partition("://")[0]
            found = [f"{scheme}://{name}" for name in sorted(files.bucket(spec).glob(spec))]
    elif os.path.exists(spec):
        found = [spec]
    else:
        found = sorted(glob.glob(spec, recursive=True))
    if not found:
        raise DataError(f"{spec}: no such file: name a file or a glob that matches some")
    if len(found) > 1:
        found = [path for path in found if not files.is_folder(path)]
    return found


def _file_parts(path: str, options: ReadOptions, part_bytes: int) -> list[Part]:
    if files.is_folder(path):
        raise DataError(f"{path}: is a folder: name its files, for example '{path}/*.txt'")
    size, changed = _state(path)
    if not size:
        raise DataError(f"{path}: is empty: leave it away or fill it")
    state = (0, 0) if files.is_bucket(path) else (size, changed)
    stem = path
    for suffix in (".gz", ".bz2", ".xz"):
        stem = stem.removesuffix(suffix)
    if stem.endswith(".parquet"):
        rows = records.parquet_parts(path, options.field, part_bytes)
        return [Part("parquet", path, *row, state) for row in rows]
    kind = "jsonl" if stem.endswith((".jsonl", ".ndjson")) else "text"
    whole = text_files.compressed(path) or (kind == "text" and options.format == "file")
    if whole or size <= part_bytes:
        return [Part(kind, path, 0, -1, size, state)]
    if kind == "jsonl":
        inner = text_files.line_cuts(path, size, part_bytes)
    else:
        inner = text_files.cuts(path, size, part_bytes, options.format == "paragraphs")
    cuts = [0, *inner, size]
    return [
        Part(kind, path, begin, end, end - begin, state)
        for begin, end in zip(cuts[:-1], cuts[1:], strict=True)
    ]


def _state(path: str) -> tuple[int, int]:
    with files.storage_errors(path):
        if files.is_bucket(path):
            return int(files.bucket(path).size(path)), 0
        found = os.stat(path)
        return found.st_size, found.st_mtime_ns
