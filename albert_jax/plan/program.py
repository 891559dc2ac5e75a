"""The text of a compiled program: its computations, its loops, and the compiler's cycle count."""

from __future__ import annotations

import re

Computations = dict[str, list[str]]
"""Name of a computation and the lines of its body."""


def computations(text: str) -> tuple[Computations, str]:
    """The computations of a program (`compiled.as_text()`) and the name of its entry."""
    # Comments inside tuple types would hide their end.
    text = re.sub(r"/\*.*?\*/", "", text)
    bodies: Computations = {}
    current, entry = "", ""
    for line in text.splitlines():
        head = re.match(r"^(ENTRY )?%?([\w.\-]+) .*\{$", line)
        if head:
            current = head.group(2)
            entry = current if head.group(1) else entry
        bodies.setdefault(current, []).append(line)
    return bodies, entry


def loops(bodies: Computations) -> list[str]:
    """Names of the bodies and conditions of all loops."""
    return [name for lines in bodies.values() for line in lines for name in _called(line, "loop")]


def reached(bodies: Computations, names: list[str]) -> set[str]:
    """The named computations and all that they call."""
    found: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += [other for line in bodies.get(name, []) for other in _called(line)]
    return found


def cycles(text: str) -> float:
    """Cycles that the TPU compiler estimates for a program, the bodies of loops as often as they
    run; 0 where it estimates nothing. Collectives and hand-written kernels carry no estimate, so
    the sum is too small."""
    bodies, entry = computations(text)
    known: dict[str, float] = {}

    def total(name: str) -> float:
        if name not in known:
            known[name] = 0.0  # a program has no recursion; this guards against a misread line
            known[name] = sum(map(line_total, bodies.get(name, [])))
        return known[name]

    def line_total(line: str) -> float:
        told = re.search(r'"estimated_cycles":"(\d+)"', line)
        here = float(told[1]) if told else 0.0
        if " while(" in line:
            inside = sum(total(other) for other in _called(line, "loop"))
            return here + inside * _trips(bodies, line)
        if re.search(r" (call|conditional)\(", line):
            return here + sum(map(total, _called(line)))
        return here  # what a fusion is made of is in its own estimate already

    return total(entry)


def _trips(bodies: Computations, line: str) -> int:
    """How often a loop runs: the one bound that its condition compares a counter with."""
    condition = re.search(r"\bcondition=%?([\w.\-]+)", line)
    lines = bodies.get(condition[1], []) if condition else []
    told = [re.search(r" s32\[\]\S* constant\((\d+)\)", one) for one in lines]
    bounds = [found[1] for found in told if found]
    return int(bounds[0]) if len(bounds) == 1 else 1


def _called(line: str, kind: str = "") -> list[str]:
    """Computations that an instruction names; `kind` "loop": those of a loop only."""
    words = "body|condition" if kind == "loop" else "calls|to_apply|body|condition"
    return re.findall(rf"\b(?:{words})=%?([\w.\-]+)", line)
