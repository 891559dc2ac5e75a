"""The same fine-tuning with ours and with Transformers' Trainer (PyTorch): scores and time.

    python benchmarks/finetune.py DATA --init RUN|DIR --out DIR [--task sst-2] [--seeds 5]
                                  [--steps 300] [--rate 3e-4]

DATA is that of benchmarks/splits.py. For each seed both sides start from the same exported
network and the same new head, see the same examples in the same order at the same rates, and are
scored on the same test. Its rows are ids already, padded to the longest of their batch as its
collator does; ours are read, tokenized and padded in the time that is measured.

Each side is a process of its own. Its time, and that of its processor, is from the start of the
process to the end of the training: imports, compilation (without a cache) and the checkpoint are
in it. Where other work runs, give both one core (taskset -c 0), because waiting threads of PyTorch
count as work. Needs torch, transformers and accelerate (extra parity).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # Each side imports what it needs, because imports are part of its time.
    from albert_jax.config import Config
    from albert_jax.model_io.model import Model

SIDES = ("ours", "trainer")
_BEGAN = time.perf_counter()


def spent() -> dict[str, float]:
    """Seconds of this process so far, and of the processor for it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"wall": time.perf_counter() - _BEGAN, "cpu": used.ru_utime + used.ru_stime}


def settings(options: argparse.Namespace, paths: dict[str, str]) -> Config:
    """The config of our run of one seed."""
    import tuning

    from albert_jax import configfile

    positions = configfile.load(options.init).model.max_position_embeddings
    config = tuning.run_config(
        tuning.SETTINGS[options.task], positions,
        steps=options.steps, pooling="cls", rate=options.rate, seed=options.seed,
    )  # fmt: skip
    assert config.task is not None
    task = dataclasses.replace(config.task, train=paths["train"], dev=paths["dev"])
    return dataclasses.replace(config, task=task)


def ours(options: argparse.Namespace, paths: dict[str, str]) -> tuple[dict[str, float], float]:
    """Time and score of our training."""
    from albert_jax.finetuning import finetune

    run = str(options.out / "run")
    with open(f"{run}.log", "w") as log, contextlib.redirect_stdout(log):
        finetune.run(
            settings(options, paths), run, init=options.init, given=("optimizer.learning_rate",)
        )
    took = spent()
    from albert_jax.inference import predict
    from albert_jax.model_io import model as models

    model = models.load(run)
    task = predict.task_of(model)
    examples = task.read_examples(paths["test"], labelled=True)
    scores = task.score(examples, predict.predict(model, examples))
    return took, scores[task.config.metrics[0]]


def prepare_theirs(model: Model, init: str, folder: Path) -> None:
    """Writes the network, head, batches and rates from which our run of `model` started."""
    import peer

    from albert_jax.finetuning import network
    from albert_jax.finetuning.batches import TrainingBatches, TrainingFeatures
    from albert_jax.model_io.model import Model
    from albert_jax.optim.schedule import learning_rate
    from albert_jax.tasks import registry

    config = model.run_config
    assert config.task is not None
    task = registry.create(config.task)
    params = network.initial_params(config, task, model.vocabulary, init)
    network, _ = peer.classifier(Model(config, dict(params), model.vocabulary, init))
    network.save_pretrained(folder)
    examples = task.read_examples(config.task.train, labelled=True)
    features = TrainingFeatures(task, model.vocabulary, examples, config)
    batches = TrainingBatches(features, config)
    columns, rows = {}, np.arange(config.phases[0].batch_size)
    for step in range(config.steps):
        batch = batches.batch(0, step, rows)
        real = batch["example_weights"] > 0  # The last batch of an epoch has padding rows.
        longest = int(batch["segment_ids"].sum(axis=1).max())
        for name, ours in (("input_ids", "input_ids"), ("token_type_ids", "token_type_ids"),
                           ("attention_mask", "segment_ids")):  # fmt: skip
            columns[f"{step}/{name}"] = batch[ours][real, :longest].astype(np.int64)
        columns[f"{step}/labels"] = batch["labels"][real].astype(np.int64)
    columns["rates"] = np.array([learning_rate(config, step) for step in range(config.steps)])
    np.savez(folder / "batches.npz", **columns)
    (folder / "optimizer.json").write_text(json.dumps(dataclasses.asdict(config.optimizer)))


