"""StableHLO: the network as one self-contained program of jax.export, for any batch and length.

Weights are constants of the program. The loop over the layers holds shared ones once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.export.programs import Program
from albert_jax.export.quantization import Int8
from albert_jax.model_io.model import Model

PLATFORMS = ("cpu", "cuda", "tpu")


def serialize(program: Program, model: Model, int8: Mapping[str, Int8]) -> bytes:
    """The program with its weights; `int8` is empty, because there is no such type here."""
    assert not int8
    axes = dict.fromkeys(axis for shape in program.inputs.values() for axis in shape)
    bounds = [f"length <= {model.config.max_position_embeddings}"]
    if program.shortest_length > 1:
        bounds.append(f"length >= {program.shortest_length}")
    symbols = jax.export.symbolic_shape(", ".join(map(str, axes)), constraints=bounds)
    symbol = dict(zip(axes, symbols, strict=True))
    arguments = {
        name: jax.ShapeDtypeStruct(
            tuple(symbol[axis] for axis in shape), jnp.float32 if name == "p_mask" else jnp.int32
        )
        for name, shape in program.inputs.items()
    }
    weights = jax.tree.map(jnp.asarray, model.params)
    function = jax.jit(lambda inputs: program.call(weights, inputs))
    return bytes(jax.export.export(function, platforms=PLATFORMS)(arguments).serialize())


def run(path: Path, program: Program, inputs: dict[str, np.ndarray]) -> Mapping[str, Any]:
    """Outputs by name."""
    outputs: Any = jax.export.deserialize(bytearray(path.read_bytes())).call(inputs)
    return outputs


def compatibility() -> str:
    """Until when the program is promised to load; a release of JAX does not tell its own date."""
    return (
        f"written by jax {jax.__version__}: it loads with that and with releases of the six months "
        "after it, and other releases may not load it"
    )


def usage(program: Program) -> list[str]:
    """Python that loads the program and shows what it takes and gives."""
    return [
        *(f"# {part}" for part in compatibility().split(": ")),
        "import jax, numpy",
        "",
        'content = open("THIS_FOLDER/model.stablehlo", "rb").read()',
        "exported = jax.export.deserialize(bytearray(content))",
        "print(exported.in_avals, exported.out_avals)  # attention_mask: 1 where there is text",
        f"# exported.call({{{', '.join(f'{name!r}: ...' for name in program.inputs)}}})",
    ]
