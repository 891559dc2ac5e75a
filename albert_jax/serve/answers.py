"""What the loaded models say to the page: plain JSON in, plain JSON out, errors as AlbertError."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from albert_jax.config import ComputeConfig, ModelConfig
from albert_jax.errors import ConfigError, DataError
from albert_jax.evaluation import finetuned
from albert_jax.inference import fill_mask
from albert_jax.inference import predict as predicting
from albert_jax.model_io.model import Model
from albert_jax.tasks import old_features as features

LONGEST = 64
"""Pieces whose attention is drawn at most."""

VECTORS = ("first", "second")
"""Parts of a prediction that are long rows of numbers, which nobody reads."""


class Answers:
    """Models by the names under which they were loaded."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._models = dict(models)
        self._questions = {
            "models": lambda asked: self.described(),
            "masks": self.masks,
            "predict": self.predict,
            "attention": self.attention,
        }

    def __call__(self, question: str, asked: Mapping[str, Any]) -> dict[str, Any] | None:
        """The answer to a question of the page; None if there is no such question.

        Raises AlbertError for whatever is wrong with what was asked.
        """
        found = self._questions.get(question)
        return None if found is None else found(asked)

    def described(self) -> dict[str, Any]:
        """What each model can do: {"models": [{name, task, parts, masks, passes, heads}]}."""
        found = []
        for name, model in self._models.items():
            task = model.run_config.task
            found.append(
                {
                    "name": name,
                    "task": "" if task is None else task.name,
                    "labels": [] if task is None else list(task.labels),
                    "rounds": None if task is None else task.rounds,
                    "masks": "mlm_head" in model.params,
                    "step": model.step,
                    "passes": model.config.num_hidden_layers,
                    "hidden_size": model.config.hidden_size,
                    "pieces": model.vocabulary.size,
                }
            )
        return {"models": found}

    def masks(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Guesses for each [MASK] of "text": {"masks": [[{word, probability}]]}."""
        [found] = fill_mask.fill_mask(self._model(asked), [_text(asked, "text")], top_k=10)
        return {
            "masks": [
                [{"word": one.word, "probability": one.probability} for one in guesses]
                for guesses in found
            ]
        }

    def predict(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The prediction of a fine-tuned model for "parts", a list of texts.

        {"prediction": ..., "rounds": [canvas]}; for generation "rounds" and "temperature" (and
        "seed") decide how the canvas is filled.
        """
        model = self._model(asked)
        task, _ = finetuned.finetuned(model)
        parts = asked.get("parts")
        if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
            raise DataError("parts: give a list of texts")
        # Parts are told apart by tabs, as on the command line; white space within is one space.
        line = "\t".join(" ".join(part.split()) for part in parts)
        example = predicting.typed(task, line, "the text")
        options: dict[str, Any] = {}
        canvases: list[str] = []
        if task.name == "generation":
            rounds = _number(asked, "rounds", task.rounds, 1, 1000)
            task = dataclasses.replace(task, rounds=int(rounds))
            model = dataclasses.replace(
                model, run_config=dataclasses.replace(model.run_config, task=task)
            )
            options = {
                "temperature": _number(asked, "temperature", 0.0, 0.0, 100.0),
                "seed": int(_number(asked, "seed", 0, 0, 2**31 - 1)),
                "show": canvases.append,
            }
        [said] = finetuned.answers(model, [example], **options)
        said = {name: value for name, value in said.items() if name not in VECTORS}
        return {"prediction": said, "rounds": canvases}

    def attention(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What each pass looks at in one text, or two ("text", "second").

        {"pieces": [S], "attention": [pass][head][S][S]}, rows looking at columns.
        """
        model = self._model(asked)
        vocabulary = model.vocabulary
        texts = [_text(asked, "text")]
        if str(asked.get("second") or "").strip():
            texts.append(_text(asked, "second"))
        most = min(LONGEST, model.config.max_position_embeddings)
        ids = vocabulary.encode(texts)
        size = sum(map(len, ids)) + len(ids) + 1
        if size > most:
            raise DataError(
                f"the text has {size} pieces, attention is drawn for {most}: shorten it"
            )
        if len(ids) == 1:
            tokens = features.single(vocabulary, ids[0], most)
        else:
            tokens = features.pair(vocabulary, ids[0], ids[1], most)
        length = features.fitting_length(size, most, (16, 32))
        batch = features.sequence_rows([tokens], length)
        seen = np.asarray(_attention(model.config)(model.params, batch))[:, 0, :, :size, :size]
        return {
            "pieces": [vocabulary.piece(int(i)) for i in tokens.ids],
            "attention": np.round(seen.astype(np.float64), 4).tolist(),
        }

    def _model(self, asked: Mapping[str, Any]) -> Model:
        name = asked.get("model")
        if not isinstance(name, str) or name not in self._models:
            raise DataError(f"model {name!r}: give one of {', '.join(self._models)}")
        return self._models[name]


@functools.lru_cache(maxsize=8)
def _attention(config: ModelConfig) -> Any:
    """The jitted (params, batch) -> float32 [passes, B, N, S, S]; one per structure."""
    import jax
    import jax.numpy as jnp

    from albert_jax.model import albert

    compute = ComputeConfig(dtype="float32")

    def forward(params: Any, batch: Any) -> jax.Array:
        first = albert.embed(params, config, batch, compute=compute)
        _, each = albert.encode_all_layers(params, config, batch, compute=compute)
        inputs = jnp.concatenate([first[None], each[:-1]])
        return albert.attention_probabilities(params, config, inputs, batch["segment_ids"])

    return jax.jit(forward)


def _text(asked: Mapping[str, Any], name: str) -> str:
    text = asked.get(name)
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{name} is empty: write something")
    return " ".join(text.split())


def _number(asked: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = asked.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ConfigError(f"{name} is {value!r}: give a number between {low:g} and {high:g}")
    return value
