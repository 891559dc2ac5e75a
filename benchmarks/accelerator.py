"""Everything that is worth measuring on an accelerator, in one call and a given time.

    bash benchmarks/accelerator.sh --out DIR --corpus DIR [--wheels DIR] [--pairs FILE]
                                   [--minutes 11] [--platform cuda|tpu] [--tiny]

The stages, in order: the device and its ceilings; attention backends against the reference; the
training step of four models at two lengths, then Transformers' with torch.compile and SDPA; `base`
pretrained with the product's own commands for the minutes that are left, stopped by a signal half
way and continued; evaluated, scored on minimal pairs, exported, and read by Transformers.

Each stage is a process with a time limit, and may fail alone. Its results are printed and appended
to DIR/results.jsonl the moment they exist; DIR/results.json and a table come last. A stage for
which too little time is left is skipped, and says so; pretraining takes what is left.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import accelerator_machine

HERE = Path(__file__).resolve().parent
MODELS = {
    "base-v2": ("256x128", "64x512"),
    "large-v2": ("128x128", "32x512"),
    "xlarge-v2": ("64x128", "16x512"),
    "xxlarge-v2": ("64x128", "16x512"),
}
"""Rows x length of which both sides can keep all activations on a GPU of 80 GB."""
SLACK = 1.2
"""What is kept for a later stage over its least time: ending a stage takes time too."""
KILL_AFTER = 5.0
"""Seconds between a stage's SIGTERM and its end by force."""


@dataclass(frozen=True)
class Stage:
    """A process: its `limit`, the `least` time without which it is skipped, both in seconds."""

    name: str
    command: list[str]
    limit: float
    least: float
    open_ended: bool = False
    """It takes all the time that the later stages leave, and is told how much (--seconds)."""

    @property
    def kept(self) -> float:
        """Seconds that earlier stages leave to it; a comparison has to see what is left."""
        return 0.0 if self.name.startswith(("step", "peer")) else SLACK * self.least


@dataclass
class Record:
    """The results so far, on the screen and in the files of a folder."""

    out: Path
    results: list[dict[str, Any]] = field(default_factory=list)
    stages: list[dict[str, Any]] = field(default_factory=list)

    def add(self, stage: str, result: dict[str, Any]) -> None:
        """Prints and writes one result."""
        line = {"stage": stage} | result
        self.results.append(line)
        print(json.dumps(line), flush=True)
        with open(self.out / "results.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")

    def peak(self, command: list[str]) -> list[str]:
        """The option of benchmarks/step.py that names the measured rate of its type."""
        rates = {r["product"]: r["tflops"] for r in self.results if "product" in r}
        dtype = command[command.index("--dtype") + 1]
        return ["--peak", str(rates[dtype])] if dtype in rates else []

    def close(self, facts: dict[str, Any]) -> None:
        """Writes results.json and prints the table."""
        whole = facts | {"stages": self.stages, "results": self.results}
        (self.out / "results.json").write_text(json.dumps(whole, indent=1) + "\n")
        print("\n".join(table(self)), flush=True)


def stages(options: argparse.Namespace) -> list[Stage]:
    """All stages in their order."""
    tiny = options.tiny

    def own(name: str, limit: float, least: float, *, open_ended: bool = False) -> Stage:
        command = [str(HERE / "accelerator_stages.py"), name, "--out", str(options.out)]
        command += ["--corpus", str(options.corpus)]
        command += ["--pairs", str(options.pairs)] if options.pairs else []
        command += ["--tiny"] if tiny else []
        return Stage(name, [sys.executable, *command], limit, least, open_ended)

    def step(kind: str, config: str, shape: str) -> Stage:
        step = [str(HERE / "step.py"), "--config", config, "--shapes", shape, "--alone"]
        if tiny:
            step += ["--dtype", "float32", "--rounds", "1", "--steps", "2"]
            step += ["--peers", *(["eager"] if kind == "peer" else [])]
        else:
            step += ["--dtype", "bfloat16", "--rounds", "3", "--steps", "10"]
            step += ["--remat", "none", "--unroll", "yes"]
            step += ["--peers", *(["compile"] if kind == "peer" else [])]
        step += ["--only-peers"] if kind == "peer" else []
        limit, least = (120, 10) if tiny else (45, 20) if kind == "step" else (60, 30)
        return Stage(f"{kind}:{config}:{shape}", [sys.executable, *step], limit, least)

    models = {"tiny": ("8x32",)} if tiny else MODELS
    pairs = [(config, shape) for config, shapes in models.items() for shape in shapes]
    slow = 3 if tiny else 1  # A loaded CPU starts processes slowly.
    found = [own("device", 40 * slow, 10), own("attention", 60 * slow, 15)]
    found += [step("step", *pair) for pair in pairs] + [step("peer", *pair) for pair in pairs]
    found += [
        own("pretrain", 60 * slow if tiny else 1e9, 50, open_ended=True),
        own("continue", 60 * slow if tiny else 1e9, 50, open_ended=True),
        own("evaluate", 60 * slow, 15),
        own("score", 60 * slow, 15),
        own("export", 60 * slow, 20),
    ]
    return found


