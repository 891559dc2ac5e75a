"""What a teacher gives lighter students: score and speed of a classifier.

    python benchmarks/distillation.py DATA --init RUN|DIR --out DIR [--task sst-2] [--seeds 5]
                                      [--steps 400] [--rate 3e-4] [--pooling mean]

DATA is that of benchmarks/splits.py. For each seed a teacher is fine-tuned from --init. Students
are the teacher's own weights at one pass, and a new network of half the width with random weights;
each learns for the same steps from the labels alone and from labels and teacher. Printed are means
(deviations) of the test score over the seeds, the paired gain of the teacher, and the time of the
teacher over the student's (texts to labels, compiled before, median over the seeds). Values are
kept in DIR/values.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import tuning

from albert_jax import compilation_cache, files
from albert_jax.model_io import model as loading

STUDENTS = ("one pass", "half width")


def narrow(init: str, seed: int, folder: str) -> str:
    """A directory with a random network of half the width of `init`, and its vocabulary."""
    from albert_jax import api

    model = loading.load(init)
    config = dataclasses.replace(
        model.config,
        hidden_size=model.config.hidden_size // 2,
        intermediate_size=model.config.intermediate_size // 2,
    )
    run_config = dataclasses.replace(model.run_config, model=config)
    light = dataclasses.replace(model, run_config=run_config, params=api.init(config, seed))
    if not files.is_folder(folder):
        api.save(light, folder)
    return folder


def values(options: argparse.Namespace, paths: dict[str, str], seed: int) -> dict[str, Any]:
    """Scores by name, and by student the teacher's time over its own."""
    from albert_jax.inference import predict

    positions = loading.load(options.init).config.max_position_embeddings
    alone = tuning.run_config(
        tuning.SETTINGS[options.task], positions,
        steps=options.steps, pooling=options.pooling, rate=options.rate, seed=seed,
    )  # fmt: skip
    assert alone.task is not None
    teacher, folder = f"{options.out}/teacher", f"{options.out}/student"
    taught = dataclasses.replace(alone, task=dataclasses.replace(alone.task, teacher=teacher))
    starts = {
        "one pass": (teacher, {"num_layers": 1}),
        "half width": (narrow(options.init, seed, f"{options.out}/narrow-{seed}"), {}),
    }

    def wall(model: loading.Model) -> float:
        task = predict.task_of(model)
        examples = task.read_examples(paths["test"], labelled=True)
        return tuning.seconds(lambda: predict.predict(model, examples))

    found, times = {}, {}
    with tuning.tuned(alone, paths, options.init, teacher) as model:
        found["teacher"], reference = tuning.score(model, paths["test"]), wall(model)
        for student in STUDENTS:
            start, depth = starts[student]
            for name, config in (("labels", alone), ("teacher", taught)):
                with tuning.tuned(config, paths, start, folder, **depth) as light:
                    found[f"{student}, {name}"] = tuning.score(light, paths["test"])
                    times[student] = reference / wall(light)
    return {"scores": found, "times": times}


def main() -> None:
    """Prints the teacher's line and one per student."""
    parser = tuning.arguments(__doc__.splitlines()[0], tuning.CLASSIFICATION)
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    compilation_cache.use()
    files.make_folder(options.out)
    paths = tuning.parts(options.task, options.data, Path(options.out) / "data")
    kept = tuning.Kept(f"{options.out}/values.json")
    all_values = [
        kept.get(
            f"{options.task} {options.steps} {options.rate} {options.pooling} {seed}",
            partial(values, options, paths, seed),
        )
        for seed in range(options.seeds)
    ]

    def column(name: str) -> list[float]:
        return [one["scores"][name] for one in all_values]

    print(f"{options.task}, {options.steps} steps: teacher {tuning.spread(column('teacher'))}")
    for student in STUDENTS:
        alone, taught = column(f"{student}, labels"), column(f"{student}, teacher")
        ratio = statistics.median(one["times"][student] for one in all_values)
        print(
            f"{student:10}: labels {tuning.spread(alone)}, teacher {tuning.spread(taught)}  "
            f"{tuning.compared(taught, alone)}, {ratio:.2f} times as fast as the teacher"
        )


if __name__ == "__main__":
    main()
