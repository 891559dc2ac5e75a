"""All sources of documents behind one interface.

A source is named by one string: a file or glob of text ("books/*.txt", "gs://b/*.txt.gz"), of JSON
Lines ("*.jsonl") or of Parquet, a dataset of TFDS or Hugging Face (hub_datasets.py), "ids:FILE"
(token_ids.py) or "python-docs:" (python_docs.py). Each source is divided into parts that can be
read alone, in any order and by any process. The division depends on the files alone.
"""

from __future__ import annotations

import dataclasses
import glob
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from albert_jax import files
from albert_jax.data.sources import hub_datasets, python_docs, records, text_files, token_ids
from albert_jax.data.sources.document import Document, Part, ReadCounts
from albert_jax.errors import DataError

PART_BYTES = 32 << 20
"""Size of a part of a large file."""


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Options for reading files."""

    format: text_files.TextFormat = "paragraphs"
    """End of each document in a text file: a blank line, every line, or the end of the file."""
    field: str = "text"
    """Field or column that holds the text of records."""
    on_bad_text: Literal["stop", "skip"] = "stop"
    """Handling of lines with invalid UTF-8 or control characters: stop, or skip and count them."""
    unit_tokens: int = 32
    """Length of the sentences into which token ids that come without sentences are cut."""


def parts(specs: Sequence[str], options: ReadOptions, part_bytes: int = PART_BYTES) -> list[Part]:
    """Divides sources into parts, in the order of the specs and of the names of their files.

    Raises:
      DataError: A spec matches nothing, or names a folder, an empty file or an unknown dataset.
    """
    all_parts: list[Part] = []
    for spec in specs:
        before = len(all_parts)
        if spec == python_docs.SPEC:
            all_parts.append(Part("python-docs", spec, 0, -1, 2 << 20))
        elif hub_datasets.is_hub_dataset(spec):
            all_parts += hub_datasets.text_parts(spec, options.field, part_bytes)
        else:
            has_ids = spec.startswith("ids:")
            for path in _matches(spec.removeprefix("ids:")):
                of_file = token_ids.parts(path) if has_ids else _parts(path, options, part_bytes)
                # With the state of a local file, a change while it is read is noticed.
                state = (0, 0) if files.is_bucket(path) else _state(path)
                all_parts += [dataclasses.replace(part, state=state) for part in of_file]
        if len(all_parts) == before:
            raise DataError(f"{spec}: holds no documents: name files with text or token ids")
    return all_parts


def read(part: Part, options: ReadOptions, counts: ReadCounts) -> Iterator[Document]:
    """Yields the documents of a part in order, and counts what is left out or cut.

    Raises:
      DataError: The text is bad, a file is damaged or has changed meanwhile, or a field is missing.
      StorageError: A file cannot be opened.
    """
    skip_bad = options.on_bad_text == "skip"
    if part.kind == "python-docs":
        yield from python_docs.documents()
    elif part.kind == "ids":
        yield from token_ids.read(part, options.unit_tokens)
    elif part.kind == "text":
        yield from text_files.read_text(
            part.path, part.begin, part.end, options.format, skip_bad=skip_bad, counts=counts
        )
    else:
        texts = _record_texts(part, options.field, counts if skip_bad else None)
        for number, (where, text) in enumerate(texts):
            cut = text_files.clean_document(text, where, skip_bad, counts)
            # The parts of a document that was cut are held out together.
            group = cut[0] if len(cut) > 1 else ""
            for i, content in enumerate(cut):
                yield Document(f"{part.path}@{part.begin}#{number}.{i}", content, group)
    if part.state != (0, 0) and _state(part.path) != part.state:
        raise DataError(
            f"{part.path}: changed while it was read: start again when nothing writes to it"
        )


def documents(specs: Sequence[str], options: ReadOptions | None = None) -> Iterator[Document]:
    """Yields all documents of some sources, one part after the other."""
    options = options or ReadOptions()
    for part in parts(specs, options):
        yield from read(part, options, ReadCounts())


def _record_texts(part: Part, field: str, skipped: ReadCounts | None) -> Iterator[tuple[str, str]]:
    if part.kind == "jsonl":
        return records.jsonl_texts(part, field, skipped)
    if part.kind == "parquet":
        return records.parquet_texts(part, field)
    if part.kind == "tfrecord":
        return records.tfrecord_texts(part, field)
    if part.kind in ("hf", "tfds"):
        return hub_datasets.texts(part, field)
    raise AssertionError(f"no reader for parts of kind {part.kind!r}")


def _matches(spec: str) -> list[str]:
    if files.is_bucket(spec):
        with files.storage_errors(spec):
            scheme = spec.partition("://")[0]
            paths = [f"{scheme}://{name}" for name in sorted(files.bucket_client(spec).glob(spec))]
    elif os.path.exists(spec):
        paths = [spec]
    else:
        paths = sorted(glob.glob(spec, recursive=True))
    if not paths:
        raise DataError(f"{spec}: no such file: name a file or a glob that matches some")
    return paths if len(paths) == 1 else [path for path in paths if not files.is_folder(path)]


def _parts(path: str, options: ReadOptions, part_bytes: int) -> list[Part]:
    if files.is_folder(path):
        raise DataError(f"{path}: is a folder: name its files, for example '{path}/*.txt'")
    size, _ = _state(path)
    if not size:
        raise DataError(f"{path}: is empty: leave it out or fill it")
    is_compressed = text_files.is_compressed(path)
    stem = (os.path.splitext(path)[0] if is_compressed else path).lower()
    if stem.endswith(".parquet"):
        return records.parquet_parts(path, options.field, part_bytes)
    is_jsonl = stem.endswith((".jsonl", ".ndjson"))
    if not is_jsonl:
        text_files.check_extension(path)
    kind, form = ("jsonl", "jsonl") if is_jsonl else ("text", options.format)
    if is_compressed or form == "file" or size <= part_bytes:
        return [Part(kind, path, 0, -1, size)]
    cuts = text_files.cuts(path, size, part_bytes, form)
    return [Part(kind, path, begin, end, end - begin) for begin, end in itertools.pairwise(cuts)]


def _state(path: str) -> tuple[int, int]:
    with files.storage_errors(path):
        if files.is_bucket(path):
            return int(files.bucket_client(path).size(path)), 0
        status = os.stat(path)
        return status.st_size, status.st_mtime_ns
