"""Reading, predictions and scores of the tasks on sentences, tags, pairs and texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from albert_jax.config import TaskConfig
from albert_jax.errors import ConfigError, DataError
from albert_jax.tasks import formats_tags, metrics
from albert_jax.tasks import hub_datasets as catalogues
from albert_jax.tasks import tables as formats

Labels = tuple[str, ...]
Prediction = dict[str, Any]
"""What is said about one example, ready for JSON."""


def read_sentences(place: str, config: TaskConfig, labelled: bool) -> list[formats.Sentences]:
    """Texts of a table or a catalogue, and their labels if `labelled`."""
    return _sentences(place, config, labelled, required=labelled)


def _sentences(
    place: str, config: TaskConfig, labelled: bool, *, required: bool
) -> list[formats.Sentences]:
    records = read_records(place, config)
    parts = formats.roles(
        records[0],
        config.columns,
        text_columns=config.text_columns,
        label_column=config.label_column,
        label_names=label_columns(config),
        needs_label=required,
    )
    if not labelled:
        parts = dataclasses.replace(parts, label=None)
    return formats.sentences(records, parts)


def label_columns(config: TaskConfig) -> tuple[str, ...]:
    """The usual names of the task's label, the likeliest first."""
    classes, scores = formats.CLASS_NAMES, formats.SCORE_NAMES
    return classes + scores if config.name == "classification" else scores + classes


def read_records(place: str, config: TaskConfig) -> list[formats.Record]:
    """All records of a table or a catalogue."""
    if catalogues.is_catalogue(place):
        return catalogues.load_records(place)
    return formats.read_records(place, config.columns)


# Classification and regression.


def class_labels(examples: Sequence[Any], config: TaskConfig) -> Labels:
    """The configured labels, or those of the training examples (at least two)."""
    names = config.labels or formats.label_names(examples)
    if len(names) < 2:
        raise DataError(
            f"{examples[0].where}: {len(names)} label in all training examples; "
            "at least two are needed"
        )
    return names


def predict_classes(
    examples: Sequence[Any],
    features: Sequence[Any],
    outputs: Any,
    config: TaskConfig,
    names: Labels,
) -> list[Prediction]:
    """Label and its probability, from logits [N, C]."""
    shares = probabilities(outputs)
    return [{"label": names[int(row.argmax())], "probability": float(row.max())} for row in shares]


def score_classes(
    examples: Sequence[Any], predictions: Sequence[Prediction], names: Labels
) -> dict[str, float]:
    """Scores of predicted labels."""
    true = _class_numbers(examples, names)
    guessed = np.array([names.index(p["label"]) for p in predictions])
    return class_scores(guessed, true, len(names))


def class_scores(guessed: np.ndarray, true: np.ndarray, classes: int) -> dict[str, float]:
    """accuracy, f1 (of class 1 if there are two, else the mean over classes) and matthews."""
    return {
        "accuracy": metrics.accuracy(guessed, true),
        "f1": metrics.f1(guessed, true)
        if classes == 2
        else metrics.macro_f1(guessed, true, classes),
        "matthews": metrics.matthews(guessed, true),
    }


def class_baseline(
    train: Sequence[Any], examples: Sequence[Any], names: Labels
) -> dict[str, float]:
    """Scores of the commonest training label."""
    guessed = metrics.majority(_class_numbers(train, names).tolist(), len(examples))
    return class_scores(guessed, _class_numbers(examples, names), len(names))


def _class_numbers(examples: Sequence[Any], names: Labels) -> np.ndarray:
    return np.array([formats.label_index(x.where, x.label, names) for x in examples])


def predict_scores(
    examples: Sequence[Any],
    features: Sequence[Any],
    outputs: Any,
    config: TaskConfig,
    names: Labels,
) -> list[Prediction]:
    """The score, from outputs [N, 1]."""
    return [{"score": float(row[0])} for row in np.asarray(outputs)]


def score_scores(
    examples: Sequence[Any], predictions: Sequence[Prediction], names: Labels
) -> dict[str, float]:
    """Scores of predicted scores."""
    true = _targets(examples)
    return regression_scores(np.array([p["score"] for p in predictions]), true)


