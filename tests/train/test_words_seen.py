"""Checkpoints at numbers of words: the count, the steps, what is kept, and the folders written."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from albert_jax import cli
from albert_jax.checkpoint.manager import Checkpoints
from albert_jax.config import (
    ComputeConfig,
    Config,
    DataConfig,
    OptimizerConfig,
    PhaseConfig,
    RunConfig,
)
from albert_jax.data.batches.builder import BatchBuilder
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.errors import CheckpointError, ConfigError
from albert_jax.export import babylm
from albert_jax.train import pretraining, words_seen
from tests import tiny_models

pytestmark = pytest.mark.thorough

PHASE = PhaseConfig(steps=4, sequence_length=32, batch_size=4)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return tiny_models.prepared(tmp_path_factory.mktemp("data"))


def config(data: str, *marks: int) -> Config:
    return Config(
        model=tiny_models.MODEL,
        data=DataConfig(prepared=(data,)),
        phases=(PHASE, dataclasses.replace(PHASE, batch_size=8)),
        optimizer=OptimizerConfig(warmup_steps=1),
        compute=ComputeConfig(dtype="float32"),
        run=RunConfig(
            save_at_words=marks, save_steps=100, save_total_limit=1, eval_steps=0,
            max_eval_samples=4, logging_steps=4,
        ),
    )  # fmt: skip


def builders(data: str, wanted: Config) -> list[BatchBuilder]:
    corpus = Corpus.open(data)
    return [
        BatchBuilder([corpus], corpus.vocabulary(), phase, seed=0, phase_index=i)
        for i, phase in enumerate(wanted.phases)
    ]


def test_words_are_those_between_spaces() -> None:
    vocabulary, texts = tiny_models.vocabulary(), tiny_models.SENTENCES
    begins = words_seen.word_beginnings(vocabulary)
    found = [int(begins[ids].sum()) for ids in vocabulary.encode(list(texts))]
    assert found == [len(text.split()) for text in texts]


def test_words_of_rows_are_counted_as_they_were_before_the_masks(data) -> None:
    """The same rows with and without masks, and later steps as the mean of the counted ones."""
    corpus, none = Corpus.open(data), dataclasses.replace(PHASE.objective, mask_rate=0.01)
    begins = words_seen.word_beginnings(corpus.vocabulary())
    masked, plain = (
        BatchBuilder([corpus], corpus.vocabulary(), phase, seed=0, phase_index=0)
        for phase in (PHASE, dataclasses.replace(PHASE, objective=none))
    )
    counted = words_seen.words_per_step(masked, begins)
    assert counted.tolist() == words_seen.words_per_step(plain, begins).tolist()
    batch = masked.batch(0, np.arange(4))
    assert 0 < begins[batch["input_ids"]].sum() < counted[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words_seen, "COUNTED_ROWS", 7)
        assert words_seen.words_per_step(masked, begins).tolist() == [
            counted[0], counted[1], *[counted[:2].mean()] * 2
        ]  # fmt: skip


def test_a_mark_is_the_first_step_with_as_many_words(data) -> None:
    begins = words_seen.word_beginnings(tiny_models.vocabulary())
    made = builders(data, config(data))
    each = np.concatenate([words_seen.words_per_step(builder, begins) for builder in made])
    seen = np.cumsum(each).astype(int).tolist()

    def steps(*marks: int) -> dict:
        return words_seen.steps_at_words(config(data, *marks), made, tiny_models.vocabulary())

    assert steps() == {}
    assert steps(1, seen[3], seen[3] + 1, seen[-1]) == {
        1: {"words_milestone": 1, "words_seen": seen[0]},
        4: {"words_milestone": seen[3], "words_seen": seen[3]},
        5: {"words_milestone": seen[3] + 1, "words_seen": seen[4]},
        8: {"words_milestone": seen[-1], "words_seen": seen[-1]},
    }
    with pytest.raises(ConfigError, match=f"has {seen[-1] + 1}, but the run sees {seen[-1]} words"):
        steps(1, seen[-1] + 1)
    with pytest.raises(ConfigError, match="two numbers for step 1"):
        steps(1, 2)
    with pytest.raises(ConfigError, match="give numbers > 0"):
        config(data, 0).validate()


def test_marked_checkpoints_are_kept_and_written_for_transformers(data, tmp_path, capsys) -> None:
    run, out = str(tmp_path / "run"), str(tmp_path / "submission")
    with pytest.raises(ConfigError, match="9,999,999"):
        pretraining.run(config(data, 9_999_999), run)
    assert not (tmp_path / "run" / "config.toml").exists()
    pretraining.run(config(data, 1, 300), run)
    checkpoints = Checkpoints(run, read_only=True)
    steps = checkpoints.steps()
    marks = [checkpoints.metrics(step).get("words_milestone") for step in steps]
    checkpoints.close()
    assert steps[0] == 1 and steps[-1] == 8 and marks == [1, 300, None]
    assert cli.main(["export", run, "--to", "babylm", "--out", out]) == 0, capsys.readouterr().err
    assert f"{out}/chck_1e-06M: step 1, " in capsys.readouterr().out
    names = sorted(path.name for path in (tmp_path / "submission").iterdir())
    assert names == ["chck_0.0003M", "chck_1e-06M", "main"]
    for name in names:
        written = json.loads((tmp_path / "submission" / name / "config.json").read_text())
        assert written["architectures"] == ["AlbertForMaskedLM"]
    assert cli.main(["export", run, "--to", "babylm", "--step", "best", "--out", out + "2"]) == 2
    assert cli.main(["export", data, "--to", "babylm", "--out", out + "2"]) == 4
    assert not Path(out + "2").exists()


def test_names_are_those_of_the_benchmark() -> None:
    assert [babylm.name_of(n) for n in (1e6, 1e7, 1e8, 2.5e6)] == [
        "chck_1M", "chck_10M", "chck_100M", "chck_2.5M"
    ]  # fmt: skip


def test_a_run_without_marks_is_told(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="not a run folder"):
        babylm.export(str(tmp_path), str(tmp_path / "out"))
