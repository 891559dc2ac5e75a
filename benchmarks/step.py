"""How fast a training step is: ours beside Hugging Face's PyTorch model, on the same rows.

    python benchmarks/step.py [--config base-v2] [--shapes 8x128 2x512] [--rounds 5] [--steps 3]
                              [--peers eager compile] [--layers N --hidden H]

Both sides do masked-language and sentence-order loss at the same masked places, backward pass,
clipping and AdamW, without dropout. Each runs in a process of its own; they take turns, and a
ratio (our time over its time) is taken within each round, so that what else the machine does
falls out. On a GPU both compute in bfloat16 with float32 parameters, on a CPU in float32.
Results are printed as soon as they exist. Needs torch and transformers (extra parity).
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
from typing import Any

from albert_jax import bench, configfile
from albert_jax.config import Config
from albert_jax.observe import flops


def recipe(options: argparse.Namespace, rows: int, length: int) -> Config:
    """The config that both sides train: no dropout, AdamW."""
    config = configfile.load(options.config)
    changes: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if options.layers:
        changes["num_hidden_layers"] = options.layers
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
    return bench.adjusted(config, rows=rows, length=length)


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
            AlbertConfig(**settings, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        ).to(self.device)
        self.model.train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=0.01)
        self.rows = [self._place(bench.made_rows(model, phase, phase.rows, s)) for s in range(2)]
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
            "attention_mask": rows["segment_ids"],
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
    config = recipe(options, rows, length)
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
        seconds = statistics.fmean(side.run(int(line)))
        print("#", json.dumps({"step": seconds, "memory": _memory()}), flush=True)


def _memory() -> int:
    import resource

    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        return sys.modules["torch"].cuda.max_memory_allocated()
    if "jax" in sys.modules:
        return bench._peak_memory(sys.modules["jax"].devices()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Worker:
    """The other end of `work`."""

    def __init__(self, name: str, shape: str, arguments: list[str]) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, __file__, *arguments, "--shapes", shape, "--worker", name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
        )  # fmt: skip
        self.compilation = self.answer()["compilation"]

    def answer(self) -> dict[str, float]:
        """The next marked line."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("# "):
                return json.loads(line[2:])
        raise SystemExit(f"{self.name} ended with {self.process.wait()}: see its last lines")

    def ask(self, steps: int) -> dict[str, float]:
        """Mean seconds of the next steps, and peak memory."""
        assert self.process.stdin is not None
        print(steps, file=self.process.stdin, flush=True)
        return self.answer()

    def close(self) -> None:
        """Ends it."""
        self.process.kill()
        self.process.wait()


def compare(options: argparse.Namespace, arguments: list[str], shape: str) -> None:
    """One shape: starts all sides, takes turns, prints a line for each."""
    rows, length = map(int, shape.split("x"))
    config = recipe(options, rows, length)
    workers = []
    try:
        for name in ("ours", *options.peers):
            workers.append(Worker(name, shape, arguments))
        rounds = [{w.name: w.ask(options.steps) for w in workers} for _ in range(options.rounds)]
        for worker in workers:
            times = [found[worker.name]["step"] for found in rounds]
            ratios = [found["ours"]["step"] / found[worker.name]["step"] for found in rounds]
            step = statistics.median(times)
            rate = flops.per_step(config.model, config.phases[0]) / step
            print(
                json.dumps(
                    {
                        "config": options.config, "shape": shape, "dtype": options.dtype,
                        "side": worker.name, "step_ms": round(step * 1e3, 3),
                        "tokens_per_second": round(rows * length / step),
                        "tflops": round(rate / 1e12, 4),
                        "ours_over_this": round(statistics.median(ratios), 3),
                        "ratios": [round(min(ratios), 3), round(max(ratios), 3)],
                        "memory_mb": round(rounds[-1][worker.name]["memory"] / 1e6),
                        "first_ready_s": round(worker.compilation, 1),
                    }
                ),
                flush=True,
            )  # fmt: skip
    finally:
        for worker in workers:
            worker.close()


def main() -> None:
    """Parses the options; a worker gets the same ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--config", default="base-v2")
    parser.add_argument("--shapes", nargs="+", default=["8x128", "2x512"], metavar="ROWSxLENGTH")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--peers", nargs="*", choices=("eager", "compile"), default=["eager"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--hidden", type=int)
    parser.add_argument("--heads", type=int)
    parser.add_argument("--remat", choices=("none", "dots", "full"))
    parser.add_argument("--unroll", choices=("yes", "no"))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options)
        return
    arguments = []
    for name in ("config", "dtype", "layers", "hidden", "heads", "remat", "unroll"):
        value = getattr(options, name)
        arguments += [] if value is None else [f"--{name}", str(value)]
    for shape in options.shapes:
        compare(options, arguments, shape)


if __name__ == "__main__":
    main()