def regression_scores(guessed: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """pearson, spearman and mean squared error."""
    return {
        "pearson": metrics.pearson(guessed, true),
        "spearman": metrics.spearman(guessed, true),
        "squared_error": float(np.mean(np.square(guessed - true))),
    }


def score_baseline(
    train: Sequence[Any], examples: Sequence[Any], names: Labels
) -> dict[str, float]:
    """Scores of the training mean."""
    true = _targets(examples)
    return regression_scores(np.full(len(true), _targets(train).mean()), true)


def _targets(examples: Sequence[Any]) -> np.ndarray:
    return np.array([formats.score(x.where, x.label) for x in examples])


# Tagging.


def read_tags(place: str, config: TaskConfig, labelled: bool) -> list[Any]:
    """Tagged sentences of a CoNLL file."""
    if catalogues.is_catalogue(place):
        raise ConfigError(f"{place!r}: tagging reads files in CoNLL's form; export the data set")
    return formats_tags.read_conll(
        place, word_column=config.word_column, tag_column=config.tag_column, tagged=labelled
    )


def predict_tags(
    examples: Sequence[Any],
    features: Sequence[Any],
    outputs: Any,
    config: TaskConfig,
    names: Labels,
) -> list[Prediction]:
    """One tag per word, from logits [N, S, C]."""
    best = np.asarray(outputs).argmax(-1)
    # A sentence too long for a row has several features, each with its words' own numbers.
    said: list[dict[int, str]] = []
    for i, feature in enumerate(features):
        places = np.flatnonzero(feature.words >= 0)
        if feature.words[places[0]] == 0:
            said.append({})
        for place in places:
            said[-1][int(feature.words[place])] = names[int(best[i, place])]
    return [
        {"words": list(x.words), "tags": [tags[i] for i in range(len(x.words))]}
        for x, tags in zip(examples, said, strict=True)
    ]


def score_tags(
    examples: Sequence[Any], predictions: Sequence[Prediction], names: Labels
) -> dict[str, float]:
    """Span F1 first, then precision, recall and accuracy."""
    found = metrics.span_f1([p["tags"] for p in predictions], [x.tags for x in examples])
    return {"f1": found.pop("f1"), **found}


# Sentence embedding.


def read_pairs(place: str, config: TaskConfig, labelled: bool) -> list[Any]:
    """Pairs of texts; a label is a similarity, where there is one."""
    return _sentences(place, config, labelled, required=False)


def predict_pairs(
    examples: Sequence[Any],
    features: Sequence[Any],
    outputs: Any,
    config: TaskConfig,
    names: Labels,
) -> list[Prediction]:
    """Both vectors and their cosine, from outputs [N, 2, H]."""
    vectors = np.asarray(outputs).reshape(len(features), 2, -1)
    return [{"cosine": float(a @ b), "first": a.tolist(), "second": b.tolist()} for a, b in vectors]


def score_pairs(
    examples: Sequence[Any], predictions: Sequence[Prediction], names: Labels
) -> dict[str, float]:
    """Correlations with given similarities, else how often a partner is the nearest."""
    if all(x.label is not None for x in examples):
        cosines = np.array([p["cosine"] for p in predictions])
        true = _targets(examples)
        return {
            "spearman": metrics.spearman(cosines, true),
            "pearson": metrics.pearson(cosines, true),
        }
    first, second = (np.array([p[side] for p in predictions]) for side in ("first", "second"))
    nearest = (first @ second.T).argmax(1)
    return {"retrieval": metrics.accuracy(nearest, np.arange(len(nearest)))}


# Generation.


def read_targets(place: str, config: TaskConfig, labelled: bool) -> list[Any]:
    """Sources and, where required, targets."""
    found = formats.source_targets(read_records(place, config), targeted=labelled)
    for example in found:
        if labelled and example.target is None:
            raise DataError(f"{example.where}: no 'target'; add it")
    return found


def predict_texts(
    examples: Sequence[Any],
    features: Sequence[Any],
    outputs: Any,
    config: TaskConfig,
    names: Labels,
) -> list[Prediction]:
    """The decoded texts."""
    return [{"text": text} for text in outputs]


def score_texts(
    examples: Sequence[Any], predictions: Sequence[Prediction], names: Labels
) -> dict[str, float]:
    """BLEU, chrF and the share of exact texts (white space apart)."""
    guessed, true = [p["text"] for p in predictions], [x.target for x in examples]
    same = [a.split() == b.split() for a, b in zip(guessed, true, strict=True)]
    return {**metrics.bleu_chrf(guessed, true), "exact": float(np.mean(same))}


def probabilities(logits: Any) -> np.ndarray:
    """Softmax over the last axis, float64."""
    logits = np.asarray(logits, np.float64)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
