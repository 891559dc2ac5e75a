"""`albert-jax evaluate`: a run measured at one depth or several."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import Positional

from albert_jax.commands.options import File, ModelOptions, check_within, step_number
from albert_jax.errors import CheckpointError, ConfigError, DataError, StorageError

if TYPE_CHECKING:
    from albert_jax.model_io.model import Model

Measured = tuple[dict[str, Any], list[str]]
"""Entries of evaluation.json; a heading and further lines."""


@dataclass(frozen=True, kw_only=True)
class Evaluate(ModelOptions):
    """Measure a run on its held-out documents, or a fine-tuned one on its dev examples."""

    model: Positional[Annotated[str, tyro.conf.arg(metavar="RUN")]]
    """Run folder."""
    num_layers: tuple[int, ...] = ()
    """Depths to measure side by side; the default is the model's own."""
    cosines: bool = False
    """Add the mean cosine of a token's state after each layer to its state before."""
    max_samples: int | None = None
    """Most held-out rows (or evenly spaced examples of a fine-tuned run) to measure; the default is
    run.max_eval_samples (or all examples)."""
    input: File | None = None
    """Labelled examples for a fine-tuned run; the default is its task.dev."""

    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIR")] = ()
    """New paths of the prepared folders of a pretraining run, if they were moved."""

    def run(self) -> None:
        """Prints a table, and writes evaluation.json and pictures into the run folder."""
        depths = tuple(dict.fromkeys(self.num_layers))
        check_within(1, max_samples=self.max_samples)
        step_number(self.step)

        from albert_jax import files
        from albert_jax.evaluation import EVALUATION_NAME, columns
        from albert_jax.model.sharing import check_depth
        from albert_jax.model_io.run_record import is_run

        if not is_run(self.model):
            raise CheckpointError(
                f"{self.model} is not a run folder: name the --out of albert-jax pretrain or "
                "finetune"
            )
        model = self.load()
        for num_layers in depths:
            check_depth(model.config, num_layers)
        measure = self._pretrained if model.run_config.task is None else self._finetuned
        numbers, lines = measure(model, depths or (model.config.num_hidden_layers,))
        report = {"step": model.step, "weights": model.weights} | numbers
        heading, *notes = lines
        print(f"{self.model}: step {model.step}, {heading}")
        print(table(columns(report)), *notes, sep="\n", flush=True)
        text = json.dumps(report, indent=1, ensure_ascii=False)
        try:
            files.write(files.join(self.model, EVALUATION_NAME), text.encode())
        except StorageError as error:
            # Whoever reads the file must not take an older one for the new numbers.
            raise StorageError(f"{error}; the numbers above are printed only") from error
        self._draw(model, heading, report)

    def _draw(self, model: Model, heading: str, report: Mapping[str, Any]) -> None:
        """Writes the pictures for which there are numbers, and prints their paths."""
        import numpy as np

        from albert_jax import files
        from albert_jax.observe import curves, figures
        from albert_jax.observe.metrics import read_rows

        title = f"{self.model.rstrip('/').rpartition('/')[2]}, step {model.step}"
        pictures: dict[str, bytes] = {}
        if "confusion" in report:
            labels, counts = report["confusion"].values()
            pictures["confusion"] = figures.confusion_matrix(
                title, heading, labels, np.array(counts)
            )
        if len(report["results"]) > 1:
            pictures["depths"] = _picture_of_depths(title, heading, report)
        for name, picture in pictures.items():
            path = files.join(self.model, f"{name}.svg")
            files.write(path, picture)
            print(f"{name}: {path}")
        if read_rows(self.model):
            print(f"curves: {curves.draw(self.model, model.run_config)}")

    def _pretrained(self, model: Model, depths: tuple[int, ...]) -> Measured:
        from albert_jax.evaluation import pretraining

        if self.input is not None:
            raise ConfigError("--input is for fine-tuned runs: this one has its held-out documents")
        if self.data:
            data = replace(model.run_config.data, prepared=self.data)
            model = replace(model, run_config=replace(model.run_config, data=data))
        found = pretraining.evaluate(
            model, num_layers=depths, max_samples=self.max_samples, cosines=self.cosines
        )
        length = model.run_config.phases[-1].sequence_length
        results = [{"num_layers": depth, "scores": scores} for depth, scores in found.items()]
        report = {"sequence_length": length, "metric": "mlm_loss", "results": results}
        return report, [f"held-out rows of {length} tokens"]

    def _finetuned(self, model: Model, depths: tuple[int, ...]) -> Measured:
        from albert_jax.evaluation import finetuned
        from albert_jax.inference.predict import task_of
        from albert_jax.tasks.support.prediction import evenly_spaced

        if self.data:
            raise ConfigError("--data is for pretraining runs: name other examples with --input")
        task = task_of(model)
        path = self.input or task.config.dev
        try:
            examples = task.read_examples(path, labelled=True)
            if self.max_samples:
                examples = evenly_spaced(examples, self.max_samples)
        except DataError as error:
            if self.input is not None:
                raise
            raise DataError(f"{error}; or name other examples with --input FILE") from error
        majority, missing = finetuned.majority_scores(model, examples)
        results: list[dict[str, Any]] = []
        report = {"task": task.name, "examples": len(examples), "file": path, "results": results}
        lines = [f"{task.name}, {len(examples)} examples of {path}"]
        for number, depth in enumerate(depths):
            scores = finetuned.evaluate(model, examples, num_layers=depth, cosines=self.cosines)
            results.append({"num_layers": depth, "scores": scores.values})
            where = f"at {depth} layers"
            if scores.interval is not None:
                results[-1]["interval_95"] = low, high = scores.interval
                lines.append(f"{scores.metric} {where}: {low:.4f} to {high:.4f} (95 %, bootstrap)")
            if scores.single_answer:
                lines.append(f"the answer {where} is {scores.single_answer} for every example")
            if number == 0:  # The other depths have about the same.
                report["metric"] = scores.metric
                lines += [scores.truncated] if scores.truncated else []
                if scores.confusion:
                    lines += scores.confusion.lines()
                    report |= scores.confusion.as_json()
        if majority:
            report["majority"] = majority
        if missing:
            lines.append(f"no baseline from the training examples: {missing}")
        return report, lines


