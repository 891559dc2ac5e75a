"""Slice names as Google uses them, and what each one is.

The number counts TensorCores for v2, v3, v4 and v5p (two a chip: v5p-128 is 64 chips), chips for
v5e (also v5litepod) and v6e; 7x is named by its topology (7x-4x4x4). h100-8 and h200-8 are GPUs.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from functools import cache

from albert_jax.errors import ConfigError
from albert_jax.plan.chips import CHIPS, Chip


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Chips of one kind that are wired together."""

    name: str
    chip: Chip
    topology: tuple[int, ...]
    """Chips along each axis; GPUs: (hosts, GPUs of a host)."""
    hosts: int

    @property
    def chips(self) -> int:
        """Number of chips."""
        return math.prod(self.topology)

    @property
    def devices(self) -> int:
        """Number of devices that JAX shows."""
        return self.chips * self.chip.devices

    @property
    def is_tpu(self) -> bool:
        """Whether libtpu can compile for it."""
        return self.chip.name not in ("h100", "h200")

    @property
    def axes(self) -> int:
        """Axes of the torus along which a chip has neighbours."""
        return sum(size > 1 for size in self.topology)

    def bandwidth(self) -> float:
        """Bytes/s that a chip sends in an all-reduce over the whole slice: both directions of
        every axis; GPUs on several hosts: one 400 Gbit/s adapter each."""
        if self.is_tpu:
            return self.chip.link * 2 * max(1, self.axes)
        return self.chip.link if self.hosts == 1 else 50e9

    def describe(self) -> str:
        """For the table: "v5p-128: 64 chips of v5p, 16 hosts, topology 4x4x4"."""
        shape = "x".join(map(str, self.topology))
        unit = "chips" if self.chips > 1 else "chip"
        hosts = f"{self.hosts} host{'s' if self.hosts > 1 else ''}"
        return f"{self.name}: {self.chips} {unit} of {self.chip.name}, {hosts}, topology {shape}"


_FLAT = {
    "v2": ("2x2", "4x4", "8x8", "8x16", "16x16"),
    "v3": ("2x2", "4x4", "8x8", "8x16", "16x16", "16x32", "32x32"),
    "v5e": ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v6e": ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
}
_CUBES = (
    "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16",
    "16x16x16",
)  # fmt: skip
_CORES = ("v2", "v3", "v4", "v5p")


@cache
def table() -> dict[str, Slice]:
    """All slices by name.

    >>> table()["v5p-128"].describe()
    'v5p-128: 64 chips of v5p, 16 hosts, topology 4x4x4'
    """
    found = {}
    shapes = _FLAT | dict.fromkeys(("v4", "v5p", "7x"), _CUBES)
    for kind, topologies in shapes.items():
        for text in topologies:
            topology = tuple(map(int, text.split("x")))
            chips = math.prod(topology)
            number = chips * 2 if kind in _CORES else chips
            name = f"{kind}-{text}" if kind == "7x" else f"{kind}-{number}"
            # v5e and v6e have hosts of one, four and eight chips, but in larger slices of four.
            alone = kind in ("v5e", "v6e") and chips <= 8
            hosts = 1 if alone else max(1, chips // 4)
            found[name] = Slice(name=name, chip=CHIPS[kind], topology=topology, hosts=hosts)
    for kind in ("h100", "h200"):
        for gpus in (1, 2, 4, 8, 16, 32, 64, 128, 256):
            hosts = max(1, gpus // 8)
            topology = (hosts, gpus // hosts)
            name = f"{kind}-{gpus}"
            found[name] = Slice(name=name, chip=CHIPS[kind], topology=topology, hosts=hosts)
    return found


def find(name: str) -> Slice:
    """The slice of a name; raises ConfigError with the nearest names for another one."""
    known = table()
    asked = name.lower().replace("v5litepod-", "v5e-").replace("tpu7x-", "7x-")
    if asked in known:
        return known[asked]
    kind = asked.split("-")[0]
    near = [other for other in known if other.startswith(kind + "-")]
    if kind in ("v2", "v3", "v4", "v5p", "v5e", "v6e", "h100", "h200") and near:
        number = asked.partition("-")[2]
        if number.isdecimal():
            wanted = math.log(max(1, int(number)))
            near.sort(key=lambda other: abs(math.log(int(other.split("-")[1])) - wanted))
    near = near[:3] if near else difflib.get_close_matches(asked, known, 3, 0.3)
    near = near or ["v5e-256", "v5p-128", "7x-4x4x4"]
    raise ConfigError(f"--slice {name}: no such slice; nearest: {', '.join(near)}")
