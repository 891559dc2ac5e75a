"""README.md of an export: what the model is, how it was trained, how to use it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from albert_jax import configfile
from albert_jax.config import Config, ModelConfig, TaskConfig
from albert_jax.data.vocabularies.id_range import IdRange
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.export.transformers_classes import own_task
from albert_jax.model_io import published_models as released
from albert_jax.model_io.tokenizer_json import unsayable
from albert_jax.tasks import registry
from albert_jax.tasks.task import TransformersClass


def text(
    config: ModelConfig,
    vocabulary: Vocabulary | None,
    run: Config | None,
    task: TaskConfig | None,
    *,
    stored: str,
    library: str,
    pipeline: str | None,
    usage: Sequence[str],
) -> bytes:
    """The card in Markdown with the front matter that model hubs read.

    `task` is the one that the export has its head for, `stored` says how many parameters of
    which kind there are, `library` and `pipeline` are the hubs' words, `usage` lines of Python.
    """
    lines = [
        "---",
        f"library_name: {library}",
        "tags:",
        "- albert",
        *([f"- {pipeline}", f"pipeline_tag: {pipeline}"] if pipeline else []),
        "---",
        "",
        f"# ALBERT, {'fine-tuned' if task is not None else 'trained'} with albert_jax",
        "",
        f"{stored}. Name the licence and the training text here before you publish it.",
    ]
    if task is not None:
        lines += ["", "## Task", "", *registry.get(task.name).card_lines(task)]
    lines += ["", "## Structure", "", "| field | value |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in dataclasses.asdict(config).items()]
    like = released.recognise(dataclasses.asdict(config))
    if like:
        lines += ["", f"The structure is that of {like}."]
    lines += ["", "## Use", "", "```python", *usage, "```"]
    if vocabulary is not None and has_text(vocabulary):
        lines += ["", "## Vocabulary", "", *_vocabulary(vocabulary)]
    if run is not None:
        toml = configfile.dumps(run).rstrip()
        lines += ["", "## Recipe", "", "```toml", toml, "```"]
    return ("\n".join(lines) + "\n").encode()


def transformers(
    config: ModelConfig,
    vocabulary: Vocabulary | None,
    run: Config | None,
    head: TransformersClass,
    tensors: Mapping[str, Any],
    dtype: str,
) -> bytes:
    """The card of a directory for Transformers."""
    total = sum(math.prod(tensor.shape) for tensor in tensors.values())
    task = own_task(head, run)
    usage = registry.get(task.name).usage(task) if task is not None else []
    embeds = head.pipeline == "sentence-similarity"
    return text(
        config,
        vocabulary,
        run,
        task,
        stored=f"{total:,} parameters as {head.name}, {dtype}",
        library="sentence-transformers" if embeds else "transformers",
        pipeline=head.pipeline,
        usage=usage or _usage(head, has_text(vocabulary)),
    )


def _usage(head: TransformersClass, tokenizer: bool) -> list[str]:
    name = head.auto
    lines = [f"from transformers import {name}" + (", AutoTokenizer" if tokenizer else ""), ""]
    lines += [f'model = {name}.from_pretrained("THIS_FOLDER")']
    return lines + (
        ['tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")'] if tokenizer else []
    )


def has_text(vocabulary: Vocabulary | None) -> bool:
    """Whether files of a tokenizer lie beside: bare ids have none."""
    return vocabulary is not None and not isinstance(vocabulary, IdRange)


def _vocabulary(vocabulary: Vocabulary) -> list[str]:
    if released.is_published_vocabulary(vocabulary):
        lines = ["The published vocabulary of the English ALBERT models (30,000 pieces)."]
    else:
        lines = [f"{vocabulary.size} pieces, fingerprint {vocabulary.fingerprint}."]
    lines.append("tokenizer.json gives the ids of training; its class is PreTrainedTokenizerFast.")
    apart = unsayable(vocabulary)
    if apart:
        lines.append(
            f"Exception: {len(apart)} pieces of digits and a comma inside a word (such as "
            f"`{apart[0]}`) were taken apart in training in a way tokenizer.json cannot say."
        )
    return lines
