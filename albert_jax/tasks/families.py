"""The task families on the host: how each reads, featurises, predicts and scores. No jax.

A family is a value; registry.py joins each with its head and loss. ``outputs`` below are the
forward pass's arrays in the order of the features, without filler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from albert_jax.config import TaskConfig
from albert_jax.tasks import formats_tags
from albert_jax.tasks import masked_diffusion as canvases
from albert_jax.tasks import question_tasks as questions
from albert_jax.tasks import sentence_features as sf
from albert_jax.tasks import sentence_tasks as sentences
from albert_jax.tasks import squad_features as qf
from albert_jax.tasks.old_features import Batch
from albert_jax.tasks.sentence_tasks import Labels, Prediction


@dataclass(frozen=True, kw_only=True)
class Family:
    """One task family. All callables are pure; ``labelled`` says that answers are required."""

    name: str
    read: Callable[[str, TaskConfig, bool], list[Any]]
    """(place, config, labelled) to examples; DataError names file and line."""
    labels: Callable[[Sequence[Any], TaskConfig], Labels]
    """(training examples, config) to the names of classes or tags; empty without any."""
    features: Callable[[Any, Sequence[Any], int, TaskConfig, Labels], list[Any]]
    """(vocabulary, examples, row length, config, labels) to features."""
    batch: Callable[[Any, Sequence[Any], int, int, TaskConfig, np.random.Generator], Batch]
    """(vocabulary, features, row length, rows, config, generator) to a batch."""
    texts: Callable[[Any], Sequence[str]]
    """All texts of an example, for a vocabulary that is trained on them."""
    tokens: Callable[[Any], int] = lambda feature: len(feature.tokens.ids)
    """How long a row must be for a feature."""
    per_row: Callable[[TaskConfig], int] = lambda config: 1
    """How many features stand in one row."""
    for_evaluation: Callable[[TaskConfig], TaskConfig] = lambda config: config
    """The config under which examples are evaluated and predicted."""
    predict: Callable[[Sequence[Any], Sequence[Any], Any, TaskConfig, Labels], list[Prediction]]
    """(examples, features, outputs, config, labels) to one prediction per example."""
    score: Callable[[Sequence[Any], Sequence[Prediction], Labels], dict[str, float]]
    """(labelled examples, predictions, labels) to named numbers, the usual first one first."""
    baseline: Callable[[Sequence[Any], Sequence[Any], Labels], dict[str, float]] | None = None
    """(training examples, labelled examples, labels) to the scores of the commonest answer."""


def _none(examples: Sequence[Any], config: TaskConfig) -> Labels:
    return ()


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            name="classification",
            read=sentences.read_sentences,
            labels=sentences.class_labels,
            features=lambda v, x, n, c, names: sf.sentence_features(v, x, n, names),
            batch=lambda v, f, n, rows, c, g: sf.sentence_batch(f, n, rows),
            texts=lambda x: x.texts,
            predict=sentences.predict_classes,
            score=sentences.score_classes,
            baseline=sentences.class_baseline,
        ),
        Family(
            name="regression",
            read=sentences.read_sentences,
            labels=_none,
            features=lambda v, x, n, c, names: sf.sentence_features(v, x, n, None),
            batch=lambda v, f, n, rows, c, g: sf.sentence_batch(f, n, rows, scores=True),
            texts=lambda x: x.texts,
            predict=sentences.predict_scores,
            score=sentences.score_scores,
            baseline=sentences.score_baseline,
        ),
        Family(
            name="choice",
            read=questions.read_choices,
            labels=_none,
            features=lambda v, x, n, c, names: sf.choice_features(v, x, n, c.qa_length),
            batch=lambda v, f, n, rows, c, g: sf.choice_batch(f, c.choices, n, rows),
            texts=lambda x: (x.context, *x.endings),
            tokens=lambda f: max(len(choice.ids) for choice in f.choices),
            predict=questions.predict_choices,
            score=questions.score_choices,
            baseline=questions.choice_baseline,
        ),
        Family(
            name="squad-v1",
            read=questions.read_squad,
            labels=_none,
            features=questions.span_features,
            batch=lambda v, f, n, rows, c, g: qf.span_batch(f, n, rows),
            texts=lambda x: (x.question, x.context),
            predict=questions.predict_v1,
            score=questions.score_v1,
        ),
        Family(
            name="squad-v2",
            read=questions.read_squad,
            labels=_none,
            features=questions.span_features,
            batch=lambda v, f, n, rows, c, g: qf.span_batch(f, n, rows),
            texts=lambda x: (x.question, x.context),
            predict=questions.predict_v2,
            score=questions.score_v2,
            baseline=questions.nothing_baseline,
        ),
        Family(
            name="tagging",
            read=sentences.read_tags,
            labels=lambda x, c: c.labels or formats_tags.tag_names(list(x)),
            features=lambda v, x, n, c, names: sf.tag_features(v, x, n, names),
            batch=lambda v, f, n, rows, c, g: sf.tag_batch(f, n, rows),
            texts=lambda x: (" ".join(x.words),),
            predict=sentences.predict_tags,
            score=sentences.score_tags,
        ),
        Family(
            name="embedding",
            read=sentences.read_pairs,
            labels=_none,
            features=lambda v, x, n, c, names: sf.pair_features(v, x, n),
            batch=lambda v, f, n, rows, c, g: sf.pair_batch(f, c.group, n, rows),
            texts=lambda x: x.texts,
            tokens=lambda f: max(len(f.first.ids), len(f.second.ids)),
            per_row=lambda c: c.group,
            for_evaluation=lambda c: replace(c, group=1),
            predict=sentences.predict_pairs,
            score=sentences.score_pairs,
        ),
        Family(
            name="generation",
            read=sentences.read_targets,
            labels=_none,
            features=lambda v, x, n, c, names: canvases.canvas_features(v, x, n, c.canvas),
            batch=lambda v, f, n, rows, c, g: canvases.canvas_batch(
                v, f, n, rows, g, full_share=c.full_share, end_weight=c.end_weight
            ),
            texts=lambda x: (*x.source, x.target),
            tokens=lambda f: len(f.source) + len(f.canvas),
            predict=sentences.predict_texts,
            score=sentences.score_texts,
        ),
    )
}
