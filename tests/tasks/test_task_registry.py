"""Every registered task: examples to a finite loss, gradient, outputs, predictions, scores."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from word_vocabulary import Words

from albert_jax.config import ComputeConfig, Config, ModelConfig, PhaseConfig, TaskConfig
from albert_jax.errors import ConfigError
from albert_jax.model.dropout import row_keys
from albert_jax.model.init import init_params
from albert_jax.objectives import loss_terms
from albert_jax.tasks import heads, losses
from albert_jax.tasks.examples import (
    Answer,
    Choices,
    Question,
    Sentences,
    SourceTarget,
    Tagged,
)
from albert_jax.tasks.old_registry import TASKS, task

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
FORWARD = losses.Forward(MODEL, ComputeConfig(dtype="float32"))
EXAMPLES = {
    "classification": [Sentences(f"f:{i}", ("a b", "c"), "no" if i else "yes") for i in range(3)],
    "regression": [Sentences(f"f:{i}", ("a b",), f"{i}.5") for i in range(3)],
    "choice": [Choices(f"f:{i}", "a b c", ("d", "e", "f")[: 2 + i % 2], i % 2) for i in range(3)],
    "squad-v1": [Question("f", f"q{i}", "a", "b c d e", (Answer("c d", 2),)) for i in range(3)],
    "squad-v2": [
        Question("f", "q0", "a", "b c d e", (Answer("c d", 2),)),
        Question("f", "q1", "a", "b c d e f g h a b c d e f", ()),
    ],
    "tagging": [Tagged(f"f:{i}", ("a", "b"), ("O", "B-X")) for i in range(3)],
    "embedding": [Sentences(f"f:{i}", ("a b", "c d"), str(i)) for i in range(3)],
    "generation": [SourceTarget(f"f:{i}", ("a b",), "c d") for i in range(3)],
}


@pytest.mark.parametrize("name", list(TASKS))
def test_task_from_examples_to_scores(name: str) -> None:
    kind, examples = task(name), EXAMPLES[name]
    config = TaskConfig(name=name, choices=3, qa_length=4, query_length=2, stride=2, group=2,
                        canvas=5, beam=(3, 2))  # fmt: skip
    config.validate()
    family = kind.family
    labels = family.labels(examples, config)
    features = family.features(WORDS, examples, 12, config, labels)
    rows = -(-len(features) // family.per_row(config)) + 1
    batch = family.batch(WORDS, features, 12, rows, config, np.random.default_rng(0))
    params = init_params(MODEL, 0)
    params["head"] = kind.new_head(MODEL.hidden_size, labels, 0)
    loss = kind.loss(FORWARD, config)
    names = loss_terms.weight_names(batch)
    keys = row_keys(0, 0, jnp.arange(rows))

    def value(params, batch, dropout):
        parts = loss(params, batch, dropout=dropout, num_layers=None)
        assert {part.weights for part in parts.terms.values()} <= set(names)
        return loss_terms.mean(parts.terms, {n: jnp.sum(batch[n]) for n in names})

    run = jax.jit(jax.value_and_grad(value), compiler_options={"xla_backend_optimization_level": 0})
    plain, grads = run(params, batch, keys)
    leaves = jax.tree.leaves(grads)
    assert np.isfinite(plain) and plain > 0
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    trained = grads["head"] if kind.head != "none" else grads["embeddings"]
    assert sum(float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(trained)) > 0
    assert run(params, batch, row_keys(0, 1, jnp.arange(rows)))[0] != plain

    # A filler row changes nothing: what it holds has no weight.
    mixed = {n: np.array(a) for n, a in batch.items()}
    if "input_ids" in mixed:
        mixed["input_ids"][-1] = 7
    np.testing.assert_allclose(run(params, mixed, keys)[0], plain, rtol=1e-6)

    evaluated = family.for_evaluation(config)
    count = len(features)
    batch = family.batch(WORDS, features, 12, count, evaluated, np.random.default_rng(0))
    outputs = jax.jit(lambda p, b: kind.outputs(FORWARD, p, b, evaluated, None))(params, batch)
    if name == "generation":
        assert outputs.shape == (3, 5, WORDS.size)
        outputs = ["c d", "c", "c d"]
    predictions = family.predict(examples, features, outputs, evaluated, labels)
    assert len(predictions) == len(examples)
    scores = family.score(examples, predictions, labels)
    assert kind.metrics[0] in scores or "retrieval" in scores
    assert all(np.isfinite(score) for score in scores.values())
    if family.baseline:
        baseline = family.baseline(examples, examples, labels)
        assert set(baseline) & set(scores)


def test_unknown_task() -> None:
    with pytest.raises(ConfigError, match="unknown task 'translate': give one of classification"):
        task("translate")


@pytest.mark.parametrize(
    "change",
    [{"choices": 1}, {"stride": 0}, {"head_dropout": 1.5}, {"labels": ("a", "a")},
     {"text_columns": ("a", "b", "c")}, {"beam": (0, 5)}, {"group": 1}],
)  # fmt: skip
def test_task_options_are_checked(change: dict) -> None:
    with pytest.raises(ConfigError, match=f"task.{next(iter(change))}"):
        TaskConfig(**change).validate()


def test_presets_hold_known_fields(root: Path) -> None:
    found = sorted((root / "configs" / "finetune").glob("*.toml"))
    assert len(found) >= 12
    for path in found:
        raw = tomllib.loads(path.read_text())
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.pop("task").items()}
        kind = TaskConfig(**options)
        kind.validate()
        assert set(kind.metrics) <= set(TASKS[kind.name].metrics)
        phases = tuple(PhaseConfig(**phase) for phase in raw.pop("phases"))
        config = Config(phases=phases)
        for section, values in raw.items():
            config = dataclasses.replace(
                config, **{section: dataclasses.replace(getattr(config, section), **values)}
            )
        config.validate()
        assert config.optimizer.warmup_steps < config.steps


def test_contrastive_loss_looks_at_its_own_row_only() -> None:
    kind, config = TASKS["embedding"], TaskConfig(name="embedding", group=2)
    pairs = [
        Sentences("f", texts) for texts in (("a b", "a c"), ("d", "e"), ("f", "g"), ("h", "h"))
    ]
    features = kind.family.features(WORDS, pairs, 8, config, ())
    params = init_params(MODEL, 0) | {"head": {}}
    loss = kind.loss(losses.Forward(MODEL, ComputeConfig(dtype="float32")), config)

    def total(chosen) -> float:
        batch = kind.family.batch(WORDS, chosen, 8, -(-len(chosen) // 2), config, None)
        return float(loss(params, batch, dropout=None, num_layers=None).terms["pair"].total)

    both = total(features)
    assert both == pytest.approx(total(features[:2]) + total(features[2:]), rel=1e-5)
    assert total(features[:3]) == pytest.approx(total(features[:2]), rel=1e-5)


def test_heads_start_alike_for_a_seed() -> None:
    first = heads.init_head("conditioned_span", 8, 1, 3)
    again = heads.init_head("conditioned_span", 8, 1, 3)
    other = heads.init_head("conditioned_span", 8, 1, 4)
    kernel = first["end"]["dense"]["kernel"]
    assert (kernel == again["end"]["dense"]["kernel"]).all()
    assert (kernel != other["end"]["dense"]["kernel"]).any()
    assert np.abs(kernel).max() <= 0.04 + 1e-6
    assert (first["end"]["layer_norm"]["scale"] == 1).all()
    assert "bias" not in first["answer"]["output"]
