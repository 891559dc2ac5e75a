"""Writing a directory that Transformers loads offline, with its tokenizer and a model card."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from albert_jax.data.vocabularies.id_range import IdRange
from albert_jax.data.vocabularies.symbols import Symbols
from albert_jax.data.vocabularies.vocabulary import Vocabulary, special_ids
from albert_jax.export import Head, programs
from albert_jax.export.companion_files import companion_files
from albert_jax.files import new_folder, write_files
from albert_jax.model_io import safetensors_files
from albert_jax.model_io.huggingface import WEIGHTS_NAME, to_huggingface
from albert_jax.model_io.model import Model
from albert_jax.model_io.parameter_names import OPTIONAL_MODULES
from albert_jax.model_io.weights import check_modules
from albert_jax.tasks.support.transformers_class import TransformersClass

_PIPELINES = {
    "fill-mask": "The [MASK] of the file.",
    "text-classification": "The food was cold.",
    "token-classification": "Anna Berg moved to Lisbon .",
}
"""Pipelines of Transformers with a text to try them on."""
_TEXTS = {
    "question-answering": '"Who came?", "Anna came on Monday.", truncation="only_second"',
    "multiple-choice": '["It was dark."] * 2, ["He took a torch.", "He took a hat."], '
    "padding=True, truncation=True",
}
"""Arguments of the tokenizer for heads that have no pipeline."""
_TYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}


def export(model: Model, out: str, *, head: Head | None = None, dtype: str = "float32") -> str:
    """Writes the directory `out` and returns a line on what was written.

    The class finds exactly the tensors that it expects, except for the pooler of sentence
    embeddings, which nothing reads. What was written is compared with the parameters.
    Raises the errors of :func:`albert_jax.export.export.export`.
    """
    params, task = model.params, programs.exported_task(model, head)
    cls = programs.transformers_class(head, task)
    check_modules(params, cls.modules, cls.name)
    dropped = set(OPTIONAL_MODULES) - set(cls.modules)
    tensors = to_huggingface({n: v for n, v in params.items() if n not in dropped}, model.config)
    if cls.head is not None:
        ours, theirs = cls.head
        tensors[f"{theirs}.weight"] = np.asarray(params["head"][ours]["kernel"]).T
        tensors[f"{theirs}.bias"] = np.asarray(params["head"][ours]["bias"])
    usage = list(cls.usage) or _usage(cls, model.vocabulary)
    more_files: dict[str, bytes] = {}
    if task is not None:
        length = model.run_config.phases[-1].sequence_length
        more_files |= task.transformers_files(length, model.config)
    count = sum(tensor.size for tensor in tensors.values())
    files = companion_files(
        model,
        task,
        cls,
        stored=f"{count:,} parameters as {cls.name}, {dtype}",
        dtype=dtype,
        library="sentence-transformers" if "modules.json" in more_files else "transformers",
        usage=usage,
    )
    with new_folder(out) as folder:
        write_files(folder, files | more_files)
        path = folder / WEIGHTS_NAME
        metadata = {"format": "pt"}
        safetensors_files.write(path, tensors, metadata=metadata, dtype=_TYPES[dtype])
        return f"{out}: {safetensors_files.report(path, tensors)}"


def _usage(cls: TransformersClass, vocabulary: Vocabulary) -> list[str]:
    """Lines of Python that load the directory and apply it to a text, or to some ids."""
    pipeline, auto = cls.pipeline or "", cls.auto
    has_tokenizer = not isinstance(vocabulary, IdRange | Symbols)
    if pipeline == "fill-mask" and has_tokenizer:  # The pipeline wants no second output.
        auto = "AutoModelForMaskedLM"
    lines = [
        "import transformers",
        "",
        f'model = transformers.{auto}.from_pretrained("THIS_FOLDER")',
    ]
    choices = pipeline == "multiple-choice"
    if not has_tokenizer:
        token = next(id for id in range(vocabulary.size) if id not in special_ids(vocabulary))
        row = [vocabulary.cls_id, token, vocabulary.sep_id]
        ids = [[row, row]] if choices else [row]
        return ["import torch", *lines, f"print(model(torch.tensor({ids})))"]
    lines += ['tokenizer = transformers.AutoTokenizer.from_pretrained("THIS_FOLDER")']
    if pipeline in _PIPELINES:
        truncated = ", truncation=True" if pipeline == "text-classification" else ""
        return [
            *lines,
            f'apply = transformers.pipeline("{pipeline}", model=model, tokenizer=tokenizer)',
            f'print(apply("{_PIPELINES[pipeline]}"{truncated}))',
        ]
    texts = _TEXTS.get(pipeline, '"A text."')
    lines += [f'inputs = tokenizer({texts}, return_tensors="pt")']
    if choices:
        lines += ["inputs = {name: values[None] for name, values in inputs.items()}"]
    return [*lines, "print(model(**inputs))"]
