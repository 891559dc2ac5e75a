"""What a compiled program sends between devices, read from its text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from albert_jax.plan import program

_OPERATION = re.compile(
    r"= (?P<type>.*?) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|"
    r"collective-permute|send|recv)(?P<start>-start)?\("
)
_SHAPE = re.compile(r"(?P<type>pred|[a-z]+[0-9]+)\[(?P<shape>[0-9,]*)\]")
_BITS = {"pred": 8}


@dataclass(frozen=True)
class Collective:
    """One operation between devices."""

    kind: str
    """"all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute"..."""
    types: tuple[str, ...]
    """Element types, such as ("f32",)."""
    bytes: int
    """Of its result on one device; a reduce-scatter's operand."""
    in_loop: bool
    """Whether it stands in the body of a loop, so that it runs once a pass or micro-batch."""


def parse(text: str) -> list[Collective]:
    """The collectives of a compiled program (`compiled.as_text()`)."""
    bodies, _ = program.computations(text)
    looped = program.reached(bodies, program.loops(bodies))
    found, chains = [], set()
    for name, lines in bodies.items():
        for line in lines:
            match = _OPERATION.search(line)
            if not match:
                continue
            # The TPU compiler hides an operation behind others in pieces of one chain, each of
            # which shows the whole of it.
            chain = re.search(r'chain_id="(\d+)"', line)
            key = chain and (match["kind"], chain[1])
            if key is None or key not in chains:
                chains.add(key)
                found.append(_collective(match, line, name in looped))
    return found


def total(found: Iterable[Collective], *kinds: str) -> int:
    """Bytes of the collectives of some kinds (none named: of all)."""
    return sum(one.bytes for one in found if not kinds or one.kind in kinds)


def _collective(match: re.Match[str], line: str, in_loop: bool) -> Collective:
    kind, shapes = match["kind"], _SHAPE.findall(match["type"])
    sizes = [_bits(name) * math.prod(int(n) for n in dims.split(",") if n) for name, dims in shapes]
    # An asynchronous gather's type holds its operands first, then its results.
    if match["start"] and kind in ("all-gather", "collective-permute"):
        sizes = sizes[len(sizes) // 2 :]
    size = sum(sizes) // 8
    if kind == "reduce-scatter":
        group = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
        size *= len(group.group(1).split(",")) if group else 1
    return Collective(kind, tuple(sorted({name for name, _ in shapes})), size, in_loop)


def _bits(name: str) -> int:
    return _BITS.get(name) or int(re.sub(r"\D", "", name))
