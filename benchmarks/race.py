"""The same minutes for ours and for Transformers: nats below the unigram loss over seconds.

    python benchmarks/race.py --config tiny --data DATA --out DIR [OPTIONS]

DATA is a prepared folder, so both sides have the same text, vocabulary and network, and the same
cores. Ours is `albert-jax pretrain` as the preset ships. Transformers is AlbertForMaskedLM with
its DataCollatorForLanguageModeling and its Trainer, twice: as its run_mlm example ships (rows as
long as the model has positions, 8 of them a step, AdamW at 5e-5 that decays to zero, initializer
0.02), and tuned (`--rates`, `--initializers` and `--lengths` are tried with `--trial-seconds`
each, as many tokens a step as ours, and kept in DIR/trials.json; the best one runs for the whole
time). Both of its runs take the time that ours took, and predict masked words only: Transformers
prepares no data for sentence order. Both sides are scored by the same PyTorch code on the same
held-out rows under the same masks (one text a row, 15% of n-grams). Time is that of the training
steps: compiling, checkpoints and scoring are left out on both sides. Needs torch, transformers and
accelerate (extra parity).

Writes DIR/race.json and DIR/race.svg, and prints the seconds to 0.5, 1.0, 1.5 and 2.0 nats.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import race_peer
import tuning
from leaderboard import processor, step_seconds
from race_peer import Curve, HeldOut, Recipe

from albert_jax import configfile
from albert_jax.config import Config
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.export import huggingface
from albert_jax.model_io import model as models
from albert_jax.observe import style
from albert_jax.observe.metrics import read_rows

POINTS = 12
"""How often a run is scored."""
MARKS = (0.5, 1.0, 1.5, 2.0)


def ours(options: argparse.Namespace, held_out: HeldOut) -> Curve:
    """The product's own command, and its checkpoints scored in Transformers."""
    from transformers import AlbertForMaskedLM

    run = options.out / "ours"
    config = configfile.load(options.config)
    every = max(1, config.steps // POINTS)
    command = [sys.executable, "-m", "albert_jax", "pretrain", "--config", options.config]
    command += ["--data", options.data, "--out", str(run), "--run.save-steps", str(every)]
    command += ["--run.save-total-limit", str(2 * POINTS), "--run.eval-steps", "0"]
    subprocess.run([*command, "--run.logging-steps", str(math.gcd(every, 50))], check=True)
    curve, seconds = [], 0.0
    for row in read_rows(str(run)):
        if row["kind"] != "train":
            continue
        seconds += step_seconds(row)
        if row["step"] % every and row["step"] != config.steps:
            continue
        folder = options.out / f"exported-{row['step']}"
        if not folder.exists():
            huggingface.export(models.load(str(run), step=row["step"]), str(folder))
        theirs = AlbertForMaskedLM.from_pretrained(folder)
        curve.append((seconds, held_out.nats_below_unigram(theirs)))
    return curve


def tuned(options: argparse.Namespace, config: Config, train: Callable[..., Curve]) -> Recipe:
    """The best recipe of the grid after `--trial-seconds` of `train` each."""
    tokens = config.phases[0].batch_size * config.phases[0].sequence_length
    kept = tuning.Kept(str(options.out / "trials.json"))
    recipes = [
        Recipe(rate, max(1, tokens // length), length, initializer, warmup=0.1)
        for rate, initializer, length in itertools.product(
            options.rates, options.initializers, options.lengths
        )
    ]

    def nats(recipe: Recipe) -> float:
        seconds = options.trial_seconds

        def run() -> float:
            return train(recipe, seconds=seconds, points=1)[-1][1]

        return float(kept.get(f"{seconds:g} s of {recipe}", run))

    return max(recipes, key=nats)


def seconds_to(curve: Curve, nats: float) -> float | None:
    """Seconds to a value, between the two points around it; None if it is never reached."""
    before = (0.0, 0.0)
    for point in curve:
        if point[1] >= nats:
            share = (nats - before[1]) / max(point[1] - before[1], 1e-9)
            return before[0] + share * (point[0] - before[0])
        before = point
    return None


def draw(curves: dict[str, Curve], path: Path, title: str) -> None:
    """One picture of all curves."""
    with style.style_context():
        figure = style.figure(7.0, 4.0, title, "")
        axes = figure.add_subplot(1, 1, 1)
        for name, curve in curves.items():
            seconds, nats = zip(*[(0.0, 0.0), *curve], strict=True)
            [line] = axes.plot(seconds, nats, marker="o", markersize=3, label=name)
            axes.annotate(f"{nats[-1]:.2f}", (seconds[-1], nats[-1]), color=line.get_color(),
                          xytext=(4, 0), textcoords="offset points", va="center")  # fmt: skip
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.set_xlabel("seconds of training on two cores")
        axes.set_ylabel("nats below the unigram loss")
        axes.legend(loc="upper left")
        figure.savefig(path, format="svg")


def main() -> None:
    """Runs the race and writes what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="tiny")
    parser.add_argument("--data", required=True)
    parser.add_argument(
        "--seconds", type=float, help="of Transformers; the default is what ours took"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 2e-3, 4e-3, 8e-3])
    parser.add_argument("--initializers", type=float, nargs="+", default=[0.02, 0.05])
    parser.add_argument("--lengths", type=int, nargs="+", default=[24, 48])
    parser.add_argument("--trial-seconds", type=float, default=60)
    options = parser.parse_args()
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    options.out.mkdir(parents=True, exist_ok=True)
    config = configfile.load(options.config)
    size = Corpus.open(options.data, "train").vocab_size  # As pretraining takes it.
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=size))
    held_out = HeldOut.of(options.data, config.phases[-1].sequence_length)
    curves = {"albert-jax": ours(options, held_out)}
    options.seconds = options.seconds or curves["albert-jax"][-1][0]
    train = partial(
        race_peer.train,
        config=config,
        data=options.data,
        held_out=held_out,
        folder=options.out / "trainer",
    )
    best = tuned(options, config, train)
    for name, recipe in (("tuned", best), ("run_mlm as it ships", Recipe())):
        curves[f"Transformers, {name}"] = train(recipe, seconds=options.seconds, points=POINTS)
    report = {
        "processor": processor(),
        "config": options.config,
        "tuned": dataclasses.asdict(best),
        "curves": curves,
        "seconds_to": {
            name: {str(mark): seconds_to(curve, mark) for mark in MARKS}
            for name, curve in curves.items()
        },
    }
    (options.out / "race.json").write_text(json.dumps(report, indent=2) + "\n")
    draw(curves, options.out / "race.svg", f"The same text and network: {options.config}")
    for name, reached in report["seconds_to"].items():
        times = [f"{m} nats {'never' if s is None else f'{s:.0f} s'}" for m, s in reached.items()]
        print(f"{name}: {curves[name][-1][1]:.3f} nats in the end; {', '.join(times)}")


if __name__ == "__main__":
    main()
