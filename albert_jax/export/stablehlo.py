"""StableHLO: the network as one self-contained program of jax.export, for any batch and length.

    exported = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
    exported.call({"input_ids": ..., "token_type_ids": ..., "attention_mask": ...})

Weights are constants of the program; the loop over passes holds the shared ones once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from albert_jax.export.programs import Program

NAME = "model.stablehlo"

PLATFORMS = ("cpu", "cuda", "tpu")

USAGE = (
    "import jax, numpy",
    "",
    f'exported = jax.export.deserialize(bytearray(open("THIS_FOLDER/{NAME}", "rb").read()))',
    "print(exported.in_avals, exported.out_avals)  # int32 ids, types, mask (1: text)",
)


def serialize(program: Program, params: Mapping[str, Any], longest: int) -> bytes:
    """The program with these weights; batch is free, and length up to `longest`."""
    axes = dict.fromkeys(axis for shape in program.inputs.values() for axis in shape)
    bounds = [f"length <= {longest}"]
    if program.shortest > 1:
        bounds.append(f"length >= {program.shortest}")
    symbols = jax.export.symbolic_shape(", ".join(map(str, axes)), constraints=bounds)
    known = dict(zip(axes, symbols, strict=True))
    arguments = {
        name: jax.ShapeDtypeStruct(
            tuple(known[axis] for axis in shape), jnp.float32 if name == "p_mask" else jnp.int32
        )
        for name, shape in program.inputs.items()
    }
    weights = jax.tree.map(jnp.asarray, params)
    function = jax.jit(lambda inputs: program.call(weights, inputs))
    return bytes(jax.export.export(function, platforms=PLATFORMS)(arguments).serialize())
