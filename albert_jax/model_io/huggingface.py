"""Hugging Face directories: config.json, model.safetensors and tokenizer files, in and out.

The names of config.json are Transformers'. One key is ours, `sharing`: Transformers ignores it,
and with it a model whose sharing groups cannot express comes back as it was.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np

from albert_jax.config import LAYER_NORM_EPS, Config, ModelConfig
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import CheckpointError, ConfigError
from albert_jax.export import model_card
from albert_jax.export import transformers_classes as classes
from albert_jax.files.json_files import json_bytes, read_json
from albert_jax.files.new_folder import new_folder, write_files
from albert_jax.model_io import conversion_report as report
from albert_jax.model_io import parameter_names as names
from albert_jax.model_io import published_models as released
from albert_jax.model_io import safetensors_files as safetensors_io
from albert_jax.model_io.tokenizer_json import tokenizer_files
from albert_jax.tasks import registry
from albert_jax.tasks.task import TransformersClass

StoredType = Literal["float32", "bfloat16"]

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
_TYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}
_FIELDS = (
    "vocab_size",
    "embedding_size",
    "hidden_size",
    "num_hidden_layers",
    "num_hidden_groups",
    "inner_group_num",
    "num_attention_heads",
    "intermediate_size",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
)
_ACTIVATIONS = ("gelu_new", "relu", "tanh", "linear")


def export(
    params: Mapping[str, Any],
    config: ModelConfig,
    vocabulary: Vocabulary | None,
    out_dir: str | os.PathLike[str],
    *,
    head: TransformersClass = classes.HEADS["pretraining"],
    dtype: StoredType = "float32",
    run: Config | None = None,
) -> list[report.Row]:
    """Writes a directory that Transformers loads offline; it appears whole or not at all.

    Args:
      params: our parameters (nested dict); those the class needs must be there.
      config: their structure.
      vocabulary: the training's; None leaves the tokenizer files out.
      out_dir: a folder that does not exist yet.
      head: class to write for (classes.py): no tensor is missing or unexpected there, but for
        the pooler of sentence embeddings, which nothing reads.
      dtype: type of the stored weights.
      run: the recipe, for the model card; that of a fine-tuned run gives the labels too.

    Returns:
      What was read back from the written file against `params`, tensor by tensor.

    Raises:
      CheckpointError: the folder exists, the head's parameters are missing, a parameter is not
        finite, or the vocabulary has another size than the embeddings.
      StorageError: the disk is full or not writable.
    """
    missing = [unit for unit in head.modules if unit not in params]
    if missing:
        raise CheckpointError(
            f"the weights have no {' and no '.join(missing)}, which {head.name} needs: "
            "export another head"
        )
    check_vocabulary(vocabulary, config)
    check_finite(params, "the weights")
    dropped = set(names.OPTIONAL_UNITS) - set(head.modules)
    kept = {name: value for name, value in params.items() if name not in dropped}
    tensors = names.to_huggingface(kept, config)
    if head.head is not None:
        ours, theirs = head.head
        tensors[f"{theirs}.weight"] = np.asarray(params["head"][ours]["kernel"]).T
        tensors[f"{theirs}.bias"] = np.asarray(params["head"][ours]["bias"])
    described = config_json(config, vocabulary, dtype=dtype) | {"architectures": [head.name]}
    task, beside = classes.own_task(head, run), {}
    if run is not None and task is not None:
        length = run.phases[-1].sequence_length
        finetuned = registry.get(task.name)
        described |= finetuned.transformers_config(task, length)
        beside = finetuned.transformers_files(task, length, config)
    with new_folder(out_dir) as folder:
        write_files(folder, {CONFIG_NAME: json_bytes(described)})
        if vocabulary is not None:
            write_files(folder, tokenizer_files(vocabulary, config.max_position_embeddings))
        path = folder / WEIGHTS_NAME
        safetensors_io.write(path, tensors, metadata={"format": "pt"}, dtype=_TYPES[dtype])
        rows = report.compare(tensors, safetensors_io.read(path))
        notes = f"albert_jax to Hugging Face ({head.name}, {dtype})"
        ours_config = dataclasses.asdict(config)
        report.write(folder, rows, ours=ours_config, theirs=described, notes=notes)
        card = model_card.transformers(config, vocabulary, run, head, tensors, dtype)
        write_files(folder, beside | {"README.md": card})
    return rows


def load(
    source: Path, config_file: Path | None = None
) -> tuple[ModelConfig, names.Params, Mapping[str, np.ndarray]]:
    """(config, float32 parameters, the tensors as stored) of a directory or safetensors file.

    Heads that the file lacks as a whole are absent from the parameters. Raises CheckpointError
    (see names.from_huggingface), also for weights of BERT and its relatives.
    """
    path = source if source.is_file() else _weights_in(source)
    raw_path = config_file or path.with_name(CONFIG_NAME)
    raw = read_json(raw_path)
    _refuse_others(raw, raw_path)
    tensors = safetensors_io.read(path)
    kind = names.other_model(tensors)
    if kind:
        raise CheckpointError(f"{path} holds a {kind} model, not ALBERT: import an ALBERT")
    config = read_config(raw, str(raw_path))
    values: Mapping[str, np.ndarray] = _Renamed(tensors)
    model, params = read_shared(
        raw, config, lambda as_what: names.from_huggingface(values, as_what, str(path))
    )
    if model is None:
        config, values = _own_rounding(config, values)
        model, params = config, names.from_huggingface(values, config, str(path))
    return model, to_float32(params, str(path)), values


def read_shared(
    raw: Mapping[str, Any], config: ModelConfig, read: Callable[[ModelConfig], names.Params]
) -> tuple[ModelConfig | None, names.Params]:
    """What `read` gives for the sharing our own export noted in a foreign config, if it noted one.

    (None, {}) where nothing is noted, and where the copies of a shared sublayer went apart since
    (fine-tuned elsewhere): then the groups tell the truth.
    """
    noted = raw.get("sharing", "all")
    if noted not in ("attention", "ffn", "none"):
        return None, {}
    other = dataclasses.replace(config, sharing=noted, num_hidden_groups=1)
    try:
        return other, read(other)
    except CheckpointError:
        return None, {}


class _Renamed(Mapping[str, np.ndarray]):
    """Tensors under the names of AlbertForPreTraining, still read one at a time."""

    def __init__(self, tensors: Mapping[str, np.ndarray]) -> None:
        self._tensors = tensors
        self._names = names.prefixed(tensors)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._tensors[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def config_json(
    config: ModelConfig, vocabulary: Vocabulary | None, *, dtype: str
) -> dict[str, Any]:
    """config.json for Transformers (strict types there: sizes are ints, rates are floats).

    "architectures" and what a task adds (classes.py) are the caller's.
    """
    found: dict[str, Any] = {name: getattr(config, name) for name in _FIELDS}
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range"):
        found[name] = float(found[name])
    found |= {
        "model_type": "albert",
        "num_hidden_groups": names.foreign_groups(config, names.huggingface_group),
        "hidden_act": config.hidden_act,
        "layer_norm_eps": LAYER_NORM_EPS,
        "classifier_dropout_prob": 0.1,
        "pad_token_id": 0 if vocabulary is None else int(vocabulary.pad_id),
        "bos_token_id": 2 if vocabulary is None else int(vocabulary.cls_id),
        "eos_token_id": 3 if vocabulary is None else int(vocabulary.sep_id),
        # Without it Transformers would take float16 files as they are, but float32 is said too.
        "dtype": dtype,
    }
    if config.sharing != "all":
        found["sharing"] = config.sharing
    return found


def read_config(raw: Mapping[str, Any], where: str) -> ModelConfig:
    """ModelConfig of a Hugging Face config.json. Raises CheckpointError naming the key."""
    act = raw.get("hidden_act", "gelu_new")
    if act == "gelu" and released.recognise(raw):
        act = "gelu_new"  # The hub's copies of v1 say gelu, the original's name for the tanh form.
    if act == "gelu_pytorch_tanh":
        act = "gelu_new"  # The same function under another name.
    if act not in _ACTIVATIONS:
        hint = "; ALBERT's is the tanh form: set gelu_new if the weights are the original's"
        raise CheckpointError(
            f"{where}: hidden_act {act!r} is none of {', '.join(_ACTIVATIONS)}"
            + (hint if act == "gelu" else ": this model cannot be expressed")
        )
    eps = raw.get("layer_norm_eps", LAYER_NORM_EPS)
    if eps != LAYER_NORM_EPS:
        raise CheckpointError(
            f"{where}: layer_norm_eps is {eps}, ALBERT's is {LAYER_NORM_EPS}: this model cannot be "
            "expressed"
        )
    return model_config_from(raw, _FIELDS, act, where)


def model_config_from(
    raw: Mapping[str, Any], fields: Iterable[str], act: str, where: str
) -> ModelConfig:
    """A validated ModelConfig from these keys of a foreign config; absent ones keep defaults.

    Raises CheckpointError naming the key: vocab_size missing, wrong type, impossible sizes.
    """
    values: dict[str, Any] = {}
    for name in fields:
        if name not in raw:
            if name in ("vocab_size", "hidden_size", "num_hidden_layers"):
                raise CheckpointError(f"{where}: {name} is missing: is it an ALBERT config?")
            continue
        value = raw[name]
        wanted = type(getattr(ModelConfig(), name))
        if type(value) not in ((int,) if wanted is int else (int, float)):
            raise CheckpointError(f"{where}: {name} is {value!r}, not a {wanted.__name__}: mend it")
        values[name] = wanted(value)
    config = ModelConfig(**values, hidden_act=act)  # type: ignore[arg-type]
    try:
        config.validate()
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error}") from None
    return config


def check_vocabulary(vocabulary: Vocabulary | None, config: ModelConfig) -> None:
    """Raises CheckpointError if the vocabulary has another size than the embeddings."""
    if vocabulary is not None and vocabulary.size != config.vocab_size:
        raise CheckpointError(
            f"the vocabulary has {vocabulary.size} pieces, the model {config.vocab_size}: give the "
            "vocabulary that the model was trained with"
        )


def check_finite(params: Mapping[str, Any], where: str) -> None:
    """Raises CheckpointError naming the first parameter with a NaN or an infinity."""
    for path, value in names.flatten(params).items():
        if not np.isfinite(np.asarray(value)).all():
            raise CheckpointError(f"{where}: {path} holds NaN or infinity: take an earlier step")


def to_float32(params: Mapping[str, Any], where: str) -> names.Params:
    """float32 parameters; float16 and bfloat16 widen without loss, float64 is refused."""
    flat = names.flatten(params)
    for path, value in flat.items():
        if value.dtype == np.float64:
            raise CheckpointError(f"{where}: {path} is float64: save it as float32 first")
        flat[path] = np.asarray(value, np.float32)
    check_finite(flat, where)
    return names.unflatten(flat)


def _own_rounding(
    config: ModelConfig, values: Mapping[str, np.ndarray]
) -> tuple[ModelConfig, Mapping[str, np.ndarray]]:
    """Where Transformers' group rule gives another table than ours: one set per layer instead."""
    layers, groups = config.num_hidden_layers, config.num_hidden_groups
    theirs = [names.huggingface_group(x, layers, groups) for x in range(layers)]
    if theirs == [names.original_group(x, layers, groups) for x in range(layers)]:
        return config, values
    mark, repeated = "albert_layer_groups.", {}
    for name in values:
        before, found, after = name.partition(mark)
        if not found:
            repeated[name] = values[name]
            continue
        group, _, rest = after.partition(".")
        for layer, used in enumerate(theirs):
            if group == str(used):
                repeated[f"{before}{mark}{layer}.{rest}"] = values[name]
    return dataclasses.replace(config, sharing="none", num_hidden_groups=1), repeated


