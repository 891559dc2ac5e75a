"""Predictions as the command line and Python give them: one dict per example, ready for JSON."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from albert_jax.errors import ConfigError, DataError
from albert_jax.inference import predict
from albert_jax.model.sharing import check_depth
from albert_jax.model_io.model import Model
from albert_jax.tasks.support.prediction import Sampling
from albert_jax.tasks.task import Prediction

if TYPE_CHECKING:
    from albert_jax.inference.early_exit import EarlyExit

CHUNK = 1024
"""Most examples whose outputs are held at a time; the features of all are held."""


class Predictor:
    """A fine-tuned model with the options of `albert-jax predict`."""

    def __init__(
        self,
        model: Model,
        *,
        num_layers: int | None = None,
        top_k: int | None = None,
        exit_confidence: float | None = None,
        denoising_steps: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        show_step: Callable[[str], None] | None = None,
        report: Callable[[str], None] = warnings.warn,
    ) -> None:
        """Checks the options. Raises ConfigError, and CheckpointError for a model without a task.

        See `albert_jax.predict`; `show_step` is called with each state of a generated text, and
        `report` with a line that says how many examples are truncated.
        """
        self._sampling = Sampling(temperature=temperature, seed=seed, show_step=show_step)
        if exit_confidence is not None and not 0 < exit_confidence <= 1:
            raise ConfigError(f"--exit-confidence {exit_confidence}: give a probability, as 0.9")
        if top_k is not None and top_k < 1:
            raise ConfigError(f"--top-k {top_k}: give at least 1")
        if num_layers is not None:
            check_depth(model.config, num_layers)
        if denoising_steps is not None:
            model = predict.with_denoising_steps(model, denoising_steps)
        self.model, self.task = model, predict.task_of(model)
        if top_k is not None and not (self.task.classifies or self.task.ranks_answers):
            raise ConfigError(f"--top-k: {self.task.name} gives one answer each: leave it out")
        if not self.task.generates and self._sampling != Sampling():
            raise ConfigError(
                "--temperature, --seed and --show-steps are for generation, not for "
                f"{self.task.name}: leave them out"
            )
        self.early_exit: EarlyExit | None = None
        if exit_confidence is not None:
            from albert_jax.inference.early_exit import EarlyExit

            self.early_exit = EarlyExit(model, exit_confidence, num_layers)
        self._num_layers, self._top_k, self._report = num_layers, top_k, report

    def predictions(self, examples: Sequence[Any]) -> Iterator[Prediction]:
        """One prediction per example; every bad example is refused before the first one."""
        chunks = max(1, -(-len(examples) // CHUNK))
        bounds = pairwise(len(examples) * i // chunks for i in range(chunks + 1))
        parts = [examples[begin:end] for begin, end in bounds]
        features = [predict.featurize(self.model, part) for part in parts]
        self._report_truncated([feature for part in features for feature in part])
        for part, part_features in zip(parts, features, strict=True):
            yield from self._predict(part, part_features)

    def answers(self, examples: Sequence[Any]) -> list[Prediction]:
        """A prediction per example, or {"error": message} where it is bad or a DataError."""
        answers: list[Prediction] = [
            {"error": str(example)} if isinstance(example, DataError) else {}
            for example in examples
        ]
        good = [i for i, answer in enumerate(answers) if not answer]
        try:
            features = predict.featurize(self.model, [examples[i] for i in good]) if good else []
        except DataError:
            for i in list(good):
                try:
                    predict.featurize(self.model, [examples[i]])
                except DataError as error:
                    answers[i] = {"error": str(error)}
                    good.remove(i)
            features = predict.featurize(self.model, [examples[i] for i in good]) if good else []
        if good:
            self._report_truncated(features)
            found = self._predict([examples[i] for i in good], features)
            for i, prediction in zip(good, found, strict=True):
                answers[i] = prediction
        return answers

    def _report_truncated(self, features: Sequence[Any]) -> None:
        if truncated := predict.truncated_examples(self.model, features):
            self._report(truncated)

    def _predict(self, examples: Sequence[Any], features: Sequence[Any]) -> list[Prediction]:
        found = predict.predict(
            self.model,
            examples,
            features=features,
            num_layers=self._num_layers,
            early_exit=self.early_exit,
            sampling=self._sampling,
        )
        return [self._readable(*pair) for pair in zip(examples, found, strict=True)]

    def _readable(self, example: Any, prediction: Prediction) -> Prediction:
        """The prediction with its input, unless an id names that, and with `top_k` alternatives."""
        shown = dict(prediction)
        if self.task.classifies:
            ranked = sorted(shown["probabilities"].items(), key=lambda item: -item[1])
            shown["probabilities"] = dict(ranked[: self._top_k])
        if self.task.ranks_answers:
            best = shown.pop("best")
            if self._top_k is not None:
                shown["best"] = best[: self._top_k]
            elif best and best[0]["text"] == shown["text"]:
                shown["probability"] = best[0]["probability"]
        if "id" in shown:
            return shown
        texts = self.task.texts(example)
        return {"input": texts[0] if len(texts) == 1 else list(texts)} | shown
