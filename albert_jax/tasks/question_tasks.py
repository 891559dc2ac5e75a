"""Reading, predictions and scores of the tasks on questions: multiple choice and spans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from albert_jax.config import TaskConfig
from albert_jax.errors import DataError
from albert_jax.tasks import formats_qa, metrics
from albert_jax.tasks import hub_datasets as catalogues
from albert_jax.tasks import spans as answers
from albert_jax.tasks import squad_features as qf
from albert_jax.tasks.sentence_tasks import Labels, Prediction, probabilities
from albert_jax.tasks.squad_metrics import squad_v1, squad_v2

# Multiple choice.


def read_choices(place: str, config: TaskConfig, labelled: bool) -> list[Any]:
    """Questions of RACE, of a catalogue, or of the general or SWAG form."""
    if catalogues.is_catalogue(place):
        found = catalogues.choices(catalogues.load_records(place), config.choices, labelled)
    elif formats_qa.is_race(place):
        found = formats_qa.read_race(place, choices=config.choices, labelled=labelled)
    else:
        found = formats_qa.read_choices(
            place, choices=config.choices, columns=config.columns, labelled=labelled
        )
    for example in found:
        if labelled and example.label is None:
            raise DataError(f"{example.where}: no answer; add the number or letter of the choice")
    return found


def predict_choices(
    examples: Sequence[Any],
    features: Sequence[Any],
    outputs: Any,
    config: TaskConfig,
    names: Labels,
) -> list[Prediction]:
    """Number of the chosen ending and its probability, from logits [N, G]."""
    found = []
    for example, row in zip(examples, probabilities(outputs), strict=True):
        number = int(row[: len(example.endings)].argmax())
        found.append({"choice": number, "probability": float(row[number])})
    return found


def score_choices(
    examples: Sequence[Any], predictions: Sequence[Prediction], names: Labels
) -> dict[str, float]:
    """Accuracy, and that of each named part."""
    guessed = np.array([p["choice"] for p in predictions])
    true = np.array([x.label for x in examples])
    return metrics.by_group(guessed, true, [x.group for x in examples])


def choice_baseline(
    train: Sequence[Any], examples: Sequence[Any], names: Labels
) -> dict[str, float]:
    """Scores of the commonest answer of the training examples."""
    guessed = metrics.majority([x.label for x in train], len(examples))
    true = np.array([x.label for x in examples])
    return metrics.by_group(guessed, true, [x.group for x in examples])


# Span extraction.


def read_squad(place: str, config: TaskConfig, labelled: bool) -> list[Any]:
    """Questions of a SQuAD file or catalogue; squad-v1 takes answered ones only."""
    if catalogues.is_catalogue(place):
        found = catalogues.squad_questions(catalogues.load_records(place), answered=labelled)
    else:
        found = formats_qa.read_squad(place, answered=labelled)
    if config.name == "squad-v1" and labelled:
        for asked in found:
            if not asked.answers:
                raise DataError(f"{asked.where}: no answer, which squad-v2 knows; use that task")
    return found


def span_features(
    vocabulary: Any, examples: Sequence[Any], length: int, config: TaskConfig, names: Labels
) -> list[qf.SpanFeature]:
    """Windows of all questions under the config's stride and lengths."""
    return qf.span_features(
        vocabulary, examples, length, stride=config.stride, query_length=config.query_length
    )


def predict_v1(
    examples: Sequence[Any],
    features: Sequence[Any],
    outputs: Any,
    config: TaskConfig,
    names: Labels,
) -> list[Prediction]:
    """Best text and n-best, from start and end logits [N, S]."""
    start, end = (np.asarray(x) for x in outputs)
    found = [
        candidate
        for i, feature in enumerate(features)
        for candidate in answers.independent_candidates(
            feature, start[i], end[i], best=config.best_answers, max_length=config.answer_length
        )
    ]
    return [_answer(p, None) for p in answers.predict(examples, found, best=config.best_answers)]


def predict_v2(
    examples: Sequence[Any],
    features: Sequence[Any],
    outputs: Any,
    config: TaskConfig,
    names: Labels,
) -> list[Prediction]:
    """Best text, n-best and null score, from the beam's arrays."""
    start, start_places, end, end_places, nothing = (np.asarray(x) for x in outputs)
    found = [
        candidate
        for i, feature in enumerate(features)
        for candidate in answers.beam_candidates(
            feature,
            start[i],
            start_places[i],
            end[i],
            end_places[i],
            max_length=config.answer_length,
        )
    ]
    nulls = [(feature.question, float(nothing[i])) for i, feature in enumerate(features)]
    ranked = answers.predict(examples, found, nulls, best=config.best_answers)
    return [_answer(p, p.null_score) for p in ranked]


def _answer(prediction: answers.Prediction, null_score: float | None) -> Prediction:
    best = [
        {"text": x.text, "score": x.score, "probability": x.probability} for x in prediction.best
    ]
    said: Prediction = {"id": prediction.id, "text": prediction.answer(), "best": best}
    if null_score is not None:
        said["null_score"] = null_score
    return said


def score_v1(
    examples: Sequence[Any], predictions: Sequence[Prediction], names: Labels
) -> dict[str, float]:
    """F1 and exact match (percent)."""
    found = squad_v1({p["id"]: p["text"] for p in predictions}, _gold(examples))
    return {"f1": found["f1"], "exact_match": found["exact_match"]}


def score_v2(
    examples: Sequence[Any], predictions: Sequence[Prediction], names: Labels
) -> dict[str, float]:
    """F1 and exact match at the best threshold (percent), their parts and thresholds."""
    nulls = {p["id"]: p["null_score"] for p in predictions}
    found = squad_v2({p["id"]: p["text"] for p in predictions}, _gold(examples), nulls)
    return {"f1": found.pop("f1"), "exact": found.pop("exact"), **found}


def nothing_baseline(
    train: Sequence[Any], examples: Sequence[Any], names: Labels
) -> dict[str, float]:
    """Scores of never answering."""
    return squad_v2({x.id: "" for x in examples}, _gold(examples))


def _gold(examples: Sequence[Any]) -> dict[str, list[str]]:
    return {x.id: [answer.text for answer in x.answers] for x in examples}
