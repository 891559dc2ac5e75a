"""Is pretraining worth it? Fine-tuned runs against the same network from scratch, on six tasks.

    python benchmarks/downstream.py DATA --init RUN ... --out DIR [--tasks sst-2 squad ...]
                                    [--seeds 5] [--steps 600] [--sst2-curve]

DATA holds the tasks' files (benchmarks/splits.py). For each task, each RUN (or exported directory)
and random weights of the same structure: pooling and learning rate are chosen on dev over one
small grid, then each seed is trained for the same steps and scored on the test. Seed by seed the
two share the order of the examples, the dropout and the new head. Printed are mean and standard
deviation over the seeds, the mean paired difference and its standard error.

Every score is kept in DIR/scores.json, and what stands there is not computed again: name fewer
tasks to do the work in parts. --sst2-curve scores 100, 1,000 and all training sentences of SST-2
too (each seed with a sample of its own) and draws DIR/sst2-curve.png.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import splits

from albert_jax import configfile, files
from albert_jax.config import Config, PhaseConfig, TaskConfig, TaskName
from albert_jax.observe import compilation_cache
from albert_jax.tasks import metrics

GRID_SEED = 1000
"""The seed of the grid: none of those that are reported."""
SCRATCH = "scratch"
RATES = (1e-4, 3e-4, 1e-3)
CURVE = (100, 1000, None)
"""Training sentences of the curve; None: all."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a task is trained: `metric` marks the score, `length` is shortened to the model's."""

    task: TaskName
    metric: str
    rows: int
    length: int
    poolings: tuple[Literal["cls", "mean"], ...] = ("cls", "mean")


SETTINGS = {
    "sst-2": Setting("classification", "accuracy", 16, 64),
    "cola": Setting("classification", "matthews", 16, 48),
    "rte": Setting("classification", "accuracy", 16, 128),
    "mrpc": Setting("classification", "accuracy", 16, 128),
    "squad": Setting("squad-v2", "f1", 16, 128, ("cls",)),
    "squad-answered": Setting("squad-v1", "f1", 16, 128, ("cls",)),
    "race": Setting("choice", "accuracy", 4, 128),
}


