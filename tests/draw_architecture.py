"""Draws docs/architecture.svg from the imports of the package, so that the picture cannot lie.

    python -m tests.draw_architecture

Every box is a package (a folder or a module at the root), every arrow an import. An arrow is left
out where a chain of other arrows says the same, and tests/test_house.py compares the picture with
the code.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from tests import test_house as house

FILE = house.ROOT / "docs" / "architecture.svg"
LEFT_OUT = ("errors", "version", "tree", "__init__", "__main__")
"""Modules that nearly everything imports, or that only hand names on."""
WIDTH, BOX, HEIGHT, GAP, FLOOR = 1180, 158, 40, 18, 84
COLORS = {
    "cli": "#e8eaf6", "commands": "#e8eaf6", "api": "#e8eaf6", "serve": "#e8eaf6",
    "train": "#fff3e0", "finetuning": "#fff3e0", "tasks": "#fff3e0", "checkpoint": "#fff3e0",
    "observe": "#fff3e0", "model": "#e0f2f1", "objectives": "#e0f2f1", "optim": "#e0f2f1",
    "parallel": "#e0f2f1", "data": "#e1f5fe",
}  # fmt: skip


def packages() -> dict[str, list[Path]]:
    """The files of each package that is drawn."""
    found: dict[str, list[Path]] = {}
    for path in house.MODULES:
        package = house._package(path)
        if package in house.PACKAGES and package not in LEFT_OUT:
            found.setdefault(package, []).append(path)
    return found


def imports() -> dict[str, set[str]]:
    """The earlier packages that each package imports; the house's test refuses any others."""
    drawn = packages()
    found = {
        package: {name[0] for path in paths for name in house._own_imports(path)}
        & {other for other in drawn if house.PACKAGES.index(other) < house.PACKAGES.index(package)}
        for package, paths in drawn.items()
    }
    found["cli"].add("commands")  # It imports the module of the command by its name.
    return found


def reduced(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same without arrows that a chain of others implies."""

    def reach(package: str) -> set[str]:
        return (
            set().union(*({other} | reach(other) for other in edges[package]))
            if package in edges
            else set()
        )

    return {
        package: {o for o in others if not any(o in reach(via) for via in others - {o})}
        for package, others in edges.items()
    }


def floors(edges: dict[str, set[str]]) -> list[list[str]]:
    """Packages by the longest chain of imports below them, from the top floor down."""
    height: dict[str, int] = {}

    def of(package: str) -> int:
        if package not in height:
            height[package] = 1 + max((of(other) for other in edges[package]), default=-1)
        return height[package]

    levels: dict[int, list[str]] = {}
    for package in sorted(edges, key=house.PACKAGES.index):
        levels.setdefault(of(package), []).append(package)
    return [levels[level] for level in sorted(levels, reverse=True)]


def svg() -> str:
    """The picture."""
    edges = imports()
    arrows = reduced(edges)
    place: dict[str, tuple[float, float]] = {}
    stack = floors(edges)
    for row, names in enumerate(stack):
        span = len(names) * BOX + (len(names) - 1) * GAP
        for column, name in enumerate(names):
            place[name] = ((WIDTH - span) / 2 + column * (BOX + GAP), 20 + row * FLOOR)
    height = 20 + len(stack) * FLOOR
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="sans-serif">',
        '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#78909c"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for package, others in arrows.items():
        x, y = place[package]
        for other in sorted(others):
            u, v = place[other]
            start, end = (x + BOX / 2, y + HEIGHT), (u + BOX / 2, v - 2)
            bend = (end[1] - start[1]) / 2
            lines.append(
                f'<path d="M{start[0]:.0f} {start[1]:.0f}C{start[0]:.0f} {start[1] + bend:.0f} '
                f'{end[0]:.0f} {end[1] - bend:.0f} {end[0]:.0f} {end[1]:.0f}" fill="none" '
                'stroke="#90a4ae" stroke-width="1.2" marker-end="url(#a)"/>'
            )
    for package, (x, y) in place.items():
        lines += [
            f'<rect x="{x:.0f}" y="{y:.0f}" width="{BOX}" height="{HEIGHT}" rx="6" '
            f'fill="{COLORS.get(package, "#f5f5f5")}" stroke="#546e7a"/>',
            f'<text x="{x + BOX / 2:.0f}" y="{y + 26:.0f}" text-anchor="middle" font-size="16" '
            f'fill="#263238">{escape(package)}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    FILE.write_text(svg())
    print(FILE)
