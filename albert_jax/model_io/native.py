"""Our own directories, and how any source is read and any target written.

A native directory is params.safetensors (our paths, float32), config.toml (a whole config, good
for `pretrain --config`), vocabulary/ and the report of the conversion that made it.
"""

from __future__ import annotations

import dataclasses
import glob
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from albert_jax import configfile
from albert_jax.config import Config, ModelConfig, PhaseConfig
from albert_jax.data.vocabularies import vocabulary as vocabularies
from albert_jax.data.vocabularies.fingerprint import SETTINGS
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import CheckpointError
from albert_jax.export import transformers_classes as classes
from albert_jax.export.transformers_classes import Head
from albert_jax.files.json_files import read_json
from albert_jax.files.new_folder import new_folder
from albert_jax.model_io import conversion_report as report
from albert_jax.model_io import huggingface, tf1
from albert_jax.model_io import parameter_names as names
from albert_jax.model_io import safetensors_files as safetensors_io
from albert_jax.model_io.huggingface import PICKLES, StoredType, refuse_pickle
from albert_jax.tree import flatten, unflatten

PARAMS_NAME = "params.safetensors"
CONFIG_NAME = "config.toml"
VOCABULARY_NAME = "vocabulary"
Format = Literal["huggingface", "tf1", "native"]


@dataclasses.dataclass(frozen=True)
class Weights:
    """What a source holds, in our terms."""

    config: Config
    params: names.Params
    vocabulary: Vocabulary | None
    kind: str
    """huggingface, tf1 or native."""
    stored: Mapping[str, np.ndarray]
    """The tensors as they stood in the source."""
    their_config: Mapping[str, Any]


def load_directory(
    directory: str | os.PathLike[str],
) -> tuple[Config, names.Params, Vocabulary | None]:
    """(config, float32 parameters, vocabulary) of a native or foreign directory or file.

    Where the source has no recipe, the config holds the model and defaults. Heads that the source
    lacks are absent from the parameters. Raises CheckpointError, one line.
    """
    found = read_source(directory)
    return found.config, found.params, found.vocabulary


def export_run(
    params: Mapping[str, Any],
    config: Config,
    vocabulary: Vocabulary | None,
    out_dir: str | os.PathLike[str],
    *,
    to: Format = "huggingface",
    head: Head | None = None,
    dtype: StoredType = "float32",
) -> str:
    """Writes parameters in one of the formats as a new folder; returns one line on it.

    `head` and `dtype` are for Hugging Face (no `head`: that of the task, else pretraining's); the
    other two always hold everything in float32, and no head of a task.
    Raises CheckpointError or StorageError; nothing is left behind.
    """
    model = config.model
    if to == "huggingface":
        run_config = None if config == _config_for(model) else config
        chosen = classes.choose(head, config.task)
        rows = huggingface.export(
            params, model, vocabulary, out_dir, head=chosen, dtype=dtype, run=run_config
        )
        return f"{out_dir}: {len(rows)} tensors, largest difference {report.worst(rows):.3g}"
    if "head" in params:
        raise CheckpointError(
            f"--to {to} has no place for the head of a fine-tuned run: export it --to huggingface"
        )
    huggingface.check_vocabulary(vocabulary, model)
    huggingface.check_finite(params, "the weights")
    with new_folder(out_dir) as folder:
        if to == "native":
            plain = Weights(config, dict(params), vocabulary, "native", flatten(params), {})
            rows = write_native(folder, plain)
        else:
            tf1.save(folder, params, model)
            rows = report.compare(names.to_original(params, model), tf1.read(folder))
            report.write(
                folder,
                rows,
                ours=dataclasses.asdict(model),
                theirs=tf1.to_config(model),
                notes="albert_jax to a TF1 checkpoint of google-research/albert",
            )
            if vocabulary is not None:
                for name, content in vocabulary.files().items():
                    (folder / name).write_bytes(content)
    return f"{out_dir}: {len(rows)} tensors, largest difference {report.worst(rows):.3g}"


def read_source(
    source: str | os.PathLike[str], *, vocabulary: str | None = None, config: str | None = None
) -> Weights:
    """Recognises what stands at `source` by its content and reads it. Raises CheckpointError."""
    path = Path(source)
    config_file = Path(config) if config else None
    if path.is_file():
        _refuse_by_content(path)
    if (path / PARAMS_NAME).is_file():
        return _read_native(path)
    if path.suffix in (".index", ".meta") or _is_tf1(path):
        return _read_tf1(path, vocabulary, config_file)
    if path.is_dir() or path.suffix == ".safetensors":
        model, params, stored = huggingface.load(path, config_file)
        folder = path if path.is_dir() else path.parent
        raw = read_json(config_file or folder / huggingface.CONFIG_NAME)
        found = _vocabulary(vocabulary, folder, model)
        return Weights(_config_for(model), params, found, "huggingface", stored, raw)
    if path.exists():
        raise CheckpointError(
            f"{path} is no folder, .safetensors file or TF1 checkpoint: name one of them"
        )
    raise CheckpointError(
        f"{path}: nothing there: name a run, an exported directory, a .safetensors file or the "
        "prefix of a TF1 checkpoint (PREFIX.index)"
    )


