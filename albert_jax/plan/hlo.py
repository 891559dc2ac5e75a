"""Reads the text of a compiled program: its loops, collectives and cycles.

The text is what `compiled.as_text()` returns; the names are those of XLA's HLO.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_COLLECTIVE = re.compile(
    r"= (?P<type>.*?) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|"
    r"collective-permute|send|recv)(?P<start>-start)?\("
)
_SHAPE = re.compile(r"(?P<type>pred|[a-z]+[0-9]+)\[(?P<shape>[0-9,]*)\]")
_CALLED = r"\b(?:calls|to_apply|body|condition)=%?([\w.\-]+)"
_LOOPED = r"\b(?:body|condition)=%?([\w.\-]+)"

Computations = dict[str, list[str]]
"""The lines of each computation's body, by its name."""


@dataclass(frozen=True)
class Collective:
    """One operation that sends data between devices."""

    kind: str
    """"all-reduce", "all-gather", "reduce-scatter", "all-to-all" and so on."""
    types: tuple[str, ...]
    """Element types, such as ("f32",)."""
    bytes: int
    """Size of the result on one device; for a reduce-scatter, of its operand."""
    in_loop: bool
    """True if the operation is in the body of a loop."""
    times: int = 1
    """How often it runs."""


def collectives(text: str) -> list[Collective]:
    """The collectives of a compiled program."""
    bodies, entry = _computations(text)
    runs = _runs(bodies, entry)
    looped: set[str] = set()
    pending = re.findall(_LOOPED, text)
    while pending:  # What a loop calls is in the loop too.
        name = pending.pop()
        if name not in looped:
            looped.add(name)
            pending += re.findall(_CALLED, "\n".join(bodies.get(name, [])))
    result, chains = [], set()
    for name, lines in bodies.items():
        for line in lines:
            match = _COLLECTIVE.search(line)
            if not match:
                continue
            # The TPU compiler overlaps a collective with other work by splitting it into a chain
            # of pieces, each of which shows the whole operation: count the chain once.
            chain = re.search(r'chain_id="(\d+)"', line)
            key = chain and (match["kind"], chain[1])
            if key is None or key not in chains:
                chains.add(key)
                result.append(_collective(match, line, name in looped, max(1, runs[name])))
    return result


def _runs(bodies: Computations, entry: str) -> Counter[str]:
    """How often each computation runs in a run of the program."""
    counts: Counter[str] = Counter()

    def visit(name: str, times: int) -> None:
        counts[name] += times
        for line in bodies.get(name, []):
            trips = _trips(bodies, line) if " while(" in line else 1
            for called in re.findall(_CALLED, line):
                visit(called, times * trips)

    visit(entry, 1)
    return counts


def _collective(match: re.Match[str], line: str, in_loop: bool, times: int) -> Collective:
    kind, shapes = match["kind"], _SHAPE.findall(match["type"])
    bits = [
        (8 if name == "pred" else int(re.sub(r"\D", "", name)))
        * math.prod(int(n) for n in dimensions.split(",") if n)
        for name, dimensions in shapes
    ]
    # The type of an asynchronous gather lists its operands first, then its results.
    if match["start"] and kind in ("all-gather", "collective-permute"):
        bits = bits[len(bits) // 2 :]
    size = sum(bits) // 8
    if kind == "reduce-scatter":
        group = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
        size *= len(group[1].split(",")) if group else 1
    types = tuple(sorted({name for name, _ in shapes}))
    return Collective(kind, types, size, in_loop, times)


def grouped(operations: Iterable[Collective]) -> list[dict[str, Any]]:
    """Collectives of one kind, type and loop counted and added up, largest first."""
    groups: dict[Any, dict[str, Any]] = {}
    for op in operations:
        new = {"kind": op.kind, "types": op.types, "in_loop": op.in_loop, "count": 0, "bytes": 0}
        group = groups.setdefault((op.kind, op.types, op.in_loop), new)
        group["count"] += 1
        group["bytes"] += op.bytes
    return sorted(groups.values(), key=lambda group: -group["bytes"])


def cycles(text: str) -> float:
    """Cycles that the TPU compiler estimates for a program, or 0 where it estimates nothing.

    The body of a loop counts as often as the loop runs. Collectives and hand-written kernels
    carry no estimate, so the sum is a lower bound.
    """
    bodies, entry = _computations(text)

    def of_computations(names: list[str]) -> float:
        return sum(of_line(line) for name in names for line in bodies.get(name, []))

    def of_line(line: str) -> float:
        estimate = re.search(r'"estimated_cycles":"(\d+)"', line)
        own = float(estimate[1]) if estimate else 0.0
        if " while(" in line:
            return own + of_computations(re.findall(_LOOPED, line)) * _trips(bodies, line)
        if re.search(r" (call|conditional)\(", line):
            return own + of_computations(re.findall(_CALLED, line))
        return own  # The estimate of a fusion includes the operations it is made of.

    return of_computations([entry])


def _trips(bodies: Computations, line: str) -> int:
    """Number of iterations of a loop: the bound that its condition compares the counter with."""
    condition = re.search(r"\bcondition=%?([\w.\-]+)", line)
    lines = bodies.get(condition[1], []) if condition else []
    bounds = re.findall(r" s32\[\]\S* constant\((\d+)\)", "\n".join(lines))
    return int(bounds[0]) if len(bounds) == 1 else 1


def _computations(text: str) -> tuple[Computations, str]:
    """All computations of a program, and the name of its entry."""
    text = re.sub(r"/\*.*?\*/", "", text)  # Comments inside tuple types would hide their end.
    bodies: Computations = {}
    current, entry = "", ""
    for line in text.splitlines():
        head = re.match(r"^(ENTRY )?%?([\w.\-]+) .*\{$", line)
        if head:
            current = head[2]
            entry = current if head[1] else entry
        bodies.setdefault(current, []).append(line)
    return bodies, entry
