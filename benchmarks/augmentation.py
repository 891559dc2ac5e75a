"""What changed copies of few training examples gain.

    python benchmarks/augmentation.py DATA --init RUN|DIR --out DIR [--task sst-2] [--few 100 1000]
                                      [--copies 2] [--seeds 5] [--epochs 20] [--rate 3e-4]
                                      [--pooling mean]

DATA is that of benchmarks/splits.py. For each seed and each number of training examples (a sample
of the seed's own) one run sees them as they are, another the same and --copies changed copies of
each (task.augment), for the same steps: --epochs of the unchanged ones, 400 at most. Printed are
means (deviations) of the test score over the seeds and the paired gain. Values are kept in
DIR/values.json.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import tuning

from albert_jax import compilation_cache, files
from albert_jax.model_io import model as loading

MOST_STEPS = 400


def main() -> None:
    """Prints a line per number of examples."""
    parser = tuning.arguments(__doc__.splitlines()[0], tuning.CLASSIFICATION)
    parser.add_argument("--few", nargs="+", type=int, default=[100, 1000])
    parser.add_argument("--copies", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    compilation_cache.use()
    files.make_folder(options.out)
    setting = tuning.SETTINGS[options.task]
    positions = loading.load(options.init).config.max_position_embeddings
    whole = tuning.parts(options.task, options.data, Path(options.out) / "data")
    kept = tuning.Kept(f"{options.out}/values.json")

    def score(count: int, copies: int, seed: int) -> float:
        paths = tuning.sample(options.task, whole, count, seed)
        config = tuning.run_config(
            setting, positions,
            steps=min(MOST_STEPS, options.epochs * -(-count // setting.rows)),
            pooling=options.pooling, rate=options.rate, seed=seed,
        )  # fmt: skip
        assert config.task is not None
        config = dataclasses.replace(config, task=dataclasses.replace(config.task, augment=copies))
        with tuning.tuned(config, paths, options.init, f"{options.out}/run") as model:
            return tuning.score(model, paths["test"])

    for count in options.few:
        alone, augmented = (
            [
                kept.get(
                    f"{options.task} {count} examples, {copies} copies, {options.epochs} epochs, "
                    f"{options.rate} {options.pooling}, seed {seed}",
                    partial(score, count, copies, seed),
                )
                for seed in range(options.seeds)
            ]
            for copies in (0, options.copies)
        )
        print(
            f"{options.task} from {count} examples: {setting.metric} {tuning.spread(alone)}, with "
            f"{options.copies} copies {tuning.spread(augmented)}  "
            f"{tuning.compared(augmented, alone)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