def time_for(stage: Stage, later: list[Stage], left: float) -> float:
    """Seconds that a stage may take; 0 says that it is skipped.

    What the later stages need is kept. Pretraining and its continuation share what is left.
    """
    sharing = sum(other.open_ended for other in later) if stage.open_ended else 0
    mine = left - sum(other.kept for other in later if not (sharing and other.open_ended))
    mine /= 1 + sharing
    limit = min(stage.limit, mine)
    return limit if limit >= stage.least else 0.0


def run(stage: Stage, seconds: float, record: Record) -> str:
    """Runs a stage for at most so many seconds; returns "ok" or how it ended."""
    command = list(stage.command)
    command += ["--seconds", f"{seconds:.0f}"] if stage.open_ended else []
    command += record.peak(command) if "--alone" in command else []
    log = record.out / f"{stage.name.replace(':', '-')}.log"
    failed: list[str] = []
    with open(log, "w") as file:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=file, text=True, start_new_session=True,
        )  # fmt: skip

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                result = result_of(line)
                if result is None:
                    continue
                record.add(stage.name, result)
                failed.extend([str(result["failed"])] if "failed" in result else [])

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            end(process)
            reader.join(KILL_AFTER)
            return f"took longer than its {seconds:.0f} s: ended"
        end(process)  # What it has started must not keep the device.
        reader.join(KILL_AFTER)
    if code:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        return f"exit code {code}: {lines[-1][:300] if lines else 'it said nothing'}"
    return f"failed: {failed[0]}" if failed else "ok"


def end(process: subprocess.Popen[str]) -> None:
    """Ends a process and all that it has started."""
    for number, wait in ((signal.SIGTERM, KILL_AFTER), (signal.SIGKILL, KILL_AFTER)):
        try:
            os.killpg(process.pid, number)
            process.wait(wait)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def result_of(line: str) -> dict[str, Any] | None:
    """The result that a line of a stage's output holds, or None."""
    if not line.startswith('{"'):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def table(record: Record) -> list[str]:
    """A line for each stage and each comparison, for people."""
    lines = ["", f"{'stage':28} {'seconds':>8}  how it ended"]
    lines += [f"{s['name']:28} {s['seconds']:8.1f}  {s['ended']}" for s in record.stages]
    steps = {
        (kind, r["config"], r["shape"]): r
        for r in record.results
        for kind in ("step", "peer")
        if r["stage"].startswith(kind + ":") and "step_ms" in r
    }
    head = "model            rows        ms    tokens/s  share   peer ms  ratio"
    lines += ["", head] if steps else []
    for (kind, config, shape), ours in steps.items():
        peer = steps.get(("peer", config, shape))
        if kind == "step":
            theirs = (
                f"{peer['step_ms']:9.1f} {peer['step_ms'] / ours['step_ms']:6.2f}" if peer else ""
            )
            lines.append(
                f"{config:12} {shape:>8} {ours['step_ms']:9.1f} "
                f"{ours['tokens_per_second']:11,} {ours['share']:6.1%} {theirs}"
            )
    return [*lines, "", f"{record.out}/results.json"]


def device_fault(options: argparse.Namespace) -> str | None:
    """Why this machine's device cannot be measured, in one line, or None."""
    if options.tiny:
        return None
    if options.platform != "tpu":
        report = accelerator_machine.gpu_report()
        if fault := accelerator_machine.gpu_fault(report):
            return fault
    command = [sys.executable, str(HERE / "accelerator_stages.py"), "check", "--out", "."]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=90)
    except subprocess.TimeoutExpired:
        return "the device does not answer within 90 s: another process holds it, or it hangs"
    if found.returncode:
        return (found.stderr.strip().splitlines() or ["jax ends without a word"])[-1]
    return None


def main() -> int:
    """Runs the stages. Exit code 2: nothing could be measured; 1: a stage has failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--minutes", type=float, default=11.0)
    parser.add_argument("--platform", choices=("cuda", "tpu", "cpu"))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--wheels", help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, default=time.time(), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tiny or options.platform:
        os.environ["JAX_PLATFORMS"] = "cpu" if options.tiny else options.platform
    fault = device_fault(options)
    for path in (options.corpus / "manifest.json", options.pairs):
        if fault is None and path is not None and not path.is_file():
            fault = f"{path} does not exist: give --corpus a folder of albert-jax data prepare"
    if fault is not None:
        print(f"accelerator.sh: {fault}", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    record, deadline = Record(options.out), options.began + 60 * options.minutes
    for name in ("results.jsonl", "pretrain.toml", "run", "exported"):  # Those of a call before.
        old = options.out / name
        shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
    plan = stages(options)
    for number, stage in enumerate(plan):
        start = time.time()
        seconds = time_for(stage, plan[number + 1 :], deadline - start)
        if seconds:
            ended = run(stage, seconds, record)
        else:
            ended = f"skipped: {deadline - start:.0f} s are left, with what comes after it"
        if ended != "ok":
            record.add(stage.name, {"skipped" if ended.startswith("skip") else "failed": ended})
        took = round(time.time() - start, 1)
        record.stages.append({"name": stage.name, "seconds": took, "ended": ended})
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(options.began))
    record.close({"began": began, "minutes": round((time.time() - options.began) / 60, 2)})
    bad = [s for s in record.stages if not s["ended"].startswith(("ok", "skipped"))]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
