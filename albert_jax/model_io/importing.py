"""`albert-jax import`: weights of another program become a native directory."""

from __future__ import annotations

import dataclasses

from albert_jax.files.new_folder import new_folder
from albert_jax.model_io import conversion_report as report
from albert_jax.model_io import parameter_names as names
from albert_jax.model_io import published_models as released
from albert_jax.model_io.native import read_source, write_native


def import_model(
    source: str, out: str, *, vocabulary: str | None = None, config: str | None = None
) -> None:
    """Writes a native directory and prints one line on what came in.

    Args:
      source: a Hugging Face directory or safetensors file, a TF1 checkpoint of google-research/
        albert (prefix, index file or folder), or a native directory.
      out: a folder that does not exist yet.
      vocabulary: folder or file of the vocabulary where it does not lie beside the weights.
      config: config.json or albert_config.json where it does not lie beside the weights.

    Raises:
      CheckpointError: what is wrong and where; nothing is left behind.
    """
    with new_folder(out) as folder:
        found = read_source(source, vocabulary=vocabulary, config=config)
        rows = write_native(folder, found)
    like = released.recognise(dataclasses.asdict(found.config.model))
    parts = [f"{source} ({found.kind}{', ' + like if like else ''}) -> {out}"]
    parts.append(f"{len(rows)} tensors, largest difference {report.worst(rows):.3g}")
    absent = [unit for unit in names.OPTIONAL_UNITS if unit not in found.params]
    if absent:
        parts.append(f"without {', '.join(absent)}")
    if found.vocabulary is None:
        parts.append("no vocabulary lay beside the weights: name one with --vocabulary")
    elif released.is_published_vocabulary(found.vocabulary):
        parts.append("the published English vocabulary")
    print("; ".join(parts))