def theirs(options: argparse.Namespace, paths: dict[str, str]) -> tuple[dict[str, float], float]:
    """Time and score of Transformers' model, trained by its Trainer."""
    import torch
    from transformers import (
        AlbertForSequenceClassification,
        Trainer,
        TrainingArguments,
    )

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    folder = options.out / "theirs"
    model = AlbertForSequenceClassification.from_pretrained(folder)
    stored, adam = (
        np.load(folder / "batches.npz"),
        json.loads((folder / "optimizer.json").read_text()),
    )
    rates, names = stored["rates"], ("input_ids", "token_type_ids", "attention_mask", "labels")
    plain = [p for name, p in model.named_parameters() if "bias" in name or "LayerNorm" in name
             or "layer_norm" in name]  # fmt: skip
    chosen = {id(p) for p in plain}
    decayed = [p for p in model.parameters() if id(p) not in chosen]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": adam["weight_decay"]},
         {"params": plain, "weight_decay": 0.0}],
        lr=adam["learning_rate"], betas=(adam["b1"], adam["b2"]), eps=adam["eps"],
    )  # fmt: skip

    class Batches(Trainer):
        def get_train_dataloader(self) -> Any:
            batches = [
                {name: torch.from_numpy(stored[f"{step}/{name}"]) for name in names}
                for step in range(options.steps)
            ]
            return torch.utils.data.DataLoader(batches, batch_size=None)  # type: ignore[arg-type]

    arguments = TrainingArguments(
        str(folder / "run"), max_steps=options.steps, max_grad_norm=adam["max_grad_norm"],
        use_cpu=True, report_to=[], logging_steps=options.steps, save_steps=options.steps,
        disable_tqdm=True, seed=options.seed,
    )  # fmt: skip
    # The scheduler asks for one rate more than there are steps.
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rates[min(step, len(rates) - 1)] / adam["learning_rate"]
    )
    Batches(model, arguments, optimizers=(optimizer, schedule)).train()
    took = spent()
    return took, their_score(model.eval(), options.out / "run", paths["test"])


def their_score(model: Any, run: Path, test: str) -> float:
    """The score of Transformers' model on the examples of a file, by the metrics of our run."""
    import torch

    from albert_jax.inference import predict
    from albert_jax.model_io import model as models
    from albert_jax.tasks.support import prediction

    trained = models.load(str(run))
    task = predict.task_of(trained)
    examples = task.read_examples(test, labelled=True)

    def outputs(batch: dict[str, np.ndarray]) -> np.ndarray:
        names = {"input_ids": "input_ids", "token_type_ids": "token_type_ids",
                 "attention_mask": "segment_ids"}  # fmt: skip
        with torch.no_grad():
            columns = {new: torch.from_numpy(batch[old].astype(np.int64))
                       for new, old in names.items()}  # fmt: skip
            return model(**columns).logits.numpy()

    predictions = prediction.predict(
        task, trained.vocabulary, examples, outputs,
        length=trained.run_config.phases[-1].sequence_length, batch_size=predict.BATCH_SIZE,
    )  # fmt: skip
    return task.score(examples, predictions)[task.config.metrics[0]]


def side(name: str, seed: int) -> dict[str, float]:
    """Runs one side in a process of its own: wall, cpu, score."""
    command = [sys.executable, __file__, *sys.argv[1:], "--side", name, "--seed", str(seed)]
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    output = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=environment
    ).stdout
    return json.loads(output.splitlines()[-1])


def main() -> None:
    """Prints a line per seed and the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("data", type=Path)
    parser.add_argument("--init", required=True, metavar="RUN|DIR")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--task", default="sst-2")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    parts = ("train", "dev", "test")
    paths = {part: str(options.out / "data" / f"{options.task}-{part}.jsonl") for part in parts}
    if options.side:
        took, score = (ours if options.side == "ours" else theirs)(options, paths)
        print(json.dumps(took | {"score": score}))
        return
    import splits
    import tuning

    from albert_jax.model_io import model as models

    options.out.mkdir(parents=True, exist_ok=True)
    splits.split(options.task, options.data, options.out / "data")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in SIDES}
    for seed in range(options.seeds):
        # The peer starts from the head of our run, which is its own for every seed.
        for name in ("run", "theirs"):
            shutil.rmtree(options.out / name, ignore_errors=True)
        found["ours"].append(side("ours", seed))
        prepare_theirs(models.load(str(options.out / "run")), options.init, options.out / "theirs")
        found["trainer"].append(side("trainer", seed))
        said = [f"{name} {tell(values[-1])}" for name, values in found.items()]
        print(f"seed {seed}: {', '.join(said)}", flush=True)
    metric = tuning.SETTINGS[options.task].metric
    for name, values in found.items():
        columns = {key: [value[key] for value in values] for key in ("score", "wall", "cpu")}
        spread = statistics.stdev(columns["score"]) if len(values) > 1 else 0.0
        print(
            f"{name:8} {metric} {statistics.fmean(columns['score']):.4f} (deviation {spread:.4f}), "
            f"medians {statistics.median(columns['wall']):.1f} s, processor "
            f"{statistics.median(columns['cpu']):.1f} s for {options.steps} steps"
        )
    pairs = list(zip(*found.values(), strict=True))
    difference, error = tuning.mean_and_error([a["score"] - b["score"] for a, b in pairs])
    ratios = {key: [a[key] / b[key] for a, b in pairs] for key in ("wall", "cpu")}
    print(
        f"paired difference {difference:+.4f} +- {error:.4f}; our time over the Trainer's "
        f"{statistics.median(ratios['wall']):.2f}, processor time "
        f"{statistics.median(ratios['cpu']):.2f}"
    )


def tell(values: dict[str, float]) -> str:
    """One result in words."""
    return f"{values['score']:.4f} in {values['wall']:.1f} s (processor {values['cpu']:.1f} s)"


if __name__ == "__main__":
    main()
