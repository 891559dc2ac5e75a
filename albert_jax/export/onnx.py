"""ONNX: the network as one file for onnxruntime, with any batch size and length."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.export import onnx_graph
from albert_jax.export.programs import Program
from albert_jax.export.quantization import Int8
from albert_jax.model_io.model import Model


def serialize(
    program: Program, model: Model, params: Mapping[str, Any], int8: Mapping[str, Int8]
) -> bytes:
    """The file; equal weights give equal bytes."""
    graph = onnx_graph.build(program, model.run_config, params, int8)
    return graph.SerializeToString(deterministic=True)


def run(path: Path, program: Program, inputs: dict[str, np.ndarray]) -> Mapping[str, Any]:
    """Outputs by name, from ONNX' reference implementation."""
    from onnx.reference import ReferenceEvaluator

    wide = {n: x.astype(np.int64) if x.dtype == np.int32 else x for n, x in inputs.items()}
    with np.errstate(divide="ignore"):  # The logarithm of a probability may be that of 0.
        values: Any = ReferenceEvaluator(str(path)).run(None, wide)
    return dict(zip(program.outputs, values, strict=True))


def usage(program: Program) -> list[str]:
    """Python that runs the graph on some ids."""
    shape = (1, 2, 16) if len(program.inputs["input_ids"]) == 3 else (1, 16)
    lines = [
        "import numpy",
        "import onnxruntime",
        "",
        f'ids = numpy.ones({shape}, "int64")',
        'inputs = {"input_ids": ids, "token_type_ids": 0 * ids, "attention_mask": ids}',
    ]
    if "p_mask" in program.inputs:
        lines.append('inputs["p_mask"] = 0 * ids.astype("float32")  # 1 where no answer can stand')
    return [
        *lines,
        'session = onnxruntime.InferenceSession("THIS_FOLDER/model.onnx")',
        "outputs = session.run(None, inputs)",
    ]
