"""Writing a directory that Transformers loads offline, with its tokenizer and a model card."""

from __future__ import annotations

import math
from typing import Any

import jax
import ml_dtypes
import numpy as np

from albert_jax.config import LAYER_NORM_EPS, ModelConfig
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.export import model_card, transformers_classes
from albert_jax.export.transformers_classes import Head
from albert_jax.files.json_files import json_bytes
from albert_jax.files.new_folder import new_folder, write_files
from albert_jax.model_io import conversion_report, safetensors_files
from albert_jax.model_io.foreign_parameters import config_entries
from albert_jax.model_io.huggingface import CONFIG_NAME, WEIGHTS_NAME, to_huggingface
from albert_jax.model_io.model import Model
from albert_jax.model_io.parameter_names import OPTIONAL_MODULES
from albert_jax.model_io.tokenizer_json import tokenizer_files
from albert_jax.model_io.weights import check_finite, check_modules, check_vocabulary
from albert_jax.tasks import registry

_TYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}


def export(model: Model, out: str, *, head: Head | None = None, dtype: str = "float32") -> str:
    """Writes the directory `out` and returns a line on what was written.

    The class lacks no tensor and gets none that it does not expect, but for the pooler of
    sentence embeddings, which nothing reads. What was written is compared with the parameters.

    Raises:
      CheckpointError: The directory exists, the parameters lack a module, one of them is not
        finite, or the vocabulary has another size than the embeddings.
      ConfigError: Transformers has no class with the head of the model's task.
      StorageError: The disk is full or not writable.
    """
    config, params = model.config, jax.device_get(model.params)
    task = model.run_config.task if head is None else None
    cls = transformers_classes.choose(head, task)
    check_modules(params, cls.modules, cls.name)
    check_vocabulary(model.vocabulary, config)
    check_finite(params, "the weights")
    dropped = set(OPTIONAL_MODULES) - set(cls.modules)
    tensors = to_huggingface({n: v for n, v in params.items() if n not in dropped}, config)
    if cls.head is not None:
        ours, theirs = cls.head
        tensors[f"{theirs}.weight"] = np.asarray(params["head"][ours]["kernel"]).T
        tensors[f"{theirs}.bias"] = np.asarray(params["head"][ours]["bias"])
    entries = config_json(config, model.vocabulary, dtype) | {"architectures": [cls.name]}
    files = tokenizer_files(model.vocabulary, config.max_position_embeddings)
    usage = model_card.auto_class_usage(cls.auto, model.vocabulary)
    if task is not None:
        finetuned, length = registry.create(task), model.run_config.phases[-1].sequence_length
        entries |= finetuned.transformers_config(length)
        files |= finetuned.transformers_files(length, config)
        usage = finetuned.usage() or usage
    files[CONFIG_NAME] = json_bytes(entries)
    files["README.md"] = model_card.text(
        model,
        task,
        stored=f"{sum(math.prod(t.shape) for t in tensors.values()):,} parameters as {cls.name}, "
        f"{dtype}",
        library="sentence-transformers" if "modules.json" in files else "transformers",
        pipeline=cls.pipeline,
        usage=usage,
    )
    with new_folder(out) as folder:
        write_files(folder, files)
        safetensors_files.write(
            folder / WEIGHTS_NAME, tensors, metadata={"format": "pt"}, dtype=_TYPES[dtype]
        )
        return f"{out}: {conversion_report.write(folder, WEIGHTS_NAME, tensors)}"


def config_json(config: ModelConfig, vocabulary: Vocabulary, dtype: str) -> dict[str, Any]:
    """config.json for Transformers, which is strict about types: sizes are ints, rates floats.

    The caller adds "architectures" and the entries of a task.
    """
    entries = config_entries(config, "huggingface")
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range"):
        entries[name] = float(entries[name])
    return entries | {
        "model_type": "albert",
        "hidden_act": config.hidden_act,
        "layer_norm_eps": LAYER_NORM_EPS,
        "classifier_dropout_prob": 0.1,
        "pad_token_id": int(vocabulary.pad_id),
        "bos_token_id": int(vocabulary.cls_id),
        "eos_token_id": int(vocabulary.sep_id),
        "dtype": dtype,
    }
