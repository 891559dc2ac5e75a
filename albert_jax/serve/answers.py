"""The questions that the page may ask: plain JSON in, plain JSON out, errors as AlbertError."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from albert_jax.errors import ConfigError, DataError
from albert_jax.inference import explain_page
from albert_jax.inference.explain import look
from albert_jax.inference.fill_mask import fill_mask
from albert_jax.inference.predict import predict, task_of, with_denoising_steps
from albert_jax.model_io.model import Model
from albert_jax.tasks import registry
from albert_jax.tasks.task import Sampling

MAX_TOKENS = 64
"""Longest text whose attention is drawn."""

VECTORS = ("first", "second")
"""Entries of a prediction that are long lists of numbers, which the page does not show."""


class Answers:
    """Models by the names under which they were loaded."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._models = dict(models)
        self._questions: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "models": lambda fields: self.describe(),
            "masks": self.masks,
            "predict": self.predict,
            "attention": self.attention,
        }

    def __call__(self, question: str, fields: Mapping[str, Any]) -> dict[str, Any] | None:
        """The answer to a question of the page; None for an unknown question.

        Raises AlbertError for every fault in the question's fields.
        """
        answer = self._questions.get(question)
        return None if answer is None else answer(fields)

    def describe(self) -> dict[str, Any]:
        """The models and what each can do, under "models"."""
        models = []
        for name, model in self._models.items():
            config = model.run_config.task
            task = None if config is None else registry.get(config.name)
            form = task and {
                "fields": task.page_fields,
                "repeat_last": task.repeats_last_field,
                "generates": task.generates,
            }
            models.append(
                {
                    "name": name,
                    "task": "" if config is None else config.name,
                    "form": form,
                    "denoising_steps": getattr(config, "denoising_steps", None),
                    "masks": "mlm_head" in model.params,
                    "step": model.step,
                    "num_layers": model.config.num_hidden_layers,
                    "num_heads": model.config.num_attention_heads,
                    "hidden_size": model.config.hidden_size,
                    "vocab_size": model.vocabulary.size,
                }
            )
        return {"models": models}

    def masks(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Predictions for each [MASK] of "text": {"masks": [[{word, probability}]]}."""
        [masks] = fill_mask(self._model(fields), [_text(fields, "text")], top_k=10)
        return {
            "masks": [
                [{"word": c.word, "probability": c.probability} for c in candidates]
                for candidates in masks
            ]
        }

    def predict(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The prediction of a fine-tuned model for "parts", a list of texts.

        The answer is {"prediction": ..., "steps": [text]}; for generation "denoising_steps",
        "temperature" and "seed" decide how the text is generated, and "steps" are its states.
        """
        model = self._model(fields)
        task = task_of(model)
        parts = fields.get("parts")
        if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
            raise DataError("parts: give a list of texts")
        # Tabs separate the parts, as on the command line; other white space becomes one space.
        line = "\t".join(" ".join(part.split()) for part in parts)
        example = task.parse_line(line, "the text")
        sampling, steps = Sampling(), []
        if task.generates:
            count = int(_number(fields, "denoising_steps", task.config.denoising_steps, 1, 1000))
            model = with_denoising_steps(model, count)
            sampling = Sampling(
                temperature=_number(fields, "temperature", 0.0, 0.0, 100.0),
                seed=int(_number(fields, "seed", 0, 0, 2**31 - 1)),
                show_step=steps.append,
            )
        [prediction] = predict(model, [example], sampling=sampling)
        shown = {name: value for name, value in prediction.items() if name not in VECTORS}
        return {"prediction": shown, "steps": steps}

    def attention(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The attention of one layer in one text, or in two ("text", "second").

        "layer" and "head" count from 1; head 0 is the mean of all heads. The answer is
        {"tokens": [S], "attention": [S][S], "picture": URL}, rows attending to columns.
        """
        model = self._model(fields)
        texts = [_text(fields, "text")]
        if str(fields.get("second") or "").strip():
            texts.append(_text(fields, "second"))
        config = model.config
        layer = int(_number(fields, "layer", 1, 1, config.num_hidden_layers))
        head = int(_number(fields, "head", 0, 0, config.num_attention_heads))
        layers = look(model, "\t".join(texts), max_tokens=MAX_TOKENS)
        heads = layers.attention[layer - 1]
        attention = heads.mean(0) if head == 0 else heads[head - 1]
        picture = explain_page.attention_png(layers.tokens, attention[None, None])
        return {
            "tokens": layers.tokens,
            "attention": attention.round(4).tolist(),
            "picture": explain_page.data_url(picture),
        }

    def _model(self, fields: Mapping[str, Any]) -> Model:
        name = fields.get("model")
        if not isinstance(name, str) or name not in self._models:
            raise DataError(f"model {name!r}: give one of {', '.join(self._models)}")
        return self._models[name]


def _text(fields: Mapping[str, Any], name: str) -> str:
    text = fields.get(name)
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{name} is empty: write something")
    return " ".join(text.split())


def _number(fields: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ConfigError(f"{name} is {value!r}: give a number between {low:g} and {high:g}")
    return value
