"""The questions that the page may ask: plain JSON in, plain JSON out, errors as AlbertError."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from albert_jax.errors import ConfigError, DataError
from albert_jax.inference.explain import Explanation, explain, states_and_attention
from albert_jax.inference.fill_mask import Candidate, fill_mask
from albert_jax.inference.predict import featurize, predict, task_of, with_denoising_steps
from albert_jax.model_io.model import Model
from albert_jax.serve import forms
from albert_jax.tasks.support.prediction import Sampling
from albert_jax.tasks.task import AnyTask

MAX_TOKENS = 64
"""Longest text whose attention is drawn."""

VECTORS = ("first", "second")
"""Entries of a prediction that are long lists of numbers, which the page does not show."""

BEST_ANSWERS = 5
"""Most answers to a question that are shown."""


class Answers:
    """Models by the names that the page shows."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._models = dict(models)
        self._references: dict[str, dict[str, float]] = {}
        self._questions: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "models": lambda fields: self.describe(),
            "masks": self.masks,
            "predict": self.predict,
            "attention": self.attention,
            "explain": self.explain,
        }

    def __call__(self, question: str, fields: Mapping[str, Any]) -> dict[str, Any] | None:
        """The answer to a question of the page; None for an unknown question.

        Raises AlbertError for every fault in the question's fields.
        """
        answer = self._questions.get(question)
        return None if answer is None else answer(fields)

    def describe(self) -> dict[str, Any]:
        """The models and what each can do, under "models"."""
        described = []
        for name, model in self._models.items():
            task = None if model.run_config.task is None else task_of(model)
            described.append(forms.describe(name, model, task))
        return {"models": described}

    def masks(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Predictions for each [MASK] of "text": {"masks": [[{word, probability}]]}."""
        _, model = self._model(fields)
        [masks] = fill_mask(model, [_text(fields, "text")], top_k=10)
        return {"masks": [_candidates(candidates) for candidates in masks]}

    def predict(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The prediction of a fine-tuned model for "parts", a list of texts.

        The answer is {"prediction": ..., "steps": [text]}; for generation "denoising_steps",
        "temperature" and "seed" decide how the text is generated, and "steps" are its states. A
        similarity comes with a "reference", see `_reference`, and a truncated text with a "note".
        """
        name, model = self._model(fields)
        task = task_of(model)
        parts = _parts(fields, task)
        example = task.parse_line("\t".join(parts), "the text")
        sampling, steps = Sampling(), []
        if task.generates:
            most = task.config.max_target_length
            default = min(task.config.denoising_steps, most)
            model = with_denoising_steps(
                model, int(_number(fields, "denoising_steps", default, 1, most))
            )
            sampling = Sampling(
                temperature=_number(fields, "temperature", 0.0, 0.0, 1e4),
                seed=int(_number(fields, "seed", 0, 0, 2**31 - 1)),
                show_step=steps.append,
            )
        features = featurize(model, [example])
        [prediction] = predict(model, [example], features=features, sampling=sampling)
        shown = {key: value for key, value in prediction.items() if key not in VECTORS}
        if "best" in shown:
            shown["best"] = shown["best"][:BEST_ANSWERS]
        answer = {"prediction": shown, "steps": steps}
        if any(map(task.is_truncated, features)):
            length = model.run_config.phases[-1].sequence_length
            answer["note"] = f"The text is longer than {length} tokens and was truncated."
        if task.embeds:
            answer["reference"] = self._reference(name, model, task)
        return answer

    def attention(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The attention of one layer in one text, or in two ("text", "second").

        "layer" and "head" count from 1; head 0 is the mean of all heads. The answer is
        {"tokens": [S], "attention": [S][S]}, rows attending to columns.
        """
        _, model = self._model(fields)
        config = model.config
        blocks = config.num_hidden_layers * config.inner_group_num
        layer = int(_number(fields, "layer", 1, 1, blocks))
        head = int(
            _number(fields, "head", 0, 0, config.num_attention_heads * config.inner_group_num)
        )
        layers = states_and_attention(model, _one_or_two(fields), max_tokens=MAX_TOKENS)
        heads = layers.attention[layer - 1]
        attention = heads.mean(0) if head == 0 else heads[head - 1]
        return {
            "tokens": layers.tokens,
            "attention": np.asarray(attention, np.float64).round(4).tolist(),
        }

    def explain(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Explains how the model reads one text, or two, layer by layer.

        The answer has "layers", their numbers; "masks", the predictions by [mask][layer][rank];
        of a classifier "labels", "classes" [layer][label] and "contributions" of the words.
        """
        _, model = self._model(fields)
        found = explain(model, _one_or_two(fields))
        answer: dict[str, Any] = {
            "layers": list(range(1, len(found.attention) + 1)),
            "masks": [[_candidates(layer) for layer in mask] for mask in found.masked],
        }
        if found.classes is not None:
            answer |= {"labels": found.labels, "classes": found.classes.tolist()}
        if found.attribution is not None:
            answer["contributions"] = _contributions(found)
        return answer

    def _reference(self, name: str, model: Model, task: AnyTask) -> dict[str, float]:
        """The mean cosine of pairs of texts that have nothing in common, and of equal texts.

        "spread" is the standard deviation among the first.
        """
        if name not in self._references:
            texts = forms.UNRELATED[forms.language(model.vocabulary)]
            pairs = [*itertools.combinations(texts, 2), *zip(texts, texts, strict=True)]
            examples = [task.parse_line("\t".join(pair), "the text") for pair in pairs]
            numbers = [prediction["cosine"] for prediction in predict(model, examples)]
            equal = len(texts)
            self._references[name] = {
                "unrelated": float(np.mean(numbers[:-equal])),
                "equal": float(np.mean(numbers[-equal:])),
                "spread": float(np.std(numbers[:-equal])),
            }
        return self._references[name]

    def _model(self, fields: Mapping[str, Any]) -> tuple[str, Model]:
        name = fields.get("model")
        if not isinstance(name, str) or name not in self._models:
            raise DataError(f"model {name!r}: give one of {', '.join(self._models)}")
        return name, self._models[name]


def _candidates(candidates: Iterable[Candidate]) -> list[dict[str, Any]]:
    return [{"word": c.word, "probability": c.probability} for c in candidates]


def _contributions(found: Explanation) -> dict[str, Any]:
    """Returns each word's contribution to the label's margin (its logit less the others' mean).

    "before" is the margin of a row of masks, to which "sum" is added.
    """
    assert found.attribution is not None and found.classes is not None
    label, values = found.attribution.label, found.attribution.values
    logits = np.log(np.maximum(found.classes[-1], 1e-12))
    return {
        "label": found.labels[label],
        "words": [word.text for word in found.words],
        "values": [float(values[word.first : word.end].sum()) for word in found.words],
        "sum": float(values.sum()),
        "before": float(logits[label] - np.delete(logits, label).mean()) - found.attribution.gain,
    }


def _parts(fields: Mapping[str, Any], task: AnyTask) -> list[str]:
    """The texts in the fields of the task's form. Raises DataError, which names an empty field."""
    texts = fields.get("parts")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DataError("parts: give a list of texts")
    # Tabs separate the parts of a typed line; on the page they are spaces like others.
    texts = [" ".join(text.split()) for text in texts]
    for text, name in itertools.zip_longest(texts, forms.fields(task), fillvalue=""):
        if name and not text and not name.endswith(forms.OPTIONAL):
            raise DataError(f"the {name.split(' (')[0]} is empty: write something")
    return [text for text in texts if text]


def _one_or_two(fields: Mapping[str, Any]) -> str:
    """The text, or both with a tab between."""
    given = ("text", "second") if str(fields.get("second") or "").strip() else ("text",)
    return "\t".join(_text(fields, name) for name in given)


def _text(fields: Mapping[str, Any], name: str) -> str:
    text = fields.get(name)
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"the {name} is empty: write something")
    return " ".join(text.split())


def _number(fields: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        words = name.replace("_", " ")
        raise ConfigError(f"{words} is {value!r}: give a number between {low:g} and {high:g}")
    return value
