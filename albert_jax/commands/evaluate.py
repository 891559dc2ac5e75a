"""`albert-jax evaluate`: a run measured at one depth or several."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from albert_jax.commands.options import Step, Weights, step_number
from albert_jax.errors import CheckpointError, ConfigError

Results = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure a run on its held-out documents, or a fine-tuned one on its dev examples."""

    model: Positional[Annotated[str, tyro.conf.arg(metavar="RUN")]]
    """Run folder."""
    step: Step = "newest"
    """Checkpoint to measure."""
    weights: Weights = "trained"
    """The parameters, or their running average."""
    num_layers: Annotated[tuple[str, ...], tyro.conf.arg(metavar="N,N,...")] = ()
    """Depths to measure side by side; the default is the model's own."""
    changes: bool = False
    """Add how little each layer changes: the mean cosine of a token's state after the layer to
    its state before."""
    max_samples: int | None = None
    """Most held-out rows (or examples of a fine-tuned run) to read; the default is
    run.max_eval_samples (or all examples)."""
    input: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Labelled examples for a fine-tuned run; the default is its task.dev."""

    def run(self) -> None:
        """Prints a table, and writes evaluation.json and curves.png into the run folder."""
        depths = parse_depths(self.num_layers)
        if self.max_samples is not None and self.max_samples < 1:
            raise ConfigError(f"--max-samples {self.max_samples}: give at least 1")
        step = step_number(self.step)

        from albert_jax import configfile, files
        from albert_jax.model.sharing import check_depth
        from albert_jax.model_io import model as model_io
        from albert_jax.observe import curves
        from albert_jax.observe.metrics import read_rows

        if not model_io.is_run(self.model):
            raise CheckpointError(
                f"{self.model} is no run folder: name the --out of albert-jax pretrain or finetune"
            )
        config = configfile.load(files.join(self.model, "config.toml"))
        for num_layers in depths:
            check_depth(config.model, num_layers)
        if config.task is None and self.input is not None:
            raise ConfigError("--input is for fine-tuned runs: this one has its held-out documents")
        model = model_io.load(self.model, step=step, weights=self.weights)
        report = {"step": model.step, "weights": self.weights}
        measure = self._pretrained if config.task is None else self._finetuned
        numbers, lines = measure(model, depths)
        report |= numbers
        files.write(
            files.join(self.model, "evaluation.json"), json.dumps(report, indent=1).encode()
        )
        print(f"{self.model}: step {model.step}, {lines[0]}", table(report["results"]), sep="\n")
        for line in lines[1:]:
            print(line)
        if read_rows(self.model):
            print(f"curves: {curves.draw(self.model)}")

    def _pretrained(self, model: Any, depths: tuple[int, ...]) -> tuple[dict[str, Any], list[str]]:
        """(entries of evaluation.json, a heading and further lines)."""
        from albert_jax.evaluation import pretraining

        results = pretraining.evaluate(
            model, num_layers=depths, max_samples=self.max_samples, cosines=self.changes
        )
        length = model.run_config.phases[-1].sequence_length
        report = {
            "sequence_length": length,
            "results": {f"{depth} layers": numbers for depth, numbers in results.items()},
        }
        return report, [f"held-out rows of {length} tokens"]

    def _finetuned(self, model: Any, depths: tuple[int, ...]) -> tuple[dict[str, Any], list[str]]:
        """(entries of evaluation.json, a heading and further lines)."""
        from albert_jax.evaluation import finetuned
        from albert_jax.inference.predict import task_of

        task = task_of(model)
        path = self.input or task.config.dev
        examples = task.read_examples(path, labelled=True)[: self.max_samples]
        majority, missing = finetuned.majority_scores(model, examples)
        results: dict[str, Mapping[str, float]] = {}
        first = task.config.metrics[0]
        interval: dict[str, Any] = {"metric": first, "level": 0.95}
        lines = [f"{task.name}, {len(examples)} examples of {path}"]
        for depth in depths or (model.config.num_hidden_layers,):
            scores = finetuned.evaluate(model, examples, num_layers=depth, cosines=self.changes)
            column = f"{depth} layers"
            results[column] = scores.values
            if scores.interval is not None:
                low, high = scores.interval
                interval[column] = {"low": low, "high": high}
                lines.append(f"{first} at {column}: {low:.4f} to {high:.4f} (95 %, bootstrap)")
        if majority:
            results["majority"] = majority
        if missing:
            lines.append(f"without the commonest answer of the training examples: {missing}")
        report = {
            "task": task.name,
            "examples": len(examples),
            "file": path,
            "results": results,
            "interval": interval,
        }
        return report, lines


def parse_depths(words: tuple[str, ...]) -> tuple[int, ...]:
    """The numbers in `2,4,8` or `2 4 8`. Raises ConfigError."""
    parts = [part for word in words for part in word.split(",") if part]
    for part in parts:
        if not (part.isascii() and part.isdecimal() and len(part) < 16):
            raise ConfigError(f"--num-layers {part}: give numbers of layers, such as 2,4,8")
    return tuple(map(int, parts))


def table(results: Results) -> str:
    """Named results side by side; a number that a result lacks stays empty."""
    names = list(dict.fromkeys(name for numbers in results.values() for name in numbers))
    width = max([len(name) for name in names] + [4])
    columns = {title: max(10, len(title)) for title in results}
    lines = [" " * width + "".join(f"  {title:>{size}}" for title, size in columns.items())]
    for name in names:
        cells = [
            f"  {_cell(name, results[title].get(name)):>{size}}" for title, size in columns.items()
        ]
        lines.append(f"{name:{width}}{''.join(cells)}")
    return "\n".join(lines)


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name.endswith("accuracy"):
        return f"{value:.1%}"
    if abs(value) >= 1000 or float(value).is_integer():
        return f"{value:.4g}" if abs(value) >= 1e7 else f"{value:,.0f}"
    return f"{value:.4f}"
