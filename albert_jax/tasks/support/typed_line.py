"""Lines that a person types: the texts of one example, with tabs between them."""

from __future__ import annotations

from albert_jax.errors import DataError


def parse_parts(line: str, where: str, name: str, low: int, high: int) -> tuple[str, ...]:
    """The parts of a typed line between its tabs; DataError for an empty one or a wrong count."""
    parts = tuple(part.strip() for part in line.split("\t"))
    if not all(parts):
        part = "the text" if len(parts) == 1 else f"part {parts.index('') + 1}"
        raise DataError(f"{where}: {part} is empty: write something")
    if not low <= len(parts) <= high:
        taken = f"{low}" if low == high else f"{low} to {high}"
        count = "1 part" if len(parts) == 1 else f"{len(parts)} parts"
        mend = "put a tab between two parts"
        if len(parts) > high:
            mend = "write no tab" if high == 1 else "leave tabs out"
        raise DataError(f"{where}: {count} where {name} takes {taken}: {mend}")
    return parts
