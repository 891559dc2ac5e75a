"""Heads on top of the golden encoder: outputs and gradients of the original."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax.config import ComputeConfig, ModelConfig
from albert_jax.model.attention import XLA
from albert_jax.model_io.parameter_conversion import to_format
from albert_jax.objectives import loss_terms
from albert_jax.tasks import registry
from albert_jax.tasks.support.encoder import Encoder
from albert_jax.tasks.support.span_heads import conditioned_scores
from albert_jax.tasks.task import AnyTask
from tests.parity.golden_model import structure, variables
from tests.reference import golden_cases

FILES = golden_cases("heads/*.npz")
TOLERANCE = 2e-5

KEYS_ONLY = replace(XLA, prepare=lambda segment_ids: (segment_ids > 0)[:, None, None, :])
"""The original masks keys only: its padding queries see the text, and its simple span head reads
padding positions too. Ours never look out of padding, so this test alone does."""


def test_there_are_cases(golden: Path):
    assert FILES, f"{golden / 'heads'} holds no heads"


@pytest.fixture(scope="module")
def base(golden: Path) -> tuple[ModelConfig, dict]:
    """The model that heads/MODEL names."""
    folder = golden / "model" / (golden / "heads" / "MODEL").read_text().strip()
    config = structure(folder)
    with np.load(folder / "golden.npz") as golden:
        return config, variables({name: golden[name] for name in golden.files}, "var/", config)


def head_of(variables: dict[str, np.ndarray]) -> dict:
    """Our head tree of the original's head variables."""

    def dense(name: str) -> dict:
        found = {"kernel": variables[f"{name}/kernel"]}
        if f"{name}/bias" in variables:
            found["bias"] = variables[f"{name}/bias"]
        return found

    if "output_weights" in variables:
        kernel, bias = variables["output_weights"].T, variables["output_bias"]
        return {"classifier": {"kernel": kernel, "bias": bias}}
    if "cls/squad/output_weights" in variables:
        kernel = variables["cls/squad/output_weights"].T
        return {"span": {"kernel": kernel, "bias": variables["cls/squad/output_bias"]}}
    norm = "end_logits/LayerNorm"
    return {
        "start": dense("start_logits/dense"),
        "end": {
            "dense": dense("end_logits/dense_0"),
            "layer_norm": {"scale": variables[f"{norm}/gamma"], "bias": variables[f"{norm}/beta"]},
            "output": dense("end_logits/dense_1"),
        },
        "answer": {
            "dense": dense("answer_class/dense_0"),
            "output": dense("answer_class/dense_1"),
        },
    }


def variables_of(head: dict) -> dict[str, np.ndarray]:
    """The original's head variables (or gradients) of our tree."""
    if "classifier" in head or "span" in head:
        prefix = "" if "classifier" in head else "cls/squad/"
        layer = head.get("classifier") or head["span"]
        return {
            f"{prefix}output_weights": layer["kernel"].T,
            f"{prefix}output_bias": layer["bias"],
        }
    end, answer = head["end"], head["answer"]
    return {
        "start_logits/dense/kernel": head["start"]["kernel"],
        "start_logits/dense/bias": head["start"]["bias"],
        "end_logits/dense_0/kernel": end["dense"]["kernel"],
        "end_logits/dense_0/bias": end["dense"]["bias"],
        "end_logits/LayerNorm/gamma": end["layer_norm"]["scale"],
        "end_logits/LayerNorm/beta": end["layer_norm"]["bias"],
        "end_logits/dense_1/kernel": end["output"]["kernel"],
        "end_logits/dense_1/bias": end["output"]["bias"],
        "answer_class/dense_0/kernel": answer["dense"]["kernel"],
        "answer_class/dense_0/bias": answer["dense"]["bias"],
        "answer_class/dense_1/kernel": answer["output"]["kernel"],
    }


