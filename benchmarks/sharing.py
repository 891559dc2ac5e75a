"""The sharing map: six blocks whose parameters are shared in different ways, in equal time.

    python benchmarks/sharing.py --data DATA --out DIR [--seconds 1000] [--seeds 3]
                                 [--pairs BLIMP.jsonl] [--layouts NAME ...]

Every layout is the preset `tiny` with six blocks instead of two, trained with `albert-jax
pretrain` for as many steps as fit into the seconds, which one trial of 60 steps measures. "narrow"
shares nothing and has about as many bytes as "shared"; it takes more steps in the same time. Runs
stay in DIR, so the same command goes on where it was stopped, and two commands with other layouts
may share DIR, each on cores of its own. Prints a table of all runs in DIR and draws
DIR/sharing.svg: nats below the unigram loss over the bytes of the parameters.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from leaderboard import Run, measure, processor, step_seconds

from albert_jax import configfile
from albert_jax.model import init
from albert_jax.observe import style
from albert_jax.observe.metrics import read_rows

SIX = ["--model.num-hidden-layers", "6"]
NARROW = ["--model.hidden-size", "56", "--model.intermediate-size", "224"]
LAYOUTS = {
    "shared": SIX,
    "two looped": ["--model.num-hidden-layers", "3", "--model.inner-group-num", "2"],
    "three looped": ["--model.num-hidden-layers", "2", "--model.inner-group-num", "3"],
    "two groups": [*SIX, "--model.num-hidden-groups", "2"],
    "nothing shared": [*SIX, "--model.sharing", "none"],
    "narrow": [*SIX, "--model.sharing", "none", *NARROW, "--model.initializer-range", "0.076"],
}
"""The options of each layout: 1, 2, 3, 2, 6 and 6 blocks with parameters of their own."""
TRIAL_STEPS = 60


def pretrain(out: Path, data: str, steps: int, *options: str) -> None:
    """Trains `steps` steps, of which the last twentieth is the preset's second phase."""
    last = steps // 20
    command = ["pretrain", "--config", "tiny", "--data", data, "--out", str(out)]
    command += ["--phases.0.steps", str(steps - last), "--phases.1.steps", str(last)]
    command += ["--optimizer.warmup-steps", str(steps // 10), "--run.eval-steps", "0", *options]
    subprocess.run([sys.executable, "-m", "albert_jax", *command], check=True)


def steps_in(options: argparse.Namespace, layout: str) -> int:
    """Steps of a layout that fit into the seconds, by the median of a short trial."""
    out = options.out / layout.replace(" ", "-") / "trial"
    pretrain(out, options.data, TRIAL_STEPS, "--run.logging-steps", "3", *LAYOUTS[layout])
    rows = [row for row in read_rows(str(out)) if row["kind"] == "train"]
    return int(options.seconds * 3 / statistics.median(map(step_seconds, rows)))


def train(options: argparse.Namespace, layout: str, seed: int, steps: int) -> None:
    """Trains and measures one seed of a layout, unless that is done."""
    run = options.out / layout.replace(" ", "-") / f"seed-{seed}"
    result = run.with_suffix(".json")
    if not result.exists():
        pretrain(run, options.data, steps, "--seed", str(seed), *LAYOUTS[layout])
        result.write_text(json.dumps(asdict(measure(run, seed, options.pairs))))


def report(folder: Path) -> None:
    """Prints the table of all measured runs, and draws them."""
    print(
        f"{processor()}\n\n| layout | parameters, MB | steps | nats | BLiMP |\n"
        "|---|---|---|---|---|"
    )
    points: dict[str, tuple[float, list[float]]] = {}
    for layout in LAYOUTS:
        files = sorted((folder / layout.replace(" ", "-")).glob("seed-*.json"))
        runs = [Run(**json.loads(file.read_text())) for file in files]
        if not runs:
            continue
        config = configfile.load(str(files[0].with_suffix("") / "config.toml"))
        megabytes = 4 * init.num_parameters(config.model) / 1e6
        points[layout] = megabytes, [run.nats for run in runs]
        blimp = [100 * run.blimp for run in runs if run.blimp is not None]
        cells = [layout, f"{megabytes:.1f}", f"{runs[0].steps:,}"]
        cells += [_spread([run.nats for run in runs], 3), _spread(blimp, 1) if blimp else ""]
        print(f"| {' | '.join(cells)} |")
    with style.style_context():
        figure = style.figure(6.5, 4.0, "Six blocks, shared in different ways, in equal time")
        axes = figure.add_subplot()
        for marker, (layout, (megabytes, nats)) in zip("os^vDP", points.items(), strict=False):
            axes.plot([megabytes] * len(nats), nats, marker, label=layout)
        axes.legend()
        axes.set_xlabel("parameters in float32, MB")
        axes.set_ylabel("nats below the unigram loss, each seed")
        (folder / "sharing.svg").write_bytes(style.figure_bytes(figure, "svg"))


def _spread(values: list[float], digits: int) -> str:
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pairs")
    parser.add_argument("--layouts", nargs="*", choices=LAYOUTS, default=list(LAYOUTS))
    options = parser.parse_args()
    steps = {layout: steps_in(options, layout) for layout in options.layouts}
    for seed in range(options.seeds):
        for layout in options.layouts:
            train(options, layout, seed, steps[layout])
    report(options.out)


if __name__ == "__main__":
    main()
