"""The files beside exported weights: config.json, the tokenizer, and a card in README.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from albert_jax import configfile
from albert_jax.config import LAYER_NORM_EPS
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.json_files import json_bytes
from albert_jax.model_io.foreign_parameters import config_entries
from albert_jax.model_io.huggingface import CONFIG_NAME
from albert_jax.model_io.model import Model
from albert_jax.model_io.tokenizer_json import inexpressible_tokens, tokenizer_files
from albert_jax.tasks.task import AnyTask, TransformersClass


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
        *("---", f"library_name: {library}", "tags:", *tags, "---", ""),
        f"# ALBERT, {'fine-tuned' if task is not None else 'trained'} with albert_jax",
        "",
        f"{stored}. Name the license and the training text here before you publish it.",
    ]
    if task is not None:
        lines += ["", "## Task", "", *task.card_lines()]
    lines += ["", "## Use", "", "```python", *usage, "```"]
    if tokenizer:
        lines += ["", "## Vocabulary", "", *_vocabulary_lines(model.vocabulary)]
    if model.has_run_config:
        toml = configfile.dumps(model.run_config).rstrip()
        lines += ["", "## Training config", "", "```toml", toml, "```"]
    card = ("\n".join(lines) + "\n").encode()
    return {CONFIG_NAME: json_bytes(entries), "README.md": card, **tokenizer}


def _config_entries(model: Model, dtype: str) -> dict[str, Any]:
    """Entries for Transformers, which is strict about types: sizes are ints, rates floats."""
    entries = config_entries(model.config)
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range"):
        entries[name] = float(entries[name])
    return entries | {
        "model_type": "albert",
        "layer_norm_eps": LAYER_NORM_EPS,
        "classifier_dropout_prob": 0.1,
        "pad_token_id": int(model.vocabulary.pad_id),
        "bos_token_id": int(model.vocabulary.cls_id),
        "eos_token_id": int(model.vocabulary.sep_id),
        "dtype": dtype,
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
