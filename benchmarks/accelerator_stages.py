"""The stages of benchmarks/accelerator.py that are not benchmarks/step.py, each a process.

    python benchmarks/accelerator_stages.py STAGE --out DIR --corpus DIR [--pairs FILE] [--tiny]

A line of stdout that begins with a brace is a result. `check` only asks for the device.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROWS, TINY_ROWS = 512, 16
"""Rows of a pretraining step."""
SHARE_OF_TIME = 0.8
"""Of the time for pretraining, what its steps are planned to take; compiling takes the rest."""
SAVING = 15.0
"""Seconds in which a stopped run must have saved."""
GUESS = 200_000
"""Tokens a second of base, where they were not measured."""


def tell(**result: Any) -> None:
    """One result."""
    print(json.dumps(result), flush=True)


def check(options: argparse.Namespace) -> None:
    """Ends with one line where there is no accelerator."""
    from albert_jax.errors import ConfigError
    from albert_jax.parallel.hosts import available_devices

    try:
        device = available_devices()[0]
    except ConfigError as error:
        raise SystemExit(str(error)) from None
    if device.platform == "cpu" and not options.tiny:
        raise SystemExit("jax finds no accelerator: install its plugin, or try it with --tiny")


def device(options: argparse.Namespace) -> None:
    """What it is, and its ceilings: a copy, and a matrix product in both types."""
    import jax
    import jax.numpy as jnp

    from albert_jax.bench.step import matmul_rate
    from albert_jax.observe import environment

    first = jax.devices()[0]
    stats = first.memory_stats() or {}
    tell(platform=first.platform, device=first.device_kind, devices=jax.device_count(),
         memory_gib=round(stats.get("bytes_limit", 0) / 2**30, 1),
         packages=environment.versions())  # fmt: skip
    x = jnp.ones((1 << 22) if options.tiny else (1 << 28), jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    best = fastest(copy, x)
    tell(copy_gb_per_second=round(2 * x.nbytes / best / 1e9, 1))
    for dtype in ("float32",) if options.tiny else ("bfloat16", "float32"):
        tell(product=dtype, tflops=round(matmul_rate(dtype) / 1e12, 3))


def fastest(function: Any, *arguments: Any, rounds: int = 5) -> float:
    """Seconds of the fastest of some calls, after one that compiles."""
    import jax

    jax.block_until_ready(function(*arguments))
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        taken.append(time.perf_counter() - began)
    return min(taken)


def attended(backend: Any, segments: Any) -> Any:
    """Query, key and value [B, N, S, D] to the gradients of a sum of squares, and the output."""
    import jax
    import jax.numpy as jnp

    from albert_jax.model.dropout import LayerDropout

    def turned(x: Any) -> Any:
        return x if backend.heads_first else x.transpose(0, 2, 1, 3)

    def total(q: Any, k: Any, v: Any) -> Any:
        mask, none = backend.prepare(segments), LayerDropout(None, 0.0, 0.0)
        out = turned(backend.attend(turned(q), turned(k), turned(v), mask, none))
        return (out.astype(jnp.float32) ** 2).sum(), out

    return jax.grad(total, argnums=(0, 1, 2), has_aux=True)


def attention(options: argparse.Namespace) -> None:
    """Each backend on packed rows, forward and backward: error against float32, and time."""
    import jax
    import jax.numpy as jnp

    from albert_jax import configfile
    from albert_jax.bench.step import single_phase
    from albert_jax.model import attention as backends

    config = configfile.load("tiny" if options.tiny else "base-v2")
    heads, size = config.model.num_attention_heads, config.model.head_size
    dtype = "float32" if options.tiny else "bfloat16"
    config = dataclasses.replace(config, compute=dataclasses.replace(config.compute, dtype=dtype))
    for rows, length in ((2, 32),) if options.tiny else ((256, 128), (64, 512)):
        shaped = single_phase(config, 0, rows, length)
        keys = jax.random.split(jax.random.key(0), 3)
        qkv = [jax.random.normal(key, (rows, heads, length, size), jnp.float32) for key in keys]
        segments = jnp.asarray(np.sort(np.random.default_rng(0).integers(1, 5, (rows, length))))
        reference = None
        for backend in (backends.XLA, *(b for b in backends.BACKENDS if b.name != "xla")):
            said = {"backend": backend.name, "shape": f"{rows}x{length}", "dtype": dtype}
            if reason := backend.limitation(shaped, jax.devices()[0]):
                tell(**said, cannot=reason)
                continue

            run = jax.jit(attended(backend, segments))
            if reference is None:  # The first backend is the plain one.
                with jax.default_matmul_precision("highest"):
                    reference = np.asarray(run(*qkv)[1])
            try:
                typed = [x.astype(dtype) for x in qkv]
                seconds = fastest(run, *typed)
                out = np.asarray(run(*typed)[1], np.float32)
            except Exception as error:  # noqa: BLE001  # The next backend is asked whatever fails.
                tell(**said, failed=str(error).splitlines()[0][:300])
                continue
            tell(**said, ms=round(seconds * 1e3, 3), error=float(np.abs(out - reference).max()))


def pretrain_config(options: argparse.Namespace) -> Path:
    """The config of the run for the seconds that are given, or the one that is there."""
    path = options.out / "pretrain.toml"
    if path.exists():
        return path
    manifest = json.loads((options.corpus / "manifest.json").read_text())
    measured = [
        result["tokens_per_second"]
        for line in (options.out / "results.jsonl").read_text().splitlines()
        if (result := json.loads(line)).get("stage", "").startswith("step:base-v2:256x128")
        and "tokens_per_second" in result
    ]
    name, rows, length = ("tiny", TINY_ROWS, 32) if options.tiny else ("base-one-chip", ROWS, 128)
    # The continuation is given about as much again.
    seconds = 2 * options.seconds * SHARE_OF_TIME
    rate = measured[0] if measured else GUESS
    steps = 12 if options.tiny else max(20, int(seconds * rate / (rows * length)))
    path.write_text(
        f'extends = "{name}"\n\n[model]\nvocab_size = {manifest["vocab_size"]}\n\n'
        f"[[phases]]\nsteps = {steps}\nsequence_length = {length}\nbatch_size = {rows}\n"
        f"gradient_accumulation_steps = {1 if options.tiny else 2}\npacking = true\n\n"
        f"[optimizer]\nwarmup_steps = {max(1, steps // 10)}\n\n"
        f"[run]\nlogging_steps = {max(1, min(20, steps // 6))}\neval_steps = 0\n"
        f"save_steps = {steps}\nmax_eval_samples = 64\n"
    )
    return path


def pretrain(options: argparse.Namespace, *, half: bool = True) -> None:
    """The product's own command, stopped by SIGTERM half way (or when its time is over)."""
    began, run = time.time(), options.out / "run"
    config = pretrain_config(options)
    metrics, rows = run / "metrics.jsonl", []
    before = len(read(metrics))
    command = albert("pretrain", "--config", config, "--data", options.corpus, "--out", run)
    process = subprocess.Popen(command, stdout=sys.stderr)
    stop_at = None
    while process.poll() is None:
        rows = read(metrics)
        done, steps = rows[-1]["step"] if rows else 0, steps_of(config)
        late = time.time() - began > options.seconds - SAVING
        if stop_at is None and (late or (half and done >= steps // 2)):
            stop_at = done
            process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    rows = [row for row in read(metrics)[before:] if row["kind"] == "train"]
    if process.returncode not in (0, 75) or not rows:
        raise SystemExit(f"albert-jax pretrain: exit code {process.returncode}, {len(rows)} rows")
    tell(exit_code=process.returncode, steps=steps_of(config), first_row=rows[0]["step"],
         last_row=rows[-1]["step"], loss=[round(rows[i]["loss"], 4) for i in (0, -1)],
         tokens_per_second=round(statistics.median(row["tokens_per_second"] for row in rows)),
         seconds=round(time.time() - began, 1))  # fmt: skip
    if not all(math.isfinite(row["loss"]) for row in rows):
        tell(failed="a loss is not finite")


def continued(options: argparse.Namespace) -> None:
    """The same command again goes on where it stopped."""
    last = read(options.out / "run" / "metrics.jsonl")[-1]["step"]
    pretrain(options, half=False)
    newest = read(options.out / "run" / "metrics.jsonl")
    steps = [row["step"] for row in newest if row["kind"] == "train"]
    if steps != sorted(set(steps)) or steps[-1] <= last:
        tell(failed=f"its rows are those of steps {steps}, after it was stopped at {last}")


def evaluate(options: argparse.Namespace) -> None:
    """The held-out loss."""
    report = options.out / "run" / "evaluation.json"
    most = 64 if options.tiny else 2048
    call("evaluate", options.out / "run", "--max-samples", most, writes=report)
    tell(**json.loads(report.read_text()))


def score(options: argparse.Namespace) -> None:
    """Accuracy on minimal pairs."""
    if options.pairs is None:
        tell(skipped="no --pairs")
        return
    began = time.time()
    out = options.out / "pairs.jsonl"
    report = Path(f"{out}.json")
    call("score", options.out / "run", options.pairs, "--out", out, writes=report)
    found = json.loads(report.read_text())
    tell(whole=found["whole"], seconds=round(time.time() - began, 1))


def export(options: argparse.Namespace) -> None:
    """The files of Transformers, and how far its states are from ours on one text."""
    import torch
    from transformers import AlbertModel

    import albert_jax

    out = options.out / "exported"
    call("export", options.out / "run", "--out", out)
    os.environ["HF_HUB_OFFLINE"] = "1"
    model = albert_jax.load(str(out))
    batch = albert_jax.rows(model.vocabulary, ["The model reads this line."], length=16)
    ours = np.asarray(albert_jax.encode(model.params, model.config, batch))
    theirs = AlbertModel.from_pretrained(out).eval()
    with torch.no_grad():
        states = theirs(
            input_ids=torch.from_numpy(np.asarray(batch["input_ids"], np.int64)),
            attention_mask=torch.from_numpy(np.asarray(batch["segment_ids"], np.int64)),
        ).last_hidden_state.numpy()
    real = np.asarray(batch["segment_ids"]) > 0
    worst = float(np.abs(ours - states)[real].max())
    size = sum(file.stat().st_size for file in out.iterdir())
    tell(megabytes=round(size / 1e6, 1), largest_difference=worst)
    if worst > (1e-3 if options.tiny else 5e-2):
        tell(failed=f"Transformers' states are {worst:.1e} away from ours")


def albert(*words: Any) -> list[str]:
    """The command line of the product."""
    return [sys.executable, "-m", "albert_jax", *map(str, words)]


def call(*words: Any, writes: Path | None = None) -> None:
    """Runs a command; ends with its last line where it fails.

    Once it has written the file `writes`, only pictures can be missing, which need matplotlib.
    """
    if writes:
        writes.unlink(missing_ok=True)
    done = subprocess.run(albert(*words), stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
    if done.returncode and not (writes and writes.exists()):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise SystemExit(f"albert-jax {words[0]}: exit code {done.returncode}: {last}")


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl so far."""
    from albert_jax.observe.metrics import read_rows

    return read_rows(str(path.parent)) if path.exists() else []


def steps_of(config: Path) -> int:
    """All steps of a config."""
    from albert_jax import configfile

    return configfile.load(str(config)).steps


STAGES = {
    "check": check, "device": device, "attention": attention, "pretrain": pretrain,
    "continue": continued, "evaluate": evaluate, "score": score, "export": export,
}  # fmt: skip


def main() -> None:
    """One stage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    STAGES[options.stage](options)


if __name__ == "__main__":
    main()
