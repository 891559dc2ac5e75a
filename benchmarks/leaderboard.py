"""The leaderboard of pretraining on two cores: runs a row, and writes the page of all rows.

    python benchmarks/leaderboard.py run TRACK NAME --data DATA --out DIR [--seeds 5]
                                     [--pairs BLIMP.jsonl] [--note TEXT] -- PRETRAIN OPTIONS
    python benchmarks/leaderboard.py page

`run` pretrains once for each seed with `albert-jax pretrain --config PRESET --data DATA` and the
options behind `--`, which include the steps that fit into the time of the track, and appends one
line to benchmarks/leaderboard/rows.jsonl. The runs stay in DIR, and the same command goes on where
it was stopped. `page` writes benchmarks/leaderboard/README.md from these lines. Time counts,
so nothing else may run on the machine. A row stays, whether it is a record or not: a record beats
the one before it with p < 0.01 (Welch's t-test, one-sided), on track C by its one seed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scipy import stats

from albert_jax.observe.metrics import read_rows

FOLDER = Path(__file__).resolve().parent / "leaderboard"
ROWS = FOLDER / "rows.jsonl"
PAGE = FOLDER / "README.md"
COLUMNS = (
    "row", "seeds", "nats", "p", "record", "BLiMP", "steps", "tokens", "seconds", "date",
    "processor",
)  # fmt: skip
LEVEL = 0.01
"""The largest p of Welch's one-sided t-test against the record before it that makes a record."""


@dataclass(frozen=True)
class Track:
    """What all rows of a track share."""

    preset: str
    seconds: float
    seeds: int
    """The fewest of a record."""
    text: str


ENGLISH = (
    "11.2 million words of English: 110 books of Standard Ebooks, 26 open textbooks (OpenStax)"
)

TRACKS = {
    "A": Track(
        "tiny", 190, 5, "the default corpus (the documentation that Python carries with it)"
    ),
    "B": Track("small", 1200, 3, ENGLISH),
    "C": Track("small", 7200, 1, ENGLISH),
}


@dataclass(frozen=True)
class Run:
    """One seed of a row. `nats` are below the unigram loss, on held-out rows."""

    seed: int
    nats: float
    seconds: float
    steps: int
    tokens: int
    blimp: float | None = None


def step_seconds(row: dict[str, Any]) -> float:
    """Seconds of the training steps of a row of metrics, without compilation and checkpoints."""
    return sum(row["seconds"].get(name, 0.0) for name in ("step", "input_wait"))


def measure(folder: Path, seed: int, pairs: str | None) -> Run:
    """The figures of a finished run: seconds are those of its steps, without compilation."""
    rows = read_rows(str(folder))
    train = [row for row in rows if row["kind"] == "train"]
    nats = [row for row in rows if row["kind"] == "evaluation"][-1]["nats_below_unigram"]
    spent = list(map(step_seconds, train))
    tokens = sum(row["tokens_per_second"] * step_seconds(row) for row in train)
    blimp = None
    if pairs is not None:
        out = str(folder / "pairs.jsonl")
        command = ["score", str(folder), pairs, "--out", out]
        subprocess.run([sys.executable, "-m", "albert_jax", *command], check=True)
        scores = json.loads(Path(f"{out}.json").read_text())
        blimp = scores["whole"]["mean over sets"]["ties_wrong"]["value"]
    return Run(seed, nats, sum(spent), train[-1]["step"], round(tokens), blimp)


def run(options: argparse.Namespace, rest: list[str]) -> None:
    """Trains and measures every seed, and appends the row."""
    track = TRACKS[options.track]
    runs = []
    for seed in range(options.seeds):
        out = Path(options.out, f"seed-{seed}")
        command = ["pretrain", "--config", track.preset, "--data", options.data]
        command += ["--out", str(out), "--seed", str(seed), "--run.eval-steps", "0", *rest]
        subprocess.run([sys.executable, "-m", "albert_jax", *command], check=True)
        runs.append(measure(out, seed, options.pairs))
        print(asdict(runs[-1]), flush=True)
    row = {
        "track": options.track,
        "name": options.name,
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "command": f"albert-jax pretrain --config {track.preset} --data DATA --out RUN "
        + shlex.join(rest),
        "note": options.note,
        "runs": [asdict(one) for one in runs],
    }
    FOLDER.mkdir(exist_ok=True)
    with ROWS.open("a") as file:
        file.write(json.dumps(row) + "\n")


