"""Sentences embedded per second: ours beside the way of sentence-transformers, in PyTorch.

    python benchmarks/embed.py RUN|DIR --input FILE [--most 1000] [--rounds 5]

FILE has a sentence per line. Both sides begin with the text and have the same weights, batches of
32, and lengths sorted, longest first; PyTorch takes the exported folder, its tokenizer, and the
mean of the last states. They take turns, and a ratio is taken within each round, of wall time and
of processor time. Where other work runs, give both one core (taskset -c 0). Needs torch and
transformers (extra parity).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from albert_jax.export import huggingface
from albert_jax.inference import embed
from albert_jax.model_io import model as models

BATCH = 32


def theirs(model: models.Model) -> Callable[[Sequence[str]], np.ndarray]:
    """Sentences to vectors by Transformers' model of the exported folder."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from transformers import AlbertModel, AutoTokenizer

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as temporary:
        folder = str(Path(temporary) / "exported")
        huggingface.export(model, folder, head="base")
        tokenizer, network = (
            AutoTokenizer.from_pretrained(folder),
            AlbertModel.from_pretrained(folder),
        )
    network.eval()

    def encode(texts: Sequence[str]) -> np.ndarray:
        order = np.argsort([-len(text) for text in texts])
        vectors = np.zeros((len(texts), network.config.hidden_size), np.float32)
        for begin in range(0, len(order), BATCH):
            part = order[begin : begin + BATCH]
            inputs = tokenizer(
                [texts[i] for i in part], padding=True, truncation=True, return_tensors="pt",
                max_length=model.config.max_position_embeddings,
            )  # fmt: skip
            with torch.inference_mode():
                states = network(**inputs).last_hidden_state
                mask = inputs["attention_mask"][..., None].to(states.dtype)
                vectors[part] = ((states * mask).sum(1) / mask.sum(1)).numpy()
        return vectors

    return encode


def main() -> None:
    """Prints a line for each side, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("model")
    parser.add_argument("--input", required=True, type=Path)
    parser.add_argument("--most", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    texts = [line for line in options.input.read_text("utf-8").splitlines() if line.strip()]
    texts = texts[: options.most]
    model = models.load(options.model)
    where = [f"line {number}" for number in range(1, len(texts) + 1)]

    def ours(texts: Sequence[str]) -> np.ndarray:
        return embed.embed_rows(model, embed.token_rows(model, texts, where))

    sides = {"ours": ours, "torch": theirs(model)}
    vectors = {name: call(texts) for name, call in sides.items()}  # Compiles, too.
    print(f"largest difference {np.abs(vectors['ours'] - vectors['torch']).max():.1e}")
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, call in sides.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call(texts)
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    for name, taken in times.items():
        rate = len(texts) / statistics.median(wall for wall, _ in taken)
        print(f"{name:6} {rate:8.1f} sentences/s")
    for kind in (0, 1):
        pairs = zip(times["torch"], times["ours"], strict=True)
        ratios = [theirs[kind] / ours[kind] for theirs, ours in pairs]
        print(
            f"its {('wall', 'processor')[kind]} time over ours {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
