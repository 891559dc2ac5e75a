"""Minimal pairs: files of them, and how often the right sentence has the higher score.

A pair belongs to a set, which tests one contrast; sets form linguistic terms, and terms fields,
where the file names them as BLiMP does (Warstadt et al. 2020).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from albert_jax.data.sources.tables import Record, read_records, text_field
from albert_jax.errors import DataError
from albert_jax.evaluation.intervals import Interval, mean_of_shares, share

SENTENCES = ("sentence_good", "sentence_bad")
"""Columns of the sentences; a table with one of them holds pairs."""
SET_COLUMNS = ("UID", "set", "group")
"""Columns that name the set of a pair, the first one that is there."""
MEAN, ALL = "mean over sets", "all"
"""Names of the two rows for the whole file."""


@dataclass(frozen=True)
class MinimalPair:
    """Two sentences that differ in one point; the first one is right."""

    where: str
    good: str
    bad: str
    group: str = ""
    """The set that the pair belongs to."""
    term: str = ""
    """The linguistic term (BLiMP's linguistics_term) that its set belongs to."""
    field: str = ""
    """The field that its term belongs to."""


class Accuracy(NamedTuple):
    """Share of pairs whose right sentence has the higher score."""

    accuracy: Interval
    """A tie counts half."""
    ties_wrong: Interval
    """A tie counts as wrong."""
    pairs: int
    ties: int


Accuracies = dict[str, dict[str, Accuracy]]
"""By kind ("whole", "fields", "terms", "sets") and name."""


def are_pairs(records: Sequence[Record]) -> bool:
    """Returns whether a table holds minimal pairs, to judge by its first record."""
    return any(name in records[0].fields for name in SENTENCES)


def from_records(records: Sequence[Record]) -> list[MinimalPair]:
    """Pairs in BLiMP's form: sentence_good, sentence_bad, and UID (or set) for the set's name.

    linguistics_term and field are read where they are columns. Raises DataError, which names the
    line, for a sentence or a name that is missing or no text.
    """
    columns = {name for record in records for name in record.fields}
    group = next((name for name in SET_COLUMNS if name in columns), None)
    if group and not any(str(record.fields.get(group) or "").strip() for record in records):
        group = None  # A column without any name is none.
    names = {"group": group, "term": "linguistics_term", "field": "field"}
    named = {key: name for key, name in names.items() if name in columns}
    pairs = []
    for record in records:
        good, bad = (_text(record, name) for name in SENTENCES)
        pair = MinimalPair(
            record.where, good, bad, **{key: _text(record, name) for key, name in named.items()}
        )
        if pair.group in (MEAN, ALL):
            raise DataError(
                f"{record.where}: a set named {pair.group!r}, which is all sets; rename it"
            )
        pairs.append(pair)
    return pairs


def read(path: str) -> list[MinimalPair]:
    """The pairs of a table; see `from_records`. Raises DataError."""
    return from_records(read_records(path))


def sentences(pairs: Sequence[MinimalPair]) -> tuple[list[str], list[str]]:
    """(sentences, place of each): the good and the bad one of every pair in turn."""
    texts = [text for pair in pairs for text in (pair.good, pair.bad)]
    return texts, [pair.where for pair in pairs for _ in range(2)]


def credits(good: np.ndarray, bad: np.ndarray, tie: float = 0.5) -> np.ndarray:
    """The credit of each pair, float64: 1 if its good sentence scores higher, `tie` if equal."""
    return np.where(good == bad, tie, (good > bad).astype(np.float64))


def accuracies(pairs: Sequence[MinimalPair], good: np.ndarray, bad: np.ndarray) -> Accuracies:
    """The accuracy of the whole file, and of each field, term and set, in alphabetical order.

    That of a field or term is the mean over its sets, as is the first number of the whole file;
    "all" is the share of all pairs.
    """
    half, ties = credits(good, bad), good == bad
    wrong = credits(good, bad, tie=0.0)

    def of(rows: np.ndarray) -> Accuracy:
        """The mean over the sets among these pairs."""
        _, number = np.unique(groups[rows], return_inverse=True)
        counts = np.bincount(number)

        def mean(column: np.ndarray) -> Interval:
            right = np.bincount(number, column[rows])
            return mean_of_shares([share(*one) for one in zip(right, counts, strict=True)])

        return Accuracy(mean(half), mean(wrong), len(rows), int(ties[rows].sum()))

    groups = np.array([pair.group for pair in pairs])
    everything = np.arange(len(pairs))
    pooled = Accuracy(
        share(half.sum(), len(pairs)), share(wrong.sum(), len(pairs)), len(pairs), int(ties.sum())
    )
    found: Accuracies = {"whole": {MEAN: of(everything), ALL: pooled}}
    for kind, key in (("fields", "field"), ("terms", "term"), ("sets", "group")):
        names = np.array([getattr(pair, key) for pair in pairs])
        found[kind] = {
            name: of(np.flatnonzero(names == name)) for name in sorted(set(names.tolist()) - {""})
        }
    if not found["sets"]:
        del found["whole"][MEAN]
    return found


def ties_line(pairs: Sequence[MinimalPair], found: Accuracies) -> str:
    """A line about pairs whose sentences have equal scores; empty if there are none."""
    ties, same = found["whole"][ALL].ties, sum(pair.good == pair.bad for pair in pairs)
    if not ties:
        return ""
    equal = f", {same} of them because the sentences are equal" if same else ""
    return f"equal scores: {ties} of {len(pairs):,} pairs{equal}"


def table(found: Accuracies) -> str:
    """All accuracies with their intervals, a kind after the other."""
    width = max(len(name) for kind in found.values() for name in kind)
    lines = [f"{'':{width}}  accuracy      95 % interval  ties wrong   pairs"]
    for kind, rows in found.items():
        if kind != "whole" and rows:
            lines.append(f"{kind}:" if found["terms"] or found["fields"] else "")
        for name, row in rows.items():
            value, low, high = row.accuracy
            lines.append(
                f"{name:{width}}  {value:8.1%}  {low:7.1%} to {high:6.1%}  "
                f"{row.ties_wrong.value:10.1%}  {row.pairs:6,}"
            )
    return "\n".join(line for line in lines if line)


def as_json(found: Accuracies) -> dict[str, Any]:
    """The same for a file: by kind and name, shares between 0 and 1."""

    def values(row: Accuracy) -> dict[str, Any]:
        return {
            **row.accuracy._asdict(), "ties_wrong": row.ties_wrong._asdict(),
            "pairs": row.pairs, "ties": row.ties,
        }  # fmt: skip

    return {kind: {name: values(row) for name, row in rows.items()} for kind, rows in found.items()}


def rows_to_draw(found: Accuracies) -> Mapping[str, Accuracy]:
    """The rows of a picture: the whole file, and its terms, or its sets where it has no terms."""
    return found["whole"] | (found["terms"] or found["sets"])


def _text(record: Record, name: str) -> str:
    if isinstance(record.fields.get(name), (bool, int, float)):
        raise DataError(f"{record.where}: {name} is {record.fields[name]!r}, not a text; fix it")
    return text_field(record, name)
