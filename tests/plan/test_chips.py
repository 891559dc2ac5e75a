"""Which chip a device is: by its whole name, since other boards' names only begin alike."""

from __future__ import annotations

import pytest

from albert_jax.plan import chips


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
    ],
)
def test_known_chips(kind, name):
    found = chips.of_device(kind)
    assert found is not None and found.name == name


@pytest.mark.parametrize(
    "kind", ["cpu", "NVIDIA H100 PCIe", "NVIDIA H200 NVL", "NVIDIA H200 MIG 1g.18gb", "TPU v4 lite"]
)
def test_boards_that_are_called_alike_are_unknown(kind):
    assert chips.of_device(kind) is None
