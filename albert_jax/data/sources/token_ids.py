"""Rows of token ids that come without any text: `ids:FILE` with Parquet or npy.

Parquet: a column ``ids`` of lists of whole numbers, one document per row, and if there is one, a
column ``units`` with the lengths of the document's sentences. npy: a matrix, one document per
row (padded at its end if it is shorter), or a vector with ``NAME.bounds.npy`` beside it (offsets
of the documents' beginnings, and of the end). Documents without units are cut into runs of
`unit_tokens`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from albert_jax.data.sources.document import Document
from albert_jax.errors import DataError

if TYPE_CHECKING:
    from albert_jax.data.vocabularies.vocabulary import Vocabulary

_ROWS = 50_000


def parts(path: str) -> list[tuple[str, str, int, int, int]]:
    """(kind, path, first row, last + 1, bytes) of the parts of a file.

    Raises:
      DataError: no such file, or one of another form.
    """
    if not os.path.isfile(path):
        raise DataError(f"{path}: no such file: name Parquet or npy files of token ids")
    if path.endswith(".parquet"):
        groups = _parquet(path).num_row_groups
        size = os.path.getsize(path) // max(groups, 1)
        return [("ids", path, i, i + 1, size) for i in range(groups)]
    ids, bounds = _arrays(path)
    count = len(bounds) - 1
    size = max(1, ids.nbytes // max(count, 1))
    runs = [(begin, min(begin + _ROWS, count)) for begin in range(0, count, _ROWS)]
    return [("ids", path, begin, end, (end - begin) * size) for begin, end in runs]


def read(path: str, begin: int, end: int, unit_tokens: int) -> Iterator[Document]:
    """The documents of a part."""
    if path.endswith(".parquet"):
        table = _parquet(path).read_row_group(begin)
        units = table.column("units") if "units" in table.column_names else None
        for row, value in enumerate(table.column("ids")):
            name = f"{path}, row group {begin}, row {row}"
            try:
                ids = np.array(value.as_py() or [], np.int64)
                given = None if units is None else np.array(units[row].as_py() or [], np.int64)
            except (TypeError, OverflowError) as error:
                raise DataError(
                    f"{name}: holds no whole numbers below 2**63 ({error}): mend the row"
                ) from error
            yield _document(name, ids, given, unit_tokens)
        return
    ids, bounds = _arrays(path)
    for row in range(begin, end):
        mine = np.asarray(ids[bounds[row] : bounds[row + 1]], np.int64)
        yield _document(f"{path}, row {row}", mine, None, unit_tokens)


def without_padding(document: Document, vocabulary: Vocabulary) -> Document:
    """A row without the padding at its end.

    Raises DataError for a row of padding only, and for special ids within it: they are what the
    model adds and hides itself.
    """
    ids, lengths = document.ids, document.lengths
    assert ids is not None and lengths is not None
    count = int(np.flatnonzero(ids != vocabulary.pad_id)[-1:].sum()) + 1
    ids = ids[:count]
    special = (vocabulary.pad_id, vocabulary.cls_id, vocabulary.sep_id, vocabulary.mask_id)
    inside = np.flatnonzero(np.isin(ids, special))
    if len(inside):
        raise DataError(
            f"{document.id}: holds the special id {int(ids[inside[0]])} at place {int(inside[0])}: "
            "leave special ids out; padding may stand at the end only"
        )
    if count < len(document.ids):  # type: ignore[arg-type]
        lengths = np.diff(np.minimum(np.cumsum(lengths), count), prepend=0)
        lengths = lengths[lengths > 0]
    return dataclasses.replace(document, ids=ids, lengths=lengths)


def _document(name: str, ids: np.ndarray, units: np.ndarray | None, unit_tokens: int) -> Document:
    if units is None:
        full, rest = divmod(len(ids), unit_tokens)
        units = np.array([unit_tokens] * full + [rest] * (rest > 0), np.int64)
    elif units.sum() != len(ids) or (len(units) and units.min() < 0):
        raise DataError(
            f"{name}: its units have {int(units.sum())} tokens, its ids {len(ids)}: mend the row"
        )
    return Document(name, "", ids=ids, lengths=units)


def _parquet(path: str) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path, memory_map=True)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: is no whole Parquet file: get it again") from error
    schema = file.schema_arrow
    for name in ("ids", "units"):
        kind = schema.field(name).type if name in schema.names else None
        if kind is None and name == "units":
            continue
        if kind is None or not (
            (pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind))
            and pyarrow.types.is_integer(kind.value_type)
        ):
            raise DataError(
                f"{path}: column {name!r} must hold lists of whole numbers; its columns are "
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
    whole = bounds.ndim == 1 and len(bounds) > 1 and bounds[0] >= 0 and bounds[-1] <= len(ids)
    if not whole or (np.diff(bounds.astype(np.int64)) < 0).any():
        raise DataError(f"{beside}: must rise from 0 to {len(ids)}: write the offsets anew")
    return ids, bounds


def _load(path: str) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path}: is no whole npy file of numbers: write it anew") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iu":
        raise DataError(f"{path}: must hold whole numbers in npy form: write it anew")
    return array
