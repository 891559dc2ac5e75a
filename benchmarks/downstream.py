"""Is pretraining worth it? Fine-tuned runs against the same network from scratch, on many tasks.

    python benchmarks/downstream.py DATA --init RUN ... --out DIR [--tasks sst-2 squad ...]
                                    [--seeds 5] [--steps 400] [--part test] [--sst2-curve]

DATA holds the tasks' files (benchmarks/splits.py). For each task each RUN (or exported directory)
and random weights of the same structure are fine-tuned with the defaults of `albert-jax finetune`,
at most --steps steps, and scored. Seed by seed the two share the order of the examples, the dropout
and the new head. Printed are mean and standard deviation over the seeds, the mean paired difference
and its standard error. Defaults are chosen with --part dev.

Every score is kept in DIR/scores.json, and what stands there is not computed again: name fewer
tasks to do the work in parts. --sst2-curve scores 100, 1,000 and all training sentences of SST-2
too (each seed with a sample of its own) and draws DIR/sst2-curve.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tuning

from albert_jax import compilation_cache, files
from albert_jax.model_io import model as models
from albert_jax.tasks import registry

SCRATCH = "scratch"
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
        self, name: str, init: str, like: str, seed: int, sentences: int | None = None
    ) -> float:
        """The score (in percent) of one run, trained on all or so many sentences of a task."""
        steps, part = self.options.steps, self.options.part
        trained = self.structure(like) if init == SCRATCH else f"{init}@{self.model(init).step}"
        asked = (name, init, trained, part, steps, seed, sentences or "all", self.options.most)

        def run() -> float:
            config = tuning.default_config(tuning.SETTINGS[name], seed)
            paths = tuning.sample(name, self.parts(name), sentences, seed)
            start = self.source(init, like, seed)
            with tuning.tuned(
                config, paths, start, str(self.out / "run"), given=(), max_steps=steps
            ) as model:
                return tuning.score(model, paths[part], most=self.options.most)

        return self._scores.get(" ".join(map(str, asked)), run)

    def parts(self, name: str) -> dict[str, str]:
        """Paths of a task's parts."""
        return tuning.parts(name, Path(self.options.data), self.out / "data")

    def scores(self, name: str, init: str, like: str, sentences: int | None = None) -> list[float]:
        """The scores of all seeds."""
        seeds = range(self.options.seeds)
        return [self.score(name, init, like, seed, sentences) for seed in seeds]

    def majority(self, name: str) -> float | None:
        """The score of the commonest training answer."""
        setting = tuning.SETTINGS[name]
        task = registry.create(registry.get(setting.task).config_class())
        if not task.has_baseline:
            return None
        paths = self.parts(name)
        train, test = (
            task.read_examples(paths[part], labelled=True) for part in ("train", self.options.part)
        )
        scores = task.resolve(train, test).baseline(train, test)
        return tuning.percent(setting.task, scores[setting.metric])


def report(bench: Bench, name: str) -> Iterator[str]:
    """The lines of one task."""
    majority = bench.majority(name)
    told = "" if majority is None else f", majority class {majority:.2f}"
    metric, part = tuning.SETTINGS[name].metric, bench.options.part
    yield f"{name}: {metric} on {part}, mean (deviation){told}"
    for like in bench.options.init:
        scratch = bench.scores(name, SCRATCH, like)
        ours = bench.scores(name, like, like)
        for init, values in ((SCRATCH, scratch), (like, ours)):
            line = f"  {init:40} {tuning.spread(values)}"
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
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--part", choices=("dev", "test"), default="test")
    parser.add_argument("--most", type=int, help="examples that are scored at most")
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
