"""One fine-tuning run of a task that benchmarks/splits.py knows, and its score on a part of it."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import splits

from albert_jax import config_builder, configfile, files
from albert_jax.config import Config, PhaseConfig
from albert_jax.model_io import model as models
from albert_jax.tasks import registry

GIVEN = ("optimizer.learning_rate",)
"""Fields of `run_config` that are not adapted to the width of the weights."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a task is trained: `metric` marks the score, `length` is shortened to the model's.

    The defaults of the product have other rows and lengths.
    """

    task: str
    metric: str
    rows: int
    length: int


SETTINGS = {
    "sst-2": Setting("classification", "accuracy", 16, 64),
    "cola": Setting("classification", "matthews", 16, 48),
    "rte": Setting("classification", "accuracy", 16, 128),
    "mrpc": Setting("classification", "accuracy", 16, 128),
    "squad": Setting("squad-v2", "f1", 16, 128),
    "squad-answered": Setting("squad-v1", "f1", 16, 128),
    "race": Setting("multiple-choice", "accuracy", 4, 128),
    "subj": Setting("classification", "accuracy", 16, 64),
    "mr": Setting("classification", "accuracy", 16, 64),
    "sst5": Setting("classification", "accuracy", 16, 64),
    "agnews": Setting("classification", "accuracy", 16, 128),
    "ud-ewt": Setting("token-classification", "accuracy", 16, 64),
    "conll2003": Setting("token-classification", "f1", 16, 64),
}


CLASSIFICATION = [name for name, setting in SETTINGS.items() if setting.task == "classification"]


def default_config(setting: Setting, seed: int) -> Config:
    """The config that `albert-jax finetune` has when only the task is named."""
    config = config_builder.with_task(configfile.load("finetune/default"), setting.task)
    assert config.task is not None
    task = dataclasses.replace(config.task, metrics=(setting.metric,))
    run = dataclasses.replace(config.run, eval_steps=0, max_eval_samples=8, save_steps=100_000)
    return dataclasses.replace(config, seed=seed, run=run, task=task)


def run_config(
    setting: Setting, positions: int, *, steps: int, pooling: Any, rate: float, seed: int
) -> Config:
    """The config of a fine-tuning run of a model with so many `positions`; without its files.

    Its learning rate is meant as it stands.
    """
    length = min(setting.length, positions)
    config = configfile.load("finetune/default")
    settings: dict[str, Any] = {
        "metrics": (setting.metric,),
        "pooling": pooling,
        "max_query_length": min(24, length // 3),
        "doc_stride": length // 3,
        "max_qa_length": min(48, length // 2),
    }
    config_class = registry.get(setting.task).config_class
    known = {field.name for field in dataclasses.fields(config_class)}
    task = config_class(**{name: settings[name] for name in settings if name in known})
    return dataclasses.replace(
        config,
        seed=seed,
        phases=(PhaseConfig(steps=steps, sequence_length=length, batch_size=setting.rows),),
        optimizer=dataclasses.replace(
            config.optimizer, learning_rate=rate, warmup_steps=steps // 10
        ),
        run=dataclasses.replace(
            config.run, logging_steps=steps, eval_steps=0, max_eval_samples=8, save_steps=steps
        ),
        task=task,
    )


def parts(name: str, data: Path, folder: Path) -> dict[str, str]:
    """Paths of a task's parts in a folder, where they are written if they are not there."""
    found = {
        part: next(iter(map(str, sorted(folder.glob(f"{name}-{part}.*")))), "")
        for part in splits.PARTS
    }
    return found if all(found.values()) else splits.split(name, data, folder)