def _is_tf1(path: Path) -> bool:
    if path.is_dir():
        return any(path.glob("*.index")) and not any(path.glob("*.safetensors"))
    data = path.parent.glob(glob.escape(path.name) + ".data-*")
    return path.with_name(path.name + ".index").is_file() or any(data)


def _read_tf1(path: Path, vocabulary: str | None, config_file: Path | None) -> Weights:
    prefix = tf1.find(path)
    raw_path = config_file or prefix.with_name(tf1.CONFIG_NAME)
    variables = tf1.read(prefix)
    kind = names.other_model(variables)
    if kind:
        raise CheckpointError(f"{prefix} is a {kind} checkpoint, not ALBERT: import an ALBERT")
    raw = read_json(raw_path)
    model = tf1.from_config(raw, str(raw_path))
    shared, params = huggingface.read_shared(
        raw, model, lambda as_what: names.from_original(variables, as_what, str(prefix))
    )
    if shared is None:
        params = names.from_original(variables, model, str(prefix))
    model, params = shared or model, huggingface.to_float32(params, str(prefix))
    found = _vocabulary(vocabulary, prefix.parent, model)
    return Weights(_config_for(model), params, found, "tf1", variables, raw)


def _read_native(path: Path) -> Weights:
    config = configfile.load(str(path / CONFIG_NAME))
    tensors = safetensors_io.read(path / PARAMS_NAME)
    where = str(path / PARAMS_NAME)
    shapes = names.native_shapes(config.model)
    extra = sorted(set(tensors) - set(shapes))
    held = {name.split("/")[0] for name in tensors}
    missing = [
        name
        for name in shapes
        if name not in tensors
        and (name.split("/")[0] in held or name.split("/")[0] not in names.OPTIONAL_UNITS)
    ]
    for what, listed in (("missing", missing), ("not expected", extra)):
        if listed:
            more = f" and {len(listed) - 4} more" if len(listed) > 4 else ""
            raise CheckpointError(
                f"{where}: {', '.join(listed[:4])}{more} {what}: its config.toml is another model's"
            )
    flat = {}
    for name in shapes:
        if name not in tensors:
            continue
        if tensors.shapes[name] != shapes[name]:
            raise CheckpointError(
                f"{where}: {name} has shape {list(tensors.shapes[name])}, config.toml wants "
                f"{list(shapes[name])}: they do not belong together"
            )
        flat[name] = tensors[name]
    params = huggingface.to_float32(unflatten(flat), where)
    folder = path / VOCABULARY_NAME
    found = vocabularies.load(str(folder)) if folder.is_dir() else None
    huggingface.check_vocabulary(found, config.model)
    return Weights(config, params, found, "native", tensors, {})


def write_native(folder: Path, weights: Weights) -> list[report.Row]:
    """Files of a native directory, and what was read back against the source."""
    model = weights.config.model
    flat = flatten(weights.params)
    safetensors_io.write(folder / PARAMS_NAME, flat, metadata={"format": "albert_jax"})
    (folder / CONFIG_NAME).write_text(configfile.dumps(weights.config), encoding="utf-8")
    if weights.vocabulary is not None:
        vocabularies.save(weights.vocabulary, str(folder / VOCABULARY_NAME))
    rows = report.compare(flat, safetensors_io.read(folder / PARAMS_NAME))
    if report.worst(rows):
        raise CheckpointError(f"{folder}: what was written reads back differently: check the disk")
    if weights.kind != "native":
        theirs = names.to_original if weights.kind == "tf1" else names.to_huggingface
        meant = theirs(weights.params, model)
        known = {name: meant[name] for name in meant if name in weights.stored}
        rows = report.compare(known, weights.stored)
    notes = f"{weights.kind} to albert_jax"
    ours = dataclasses.asdict(model)
    report.write(folder, rows, ours=ours, theirs=weights.their_config, notes=notes)
    return rows


def _config_for(model: ModelConfig) -> Config:
    """A whole config around a model that came without a recipe."""
    rows = PhaseConfig(sequence_length=min(512, model.max_position_embeddings))
    return Config(model=model, phases=(rows,))


def _vocabulary(given: str | None, beside: Path, model: ModelConfig) -> Vocabulary | None:
    """The vocabulary that was given, else the one beside the weights, else None."""
    if given is None:
        known = ("*.model", "vocab*.txt", SETTINGS)
        if not any(len(list(beside.glob(pattern))) == 1 for pattern in known):
            return None
    found = vocabularies.load(given or str(beside))
    huggingface.check_vocabulary(found, model)
    return found


def _refuse_by_content(path: Path) -> None:
    """Refuses pickles and archives by their first bytes, whatever they are called."""
    with path.open("rb") as file:
        start = file.read(8)
    pickled = start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05"
    archive = start.startswith((b"PK\x03\x04", b"\x89HDF", b"\x93NUMPY", b"\x1f\x8b"))
    if path.suffix in PICKLES or ((pickled or archive) and path.suffix != ".index"):
        raise CheckpointError(refuse_pickle(path))