def _refuse_others(raw: Mapping[str, Any], where: Path) -> None:
    kind = raw.get("model_type")
    if kind not in (None, "albert"):
        raise CheckpointError(f"{where} describes a {kind} model, not ALBERT: import an ALBERT")


def _weights_in(folder: Path) -> Path:
    found = sorted(folder.glob("*.safetensors"))
    if (folder / WEIGHTS_NAME).is_file():
        return folder / WEIGHTS_NAME
    if len(found) == 1:
        return found[0]
    if found or (folder / f"{WEIGHTS_NAME}.index.json").is_file():
        raise CheckpointError(
            f"{folder} holds its weights in {len(found)} parts: save them in one file "
            "(save_pretrained with max_shard_size='100GB')"
        )
    others = [p for p in sorted(folder.glob("*")) if p.suffix in PICKLES]
    if others:
        raise CheckpointError(refuse_pickle(others[0]))
    raise CheckpointError(f"{folder} holds no {WEIGHTS_NAME}: give a folder with weights")


PICKLES = (".bin", ".pt", ".pth", ".pkl", ".joblib", ".npy", ".h5", ".msgpack")


def refuse_pickle(path: Path) -> str:
    """The message for weights in a format that can run code, or that nobody needs."""
    return (
        f"{path} is not opened: files of this kind can run code. Where you trust it, convert it: "
        "CLASS.from_pretrained(FOLDER).save_pretrained(NEW), with the CLASS that its config.json "
        "names, writes model.safetensors; copy spiece.model or vocab.txt beside it"
    )