def sample(name: str, paths: dict[str, str], count: int | None, seed: int) -> dict[str, str]:
    """The parts of a task with `count` lines (None: all) for training: the seed's own."""
    if count is None:
        return paths
    train = Path(paths["train"])
    lines = train.read_text(encoding="utf-8").splitlines()
    chosen = sorted(lines, key=lambda line: splits.place(f"{seed} {line}"))[:count]
    stem = train.parent / f"sample-{name}-{count}-{seed}"
    return {**paths, "train": splits.write(name, [json.loads(line) for line in chosen], stem)}


@contextlib.contextmanager
def tuned(
    config: Config,
    paths: dict[str, str],
    init: str | None,
    folder: str,
    *,
    given: Sequence[str] = GIVEN,
    **options: Any,
) -> Iterator[models.Model]:
    """The model that a run in `folder` gives, which is removed afterwards.

    `given` and `options` are those of finetuning/finetune.py. What the run prints goes to the file
    FOLDER.log.
    """
    import jax

    from albert_jax.finetuning import finetune

    assert config.task is not None
    task = dataclasses.replace(config.task, train=paths["train"], dev=paths["dev"])
    config = dataclasses.replace(config, task=task)
    shutil.rmtree(folder, ignore_errors=True)  # An interrupted run may have left it.
    with open(f"{folder}.log", "a") as log, contextlib.redirect_stdout(log):
        finetune.run(config, folder, init=init, given=given, **options)
    yield models.load(folder)
    shutil.rmtree(folder)
    jax.clear_caches()


def score(model: models.Model, path: str, *, most: int | None = None, **options: Any) -> float:
    """The score of a fine-tuned model on the examples at `path` (the first `most`), in percent.

    `options` are those of inference/predict.py.
    """
    from albert_jax.inference import predict

    task = predict.task_of(model)
    config = task.config
    examples = task.read_examples(path, labelled=True)[:most]
    predictions = predict.predict(model, examples, **options)
    return percent(config.name, task.score(examples, predictions)[config.metrics[0]])


def percent(task: str, value: float) -> float:
    """A score in percent, in which SQuAD's are already."""
    return value if task.startswith("squad") else 100 * value


class Kept:
    """Values by name in a file: what stands there is not computed again."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._values: dict[str, Any] = json.loads(files.read(path) or b"{}")

    def get(self, key: str, compute: Callable[[], Any]) -> Any:
        """The value of a key, computed and written if it is not there; told on stderr."""
        if key not in self._values:
            began = time.perf_counter()
            self._values[key] = compute()
            files.write(self._path, json.dumps(self._values, indent=1).encode())
            seconds = time.perf_counter() - began
            print(f"  {key}: {self._values[key]} ({seconds:.0f} s)", file=sys.stderr, flush=True)
        return self._values[key]


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and its standard error (0 for a single value)."""
    array = np.asarray(values, np.float64)
    error = array.std(ddof=1) / np.sqrt(len(array)) if len(array) > 1 else 0.0
    return float(array.mean()), float(error)


def compared(ours: Sequence[float], others: Sequence[float]) -> str:
    """Mean paired difference, its standard error, and how many errors it is away from 0."""
    difference, error = mean_and_error([a - b for a, b in zip(ours, others, strict=True)])
    if error:
        ratio = f"{difference / error:5.1f} errors"
    else:
        ratio = "  one seed" if len(ours) == 1 else "  all seeds alike"
    return f"{difference:+7.2f} +- {error:4.2f} {ratio}"


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):6.2f} ({deviation:4.2f})"


def seconds(call: Callable[[], Any], rounds: int = 3) -> float:
    """Wall time of a call that has run before (and compiled): the fastest of some rounds."""
    call()
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return min(taken)


def arguments(description: str, tasks: Sequence[str]) -> argparse.ArgumentParser:
    """The options of a program that fine-tunes one model on one of the `tasks`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("data", type=Path)
    parser.add_argument("--init", required=True, metavar="RUN|DIR")
    parser.add_argument("--out", required=True)
    parser.add_argument("--task", choices=tasks, default="sst-2")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--pooling", choices=("cls", "mean"), default="mean")
    return parser