def processor() -> str:
    """The model and the number of cores of this machine."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    names = [line.split(":")[1].strip() for line in text.splitlines() if "model name" in line]
    return f"{os.cpu_count()} x {names[0] if names else platform.machine()}"


def page(rows: list[dict[str, Any]]) -> str:
    """The page in Markdown."""
    lines = [
        "# Leaderboard: pretraining an encoder on two CPU cores",
        "",
        "Written by `python benchmarks/leaderboard.py page` from `rows.jsonl`. Rows stand in the",
        "order in which they were measured, and those that did not help stay. `nats` are below the",
        "unigram loss on held-out rows, mean and standard deviation over the seeds;",
        "p is that of Welch's one-sided t-test against the record before it: how often chance",
        "alone gives so large a difference (a record needs five seeds on track A, three on B, and",
        f"less than {LEVEL}; on C one seed, any larger value is a record); seconds are those of",
        "the training steps, without compilation. The English text of tracks B and C is not in",
        "this repository. It is made of the works in [works.tsv](works.tsv), which tells licence",
        "and commit of each: one paragraph a line, blank lines between documents, without",
        "headings, notes, tables and exercises. The script that extracted it is not kept, so",
        "another extraction will differ a little. Its tokens, on which the losses depend, are",
        "those of the published albert-base-v2 (`data prepare --tokenizer FOLDER` with its",
        "spiece.model). BLiMP is the mean over its 67 sets, ties counted as wrong, of half of",
        "it: 500 pairs of each set; docs/fine-tuning.md tells how its files become blimp.jsonl.",
        "",
        "A row is made with `python benchmarks/leaderboard.py run A NAME --data DATA --out DIR",
        "--seeds 5 -- OPTIONS` (on B and C with `--pairs blimp.jsonl`), where OPTIONS are fields",
        "of the config, and the DATA of track A is the folder `runs/tiny/data` that",
        "`bash launch/local.sh` makes.",
    ]
    for name, track in TRACKS.items():
        lines += [
            *("", f"## Track {name}: {track.text}, {track.seconds:g} s", ""),
            f"| {' | '.join(COLUMNS)} |",
            "|---" * len(COLUMNS) + "|",
        ]
        best: list[float] = []
        chosen = [row for row in rows if row["track"] == name]
        for row in chosen:
            nats = [one["nats"] for one in row["runs"]]
            seconds = statistics.mean(one["seconds"] for one in row["runs"])
            chance = probability_of_chance(best, nats)
            in_time = seconds <= track.seconds
            # One seed has no deviation; track C takes it as it is.
            larger = statistics.mean(nats) > statistics.mean(best or [0.0])
            likely = larger if chance is None else chance < LEVEL
            record = in_time and len(nats) >= track.seeds and (not best or likely)
            lines.append(_line(row, chance, "yes" if record else "" if in_time else "too slow"))
            best = nats if record else best
        lines += [""] + [f"- {row['name']}: `{row['command']}`. {row['note']}" for row in chosen]
    return "\n".join(lines) + "\n"


def probability_of_chance(best: list[float], nats: list[float]) -> float | None:
    """One-sided p of Welch's test that `nats` are larger; None where seeds are too few."""
    if len(best) < 2 or len(nats) < 2:
        return None
    return float(stats.ttest_ind(nats, best, equal_var=False, alternative="greater").pvalue)


def _line(row: dict[str, Any], chance: float | None, record: str) -> str:
    runs = row["runs"]
    nats = [one["nats"] for one in runs]
    deviation = f" ± {statistics.stdev(nats):.3f}" if len(nats) > 1 else ""
    blimp = [one["blimp"] for one in runs if one["blimp"] is not None]
    cells = [
        row["name"], len(runs), f"{statistics.mean(nats):.3f}{deviation}",
        "" if chance is None else f"{chance:.2g}", record,
        f"{100 * statistics.mean(blimp):.1f}" if blimp else "",
        f"{runs[0]['steps']:,}", f"{runs[0]['tokens']:,}",
        f"{statistics.mean(one['seconds'] for one in runs):.0f}", row["date"], row["processor"],
    ]  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    row = commands.add_parser("run")
    row.add_argument("track", choices=TRACKS)
    row.add_argument("name")
    row.add_argument("--data", required=True)
    row.add_argument("--out", required=True)
    row.add_argument("--seeds", type=int, default=5)
    row.add_argument("--pairs")
    row.add_argument("--note", default="")
    commands.add_parser("page")
    arguments = sys.argv[1:]
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:cut])
    if options.command == "run":
        run(options, arguments[cut + 1 :])
    PAGE.write_text(page([json.loads(line) for line in ROWS.read_text().splitlines()]))


if __name__ == "__main__":
    main()
