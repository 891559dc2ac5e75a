"""How fast a training step is: ours beside Hugging Face's PyTorch model, on the same rows.

    python benchmarks/step.py [--config base-v2] [--shapes 8x128 2x512] [--peers eager compile]
    python benchmarks/step.py --suite cpu       four models beside eager PyTorch, in float32

Both sides do masked-language and sentence-order loss at the same masked places, backward pass,
clipping and AdamW, without dropout; PyTorch with SDPA and no mask, since no row is padded. Each
side runs in a process of its own. On a CPU they take turns, and a ratio (our time over its time)
is taken within each round, so that what else the machine does falls out. On a GPU (`--alone`)
one runs after the other, so that each has the memory to itself, ours first; a side that fails is
a line too. Results are printed as soon as they exist.

"share" is FLOPs by formula over time and `--peak`, the rate of a plain matrix product in TFLOP/s,
which is measured here if it is not given. Needs torch and
transformers (extra parity), and of our own packages only jax, flax, optax and numpy.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Any

from albert_jax import configfile
from albert_jax.bench import step as bench
from albert_jax.config import Config
from albert_jax.model import flops

CPU = (
    "--shapes 8x128 2x512",
    "--shapes 8x128 --layers 4 --hidden 312 --heads 12",
    "--shapes 8x32 --layers 2 --hidden 64 --heads 1 --embedding 64 --vocabulary 4000 --steps 200",
)
"""Base, and two models of 4 x 312 and 2 x 64."""


def run_config(options: argparse.Namespace, rows: int, length: int) -> Config:
    """The config that both sides train: no dropout, AdamW."""
    config = configfile.load(options.config)
    changes: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if options.layers:
        changes["num_hidden_layers"] = options.layers
    if options.vocabulary:
        changes["vocab_size"] = options.vocabulary
    if options.embedding:
        changes["embedding_size"] = options.embedding
    if options.hidden:
        heads = options.heads or max(1, options.hidden // 64)
        changes |= {"hidden_size": options.hidden, "intermediate_size": 4 * options.hidden}
        changes |= {"num_attention_heads": heads}
    compute = {"dtype": options.dtype}
    if options.remat:
        compute["remat"] = options.remat
    if options.unroll:
        compute["unroll"] = options.unroll == "yes"
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, **changes),
        optimizer=dataclasses.replace(config.optimizer, name="adamw"),
        compute=dataclasses.replace(config.compute, **compute),
    )
    return bench.single_phase(config, 0, rows, length)


class Torch:
    """Hugging Face's model as shipped, with the same interface as bench.Stepper."""

    def __init__(self, config: Config, *, compiled: bool) -> None:
        import torch
        from transformers import AlbertConfig, AlbertForPreTraining

        self.torch, phase, model = torch, config.phases[0], config.model
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.bf16 = config.compute.dtype == "bfloat16"
        names = ("vocab_size", "embedding_size", "hidden_size", "num_hidden_layers",
                 "num_attention_heads", "intermediate_size", "hidden_act",
                 "max_position_embeddings")  # fmt: skip
        settings = {name: getattr(model, name) for name in names}
        self.model = AlbertForPreTraining(
            AlbertConfig(
                **settings, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
                classifier_dropout_prob=0.0, attn_implementation="sdpa",
            )
        ).to(self.device)  # fmt: skip
        self.model.train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=0.01)
        self.rows = [
            self._place(bench.random_rows(model, phase, phase.batch_size, s)) for s in range(2)
        ]
        self.call = torch.compile(self.model) if compiled else self.model
        began = time.perf_counter()
        self.count = 0
        self.run(1)
        self.compilation = time.perf_counter() - began

    def _place(self, rows: bench.Batch) -> dict[str, Any]:
        """Labels everywhere, -100 but at the masked places, as the model wants them."""
        import numpy as np

        labels = np.full(rows["input_ids"].shape, -100, np.int64)
        np.put_along_axis(labels, rows["mlm_positions"].astype(np.int64), rows["mlm_labels"], 1)
        columns = {
            "input_ids": rows["input_ids"],
            "token_type_ids": rows["token_type_ids"],
            "labels": labels,
            "sentence_order_label": rows["sop_labels"][:, 0],
        }
        return {name: self.torch.from_numpy(c.astype(np.int64)) for name, c in columns.items()}

    def run(self, steps: int) -> list[float]:
        """Seconds of each step; the loss is read after each, as a training loop's log does."""
        torch, times = self.torch, []
        for _ in range(steps):
            began = time.perf_counter()
            batch = {name: c.to(self.device) for name, c in self.rows[self.count % 2].items()}
            self.count += 1
            with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
                loss = self.call(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            loss.item()
            times.append(time.perf_counter() - began)
        return times


def work(options: argparse.Namespace) -> None:
    """A worker: says that it is ready, then answers each line N with the mean of N steps."""
    rows, length = map(int, options.shapes[0].split("x"))
    config = run_config(options, rows, length)
    side: Any
    if options.worker == "ours":
        side = bench.Stepper(config)
        side.run(1)
    else:
        side = Torch(config, compiled=options.worker == "compile")
    side.run(2)
    # Transformers prints to stdout too: answers bear a mark.
    print("#", json.dumps({"compilation": side.compilation}), flush=True)
    for line in sys.stdin:
        if line.strip() == "product":
            print("#", json.dumps({"product": bench.matmul_rate(options.dtype)}), flush=True)
            continue
        seconds = statistics.fmean(side.run(int(line)))
        print("#", json.dumps({"step": seconds, "memory": _memory()}), flush=True)


def _memory() -> int:
    import resource

    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        return sys.modules["torch"].cuda.max_memory_allocated()
    if "jax" in sys.modules:
        return bench.peak_memory(sys.modules["jax"].devices()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Worker:
    """The other end of `work`; raises RuntimeError if it does not come to an answer."""

    def __init__(self, name: str, shape: str, arguments: list[str]) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, __file__, *arguments, "--shapes", shape, "--worker", name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
        )  # fmt: skip
        self.rounds: list[dict[str, float]] = []
        try:
            self.compilation = self._answer()["compilation"]
        except RuntimeError:
            self.close()
            raise

    def _answer(self) -> dict[str, float]:
        """The next marked line."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("# "):
                return json.loads(line[2:])
        raise RuntimeError(f"ended with {self.process.wait()}: see its last lines above")

    def ask(self, what: int | str) -> dict[str, float]:
        """A number: mean seconds of so many steps, and peak memory. "product": FLOP/s."""
        assert self.process.stdin is not None
        print(what, file=self.process.stdin, flush=True)
        return self._answer()

    def turn(self, steps: int) -> None:
        """One round."""
        self.rounds.append(self.ask(steps))

    def close(self) -> None:
        """Ends it."""
        self.process.kill()
        self.process.wait()


def compare(options: argparse.Namespace, arguments: list[str], shape: str) -> None:
    """One shape: a line for each side, those that fail too."""
    names = (*(() if options.only_peers else ("ours",)), *options.peers)
    if options.alone:
        ours = None
        for name in names:
            ours = _alone(options, arguments, shape, name, ours) or ours
        return
    workers = []
    try:
        for name in names:
            workers.append(Worker(name, shape, arguments))
        for _ in range(options.rounds):
            for worker in workers:
                worker.turn(options.steps)
        peak = options.peak or workers[0].ask("product")["product"] / 1e12
        for worker in workers:
            _tell(options, shape, worker, workers[0], peak)
    finally:
        for worker in workers:
            worker.close()


def _alone(
    options: argparse.Namespace, arguments: list[str], shape: str, name: str, ours: Worker | None
) -> Worker | None:
    """One side from its start to its end; None if it failed."""
    worker = None
    try:
        worker = Worker(name, shape, arguments)
        for _ in range(options.rounds):
            worker.turn(options.steps)
        if ours is None and not options.peak:
            options.peak = worker.ask("product")["product"] / 1e12
    except RuntimeError as error:
        line = {"config": options.config, "shape": shape, "side": name, "failed": str(error)}
        print(json.dumps(line), flush=True)
        return None
    finally:
        if worker is not None:
            worker.close()
    _tell(options, shape, worker, ours or (worker if name == "ours" else None), options.peak)
    return worker if name == "ours" else None


def _tell(
    options: argparse.Namespace, shape: str, worker: Worker, ours: Worker | None, peak: float
) -> None:
    rows, length = map(int, shape.split("x"))
    config = run_config(options, rows, length)
    step = statistics.median(_steps(worker.rounds))
    rate = flops.per_step(config.model, config.phases[0]) / step / 1e12
    line = {
        "config": options.config, "shape": shape, "dtype": options.dtype,
        "layers": config.model.num_hidden_layers, "hidden": config.model.hidden_size,
        "side": worker.name, "step_ms": round(step * 1e3, 3),
        "tokens_per_second": round(rows * length / step), "tflops": round(rate, 4),
        "share": round(rate / peak, 4), "peak_tflops": round(peak, 4),
        "memory_mb": round(worker.rounds[-1]["memory"] / 1e6),
        "first_ready_s": round(worker.compilation, 1),
    }  # fmt: skip
    if ours is not None:
        pairs = zip(_steps(ours.rounds), _steps(worker.rounds), strict=True)
        ratios = [mine / its for mine, its in pairs]
        line["ours_over_this"] = round(statistics.median(ratios), 3)
        line["ratios"] = [round(min(ratios), 3), round(max(ratios), 3)]
    print(json.dumps(line), flush=True)


def _steps(rounds: Iterable[dict[str, float]]) -> list[float]:
    return [found["step"] for found in rounds]


PASSED_ON = (
    "config", "dtype", "layers", "hidden", "heads", "embedding", "vocabulary", "remat", "unroll",
)  # fmt: skip


def main() -> None:
    """Parses the options; a worker gets the same ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--suite", choices=("cpu",))
    parser.add_argument("--config", default="base-v2")
    parser.add_argument("--shapes", nargs="+", default=["8x128", "2x512"], metavar="ROWSxLENGTH")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--peers", nargs="*", choices=("eager", "compile"), default=["eager"])
    parser.add_argument("--alone", action="store_true", help="one side after the other")
    parser.add_argument("--only-peers", action="store_true", help="with --alone, without ours")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--peak", type=float, help="TFLOP/s of a matrix product")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--hidden", type=int)
    parser.add_argument("--heads", type=int)
    parser.add_argument("--embedding", type=int)
    parser.add_argument("--vocabulary", type=int)
    parser.add_argument("--remat", choices=("none", "dots", "full"))
    parser.add_argument("--unroll", choices=("yes", "no"))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options)
        return
    jobs = [options]
    if options.suite == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"  # Else a TPU's library is loaded where it is installed.
        given = ["--rounds", str(options.rounds), "--unroll", options.unroll or "yes"]
        jobs = [parser.parse_args([*case.split(), *given]) for case in CPU]
    for job in jobs:
        arguments = []
        for name in PASSED_ON:
            value = getattr(job, name)
            arguments += [] if value is None else [f"--{name}", str(value)]
        for shape in job.shapes:
            compare(job, arguments, shape)


if __name__ == "__main__":
    main()
