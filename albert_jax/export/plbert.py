"""Writing a phoneme model for the speech programs that load one: StyleTTS2 and Kokoro.

StyleTTS2 takes the folder itself as its PL-BERT: it builds an AlbertModel from config.yml and loads
the newest step_N.t7. The folder kokoro holds what Kokoro's model reads: the state dict of its
"bert", and the entries of config.json that belong to it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from albert_jax.data.vocabularies.symbols import MASK, PAD, Symbols
from albert_jax.errors import CheckpointError
from albert_jax.files import new_folder, storage_errors
from albert_jax.json_files import json_bytes
from albert_jax.model_io import plbert, safetensors_files
from albert_jax.model_io.huggingface import WEIGHTS_NAME
from albert_jax.model_io.model import Model
from albert_jax.model_io.weights import check_modules

KOKORO = "kokoro"
"""Folder of the files for Kokoro."""
_POSITIONS = "embeddings.position_ids"


def export(model: Model, out: str) -> str:
    """Writes the folder `out` and returns a line on what was written.

    Raises the errors of :func:`albert_jax.export.export.export`.
    """
    vocabulary, config = model.vocabulary, model.config
    if not isinstance(vocabulary, Symbols):
        raise CheckpointError(
            "--to plbert writes models over symbols, and this one has another vocabulary: train "
            "on text that was prepared with --phonemes, or export it --to huggingface"
        )
    check_modules(model.params, ("pooler",), "AlbertModel")
    entries = plbert.entries(config)
    tensors = plbert.body(model.params, config)
    structure = {name: value for name, value in entries.items() if name != "vocab_size"}
    kokoro = {
        "n_token": config.vocab_size,
        "plbert": structure,
        "vocab": {s: id for s, id in vocabulary.table.items() if s not in (PAD, MASK)},
    }
    with new_folder(out) as folder:
        text = yaml.safe_dump({plbert.SECTION: entries}, sort_keys=False)
        (folder / plbert.CONFIG_NAME).write_text(text, encoding="utf-8")
        for name, content in vocabulary.files().items():
            (folder / name).write_bytes(content)
        (folder / KOKORO).mkdir()
        (folder / KOKORO / "config.json").write_bytes(json_bytes(kokoro))
        positions = np.arange(config.max_position_embeddings, dtype=np.int64)[None]
        net = {plbert.PREFIX + name: x for name, x in (tensors | {_POSITIONS: positions}).items()}
        _save(folder / f"step_{model.step or 0}.t7", {"net": net})
        # Kokoro takes "module." away where the names do not fit, whatever buffers there are.
        bert = {f"module.{name}": tensor for name, tensor in tensors.items()}
        _save(folder / KOKORO / "bert.pth", {"bert": bert})
        safetensors_files.write(folder / WEIGHTS_NAME, tensors, metadata={"format": "pt"})
        return f"{out}: {safetensors_files.report(folder / WEIGHTS_NAME, tensors)}"


def _save(path: Path, state: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes nested arrays as torch saves tensors."""
    torch = importlib.import_module("torch")
    tensors = {
        name: {key: torch.from_numpy(np.array(array, order="C")) for key, array in part.items()}
        for name, part in state.items()
    }
    with storage_errors(str(path)):
        torch.save(tensors, path)
