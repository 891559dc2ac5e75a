"""README.md of an export: what the model is, how it was trained, how to use it."""

from __future__ import annotations

from collections.abc import Sequence

from albert_jax import configfile
from albert_jax.config import TaskConfig
from albert_jax.data.vocabularies.id_range import IdRange
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.model_io.model import Model
from albert_jax.model_io.tokenizer_json import inexpressible_tokens
from albert_jax.tasks import registry


def text(
    model: Model,
    task: TaskConfig | None,
    *,
    stored: str,
    library: str,
    pipeline: str | None,
    usage: Sequence[str],
) -> bytes:
    """The card in Markdown, with the front matter that model hubs read.

    `task` is that whose head the export has; `stored` says what is stored, without a full stop;
    `library` and `pipeline` are what hubs call the program that loads the model, and its use.
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
        f"{stored}. Name the license and the training text here before you publish it.",
    ]
    if task is not None:
        lines += ["", "## Task", "", *registry.create(task).card_lines()]
    lines += ["", "## Use", "", "```python", *usage, "```"]
    if has_text(model.vocabulary):
        lines += ["", "## Vocabulary", "", *_vocabulary(model.vocabulary)]
    if model.has_run_config:
        toml = configfile.dumps(model.run_config).rstrip()
        lines += ["", "## Training config", "", "```toml", toml, "```"]
    return ("\n".join(lines) + "\n").encode()


def auto_class_usage(name: str, vocabulary: Vocabulary) -> list[str]:
    """Lines of Python that load a directory by an Auto class of Transformers."""
    lines = [f"from transformers import {name}" + ", AutoTokenizer" * has_text(vocabulary), ""]
    lines.append(f'model = {name}.from_pretrained("THIS_FOLDER")')
    if has_text(vocabulary):
        lines.append('tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")')
    return lines


def has_text(vocabulary: Vocabulary) -> bool:
    """Whether there are files of a tokenizer; bare ids have none."""
    return not isinstance(vocabulary, IdRange)


def _vocabulary(vocabulary: Vocabulary) -> list[str]:
    lines = [
        f"{vocabulary.size} tokens, fingerprint {vocabulary.fingerprint}.",
        "tokenizer.json gives the ids of training; its class is PreTrainedTokenizerFast.",
    ]
    exceptions = inexpressible_tokens(vocabulary)
    if exceptions:
        lines.append(
            f"Exception: {len(exceptions)} tokens of digits and a comma inside a word (such as "
            f"`{exceptions[0]}`) were taken apart in training in a way that tokenizer.json cannot "
            "express."
        )
    return lines
