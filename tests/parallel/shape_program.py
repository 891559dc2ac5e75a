"""Runs the train step on several meshes of eight fake devices; prints one JSON line per case.

Run as a program: `python -m tests.parallel.shape_program CASE ...`.
"""

from __future__ import annotations

import json
import re
import sys

import jax
import numpy as np

from albert_jax import tree
from albert_jax.config import (
    ComputeConfig,
    Config,
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
    PhaseConfig,
)
from albert_jax.model.attention import XLA, splash
from albert_jax.model.init import init_params
from albert_jax.objectives.pretraining import pretraining_loss
from albert_jax.parallel.mesh import global_batch, local_rows, make_mesh
from albert_jax.train.state import init_state
from albert_jax.train.step import make_train_step

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Compile in a third of the time: the program is the same, its machine code is slower."""

ROWS, VOCABULARY, STEPS = 8, 96, 10

CASES: dict[str, tuple[int, dict, int]] = {
    "one": (1, {}, 1),
    "micro": (1, {}, 4),
    "data": (8, {}, 1),
    "cube": (8, {"data": 2, "fsdp": 2, "tensor": 2}, 2),
    "fsdp": (8, {"fsdp": 8}, 1),
    "slices": (8, {"slice": 2, "data": 4}, 1),
}
"""Name: devices, mesh, micro-batches."""


def batch_of(step: int, length: int) -> dict[str, np.ndarray]:
    """Rows of very unequal real length, packed in twos, some without a sentence-order label."""
    draw = np.random.default_rng(step)
    ends = draw.integers(6, length + 1, ROWS)
    ends[0], ends[1] = 6, length
    place = np.arange(length)
    second = place >= 4
    segments = np.where(place < ends[:, None], 1 + second, 0).astype(np.int32)
    ids = draw.integers(0, VOCABULARY, (ROWS, length)).astype(np.int32)
    masks = 5
    pair = np.tile(np.array([0, 4], np.int32), (ROWS, 1))
    return {
        "input_ids": ids * (segments > 0),
        "token_type_ids": (place % 2).astype(np.int32) * (segments > 0),
        "segment_ids": segments,
        "positions": np.tile((place - 4 * second).astype(np.int32), (ROWS, 1)),
        "mlm_positions": draw.integers(0, 6, (ROWS, masks)).astype(np.int32),
        "mlm_labels": draw.integers(0, VOCABULARY, (ROWS, masks)).astype(np.int32),
        "mlm_weights": (draw.random((ROWS, masks)) < draw.random((ROWS, 1))).astype(np.float32),
        "cls_positions": pair,
        "sop_labels": draw.integers(0, 2, (ROWS, 2)).astype(np.int32),
        "sop_weights": (draw.random((ROWS, 2)) < 0.6).astype(np.float32),
    }


def config_of(kernel: str, mesh: dict, micro: int) -> Config:
    """A tiny model with dropout 0.1 (a fused kernel: none inside attention)."""
    length = 128 if kernel == "splash" else 16
    return Config(
        seed=5,
        model=ModelConfig(
            vocab_size=VOCABULARY,
            embedding_size=16,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=length,
            hidden_dropout_prob=0.1,
            attention_probs_dropout_prob=0.0 if kernel == "splash" else 0.1,
        ),
        phases=(
            PhaseConfig(
                batch_size=ROWS,
                sequence_length=length,
                steps=STEPS,
                gradient_accumulation_steps=micro,
            ),
        ),
        optimizer=OptimizerConfig(name="muon" if kernel == "muon" else "lamb", learning_rate=0.01),
        parallel=ParallelConfig(**mesh),
        compute=ComputeConfig(dtype="float32", attention="xla", remat="dots"),
    )


_COLLECTIVE = re.compile(
    r"= (?P<type>.*?) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|"
    r"collective-permute)(-start)?\("
)
_SHAPE = re.compile(r"(?P<type>[a-z]+[0-9]+)\[(?P<shape>[0-9,]*)\]")


def collectives(text: str) -> list[dict]:
    """Kind, type, elements and place of each collective of a compiled program."""
    text = re.sub(r"/\*.*?\*/", "", text)
    bodies: dict[str, list[str]] = {}
    current = ""
    for line in text.splitlines():
        head = re.match(r"^(ENTRY )?%?([\w.\-]+) .*\{$", line)
        if head:
            current = head.group(2)
        bodies.setdefault(current, []).append(line)
    inside: set[str] = set()
    todo = re.findall(r"(?:body|condition)=%?([\w.\-]+)", text)
    while todo:
        name = todo.pop()
        if name in inside:
            continue
        inside.add(name)
        todo += re.findall(
            r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)", "\n".join(bodies.get(name, []))
        )
    found = []
    for name, lines in bodies.items():
        for line in lines:
            match = _COLLECTIVE.search(line)
            if match:
                shapes = _SHAPE.findall(match["type"])
                sizes = [
                    int(np.prod([int(n) for n in shape.split(",") if n] or [1]))
                    for _, shape in shapes
                ]
                found.append(
                    {
                        "kind": match["kind"],
                        "types": sorted({kind for kind, _ in shapes}),
                        "elements": sum(sizes),
                        "loop": name in inside,
                    }
                )
    return found


def main(names: list[str]) -> None:
    """Runs the cases.

    A name may begin with "splash:" (that kernel in interpret mode) or "muon:" (that optimizer).
    """
    jax.config.update("jax_num_cpu_devices", 8)
    for name in names:
        kernel, _, case = name.rpartition(":")
        devices, shape, micro = CASES[case]
        config = config_of(kernel, shape, micro)
        mesh = make_mesh(config.parallel, jax.devices()[:devices])
        params = init_params(config.model, 1)
        state = init_state(config, params, mesh)
        backend = splash(interpret=True) if kernel == "splash" else XLA
        loss = pretraining_loss(config.model, config.compute, backend)
        step = make_train_step(config, config.phases[0], mesh, loss)
        scalars = {"learning_rate": np.float32(0.01), "seed": np.int32(config.seed)}
        losses, compiled = [], None
        for i in range(STEPS):
            rows = batch_of(i, config.phases[0].sequence_length)
            mine = {key: value[local_rows(mesh, ROWS)] for key, value in rows.items()}
            batch = global_batch(mine, mesh, ROWS)
            if compiled is None:
                compiled = step.lower(state, batch, scalars).compile(QUICK)
            state, metrics = compiled(state, batch, scalars)
            losses.append(float(metrics["loss"]))
        flat = {path: np.asarray(leaf) for path, leaf in tree.flatten(state.params).items()}
        print(
            json.dumps(
                {
                    "case": name,
                    "losses": losses,
                    "parameters": sum(leaf.size for leaf in flat.values()),
                    "sums": {path: float(np.abs(leaf).sum()) for path, leaf in flat.items()},
                    "collectives": collectives(compiled.as_text()),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
