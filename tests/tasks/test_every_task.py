"""Every task: from examples to a finite loss, gradient, outputs, predictions and scores."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax.config import ComputeConfig, Config, ModelConfig
from albert_jax.errors import ConfigError
from albert_jax.model.dropout import row_keys
from albert_jax.model.init import init_params
from albert_jax.objectives import loss_terms
from albert_jax.tasks import registry
from albert_jax.tasks.generation import SourceTarget
from albert_jax.tasks.question_answering import SquadV2, SquadV2Config
from albert_jax.tasks.sentence_embedding import SentenceEmbedding, SentenceEmbeddingConfig
from albert_jax.tasks.support.choice_files import ChoiceExample
from albert_jax.tasks.support.columns import TextExample
from albert_jax.tasks.support.encoder import Encoder, init_head
from albert_jax.tasks.support.prediction import Sampling
from albert_jax.tasks.support.rows import BatchSpec
from albert_jax.tasks.support.squad_files import Answer, Question
from albert_jax.tasks.token_classification import TaggedExample
from tests.tasks.word_vocabulary import Words

WORDS = Words("a b c d e f g h")
MODEL = ModelConfig(
    vocab_size=WORDS.size,
    embedding_size=8,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=16,
    hidden_dropout_prob=0.1,
)
ENCODER = Encoder(MODEL, ComputeConfig(dtype="float32"))
LENGTH = 12
TEXTS = [TextExample(f"f:{i}", ("a b", "c"), "no" if i else "yes") for i in range(3)]
QUESTION = Question("f", "q0", "a", "b c d e", (Answer("c d", 2),))
EXAMPLES = {
    "classification": TEXTS,
    "regression": [TextExample(f"f:{i}", ("a b",), f"{i}.5") for i in range(3)],
    "multiple-choice": [
        ChoiceExample(f"f:{i}", "a b c", ("d", "e", "f")[: 2 + i % 2], i % 2) for i in range(3)
    ],
    "squad-v1": [dataclasses.replace(QUESTION, id=f"q{i}") for i in range(3)],
    "squad-v2": [QUESTION, Question("f", "q1", "a", "b c d e f g h a b c d e f", ())],
    "token-classification": [TaggedExample(f"f:{i}", ("a", "b"), ("O", "B-X")) for i in range(3)],
    "sentence-embedding": [TextExample(f"f:{i}", ("a b", "c d"), str(i)) for i in range(3)],
    "generation": [SourceTarget(f"f:{i}", ("a b",), "c d") for i in range(3)],
}
SQUAD = {"max_query_length": 2, "doc_stride": 2}
SETTINGS = {
    "multiple-choice": {"max_choices": 3, "max_qa_length": 4, "pooling": "cls"},
    "squad-v1": SQUAD,
    "squad-v2": SQUAD | {"start_n_top": 3, "end_n_top": 2},
    "sentence-embedding": {"pairs_per_row": 2},
    "generation": {"max_target_length": 5},
}


def test_every_task_is_tested_here() -> None:
    assert set(registry.names()) == set(EXAMPLES)


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_task_from_examples_to_scores(name: str) -> None:
    if name == "generation":
        pytest.importorskip("sacrebleu", reason="scores of generation need sacrebleu")
    examples = EXAMPLES[name]
    settings = registry.get(name).config_class(**SETTINGS.get(name, {}))
    task = registry.create(settings).resolve(examples, examples)
    Config(task=task.config).validate()
    features = task.featurize(WORDS, examples, LENGTH)
    rows = -(-len(features) // task.features_per_row) + 1
    batch = task.collate(features, BatchSpec(WORDS, LENGTH, rows))
    params = init_params(MODEL, 0)
    shapes = task.head_shapes(MODEL.hidden_size)
    params["head"] = init_head(shapes, 0, MODEL.initializer_range)
    names = loss_terms.weight_names(batch)
    keys = row_keys(0, 0, jnp.arange(rows))

    def value(params, batch, dropout):
        parts = task.loss(ENCODER.bind(params, dropout), batch)
        assert {part.weights for part in parts.terms.values()} <= set(names)
        return loss_terms.mean(parts.terms, {n: jnp.sum(batch[n]) for n in names})

    run = jax.jit(jax.value_and_grad(value), compiler_options={"xla_backend_optimization_level": 0})
    plain, grads = run(params, batch, keys)
    assert np.isfinite(plain) and plain > 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    trained = grads["head"] if shapes else grads["embeddings"]
    assert sum(float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(trained)) > 0
    assert run(params, batch, row_keys(0, 1, jnp.arange(rows)))[0] != plain

    # The tokens of a padding row have no weight, so that they change nothing.
    mixed = {n: np.array(a) for n, a in batch.items()}
    mixed["input_ids"][-1] = 7
    np.testing.assert_allclose(run(params, mixed, keys)[0], plain, rtol=1e-6)

    task = task.for_prediction()
    outputs = jax.jit(lambda params, batch: task.outputs(ENCODER.bind(params), batch))
    spec = BatchSpec(WORDS, LENGTH, len(features))
    results = task.forward(features, functools.partial(outputs, params), spec, Sampling())
    stacked = (
        tuple(np.stack(column) for column in zip(*results, strict=True))
        if isinstance(results[0], tuple)
        else results
    )
    predictions = task.predict(examples, features, stacked)
    assert len(predictions) == len(examples)
    scores = task.score(examples, predictions)
    assert set(task.config.metrics) <= set(scores)
    assert all(np.isfinite(score) for score in scores.values())
    if task.has_baseline:
        assert set(task.baseline(examples, examples)) & set(scores)
    if name == "squad-v2":
        with pytest.raises(ConfigError, match="Transformers has no class"):
            task.transformers_class()
    else:
        assert task.transformers_class().name.startswith("Albert")
    assert task.graph_outputs(MODEL) and task.card_lines()


def test_settings_of_another_task_are_refused() -> None:
    with pytest.raises(ConfigError, match="takes a ClassificationConfig, not a SquadV2Config"):
        registry.create(SquadV2Config(name="classification"))


def test_unknown_task() -> None:
    with pytest.raises(ConfigError, match="unknown task 'translate'; tasks: classification"):
        registry.get("translate")
    with pytest.raises(ConfigError, match="did you mean multiple-choice"):
        registry.get("choice")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("multiple-choice", {"max_choices": 1}),
        ("squad-v1", {"doc_stride": 0}),
        ("classification", {"classifier_dropout_prob": 1.5}),
        ("classification", {"labels": ("a", "a")}),
        ("regression", {"text_columns": ("a", "b", "c")}),
        ("squad-v2", {"start_n_top": 0}),
        ("sentence-embedding", {"pairs_per_row": 0}),
    ],
)
def test_settings_are_checked(name: str, change: dict) -> None:
    task = registry.get(name).config_class(**change)
    with pytest.raises(ConfigError, match=f"task.{next(iter(change))}"):
        Config(task=task).validate()


def test_contrastive_loss_compares_texts_of_one_row_only() -> None:
    task = SentenceEmbedding(SentenceEmbeddingConfig(pairs_per_row=2))
    texts = (("a b", "a c"), ("d", "e"), ("f", "g"), ("h", "h"))
    features = task.featurize(WORDS, [TextExample("f", pair) for pair in texts], 8)
    params = init_params(MODEL, 0) | {"head": {}}

    def total(chosen) -> float:
        batch = task.collate(chosen, BatchSpec(WORDS, 8, -(-len(chosen) // 2)))
        terms = task.loss(ENCODER.bind(params), batch).terms
        return float(terms["pair"].total)

    both = total(features)
    assert both == pytest.approx(total(features[:2]) + total(features[2:]), rel=1e-5)
    assert total(features[:3]) == pytest.approx(total(features[:2]), rel=1e-5)


def test_heads_start_alike_for_a_seed() -> None:
    shapes = SquadV2(SquadV2Config()).head_shapes(8)
    first, again, other = (init_head(shapes, seed, 0.02) for seed in (3, 3, 4))
    kernel = first["end"]["dense"]["kernel"]
    assert (kernel == again["end"]["dense"]["kernel"]).all()
    assert (kernel != other["end"]["dense"]["kernel"]).any()
    assert np.abs(kernel).max() <= 0.04 + 1e-6
    assert (first["end"]["layer_norm"]["scale"] == 1).all()
    assert "bias" not in first["answer"]["output"]