def table(results: Mapping[str, Mapping[str, float]]) -> str:
    """Named results side by side; a number that a result lacks stays empty."""
    names = list(dict.fromkeys(name for numbers in results.values() for name in numbers))
    width = max(map(len, names), default=0)
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
    if abs(value) >= 1e7:
        return f"{value:.4g}"
    whole = abs(value) >= 1000 or float(value).is_integer()
    return f"{value:,.0f}" if whole else f"{value:.4f}"


def _picture_of_depths(title: str, heading: str, report: Mapping[str, Any]) -> bytes:
    """The score of each depth, with its interval and what to compare it with."""
    from albert_jax.observe import figures

    scores = {found["num_layers"]: found["scores"] for found in report["results"]}
    first = next(iter(scores.values()))
    metric = report["metric"]
    if metric not in first:  # Nothing was masked.
        metric = next(name for name in ("sop_loss", "word_loss") if name in first)
    if metric == "mlm_loss":
        unit = "nats per masked token (less is better)"
        guess = ("unigram frequencies", first["unigram_loss"])
    else:
        unit = metric.replace("_", " ")
        majority = report.get("majority", {}).get(metric)
        guess = None if majority is None else ("the majority class", majority)
    intervals = {
        found["num_layers"]: found["interval_95"]
        for found in report["results"]
        if "interval_95" in found
    }
    if intervals:
        heading += "; bars: 95% interval"
    values = {depth: numbers[metric] for depth, numbers in scores.items()}
    return figures.scores_by_depth(title, heading, unit, values, intervals, guess)
