"""Peak rates of accelerators, from their data sheets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One accelerator chip as it is sold; TPU chips may show several devices."""

    name: str
    """Name in slice names and tables."""
    kinds: tuple[str, ...]
    """Values of `device_kind` by which JAX knows it; other boards and parts of one have others."""
    flops: float
    """Dense bfloat16 matrix-product FLOP/s of a chip."""
    memory: float
    """Bytes of device memory of a chip that a program can use."""
    bandwidth: float
    """Bytes/s between device memory and cores of a chip."""
    link: float
    """Bytes/s one way over one link to a neighbor; of a GPU, to all others inside its host."""
    devices: int = 1
    """JAX devices of a chip."""
    clock: float = 0.0
    """Hz of the cycles that the compiler estimates, or 0 where it is not known."""


GIB = 2.0**30

CHIPS = {
    chip.name: chip
    for chip in (
        Chip(name="v2", kinds=("TPU v2",), flops=45e12, memory=15.5 * GIB, bandwidth=0.7e12,
             link=62e9, devices=2),
        Chip(name="v3", kinds=("TPU v3",), flops=123e12, memory=31.5 * GIB, bandwidth=0.9e12,
             link=82e9, devices=2),
        Chip(name="v4", kinds=("TPU v4",), flops=275e12, memory=31.5 * GIB, bandwidth=1.2e12,
             link=45e9),
        Chip(name="v5e", kinds=("TPU v5 lite", "TPU v5e"), flops=197e12, memory=15.75 * GIB,
             bandwidth=0.82e12, link=45e9, clock=1.5e9),
        Chip(name="v5p", kinds=("TPU v5p", "TPU v5"), flops=459e12, memory=95.0 * GIB,
             bandwidth=2.77e12, link=90e9),
        Chip(name="v6e", kinds=("TPU v6 lite", "TPU v6e"), flops=918e12, memory=31.25 * GIB,
             bandwidth=1.64e12, link=90e9),
        Chip(name="7x", kinds=("TPU7x", "TPU v7"), flops=2307e12, memory=189.0 * GIB,
             bandwidth=7.4e12, link=100e9, devices=2),
        Chip(name="h100", kinds=("NVIDIA H100 80GB HBM3",), flops=989e12, memory=79.0 * GIB,
             bandwidth=3.35e12, link=450e9),
        Chip(name="h200", kinds=("NVIDIA H200",), flops=989e12, memory=139.0 * GIB,
             bandwidth=4.8e12, link=450e9),
    )
}  # fmt: skip
"""Google's and NVIDIA's published figures; usable memory as compilers and drivers report it."""


def of_device(kind: str) -> Chip | None:
    """The chip behind a JAX device's `device_kind`; None for a CPU or an unknown one."""
    return next((chip for chip in CHIPS.values() if kind in chip.kinds), None)
