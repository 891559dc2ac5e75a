"""Slice names as Google uses them, and what each one is.

The number counts TensorCores for v2, v3, v4 and v5p (two a chip: v5p-128 is 64 chips), chips for
v5e (also v5litepod) and v6e; 7x is named by its topology (7x-4x4x4). h100-8 and h200-8 are GPUs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

from albert_jax.errors import ConfigError
from albert_jax.plan.chips import CHIPS, Chip

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
_NAMED_BY_CORES = ("v2", "v3", "v4", "v5p")
_GPUS = ("h100", "h200")


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Chips of one kind that are wired together."""

    name: str
    chip: Chip
    topology: tuple[int, ...]
    """Chips along each axis; for GPUs (hosts, GPUs of a host)."""
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
    def device_memory(self) -> float:
        """Bytes of a device that a program can use."""
        return self.chip.memory / self.chip.devices

    @property
    def is_tpu(self) -> bool:
        """Returns whether libtpu can compile for it."""
        return self.chip.name not in _GPUS

    def bandwidth(self) -> float:
        """Bytes/s that a chip sends in an all-reduce over the whole slice.

        A TPU chip sends in both directions of every axis. GPUs on several hosts have one adapter
        of 400 Gbit/s each.
        """
        if self.is_tpu:
            return self.chip.link * 2 * max(1, sum(size > 1 for size in self.topology))
        return self.chip.link if self.hosts == 1 else 50e9

    def describe(self) -> str:
        """The heading of a plan, "v5p-128: 64 chips of v5p, 16 hosts, topology 4x4x4"."""
        shape = "x".join(map(str, self.topology))
        unit = "chips" if self.chips > 1 else "chip"
        hosts = f"{self.hosts} host{'s' if self.hosts > 1 else ''}"
        return f"{self.name}: {self.chips} {unit} of {self.chip.name}, {hosts}, topology {shape}"


@cache
def table() -> dict[str, Slice]:
    """All slices by name."""
    slices = {}
    for kind, topologies in (_FLAT | dict.fromkeys(("v4", "v5p", "7x"), _CUBES)).items():
        for text in topologies:
            topology = tuple(map(int, text.split("x")))
            chips = math.prod(topology)
            number = chips * 2 if kind in _NAMED_BY_CORES else chips
            name = f"{kind}-{text}" if kind == "7x" else f"{kind}-{number}"
            # v5e and v6e have hosts of one, four and eight chips, but in larger slices of four.
            single = kind in ("v5e", "v6e") and chips <= 8
            hosts = 1 if single else max(1, chips // 4)
            slices[name] = Slice(name=name, chip=CHIPS[kind], topology=topology, hosts=hosts)
    for kind in _GPUS:
        for gpus in (1, 2, 4, 8, 16, 32, 64, 128, 256):
            name, hosts = f"{kind}-{gpus}", max(1, gpus // 8)
            topology = (hosts, gpus // hosts)
            slices[name] = Slice(name=name, chip=CHIPS[kind], topology=topology, hosts=hosts)
    return slices


def find(name: str) -> Slice:
    """The slice of a name. Raises ConfigError, which lists the slices of that kind."""
    known = table()
    wanted = name.lower().replace("v5litepod-", "v5e-").replace("tpu7x-", "7x-")
    if wanted in known:
        return known[wanted]
    kind = wanted.split("-")[0]
    choices = [other for other in known if other.startswith(f"{kind}-")]
    choices = choices or ["v5e-256", "v5p-128", "7x-4x4x4", "h100-8"]
    raise ConfigError(f"--slice {name}: no such slice; there are {', '.join(choices)}")
