"""README.md of an export: what the model is, how it was trained, how to use it."""

from __future__ import annotations

import dataclasses

from albert_jax import configfile
from albert_jax.config import Config, ModelConfig
from albert_jax.convert import names, released
from albert_jax.convert.tokenizer_json import unsayable
from albert_jax.data.vocabulary import Vocabulary

_CLASSES = {
    "pretraining": "AutoModelForPreTraining",
    "mlm": "AutoModelForMaskedLM",
    "base": "AutoModel",
}


def text(
    config: ModelConfig, vocabulary: Vocabulary | None, run: Config | None, head: str, dtype: str
) -> bytes:
    """The card in Markdown with the front matter that model hubs read."""
    shapes = names.native_shapes(config)
    total = sum(_product(shape) for shape in shapes.values())
    lines = [
        "---",
        "library_name: transformers",
        "tags:",
        "- albert",
        "- fill-mask",
        *(["pipeline_tag: fill-mask"] if head != "base" else []),
        "---",
        "",
        "# ALBERT, trained with albert_jax",
        "",
        f"{total:,} parameters with both heads; stored: {head}, {dtype}. Name the licence and the "
        "training text here before you publish it.",
        "",
        "| field | value |",
        "| --- | --- |",
    ]
    lines += [f"| {name} | {value} |" for name, value in dataclasses.asdict(config).items()]
    like = released.recognise(dataclasses.asdict(config))
    if like:
        lines += ["", f"The structure is that of {like}."]
    lines += ["", "## Use", "", "```python", *_usage(head, vocabulary is not None), "```"]
    if vocabulary is not None:
        lines += ["", "## Vocabulary", "", *_vocabulary(vocabulary)]
    if run is not None:
        toml = configfile.dumps(run).rstrip()
        lines += ["", "## Recipe", "", "```toml", toml, "```"]
    return ("\n".join(lines) + "\n").encode()


def _usage(head: str, tokenizer: bool) -> list[str]:
    name = _CLASSES[head]
    lines = [f"from transformers import {name}" + (", AutoTokenizer" if tokenizer else ""), ""]
    lines += [f'model = {name}.from_pretrained("THIS_FOLDER")']
    return lines + (
        ['tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")'] if tokenizer else []
    )


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


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for extent in shape:
        total *= extent
    return total
