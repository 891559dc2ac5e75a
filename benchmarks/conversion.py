"""How much memory a conversion takes, as a multiple of the weights.

    python benchmarks/conversion.py [--config xxlarge-v2]

makes random weights of a preset's size, exports them for Transformers and imports them again in a
process of its own, whose peak (interpreter and libraries included) is printed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from albert_jax import configfile, tree
from albert_jax.config import ModelConfig
from albert_jax.data.vocabularies.id_range import IdRange
from albert_jax.export import huggingface
from albert_jax.model import albert
from albert_jax.model_io.model import Model


def made(model: ModelConfig) -> dict:
    """Random parameters with both heads."""
    draw = np.random.default_rng(0)
    shapes = tree.flatten(albert.abstract_params(model))
    scale = np.float32(model.initializer_range)
    return tree.unflatten(
        {path: draw.standard_normal(x.shape, np.float32) * scale for path, x in shapes.items()}
    )


def peak(*arguments: str) -> int:
    """Peak memory in bytes of `albert-jax ARGUMENTS`."""
    watched = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'albert_jax', *sys.argv[1:]], check=True, "
        "stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", watched, *arguments], check=True, capture_output=True, text=True
    )
    return int(done.stdout) * 1024


def main() -> None:
    """Prints the peak of the conversion."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--config", default="xxlarge-v2")
    config = configfile.load(parser.parse_args().config)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ids = IdRange(config.model.vocab_size, pad_id=0, cls_id=2, sep_id=3, mask_id=4)
        model = Model(config, made(config.model), ids, "memory")
        huggingface.export(model, str(folder / "huggingface"))
        del model
        size = (folder / "huggingface" / "model.safetensors").stat().st_size
        used = peak("import", str(folder / "huggingface"), "--out", str(folder / "ours"))
        print(f"{config.model.hidden_size} hidden, weights {size / 1e6:,.0f} MB")
        print(f"import huggingface {used / 1e6:7,.0f} MB  {used / size:.2f} of the weights")


if __name__ == "__main__":
    main()
