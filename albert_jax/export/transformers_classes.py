"""What a model becomes in Transformers: a class per head and task, its config, its files.

The dense layers of our heads are those of Transformers' classes under other names. Two things
have no class there: the start-conditioned head of SQuAD 2.0, and a classifier over the mean of
the tokens (theirs reads the pooled [CLS]).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

from albert_jax.config import Config, TaskConfig
from albert_jax.errors import ConfigError
from albert_jax.files.json_files import json_bytes

Head = Literal["pretraining", "mlm", "base"]


@dataclass(frozen=True, kw_only=True)
class Class:
    """One class of Transformers, and which of our parameters it takes."""

    name: str
    auto: str
    """The Auto class that loads it."""
    units: tuple[str, ...] = ()
    """Parts of the pretrained network that it needs beside embeddings and encoder."""
    layer: tuple[str, str] | None = None
    """Our dense layer under "head", and its name there."""
    pipeline: str | None = None
    """What model hubs call its use."""


HEADS: dict[Head, Class] = {
    "pretraining": Class(
        name="AlbertForPreTraining",
        auto="AutoModelForPreTraining",
        units=("pooler", "mlm_head", "sop_head"),
        pipeline="fill-mask",
    ),
    "mlm": Class(
        name="AlbertForMaskedLM",
        auto="AutoModelForMaskedLM",
        units=("mlm_head",),
        pipeline="fill-mask",
    ),
    "base": Class(name="AlbertModel", auto="AutoModel", units=("pooler",)),
}
"""By --head."""

_SENTENCES = Class(
    name="AlbertForSequenceClassification",
    auto="AutoModelForSequenceClassification",
    units=("pooler",),
    layer=("classifier", "classifier"),
    pipeline="text-classification",
)
TASKS: dict[str, Class] = {
    "classification": _SENTENCES,
    "regression": _SENTENCES,
    "choice": Class(
        name="AlbertForMultipleChoice",
        auto="AutoModelForMultipleChoice",
        units=("pooler",),
        layer=("classifier", "classifier"),
        pipeline="multiple-choice",
    ),
    "squad-v1": Class(
        name="AlbertForQuestionAnswering",
        auto="AutoModelForQuestionAnswering",
        layer=("span", "qa_outputs"),
        pipeline="question-answering",
    ),
    "tagging": Class(
        name="AlbertForTokenClassification",
        auto="AutoModelForTokenClassification",
        layer=("tagger", "classifier"),
        pipeline="token-classification",
    ),
    "embedding": Class(name="AlbertModel", auto="AutoModel", pipeline="sentence-similarity"),
    "generation": HEADS["mlm"],
}
"""By the name of a task."""

SCRIPT = "generate.py"
"""Decodes an exported generation model without us."""


def choose(head: Head | None, task: TaskConfig | None) -> Class:
    """The class to write: the named head's, else the task's, else pretraining's.

    Raises ConfigError for a task whose head no class of Transformers has.
    """
    if head is not None:
        return HEADS[head]
    if task is None:
        return HEADS["pretraining"]
    elsewhere = "export it --to onnx or stablehlo"
    if task.name not in TASKS:
        raise ConfigError(
            f"Transformers has no class with the head of {task.name} (an end that depends on the "
            f"start): {elsewhere}"
        )
    found = TASKS[task.name]
    if found.layer and "pooler" in found.units and task.pooling == "mean":
        raise ConfigError(
            f"Transformers' {found.name} reads the pooled [CLS], this model the mean of the tokens "
            f"(task.pooling): {elsewhere}, or fine-tune with --task.pooling cls"
        )
    return found


def own_task(head: Class, run: Config | None) -> TaskConfig | None:
    """The task of a fine-tuned run that is exported with its own head, else None."""
    task = None if run is None else run.task
    return task if task is not None and TASKS.get(task.name) == head else None


def task_settings(task: TaskConfig, length: int) -> dict[str, Any]:
    """What a task adds to config.json: labels, kind of problem, canvas (rows of `length`)."""
    found: dict[str, Any] = {"classifier_dropout_prob": float(task.head_dropout)}
    labels = ("score",) if task.name == "regression" else task.labels
    if labels:
        found["id2label"] = {str(i): label for i, label in enumerate(labels)}
        found["label2id"] = {label: i for i, label in enumerate(labels)}
    if task.name == "classification":
        found["problem_type"] = "single_label_classification"
    if task.name == "regression":
        found["problem_type"] = "regression"
    if task.name == "generation":
        found["canvas"] = {"places": task.canvas, "rounds": task.rounds, "length": length}
    return found


def task_files(task: TaskConfig, length: int, hidden_size: int) -> dict[str, bytes]:
    """Files beside the weights: the layout of sentence-transformers, or a decoding script."""
    if task.name == "generation":
        script = resources.files("albert_jax.export").joinpath("generate_script.py")
        return {SCRIPT: script.read_bytes()}
    if task.name != "embedding":
        return {}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(
            [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
        )
    ]
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    pooling: dict[str, Any] = {f"pooling_mode_{mode}": mode == "mean_tokens" for mode in modes}
    pooling["word_embedding_dimension"] = hidden_size
    return {
        "modules.json": json_bytes(modules),
        "1_Pooling/config.json": json_bytes(pooling),
        "sentence_bert_config.json": json_bytes({"max_seq_length": length, "do_lower_case": False}),
    }