def recipe(
    setting: Setting, positions: int, *, steps: int, pooling: Any, rate: float, seed: int
) -> Config:
    """The config of a fine-tuning run of a model with so many `positions`; without its files."""
    length = min(setting.length, positions)
    config = configfile.load("finetune/default")
    task = TaskConfig(
        name=setting.task,
        metrics=(setting.metric,),
        pooling=pooling,
        query_length=min(24, length // 3),
        stride=length // 3,
        qa_length=min(48, length // 2),
    )
    return dataclasses.replace(
        config,
        seed=seed,
        phases=(PhaseConfig(steps=steps, sequence_length=length, rows=setting.rows),),
        optimizer=dataclasses.replace(
            config.optimizer, learning_rate=rate, warmup_steps=steps // 10
        ),
        compute=dataclasses.replace(config.compute, unroll=True),
        run=dataclasses.replace(
            config.run, log_every=steps, evaluate_every=0, evaluate_rows=8, checkpoint_every=steps
        ),
        task=task,
    )


class Bench:
    """Runs and keeps scores; `out` is a folder of its own."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.out = options, Path(options.out)
        self._scores: dict[str, float] = json.loads(files.read(self._file) or b"{}")
        self._models: dict[str, Any] = {}

    @property
    def _file(self) -> str:
        return str(self.out / "scores.json")

    def source(self, init: str, like: str, seed: int) -> str:
        """Where the start weights lie; those from scratch have the structure of `like`."""
        from albert_jax import api

        if init != SCRATCH:
            return init
        folder = self.out / f"{SCRATCH}-{self.structure(like)}-{seed}"
        if not folder.is_dir():
            model = self.model(like)
            params = api.init(model.config, seed)
            api.save(dataclasses.replace(model, params=params), str(folder))
        return str(folder)

    def model(self, path: str) -> Any:
        """The model at a path, read once."""
        from albert_jax.evaluate import loading

        if path not in self._models:
            self._models[path] = loading.load(path)
        return self._models[path]

    def structure(self, path: str) -> str:
        """A name for network and vocabulary: models that share it share their scratch."""
        model = self.model(path)
        told = repr(model.config) + model.vocabulary.fingerprint
        return hashlib.sha256(told.encode()).hexdigest()[:8]

    def score(
        self,
        name: str,
        init: str,
        like: str,
        part: str,
        *,
        pooling: str,
        rate: float,
        seed: int,
        sentences: int | None = None,
    ) -> float:
        """The score (in percent) of one run on a part of a task."""
        steps = self.options.steps
        if sentences is not None:
            steps = min(steps, 20 * -(-sentences // SETTINGS[name].rows))
        trained = self.structure(like) if init == SCRATCH else f"{init}@{self.model(init).step}"
        asked = (name, init, trained, part, steps, pooling, rate, seed, sentences or "all")
        key = " ".join(map(str, asked))
        if key not in self._scores:
            began = time.perf_counter()
            positions = self.model(like).config.max_position_embeddings
            config = recipe(
                SETTINGS[name], positions, steps=steps, pooling=pooling, rate=rate, seed=seed
            )
            paths = self.parts(name, sentences, seed)
            start = self.source(init, like, seed)
            self._scores[key] = self._run(config, paths, start, part)
            files.write(self._file, json.dumps(self._scores, indent=1).encode())
            seconds = time.perf_counter() - began
            print(
                f"  {key}: {self._scores[key]:.2f} ({seconds:.0f} s)", file=sys.stderr, flush=True
            )
        return self._scores[key]

    def parts(self, name: str, sentences: int | None, seed: int) -> dict[str, str]:
        """Paths of a task's parts; with `sentences` the seed's own sample of the training part."""
        folder = self.out / "data"
        paths = {
            part: next(iter(map(str, sorted(folder.glob(f"{name}-{part}.json*")))), "")
            for part in splits.PARTS
        }
        if not all(paths.values()):
            paths = splits.split(name, Path(self.options.data), folder)
        if sentences is not None:
            lines = Path(paths["train"]).read_text(encoding="utf-8").splitlines()
            chosen = sorted(lines, key=lambda line: splits.place(f"{seed} {line}"))[:sentences]
            records = [json.loads(line) for line in chosen]
            stem = folder / f"sample-{name}-{sentences}-{seed}"
            paths = {**paths, "train": splits.write(name, records, stem)}
        return paths

    def _run(self, config: Config, paths: dict[str, str], start: str, part: str) -> float:
        import jax

        from albert_jax.evaluate import finetuned, loading
        from albert_jax.train import finetune

        assert config.task is not None
        task = dataclasses.replace(config.task, train=paths["train"], dev=paths["dev"])
        folder = str(self.out / "run")
        shutil.rmtree(folder, ignore_errors=True)  # What a run that was cut off has left.
        with open(self.out / "log.txt", "a") as log, contextlib.redirect_stdout(log):
            finetune.run(dataclasses.replace(config, task=task), folder, init=start)
        model = loading.load(folder)
        settled, kind = finetuned.finetuned(model)
        examples = kind.family.read(paths[part], settled, True)[: self.options.most]
        found = finetuned.answers(model, examples)
        value = kind.family.score(examples, found, settled.labels)[settled.metrics[0]]
        shutil.rmtree(folder)
        jax.clear_caches()
        return value if settled.name.startswith("squad") else 100 * value

    def chosen(self, name: str, init: str, like: str) -> tuple[str, float]:
        """Pooling and learning rate with the best score on dev."""
        grid = list(itertools.product(SETTINGS[name].poolings, self.options.rates))
        if len(grid) == 1:
            return grid[0]
        return max(
            grid,
            key=lambda point: self.score(
                name, init, like, "dev", pooling=point[0], rate=point[1], seed=GRID_SEED
            ),
        )

    def scores(self, name: str, init: str, like: str, sentences: int | None = None) -> list[float]:
        """The test scores of all seeds with the chosen pooling and rate."""
        pooling, rate = self.chosen(name, init, like)
        return [
            self.score(
                name, init, like, "test", pooling=pooling, rate=rate, seed=seed,
                sentences=sentences,
            )
            for seed in range(self.options.seeds)
        ]  # fmt: skip

    def majority(self, name: str) -> float | None:
        """The test score of the commonest training answer."""
        from albert_jax.tasks.families import FAMILIES

        setting = SETTINGS[name]
        family = FAMILIES[setting.task]
        if family.baseline is None:
            return None
        paths, config = self.parts(name, None, 0), TaskConfig(name=setting.task)
        train, test = (family.read(paths[part], config, True) for part in ("train", "test"))
        found = family.baseline(train, test, family.labels(train, config))[setting.metric]
        return found if setting.task.startswith("squad") else 100 * found


def compared(ours: Sequence[float], scratch: Sequence[float]) -> str:
    """Mean paired difference, its standard error, and how many errors it is away from 0."""
    difference, error = metrics.mean_and_error([a - b for a, b in zip(ours, scratch, strict=True)])
    ratio = f"{difference / error:5.1f} errors" if error else "  one seed"
    return f"{difference:+7.2f} +- {error:4.2f} {ratio}"


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):6.2f} ({deviation:4.2f})"


def report(bench: Bench, name: str) -> Iterator[str]:
    """The lines of one task."""
    majority = bench.majority(name)
    told = "" if majority is None else f", commonest answer {majority:.2f}"
    yield f"{name}: {SETTINGS[name].metric} on the test, mean (deviation){told}"
    for like in bench.options.init:
        scratch = bench.scores(name, SCRATCH, like)
        ours = bench.scores(name, like, like)
        for init, values in ((SCRATCH, scratch), (like, ours)):
            pooling, rate = bench.chosen(name, init, like)
            line = f"  {init:40} {pooling:4} {rate:7.0e} {spread(values)}"
            yield line if init == SCRATCH else f"{line}  {compared(ours, scratch)}"


def curve(bench: Bench) -> Iterator[str]:
    """SST-2 over the number of training sentences: lines, and DIR/sst2-curve.png."""
    found: dict[str, list[list[float]]] = {}
    for like in bench.options.init:
        for init in (SCRATCH, like):
            found[init] = [bench.scores("sst-2", init, like, size) for size in CURVE]
        for size, ours, scratch in zip(CURVE, found[like], found[SCRATCH], strict=True):
            yield (
                f"sst-2 from {size or 'all':>5} sentences: scratch {spread(scratch)}, "
                f"{like} {spread(ours)}  {compared(ours, scratch)}"
            )
    train = bench.parts("sst-2", None, 0)["train"]
    everything = len(Path(train).read_text(encoding="utf-8").splitlines())
    path = str(bench.out / "sst2-curve.png")
    files.write(path, draw([size or everything for size in CURVE], found))
    yield path


def draw(sizes: Sequence[int], found: dict[str, list[list[float]]]) -> bytes:
    """A PNG: mean and standard deviation over the training sentences, a line for each start."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, scores in found.items():
        means = [statistics.fmean(values) for values in scores]
        spreads = [statistics.pstdev(values) for values in scores]
        axes.errorbar(sizes, means, spreads, label=name, marker="o", capsize=3)
    axes.set_xscale("log")
    axes.set_xlabel("training sentences")
    axes.set_ylabel("accuracy on the test (%)")
    axes.set_title("SST-2, mean and deviation over seeds", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


def main() -> None:
    """Prints a block of lines per task."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--init", nargs="+", required=True, metavar="RUN|DIR")
    parser.add_argument("--out", required=True)
    parser.add_argument("--tasks", nargs="*", choices=tuple(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES))
    parser.add_argument("--most", type=int, help="dev and test examples that are scored at most")
    parser.add_argument("--sst2-curve", action="store_true")
    options = parser.parse_args()
    compilation_cache.use()  # Runs of a task differ in seed and rate only: one program.
    files.make_folder(options.out)
    bench = Bench(options)
    for name in options.tasks:
        for line in report(bench, name):
            print(line, flush=True)
    if options.sst2_curve:
        for line in curve(bench):
            print(line, flush=True)


if __name__ == "__main__":
    main()
