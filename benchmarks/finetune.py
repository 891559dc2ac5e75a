"""The same fine-tuning with ours and with Transformers (PyTorch): scores and wall time.

    python benchmarks/finetune.py DATA --init RUN|DIR --out DIR [--task sst-2] [--seeds 5]
                                  [--steps 600] [--rate 3e-4]

DATA is that of benchmarks/splits.py. For each seed both sides start from the same exported
network and the same new head, see the same examples in the same order at the same rates, and are
scored on the same test. Transformers' model is trained by torch.optim.AdamW, whose bias correction
is undone in every step, since the original has none (ours follows it; with the correction the first
steps are three times smaller). Its rows are padded to the longest of their batch, as its collator
does. Wall time is that of the whole training, from the files on: compilation and the checkpoint are
in ours. Needs torch and transformers (extra parity).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import os
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import peer
import splits
import tuning

from albert_jax.config import Config
from albert_jax.finetuning import finetune, setup
from albert_jax.finetuning.batches import TrainingBatches
from albert_jax.inference import predict
from albert_jax.model_io import model as models
from albert_jax.optim.schedule import learning_rate
from albert_jax.tasks import registry
from albert_jax.tasks.support import prediction


def ours(config: Config, init: str, folder: str) -> tuple[models.Model, float]:
    """The trained model, and the seconds it took."""
    shutil.rmtree(folder, ignore_errors=True)
    began = time.perf_counter()
    with open(f"{folder}.log", "w") as log, contextlib.redirect_stdout(log):
        finetune.run(config, folder, init=init)
    return models.load(folder), time.perf_counter() - began


def theirs(run_config: Config, vocabulary: Any, init: str) -> tuple[Any, float]:
    """Transformers' model trained by the config of our run, and the seconds it took."""
    import torch

    began = time.perf_counter()
    config = run_config.task
    assert config is not None
    task = registry.create(config)
    params = setup.initial_params(run_config, task, vocabulary, init)
    model, _ = peer.classifier(models.Model(run_config, dict(params), vocabulary, init))
    examples = task.read_examples(config.train, labelled=True)
    batches = TrainingBatches(task, vocabulary, examples, run_config)
    torch.manual_seed(run_config.seed)
    plain = [p for name, p in model.named_parameters() if "bias" in name or "LayerNorm" in name
             or "layer_norm" in name]  # fmt: skip
    chosen = {id(p) for p in plain}
    decayed = [p for p in model.parameters() if id(p) not in chosen]
    settings = run_config.optimizer
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": settings.weight_decay},
         {"params": plain, "weight_decay": 0.0}],
        lr=settings.learning_rate, betas=(settings.b1, settings.b2), eps=settings.eps,
    )  # fmt: skip
    model.train()
    rows = np.arange(run_config.phases[0].batch_size)
    for step in range(run_config.steps):
        batch = batches.batch(0, step, rows)
        real = batch["example_weights"] > 0  # The last batch of an epoch has padding rows.
        longest = int(batch["segment_ids"].sum(axis=1).max())
        columns = {
            "input_ids": batch["input_ids"][real, :longest],
            "token_type_ids": batch["token_type_ids"][real, :longest],
            "attention_mask": batch["segment_ids"][real, :longest],
            "labels": batch["labels"][real],
        }
        loss = model(**{n: torch.from_numpy(c.astype(np.int64)) for n, c in columns.items()}).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        _without_correction(optimizer, settings, learning_rate(run_config, step), step + 1)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
    return model.eval(), time.perf_counter() - began


def _without_correction(optimizer: Any, settings: Any, rate: float, step: int) -> None:
    """Sets rate, epsilon and decay so that step number `step` is that of Adam as the original has
    it: torch multiplies the rate by root / first, and epsilon by root."""
    first, root = 1 - settings.b1**step, math.sqrt(1 - settings.b2**step)
    for group, decay in zip(optimizer.param_groups, (settings.weight_decay, 0.0), strict=True):
        group["lr"] = rate * first / root
        group["eps"] = settings.eps / root
        group["weight_decay"] = decay * root / first


def their_score(model: Any, run_config: Config, vocabulary: Any, examples: list[Any]) -> float:
    """The score of Transformers' model on the examples, by our metrics."""
    import torch

    config = run_config.task
    assert config is not None
    task = registry.create(config)

    def outputs(batch: dict[str, np.ndarray]) -> np.ndarray:
        names = {"input_ids": "input_ids", "token_type_ids": "token_type_ids",
                 "attention_mask": "segment_ids"}  # fmt: skip
        with torch.no_grad():
            columns = {new: torch.from_numpy(batch[old].astype(np.int64))
                       for new, old in names.items()}  # fmt: skip
            return model(**columns).logits.numpy()

    predictions = prediction.predict(
        task, vocabulary, examples, outputs,
        length=run_config.phases[-1].sequence_length, batch_size=predict.BATCH_SIZE,
    )  # fmt: skip
    return task.score(examples, predictions)[config.metrics[0]]


def main() -> None:
    """Prints a line per seed and the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--init", required=True, metavar="RUN|DIR")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--task", choices=tuning.CLASSIFICATION, default="sst-2")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rate", type=float, default=3e-4)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    options.out.mkdir(parents=True, exist_ok=True)
    paths = splits.split(options.task, options.data, options.out / "data")
    positions = models.load(options.init).config.max_position_embeddings
    scores: tuple[list[float], list[float]] = ([], [])
    seconds: tuple[list[float], list[float]] = ([], [])
    for seed in range(options.seeds):
        config = tuning.run_config(
            tuning.SETTINGS[options.task], positions,
            steps=options.steps, pooling="cls", rate=options.rate, seed=seed,
        )  # fmt: skip
        assert config.task is not None
        task = dataclasses.replace(config.task, train=paths["train"], dev=paths["dev"])
        config = dataclasses.replace(config, task=task)
        run = str(options.out / "run")
        model, wall = ours(config, options.init, run)
        kind = predict.task_of(model)
        examples = kind.read_examples(paths["test"], labelled=True)
        predictions = predict.predict(model, examples)
        scores[0].append(kind.score(examples, predictions)[kind.config.metrics[0]])
        seconds[0].append(wall)
        network, wall = theirs(model.run_config, model.vocabulary, options.init)
        scores[1].append(their_score(network, model.run_config, model.vocabulary, examples))
        seconds[1].append(wall)
        print(
            f"seed {seed}: ours {scores[0][-1]:.4f} in {seconds[0][-1]:.0f} s, "
            f"Transformers {scores[1][-1]:.4f} in {wall:.0f} s",
            flush=True,
        )
    metric = tuning.SETTINGS[options.task].metric
    for name, values, walls in zip(("ours", "Transformers"), scores, seconds, strict=True):
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        print(
            f"{name:12} {metric} {statistics.fmean(values):.4f} (deviation {deviation:.4f}), "
            f"{statistics.fmean(walls):.0f} s for {options.steps} steps"
        )
    difference, error = tuning.mean_and_error([a - b for a, b in zip(*scores, strict=True)])
    ratios = [b / a for a, b in zip(*seconds, strict=True)]
    print(
        f"paired difference {difference:+.4f} +- {error:.4f}; "
        f"its time over ours {statistics.median(ratios):.2f}"
    )


if __name__ == "__main__":
    main()
