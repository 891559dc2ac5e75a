"""Token ids that come without text: `ids:FILE`, with a Parquet or npy file.

A Parquet file has a column "ids" of lists of integers, one document per row. It may have a column
"sentence_lengths" with the lengths of the document's sentences, and two columns as long as the
ids: "word_starts" of lists of booleans, and "labels" of lists of integers. An npy file holds a
matrix with one document per row, padded at its end, or a vector with NAME.bounds.npy beside it,
which holds the offset of each document and the end of the last. Documents without sentences are cut
into sentences of `unit_tokens` tokens.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from albert_jax import files
from albert_jax.data.sources import records
from albert_jax.data.sources.document import Document, Part, record_parts
from albert_jax.errors import DataError

COLUMNS = ("word_starts", "labels")
"""Columns beside the ids."""
_OPTIONAL = ("sentence_lengths", *COLUMNS)
_PART_ROWS = 50_000


def parts(path: str) -> list[Part]:
    """Divides a file into ranges of documents.

    Raises:
      DataError: There is no such file, or it has another form.
    """
    if files.is_bucket(path):
        raise DataError(f"{path}: token ids are read from a local disk: copy the file there first")
    if not os.path.isfile(path):
        raise DataError(f"{path}: no such file: name Parquet or npy files of token ids")
    if path.endswith(".parquet"):
        groups = _parquet(path).num_row_groups
        size = os.path.getsize(path) // max(groups, 1)
        return [Part("ids", path, i, i + 1, size) for i in range(groups)]
    ids, bounds = _arrays(path)
    return record_parts("ids", path, len(bounds) - 1, ids.nbytes, _PART_ROWS)


def columns(parts: Sequence[Part]) -> tuple[str, ...]:
    """The columns beside the ids of all parts; text has none.

    Raises DataError if some parts have a column that others lack.
    """
    found: dict[str, tuple[str, ...]] = {}
    for part in parts:
        if part.path not in found:
            is_table = part.kind == "ids" and part.path.endswith(".parquet")
            names = _parquet(part.path).schema_arrow.names if is_table else ()
            found[part.path] = tuple(name for name in COLUMNS if name in names)
    first = next(iter(found))
    for path, names in found.items():
        if different := set(names) ^ set(found[first]):
            raise DataError(
                f"{path} and {first}: only one of them has a column {min(different)!r}: give it to "
                "all files or to none"
            )
    return found[first]


def read(part: Part, unit_tokens: int) -> Iterator[Document]:
    """Yields the documents of a part."""
    path = part.path
    if path.endswith(".parquet"):
        table = _parquet(path).read_row_group(part.begin)
        names = [name for name in ("ids", *_OPTIONAL) if name in table.column_names]
        for row, values in enumerate(zip(*map(table.column, names), strict=True)):
            name = f"{path}, row group {part.begin}, row {row}"
            try:
                # As booleans, a null would silently become False.
                lists = {
                    n: np.array(value.as_py() or [], np.int64)
                    for n, value in zip(names, values, strict=True)
                }
            except (TypeError, OverflowError) as error:
                raise DataError(
                    f"{name}: does not hold integers below 2**63 ({error}): fix the row"
                ) from error
            yield _document(name, lists, unit_tokens)
        return
    ids, bounds = _arrays(path)
    for row in range(part.begin, part.end):
        document_ids = np.asarray(ids[bounds[row] : bounds[row + 1]], np.int64)
        yield _document(f"{path}, row {row}", {"ids": document_ids}, unit_tokens)


def _document(name: str, columns: dict[str, np.ndarray], unit_tokens: int) -> Document:
    ids, lengths = columns["ids"], columns.get("sentence_lengths")
    starts, labels = map(columns.get, COLUMNS)
    if lengths is None:
        full, rest = divmod(len(ids), unit_tokens)
        lengths = np.array([unit_tokens] * full + [rest] * (rest > 0), np.int64)
    elif lengths.sum() != len(ids) or (len(lengths) and lengths.min() < 0):
        raise DataError(
            f"{name}: its sentences have {int(lengths.sum())} tokens, its ids {len(ids)}: fix it"
        )
    for column, values in zip(COLUMNS, (starts, labels), strict=True):
        if values is not None and len(values) != len(ids):
            raise DataError(
                f"{name}: its {column} have {len(values)} tokens, its ids {len(ids)}: fix the row"
            )
    starts = None if starts is None else starts.astype(bool)
    return Document(name, "", ids=ids, lengths=lengths, word_starts=starts, labels=labels)


def _parquet(path: str) -> Any:
    import pyarrow

    file = records.parquet_file(path)
    schema = file.schema_arrow
    for name in ("ids", *_OPTIONAL):
        kind = schema.field(name).type if name in schema.names else None
        if kind is None and name in _OPTIONAL:
            continue
        is_flag = name == "word_starts"
        is_value = pyarrow.types.is_boolean if is_flag else pyarrow.types.is_integer
        if kind is None or not (
            (pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind))
            and is_value(kind.value_type)
        ):
            what = "booleans" if is_flag else "integers"
            raise DataError(
                f"{path}: column {name!r} must hold lists of {what}; its columns are "
                f"{', '.join(f'{f.name} ({f.type})' for f in schema)}"
            )
    return file


def _arrays(path: str) -> tuple[np.ndarray, np.ndarray]:
    ids = _load(path)
    if ids.ndim == 2:
        return ids.reshape(-1), np.arange(len(ids) + 1) * ids.shape[1]
    beside = path.removesuffix(".npy") + ".bounds.npy"
    if ids.ndim != 1 or not os.path.isfile(beside):
        raise DataError(
            f"{path}: has shape {list(ids.shape)}: give a matrix with a document per row, or a "
            f"vector and the offsets of its documents in {beside}"
        )
    bounds = _load(beside)
    valid = bounds.ndim == 1 and len(bounds) > 1 and bounds[0] == 0 and bounds[-1] == len(ids)
    if not valid or (np.diff(bounds.astype(np.int64)) < 0).any():
        raise DataError(
            f"{beside}: must rise from 0 to {len(ids)}: write where each document begins, and at "
            "the end where the last one ends"
        )
    return ids, bounds


def _load(path: str) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path}: is not a complete npy file of numbers: write it again") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iu":
        raise DataError(f"{path}: must hold integers in npy form: write it again")
    return array
