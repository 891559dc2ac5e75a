"""Folders that hold the network as one graph, ONNX or StableHLO, with its tokenizer and card."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from albert_jax.errors import AlbertError, CheckpointError, ConfigError, DataError
from albert_jax.export import model_card, onnx_graph, programs, stablehlo
from albert_jax.export import quantization as quantise
from albert_jax.export import transformers_classes as classes
from albert_jax.export.programs import Program
from albert_jax.export.transformers_classes import Head
from albert_jax.files.json_files import json_bytes
from albert_jax.files.new_folder import new_folder, write_files
from albert_jax.inference.fill_mask import HELD_OUT_SENTENCES
from albert_jax.inference.predict import predict, task_of
from albert_jax.model_io import huggingface
from albert_jax.model_io.model import Model
from albert_jax.model_io.tokenizer_json import tokenizer_files
from albert_jax.tasks import features, registry
from albert_jax.tree import flatten

Graph = Literal["onnx", "stablehlo"]

ONNX_NAME = "model.onnx"
RECORD_NAME = "conversion.json"
DRIFT_TEXTS, DRIFT_LENGTH = 16, 128
"""How much text the drift of int8 weights is measured on."""

LIMIT = 2_000_000_000
"""Bytes of weights that one file of either format can hold."""


def export(model: Model, out: str, *, to: Graph, head: Head | None, int8: bool) -> str:
    """Writes the folder; returns lines on what was written.

    What was written is read again and compared with our own forward pass. `int8` stores the
    weights so and records in conversion.json what that changes: the states after each pass and,
    where the run is fine-tuned and its dev examples can be read, the scores.

    Raises:
      CheckpointError: `out` exists, the weights lack a part that the head needs, one of them is
        not finite, or they are too large for one file.
      StorageError: the disk is full or not writable.
    """
    params = jax.device_get(model.params)
    program = programs.program(model.run_config, params, head)
    huggingface.check_vocabulary(model.vocabulary, model.config)
    huggingface.check_finite(params, "the weights")
    stored, seen = quantise.quantise(params) if int8 else ({}, params)
    kind = "int8" if int8 else "float32"
    size = sum(leaf.nbytes for leaf in flatten(params).values()) // (4 if int8 else 1)
    if size > LIMIT:
        raise CheckpointError(
            f"the weights take {size:,} bytes, and one {to} file holds {LIMIT:,}: export them for "
            "Transformers"
        )
    with new_folder(out) as folder:
        name = ONNX_NAME if to == "onnx" else stablehlo.NAME
        if to == "onnx":
            graph = onnx_graph.build(program, model.run_config, params, stored)
            content = graph.SerializeToString(deterministic=True)
        else:
            content = stablehlo.serialize(program, params, model.config.max_position_embeddings)
        write_files(folder, {name: content} | _beside(model, program, to, kind, head))
        worst = _difference(program, seen, folder / name, model.config.max_position_embeddings)
        record: dict[str, Any] = {
            "graph": program.kind,
            "weights": kind,
            "inputs": {key: list(axes) for key, axes in program.inputs.items()},
            "outputs": {key: list(axes) for key, axes in program.outputs.items()},
            "max_difference": worst,
        }
        lines = [
            f"{out}: {to} graph of {program.kind}, {kind} weights, {len(content):,} bytes, "
            f"largest difference {worst:.3g}"
        ]
        if int8:
            found = _changes(model, params, seen, program.kind)
            record["int8"] = found
            lines += _told(found)
        write_files(folder, {RECORD_NAME: json_bytes(record)})
    return "\n".join(lines)


def _beside(
    model: Model, program: Program, to: Graph, kind: str, head: Head | None
) -> dict[str, bytes]:
    """config.json, tokenizer and card."""
    run_config, config = model.run_config, model.config
    task = run_config.task if head is None else None
    described = huggingface.config_json(config, model.vocabulary, dtype="float32")
    try:
        like = classes.choose(head, task)
        described["architectures"] = [like.name]
    except ConfigError:  # a head that no class of Transformers has
        like = None
    if task is not None:
        length = run_config.phases[-1].sequence_length
        described |= registry.get(task.name).transformers_config(task, length)
    card = model_card.text(
        config,
        model.vocabulary,
        run_config,
        task,
        stored=f"The graph of {program.kind} for {to}, {kind} weights",
        library="onnx" if to == "onnx" else "jax",
        pipeline=None if like is None else like.pipeline,
        usage=_onnx_usage(program, model_card.has_text(model.vocabulary))
        if to == "onnx"
        else stablehlo.USAGE,
    )
    return {
        huggingface.CONFIG_NAME: json_bytes(described),
        "README.md": card,
        **tokenizer_files(model.vocabulary, config.max_position_embeddings),
    }


def _onnx_usage(program: Program, tokenizer: bool) -> list[str]:
    """Python that runs the graph on a text, or on ids where no tokenizer lies beside it."""
    grouped = len(program.inputs["input_ids"]) == 3
    if grouped:
        texts = '["the context"] * 2, ["one choice", "another"], padding=True'
    elif any(name.startswith("start_") for name in program.outputs):
        texts = '["a question"], ["the context"]'
    else:
        texts = '["a text"]'
    if tokenizer:
        lines = [
            "import onnxruntime",
            "from transformers import AutoTokenizer",
            "",
            'tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")',
            f'inputs = dict(tokenizer({texts}, return_tensors="np"))',
        ]
    else:
        lines = [
            "import numpy",
            "import onnxruntime",
            "",
            'ids = numpy.ones((1, 16), "int64")',
            'inputs = {"input_ids": ids, "token_type_ids": 0 * ids, "attention_mask": ids}',
        ]
    if grouped:
        lines.append("inputs = {name: rows[None] for name, rows in inputs.items()}  # one question")
    if "p_mask" in program.inputs:
        lines += [
            'inputs["p_mask"] = (1 - inputs["token_type_ids"]).astype("float32")',
            'inputs["p_mask"][:, 0] = 0  # Answers stand in the context; [CLS] is for none.',
            'inputs["p_mask"][:, -1] = 1',
        ]
    return [
        *lines,
        f'session = onnxruntime.InferenceSession("THIS_FOLDER/{ONNX_NAME}")',
        "outputs = session.run(None, inputs)",
    ]


def _difference(program: Program, params: Mapping[str, Any], path: Path, longest: int) -> float:
    """Of the written graph to our own forward pass on two rows, one of them padded."""
    length = min(longest, max(16, program.shortest + 2))
    sizes = {"batch": 2, "choices": 2, "length": length}
    draw = np.random.default_rng(0)
    shape = tuple(sizes[str(axis)] for axis in program.inputs["input_ids"])
    mask = np.ones(shape, np.int32)
    mask[-1, ..., length - 2 :] = 0
    vocab = params["embeddings"]["word_embeddings"]["embedding"].shape[0]
    inputs: dict[str, np.ndarray] = {
        "input_ids": draw.integers(0, vocab, shape, np.int32) * mask,
        "token_type_ids": mask * (np.arange(length, dtype=np.int32) > length // 2),
        "attention_mask": mask,
    }
    if "p_mask" in program.inputs:
        inputs["p_mask"] = (1 - mask).astype(np.float32)
    if path.name == ONNX_NAME:
        from onnx.reference import ReferenceEvaluator

        given = {n: x.astype(np.int64) if x.dtype == np.int32 else x for n, x in inputs.items()}
        with np.errstate(divide="ignore"):  # log of a probability of 0
            values: Any = ReferenceEvaluator(str(path)).run(None, given)
        found = dict(zip(program.outputs, values, strict=True))
    else:
        found = jax.export.deserialize(bytearray(path.read_bytes())).call(inputs)
    ours = jax.jit(program.call)(params, inputs)
    return max(
        float(np.abs(np.asarray(ours[name], np.float64) - np.asarray(found[name])).max())
        for name in program.outputs
    )


def _changes(
    model: Model, params: Mapping[str, Any], seen: Mapping[str, Any], kind: str
) -> dict[str, Any]:
    """What int8 weights change: the states after each pass, and the scores of a fine-tuned run."""
    found: dict[str, Any] = {}
    texts: Sequence[str] = [sentence.text for sentence in HELD_OUT_SENTENCES]
    task = model.run_config.task
    if task is not None and kind == task.name:
        try:
            _, finetuned = task_of(model)
            examples = finetuned.read_examples(task.dev, task, labelled=True)
            examples = examples[: model.run_config.run.max_eval_samples]
            texts = [text for x in examples for text in finetuned.texts(x) if text]
            found["score"] = {"file": task.dev, "examples": len(examples)}
            exact = dataclasses.replace(model.run_config, compute=programs.EXACT)
            for name, weights in (("float32", params), ("int8", seen)):
                tried = dataclasses.replace(model, run_config=exact, params=dict(weights))
                answers = predict(tried, examples)
                scores = finetuned.score(examples, answers, task)
                found["score"][name] = {key: scores[key] for key in task.metrics if key in scores}
        except AlbertError as error:
            found["score"] = {"not measured": str(error)}
    length = min(DRIFT_LENGTH, model.config.max_position_embeddings)
    try:
        ids = model.vocabulary.encode(texts[:DRIFT_TEXTS])
    except DataError:  # a vocabulary of bare ids has no text
        draw = np.random.default_rng(0)
        ids = list(draw.integers(0, model.config.vocab_size, (DRIFT_TEXTS, length)))
    rows = features.sequence_rows(
        [features.single(model.vocabulary, row, length) for row in ids], length
    )
    found["passes"] = quantise.drift(params, seen, model.config, rows)
    return found


def _told(found: Mapping[str, Any]) -> list[str]:
    lines = ["int8 to float32, states after pass:  mean cosine  largest difference"]
    lines += [
        f"{row['pass']:>34}  {row['cosine']:>11.6f}  {row['max_difference']:>18.4g}"
        for row in found["passes"]
    ]
    score = found.get("score", {})
    if "not measured" in score:
        lines.append(f"score not measured: {score['not measured']}")
    elif score:
        lines += [
            f"{name}: {score['float32'][name]:.4f} in float32, {score['int8'][name]:.4f} in int8 "
            f"({score['examples']} examples of {score['file']})"
            for name in score["float32"]
        ]
    return lines
