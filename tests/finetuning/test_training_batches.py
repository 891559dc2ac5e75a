"""Training batches are pure functions of the step; how long they are, and how many make a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albert_jax.config import Config, ModelConfig, OptimizerConfig, PhaseConfig
from albert_jax.errors import DataError
from albert_jax.finetuning import network, run_config
from albert_jax.finetuning.batches import (
    POOL,
    TrainingBatches,
    TrainingFeatures,
    epoch_batches,
    row_lengths,
)
from albert_jax.tasks import registry
from albert_jax.tasks.classification import ClassificationConfig
from albert_jax.tasks.support import prediction
from tests import tiny_models
from tests.finetuning.small_runs import TEXTS


def training_batches(path: Path, phase: PhaseConfig, **task: Any) -> tuple[TrainingBatches, Config]:
    """The batches of a classification table, and the config of the run."""
    settings = ClassificationConfig(train=str(path), labels=("not", "yes"), **task)
    config = Config(model=tiny_models.MODEL, phases=(phase,), task=settings)
    kind = registry.create(settings)
    examples = kind.read_examples(settings.train, labelled=True)
    features = TrainingFeatures(kind, tiny_models.vocabulary(), examples, config)
    return TrainingBatches(features, config), config


def batches_of(
    tmp_path: Path, examples: int, steps: int, **task: Any
) -> tuple[TrainingBatches, Config]:
    """Batches of eight of so many equal examples, with 100 steps of warm-up."""
    path = tmp_path / f"classes-{examples}.tsv"
    path.write_text("sentence\tlabel\n" + "the file\tyes\n" * examples)
    phase = PhaseConfig(steps=steps, sequence_length=16, batch_size=8)
    batches, config = training_batches(path, phase, **task)
    return batches, dataclasses.replace(config, optimizer=OptimizerConfig(warmup_steps=100))


def test_rows_of_a_batch_do_not_depend_on_what_was_made_before(data):
    """So a run may continue at any step, and every host can make its own rows."""
    phase = PhaseConfig(steps=6, sequence_length=32, batch_size=4)
    batches, _ = training_batches(data / "classes.tsv", phase)
    again, _ = training_batches(data / "classes.tsv", phase)
    for step in reversed(range(5)):
        whole = batches.batch(0, step, np.arange(4))
        part = again.batch(0, step, np.array([1, 3]))
        for name, column in whole.items():
            np.testing.assert_array_equal(column[[1, 3]], part[name])
    first, second = batches.batch(0, 0, np.arange(4)), batches.batch(0, 3, np.arange(4))
    assert first["input_ids"].tolist() != second["input_ids"].tolist()  # each epoch has its order


def test_an_epoch_reads_every_example_once(data):
    batches, _ = training_batches(data / "classes.tsv", PhaseConfig(steps=3, batch_size=5))
    epoch = [batches.batch(0, step, np.arange(5)) for step in range(3)]
    assert sorted(batch["example_weights"].sum() for batch in epoch) == [2, 5, 5]
    seen = [
        tuple(row[segments > 0].tolist())
        for batch in epoch
        for row, segments in zip(batch["input_ids"], batch["segment_ids"], strict=True)
        if segments.any()
    ]
    wanted = [tuple(feature.tokens.ids.tolist()) for feature in batches.features.of_phase(0)]
    assert sorted(seen) == sorted(wanted)


def test_rows_of_a_long_run_are_as_long_as_the_batch_needs_in_quarters(tmp_path):
    """With one row per batch, its length is that of its own text, rounded up, and loses nothing."""
    texts = ["the file", " ".join(TEXTS[:3]), " ".join(TEXTS * 4)]
    path = tmp_path / "classes.tsv"
    path.write_text("sentence\tlabel\n" + "".join(f"{text}\tyes\n" for text in texts))
    made, _ = training_batches(path, PhaseConfig(steps=10**7, sequence_length=64, batch_size=1))
    batches = [made.batch(0, step, np.arange(1)) for step in range(3)]
    lengths = sorted(batch["input_ids"].shape[1] for batch in batches)
    assert lengths[0] == 16 and lengths[2] == 64 and set(lengths) <= {16, 32, 48, 64}
    needed = [made.features.task.feature_length(one) for one in made.features.of_phase(0)]
    tokens = [int(np.count_nonzero(batch["segment_ids"])) for batch in batches]
    assert sorted(tokens) == sorted(needed)
    for batch, count in zip(batches, tokens, strict=True):
        assert count > batch["input_ids"].shape[1] - 16


def test_a_run_has_as_many_row_lengths_as_its_steps_pay_for():
    """Each length is a program to compile; the one left out is that of the fewest texts."""
    needed = np.array([10] * 40 + [30] * 40 + [40] * 2 + [50] * 40 + [80])  # 80 is cut to 64.

    def lengths(steps, needed=needed, sequences=32):
        phase = PhaseConfig(steps=steps, sequence_length=64, batch_size=32)
        model = ModelConfig(hidden_size=128, intermediate_size=512)
        return row_lengths(needed, model, phase, sequences)

    assert set(lengths(10)) == {64}
    assert set(lengths(10, np.array([10, 20]))) == {32}
    some = lengths(1000)
    assert set(some) == {16, 32, 64}
    assert (some >= np.minimum(needed, 64)).all()
    assert set(lengths(10**6)) == set(lengths(1000, sequences=32_000)) == {16, 32, 48, 64}


def test_epochs_and_limits_become_steps_and_warm_up_keeps_its_share(tmp_path):
    batches, config = batches_of(tmp_path, 80, 1000, num_train_epochs=2.5)
    complete = run_config.with_steps(config, (), batches.features, None)
    assert (complete.steps, complete.optimizer.warmup_steps) == (25, 2)
    assert run_config.with_steps(complete, (), batches.features, None) == complete
    short = run_config.with_steps(config, (), batches.features, 10)
    assert short.task is not None
    assert (short.steps, short.optimizer.warmup_steps) == (10, 1)
    assert short.task.num_train_epochs == 0


def test_few_examples_have_more_epochs_unless_they_were_asked_for(tmp_path):
    def epochs(examples, asked=3.0, given=()):
        batches, config = batches_of(tmp_path, examples, 1000, num_train_epochs=asked)
        config, line = run_config.with_more_epochs(config, given, batches.features)
        again, nothing = run_config.with_more_epochs(config, given, batches.features)
        assert (again, nothing) == (config, "")
        assert config.task is not None
        return config.task.num_train_epochs, line

    assert epochs(800) == (3.0, "")
    assert epochs(400) == (4.0, "4 epochs (not 3) of 50 steps")
    assert epochs(40) == (10.0, "10 epochs (not 3) of 5 steps")
    assert epochs(40, given=("task.num_train_epochs",)) == (3.0, "")
    assert epochs(40, asked=0.0) == (0.0, "")
    assert epochs(40, asked=20.0) == (20.0, "")


def test_steps_that_were_typed_stand_in_place_of_the_epochs_of_a_preset(tmp_path):
    batches, config = batches_of(tmp_path, 80, 300, num_train_epochs=3.0)

    def completed(*given: str) -> tuple[int, int, int]:
        done, _ = run_config.complete(config, given, batches.features, None)
        return done.steps, done.optimizer.warmup_steps, done.run.logging_steps

    assert completed() == (100, 33, 5)  # Ten epochs of ten steps.
    assert completed("phases.0.steps") == (300, 30, 15)
    assert completed("phases.0.steps", "optimizer.warmup_steps") == (300, 100, 15)
    assert completed("phases.0.steps", "run.logging_steps") == (300, 30, 100)


def test_batches_cover_each_epoch_once() -> None:
    lengths = np.array([16, 32] * 5)
    for epoch in range(2):
        parts = epoch_batches(7, epoch, lengths, 4)
        assert sorted(len(part) for part in parts) == [2, 4, 4]
        assert sorted(np.concatenate(parts).tolist()) == list(range(10))
    (first,), (second,), (other,) = (
        epoch_batches(seed, epoch, np.full(50, 16), 50) for seed, epoch in ((7, 0), (7, 1), (8, 0))
    )
    assert (first != second).any()
    assert (first != other).any()


def test_a_batch_has_texts_of_one_length_and_batches_come_in_any_order() -> None:
    """Only batches at the border of two lengths are mixed, and short texts do not come first."""
    generator = np.random.default_rng(0)
    lengths = generator.choice([16, 32, 48, 64], 2 * POOL * 8)
    batches = epoch_batches(3, 0, lengths, 8)
    mixed = [len(set(lengths[batch])) > 1 for batch in batches]
    assert sum(mixed) <= 2 * 3
    longest = [int(lengths[batch].max()) for batch in batches]
    assert longest[:POOL] != sorted(longest[:POOL])
    assert len({lengths[batch].max() for batch in batches[:POOL]}) > 2


def test_no_examples_are_told(data) -> None:
    batches, _ = training_batches(data / "classes.tsv", PhaseConfig(steps=3, batch_size=5))
    batches.features._examples = ()
    with pytest.raises(DataError, match="no training examples"):
        batches.numbers(0, 0)


def test_examples_of_a_sorted_file_are_taken_from_all_of_it() -> None:
    examples = ["no"] * 50 + ["yes"] * 50
    assert prediction.evenly_spaced(examples, 10) == ["no"] * 5 + ["yes"] * 5
    assert prediction.evenly_spaced(examples, 100) is examples


def test_a_new_network_has_the_fields_that_were_given_even_if_they_are_defaults() -> None:
    default, texts = ModelConfig(), TEXTS * 9
    model, _, _ = network.new_network(default, texts)
    assert model.hidden_size != default.hidden_size
    model, _, _ = network.new_network(default, texts, given=("model.hidden_size",))
    assert model.hidden_size == default.hidden_size
