"""How fast a classifier predicts on a CPU: ours beside the pipeline of Transformers.

    python benchmarks/predict.py RUN [--input FILE] [--most 1000] [--rounds 5]

RUN is a fine-tuned classification run (task.pooling cls), FILE its kind of examples (none: its
dev examples). Both sides have the same weights, texts and threads and begin with the text: pieces,
batches, network, label and probability. They take turns; a ratio (its time over ours) is taken
within each round. The pipeline runs with batch sizes 1, 8 and 32 and with its default. Needs torch
and transformers (extra parity).
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import peer

from albert_jax.inference import predict
from albert_jax.model_io import model as loading

BATCHES = (1, 8, 32)
PAUSE = 0.2
"""Seconds between two sides, so that the threads of one are asleep when the other begins."""


def sides(model: Any, examples: list[Any], length: int) -> dict[str, Callable[[], list[Any]]]:
    """Name to a call that gives (label, probability) of every example."""
    from transformers import pipeline

    theirs, tokenizer = peer.classifier(model)
    pipe = pipeline("text-classification", model=theirs, tokenizer=tokenizer, device=-1)
    inputs: list[Any] = [
        example.texts[0] if len(example.texts) == 1
        else dict(zip(("text", "text_pair"), example.texts, strict=True))
        for example in examples
    ]  # fmt: skip

    def ours() -> list[Any]:
        found = predict.predict(model, examples)
        return [(said["label"], said["probability"]) for said in found]

    def pipelined(**options: int) -> list[Any]:
        found = pipe(inputs, truncation=True, max_length=length, **options)
        return [(said["label"], said["score"]) for said in found]

    found: dict[str, Callable[[], list[Any]]] = {"ours": ours}
    for size in BATCHES:
        found[f"pipeline, batches of {size}"] = lambda size=size: pipelined(batch_size=size)
    found["pipeline, its default"] = pipelined
    return found


def main() -> None:
    """Prints a line for each side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--input", metavar="FILE")
    parser.add_argument("--most", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    import torch

    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    model = loading.load(options.run)
    task = predict.task_of(model)
    config = task.config
    path = options.input or config.dev
    examples = task.read_examples(path, labelled=True)[: options.most]
    calls = sides(model, examples, model.run_config.phases[-1].sequence_length)
    answers = {}
    for name, call in calls.items():
        began = time.perf_counter()
        answers[name] = call()
        print(f"{name}: first call {time.perf_counter() - began:.2f} s", flush=True)
    for name, found in answers.items():
        pairs = list(zip(answers["ours"], found, strict=True))
        worst = max(abs(a[1] - b[1]) for a, b in pairs if a[0] == b[0])
        same = sum(a[0] == b[0] for a, b in pairs)
        print(f"{name}: {same} of {len(pairs)} labels as ours, probabilities within {worst:.1e}")
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(options.rounds):
        for name, call in calls.items():
            time.sleep(PAUSE)
            began = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - began)
    print(f"{len(examples)} texts, {cores} cores, {options.rounds} rounds")
    for name, seconds in times.items():
        ratios = [theirs / ours for theirs, ours in zip(seconds, times["ours"], strict=True)]
        rate = len(examples) / statistics.median(seconds)
        print(
            f"{name:26} {rate:8.1f} texts/s   its time over ours {statistics.median(ratios):5.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )
    best = [
        min(times[f"pipeline, batches of {size}"][i] for size in BATCHES) / times["ours"][i]
        for i in range(options.rounds)
    ]
    print(f"best of its batch sizes over ours: {statistics.median(best):.2f}")


if __name__ == "__main__":
    main()
