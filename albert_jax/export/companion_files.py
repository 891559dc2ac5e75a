"""The files beside exported weights: config.json, the tokenizer, and a card in README.md."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Any

from albert_jax import configfile, files
from albert_jax.config import LAYER_NORM_EPS
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.evaluation import EVALUATION_NAME, columns
from albert_jax.json_files import json_bytes
from albert_jax.model_io.huggingface import CONFIG_NAME, FINGERPRINT
from albert_jax.model_io.model import Model
from albert_jax.model_io.parameter_conversion import config_entries
from albert_jax.model_io.tokenizer_json import inexpressible_tokens, tokenizer_files
from albert_jax.tasks.support.transformers_class import TransformersClass
from albert_jax.tasks.task import AnyTask

_PACKAGES = {
    "transformers": "transformers torch",
    "sentence-transformers": "sentence-transformers",
    "onnx": "onnxruntime",
    "jax": "jax flatbuffers",
}
"""Packages that load the export, by the name that model hubs have for the library."""


def companion_files(
    model: Model,
    task: AnyTask | None,
    cls: TransformersClass | None,
    *,
    stored: str,
    dtype: str,
    library: str,
    usage: Sequence[str],
) -> dict[str, bytes]:
    """The contents of the files by their names.

    `task` is that whose head the export has, `cls` the class of Transformers with this head.
    `stored` says what is stored, without a full stop, and `library` is what model hubs call the
    program that loads it. `usage` are lines of Python.
    """
    tokenizer = tokenizer_files(model.vocabulary, model.config.max_position_embeddings)
    entries = _config_entries(model, dtype)
    if cls is not None:
        entries["architectures"] = [cls.name]
    if task is not None:
        entries |= task.transformers_config(model.run_config.phases[-1].sequence_length)
    tags = ["- albert"]
    if cls is not None and cls.pipeline:
        tags += [f"- {cls.pipeline}", f"pipeline_tag: {cls.pipeline}"]
    lines = [
        *("---", "license: unknown", f"library_name: {library}", "tags:", *tags, "---", ""),
        f"# ALBERT, {'fine-tuned' if task is not None else 'trained'} with albert_jax",
        "",
        f"{stored}. Before you publish it, set `license` in the first lines of this file, and name "
        "the text that it was trained on.",
    ]
    if task is not None:
        lines += ["", "## Task", "", *task.card_lines()]
    if task is not None or model.run_config.task is None:
        lines += _score_lines(model)
    lines += [
        *("", "## Use", ""),
        "THIS_FOLDER stands for the path of this folder, or for its name on a model hub. "
        f"Needed: `pip install {_PACKAGES[library]}`.",
        *("", "```python", *usage, "```"),
    ]
    if tokenizer:
        lines += ["", "## Vocabulary", "", *_vocabulary_lines(model.vocabulary)]
    if model.has_run_config:
        toml = configfile.dumps(configfile.without_folders(model.run_config)).rstrip()
        verb = "pretrain" if model.run_config.task is None else "finetune"
        lines += [
            *("", "## Training config", ""),
            f"Saved as config.toml, it repeats the training: `albert-jax {verb} --config "
            "config.toml --out RUN`, with the same data, and with the same `--init` if the "
            "training had one. (Its depth is that of this export.)",
            *("", "```toml", toml, "```"),
        ]
    card = ("\n".join(lines) + "\n").encode()
    vocabulary_files = tokenizer or model.vocabulary.files()
    return {CONFIG_NAME: json_bytes(entries), "README.md": card, **vocabulary_files}


def _score_lines(model: Model) -> list[str]:
    """A section with what `albert-jax evaluate` found for just these weights, if it did."""
    content = files.read(files.join(model.source, EVALUATION_NAME)) if model.step else None
    own, found, report = f"{model.config.num_hidden_layers} layers", {}, {}
    with contextlib.suppress(ValueError, RecursionError, AttributeError, TypeError, KeyError):
        report = json.loads(content or b"{}")  # It may be damaged.
        if (report.get("step"), report.get("weights")) == (model.step, model.weights):
            found = {name: dict(scores) for name, scores in columns(report).items()}
    if own not in found:
        return []
    examples = f"{report['examples']} examples" if "examples" in report else "held-out documents"
    # Evaluation of pretraining computes as the run did, all else in float32.
    dtype = "float32" if model.run_config.task else model.run_config.compute.dtype
    notes = [f"Measured by `albert-jax evaluate` on {examples} at step {model.step}, in {dtype}."]
    names = [name for name in (own, "majority") if name in found]
    if "majority" in names:
        notes.append("The majority is the majority class of the training examples.")
    return [
        *("", "## Scores", ""),
        *notes,
        "",
        f"| score | {' | '.join(names)} |",
        "|---" * (1 + len(names)) + "|",
        *(
            f"| {score} | {' | '.join(_cell(found[name].get(score)) for name in names)} |"
            for score in found[own]
        ),
    ]


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _config_entries(model: Model, dtype: str) -> dict[str, Any]:
    """Entries for Transformers, which is strict about types: sizes are ints, rates floats."""
    entries = config_entries(model.config)
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range"):
        entries[name] = float(entries[name])
    ends = {"bos_token_id": model.vocabulary.cls_id, "eos_token_id": model.vocabulary.sep_id}
    return entries | {
        "model_type": "albert",
        "layer_norm_eps": LAYER_NORM_EPS,
        "classifier_dropout_prob": 0.1,
        "pad_token_id": int(model.vocabulary.pad_id),
        **{name: int(id) for name, id in ends.items() if id >= 0},
        "dtype": dtype,
        FINGERPRINT: model.vocabulary.fingerprint,
    }


def _vocabulary_lines(vocabulary: Vocabulary) -> list[str]:
    lines = [
        f"{vocabulary.size} tokens, fingerprint {vocabulary.fingerprint}.",
        "tokenizer.json gives the ids of training; AutoTokenizer of Transformers reads it.",
    ]
    exceptions = inexpressible_tokens(vocabulary)
    if exceptions:
        lines.append(
            f"Exception: {len(exceptions)} tokens of digits and a comma inside a word (such as "
            f"`{exceptions[0]}`) were taken apart in training in a way that tokenizer.json cannot "
            "express."
        )
    return lines
