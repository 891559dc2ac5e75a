"""Folders that hold the network as one graph, with its tokenizer, config and card."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from albert_jax.config import ModelConfig
from albert_jax.errors import CheckpointError, ConfigError
from albert_jax.export import Head, onnx_graph, programs, quantization, stablehlo
from albert_jax.export.companion_files import companion_files
from albert_jax.export.programs import Program
from albert_jax.files import new_folder, write_files
from albert_jax.json_files import json_bytes
from albert_jax.model_io.model import Model
from albert_jax.model_io.safetensors_files import REPORT_NAME
from albert_jax.tree import flatten

MAX_BYTES = 2_000_000_000
"""Bytes of weights that one file of either format can hold."""


def export(
    model: Model, out: str, *, to: Literal["onnx", "stablehlo"], head: Head | None, int8: bool
) -> str:
    """Writes the folder `out` and returns lines on what was written.

    The written file is read again and compared with our own forward pass. With `int8` the weights
    are stored so, and what that changes is measured and recorded in conversion.json. Raises the
    errors of :func:`albert_jax.export.export.export`.
    """
    format, params = {"onnx": onnx_graph, "stablehlo": stablehlo}[to], model.params
    task = programs.exported_task(model, head)
    program = programs.program(model, head)
    stored, restored = quantization.quantize(params) if int8 else ({}, params)
    size = sum(leaf.nbytes for leaf in flatten(params).values()) // (4 if int8 else 1)
    if size > MAX_BYTES:
        raise CheckpointError(
            f"the weights take {size:,} bytes, and one {to} file holds {MAX_BYTES:,}: "
            "export them for Transformers"
        )
    kind = "int8" if int8 else "float32"
    try:
        cls = programs.transformers_class(head, task)
    except ConfigError:  # Transformers has no class with this head.
        cls = None
    with new_folder(out) as folder:
        path = folder / f"model.{to}"
        content = format.serialize(program, model, stored)
        path.write_bytes(content)
        files = companion_files(
            model,
            task,
            cls,
            stored=f"The graph of {program.kind} for {to}, {kind} weights",
            dtype="float32",
            library={"onnx": "onnx", "stablehlo": "jax"}[to],
            usage=format.usage(program),
        )
        write_files(folder, files)
        difference = _difference(program, restored, model.config, path, format)
        record: dict[str, Any] = {
            "graph": program.kind,
            "weights": kind,
            "inputs": {name: list(axes) for name, axes in program.inputs.items()},
            "outputs": {name: list(axes) for name, axes in program.outputs.items()},
            "max_difference": difference,
            "sha256": {path.name: hashlib.sha256(content).hexdigest()},
        }
        lines = [
            f"{out}: {to} graph of {program.kind}, {kind} weights, "
            f"{len(content):,} bytes, largest difference {difference:.3g}"
        ]
        if to == "stablehlo":
            record["compatibility"] = stablehlo.compatibility()
            lines.append(stablehlo.compatibility())
        if int8:
            record["int8"], effects = quantization.measure(model, restored, head)
            lines += effects
        write_files(folder, {REPORT_NAME: json_bytes(record)})
    return "\n".join(lines)


def _difference(
    program: Program, params: Mapping[str, Any], config: ModelConfig, path: Path, format: Any
) -> float:
    """The largest difference of the written graph to our own forward pass, on random rows."""
    length = min(config.max_position_embeddings, max(16, program.shortest_length + 2))
    sizes = {"batch": 2, "choices": 2, "length": length}
    shape = tuple(sizes[str(axis)] for axis in program.inputs["input_ids"])
    mask = np.ones(shape, np.int32)
    mask[-1, ..., length - 2 :] = 0
    ids = np.random.default_rng(0).integers(0, config.vocab_size, shape, np.int32)
    second = (np.arange(length, dtype=np.int32) > length // 2) & (config.type_vocab_size > 1)
    inputs: dict[str, np.ndarray] = {
        "input_ids": ids * mask,
        "token_type_ids": mask * second,
        "attention_mask": mask,
    }
    if "p_mask" in program.inputs:
        inputs["p_mask"] = (1 - mask).astype(np.float32)
    outputs, expected = format.run(path, program, inputs), jax.jit(program.call)(params, inputs)
    return max(
        float(np.abs(np.asarray(expected[name], np.float64) - np.asarray(outputs[name])).max())
        for name in program.outputs
    )
