"""Is pretraining worth it? Fine-tuned runs against the same network from scratch, on seven tasks.

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
import dataclasses
import hashlib
import io
import itertools
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tuning

from albert_jax import compilation_cache, files
from albert_jax.model_io import model as models
from albert_jax.tasks import registry

GRID_SEED = 1000
"""The seed of the grid: none of those that are reported."""
SCRATCH = "scratch"
RATES = (1e-4, 3e-4, 1e-3)
CURVE = (100, 1000, None)
"""Training sentences of the curve; None: all."""


class Bench:
    """Runs and keeps scores; `out` is a folder of its own."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.out = options, Path(options.out)
        self._scores = tuning.Kept(str(self.out / "scores.json"))
        self._models: dict[str, Any] = {}

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
        if path not in self._models:
            self._models[path] = models.load(path)
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
        setting, steps = tuning.SETTINGS[name], self.options.steps
        if sentences is not None:
            steps = min(steps, 20 * -(-sentences // setting.rows))
        trained = self.structure(like) if init == SCRATCH else f"{init}@{self.model(init).step}"
        asked = (name, init, trained, part, steps, pooling, rate, seed, sentences or "all")

        def run() -> float:
            positions = self.model(like).config.max_position_embeddings
            config = tuning.run_config(
                setting, positions, steps=steps, pooling=pooling, rate=rate, seed=seed
            )
            paths = tuning.sample(name, self.parts(name), sentences, seed)
            start = self.source(init, like, seed)
            with tuning.tuned(config, paths, start, str(self.out / "run")) as model:
                return tuning.score(model, paths[part], most=self.options.most)

        return self._scores.get(" ".join(map(str, asked)), run)

    def parts(self, name: str) -> dict[str, str]:
        """Paths of a task's parts."""
        return tuning.parts(name, Path(self.options.data), self.out / "data")

    def chosen(self, name: str, init: str, like: str) -> tuple[str, float]:
        """Pooling and learning rate with the best score on dev."""
        grid = list(itertools.product(tuning.SETTINGS[name].poolings, self.options.rates))
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
        setting = tuning.SETTINGS[name]
        task = registry.create(registry.get(setting.task).config_class())
        if not task.has_baseline:
            return None
        paths = self.parts(name)
        train, test = (task.read_examples(paths[part], labelled=True) for part in ("train", "test"))
        scores = task.resolve(train, test).baseline(train, test)
        return tuning.percent(setting.task, scores[setting.metric])


def report(bench: Bench, name: str) -> Iterator[str]:
    """The lines of one task."""
    majority = bench.majority(name)
    told = "" if majority is None else f", commonest answer {majority:.2f}"
    yield f"{name}: {tuning.SETTINGS[name].metric} on the test, mean (deviation){told}"
    for like in bench.options.init:
        scratch = bench.scores(name, SCRATCH, like)
        ours = bench.scores(name, like, like)
        for init, values in ((SCRATCH, scratch), (like, ours)):
            pooling, rate = bench.chosen(name, init, like)
            line = f"  {init:40} {pooling:4} {rate:7.0e} {tuning.spread(values)}"
            yield line if init == SCRATCH else f"{line}  {tuning.compared(ours, scratch)}"


def curve(bench: Bench) -> Iterator[str]:
    """SST-2 over the number of training sentences: lines, and DIR/sst2-curve.png."""
    found: dict[str, list[list[float]]] = {}
    for like in bench.options.init:
        for init in (SCRATCH, like):
            found[init] = [bench.scores("sst-2", init, like, size) for size in CURVE]
        for size, ours, scratch in zip(CURVE, found[like], found[SCRATCH], strict=True):
            yield (
                f"sst-2 from {size or 'all':>5} sentences: scratch {tuning.spread(scratch)}, "
                f"{like} {tuning.spread(ours)}  {tuning.compared(ours, scratch)}"
            )
    train = bench.parts("sst-2")["train"]
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
    parser.add_argument(
        "--tasks", nargs="*", choices=tuple(tuning.SETTINGS), default=list(tuning.SETTINGS)
    )
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