def rows_of(given: dict[str, np.ndarray], choices: int) -> dict[str, np.ndarray]:
    """Our batch of the original's inputs."""
    mask, ids = given["input_mask"], given["input_ids"]
    batch = {
        "input_ids": ids,
        "token_type_ids": given["segment_ids"],
        "segment_ids": mask,
        "positions": np.tile(np.arange(ids.shape[1] // choices), (len(ids), choices)),
    }
    if choices > 1:
        batch = {k: v.reshape(len(v), choices, -1) for k, v in batch.items()}
        batch["choice_mask"] = np.ones((len(ids), choices), np.float32)
    batch["cls_positions"] = np.zeros((*batch["input_ids"].shape[:-1], 1), np.int32)
    batch["example_weights"] = np.ones(len(ids), np.float32)
    if "label_ids" in given:
        batch["labels"] = given["label_ids"]
    for name in ("start_positions", "end_positions", "is_impossible"):
        if name in given:
            batch[name] = given[name]
    if "p_mask" in given:
        batch["p_mask"] = given["p_mask"].astype(np.float32)
    return batch


def task_of(head: dict, choices: int) -> AnyTask:
    """The task that a head belongs to, by what the head holds."""
    if "span" in head:
        name = "squad-v1"
    elif "start" in head:
        name = "squad-v2"
    elif choices > 1:
        name = "multiple-choice"
    elif head["classifier"]["bias"].size == 1:
        name = "regression"
    else:
        name = "classification"
    # The original reads [CLS] where there is one answer for the whole text.
    settings = {"pooling": "cls"} if "classifier" in head else {}
    return registry.create(registry.get(name).config_class(**settings))


def check(ours, theirs, what: str) -> None:
    np.testing.assert_allclose(
        np.asarray(ours).reshape(theirs.shape), theirs, rtol=0, atol=TOLERANCE, err_msg=what
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_head(file: Path, base: tuple[ModelConfig, dict]) -> None:
    config, body = base
    with np.load(file) as z:
        parts = {
            p: {k.removeprefix(p): z[k] for k in z.files if k.startswith(p)}
            for p in ("in/", "headvar/", "out/", "grad/")
        }
    out, grads = parts["out/"], parts["grad/"]
    head = head_of(parts["headvar/"])
    # One score for several choices of each example: multiple choice.
    one_score = "classifier" in head and head["classifier"]["bias"].size == 1
    choices = out["logits"].size // len(out["logits"]) if one_score else 1
    params = {**body, "head": head}
    batch = {k: jnp.asarray(v) for k, v in rows_of(parts["in/"], choices).items()}
    encoder = Encoder(config, ComputeConfig(dtype="float32"), KEYS_ONLY, params)
    task = task_of(head, choices)

    if "start_top_index" in out:
        starts = out["start_top_index"].shape[1]
        ends = out["end_top_index"].shape[1] // starts
        task = task.with_config(start_n_top=starts, end_n_top=ends)
        start, start_positions, end, end_positions, null = task.outputs(encoder, batch)
        check(null, out["cls_logits"], "cls_logits")
        for ours, positions, name in (
            (start, start_positions, "start"),
            (end, end_positions, "end"),
        ):
            log_probs = out[f"{name}_top_log_probs"]
            real = log_probs > -1e29
            assert real.any()
            ours = np.asarray(ours).reshape(log_probs.shape)
            check(ours[real], log_probs[real], name)
            index = out[f"{name}_top_index"]
            assert (np.asarray(positions).reshape(index.shape)[real] == index[real]).all()
        return

    def mean(params):
        parts = task.loss(encoder.bind(params), batch).terms
        return loss_terms.mean(
            parts, {name: batch[name].sum() for name in loss_terms.weight_names(batch)}
        )

    value, gradients = jax.jit(jax.value_and_grad(mean))(params)
    check(value, out["loss"], "loss")
    if "logits" in out:
        check(task.outputs(encoder, batch), out["logits"], "logits")
    elif "start_logits" in out:
        start, end = task.outputs(encoder, batch)
        check(start, out["start_logits"], "start")
        check(end, out["end_logits"], "end")
    else:
        start, end, null = conditioned_scores(encoder, batch)
        for ours, name in ((start, "start"), (end, "end")):
            theirs = out[f"{name}_log_probs"]
            real = theirs > -1e29
            check(np.asarray(ours)[real], theirs[real], name)
        check(null, out["cls_logits"], "cls_logits")

    assert grads
    ours = to_format({k: v for k, v in gradients.items() if k != "head"}, config, "original")
    ours = {**ours, **variables_of(gradients["head"])}
    for name, theirs in grads.items():
        check(ours[name], theirs, name)
