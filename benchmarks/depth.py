"""Depth as a dial: one model at several depths beside models trained at each, and early exit.

    python benchmarks/depth.py DATA --init RUN|DIR --out DIR [--task sst-2] [--depths 1 2 3 4]
                               [--seeds 5] [--steps 400] [--rate 3e-4] [--pooling mean]

DATA is that of benchmarks/splits.py. For each seed one model draws its depth in every step and is
scored on the test at all depths; beside it stand models of one depth each, from the same weights,
for the same steps. Printed are means (deviations) over the seeds and paired differences; then what
early exit saves on the drawn model: layers, score and wall time beside all layers in one program
(medians over the seeds; texts to labels, compiled before). Values are kept in DIR/values.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from pathlib import Path
from typing import Any

import tuning

from albert_jax import compilation_cache, files
from albert_jax.model import flops
from albert_jax.model_io import model as loading

CONFIDENCES = (0.6, 0.7, 0.8, 0.9, 0.95)


def scores(model: loading.Model, path: str, depths: list[int]) -> dict[str, float]:
    """The score at each depth."""
    return {str(depth): tuning.score(model, path, num_layers=depth) for depth in depths}


def exits(model: loading.Model, path: str, num_layers: int) -> dict[str, list[float]]:
    """For each confidence [score, mean number of layers, time of all layers over its time]."""
    from albert_jax.inference import predict
    from albert_jax.inference.early_exit import EarlyExit

    task = predict.task_of(model)
    config = task.config
    examples = task.read_examples(path, labelled=True)

    whole = tuning.seconds(lambda: predict.predict(model, examples, num_layers=num_layers))
    found = {}
    for confidence in CONFIDENCES:
        early = EarlyExit(model, confidence, num_layers)

        def answer(early: EarlyExit = early) -> Any:
            return predict.predict(model, examples, early_exit=early)

        value = task.score(examples, answer())[config.metrics[0]]
        ratio = whole / tuning.seconds(answer)
        found[str(confidence)] = [100 * value, statistics.fmean(early.layers_used), ratio]
    return found


class Bench:
    """Trains, scores and keeps."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options, self._out = options, Path(options.out)
        self._kept = tuning.Kept(str(self._out / "values.json"))
        self._paths = tuning.parts(options.task, options.data, self._out / "data")
        self._positions = loading.load(options.init).config.max_position_embeddings

    def _values(self, seed: int, drawn: list[int], num_layers: int, with_exits: bool) -> Any:
        options = self._options
        config = tuning.run_config(
            tuning.SETTINGS[options.task], self._positions,
            steps=options.steps, pooling=options.pooling, rate=options.rate, seed=seed,
        )  # fmt: skip
        [phase] = config.phases
        config = dataclasses.replace(
            config, phases=(dataclasses.replace(phase, depths=tuple(drawn)),)
        )
        folder, test = str(self._out / "run"), self._paths["test"]
        with tuning.tuned(
            config, self._paths, options.init, folder, num_layers=num_layers
        ) as model:
            found: dict[str, Any] = {"scores": scores(model, test, options.depths)}
            return found | ({"exits": exits(model, test, num_layers)} if with_exits else {})

    def drawn(self, seed: int) -> Any:
        """Scores and exits of the model of all depths."""
        depths = self._options.depths
        return self._kept.get(
            self._key(f"drawn from {depths}", seed),
            lambda: self._values(seed, depths, max(depths), True),
        )

    def single(self, seed: int, depth: int) -> dict[str, float]:
        """Scores at all depths of the model that was trained at one."""
        key = self._key(f"at {depth}", seed)
        return self._kept.get(key, lambda: self._values(seed, [], depth, False))["scores"]

    def _key(self, trained: str, seed: int) -> str:
        options = self._options
        return f"{options.task} {trained} {options.steps} {options.rate} {options.pooling} {seed}"


def main() -> None:
    """Prints a line per depth, then one per confidence."""
    parser = tuning.arguments(__doc__.splitlines()[0], tuning.CLASSIFICATION)
    parser.add_argument("--depths", nargs="+", type=int, default=[1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    compilation_cache.use()
    files.make_folder(options.out)
    bench, seeds = Bench(options), range(options.seeds)
    setting, model = tuning.SETTINGS[options.task], loading.load(options.init)
    drawn = [bench.drawn(seed) for seed in seeds]
    single = {depth: [bench.single(seed, depth) for seed in seeds] for depth in options.depths}
    print(f"{options.task}: {setting.metric} on the test, {options.steps} steps")
    deepest = max(options.depths)
    for depth in options.depths:
        one = [values["scores"][str(depth)] for values in drawn]
        own = [values[str(depth)] for values in single[depth]]
        other = [values[str(depth)] for values in single[deepest]]
        cost = flops.forward_per_token(
            model.config,
            sequence_length=min(setting.length, model.config.max_position_embeddings),
            predictions=0,
            num_layers=depth,
        )
        print(
            f"{depth:3} layers, {cost / 1e6:6.2f} MFLOP a token: drawn {tuning.spread(one)}, "
            f"trained at {depth} {tuning.spread(own)}  {tuning.compared(one, own)}, "
            f"trained at {deepest} {tuning.spread(other)}"
        )
    for confidence in map(str, CONFIDENCES):
        rows = [values["exits"][confidence] for values in drawn]
        score, num_layers, ratio = (statistics.median(column) for column in zip(*rows, strict=True))
        print(
            f"exit at {confidence:>4}: {score:6.2f}, {num_layers:.2f} of {deepest} layers, "
            f"time of all layers over its time {ratio:.2f}"
        )


if __name__ == "__main__":
    main()
