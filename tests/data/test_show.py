"""Batches as text, and their figures."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from albert_jax import cli, configfile
from albert_jax.config import Config, DataConfig, ModelConfig, PhaseConfig
from albert_jax.data.batches.batch import empty_batch
from albert_jax.data.batches.builder import BatchBuilder
from albert_jax.data.batches.show import LEGEND, distributions, show, statistics
from albert_jax.data.corpus.corpus import Corpus
from tests import tiny_models
from tests.data.made import IdVocabulary

PHASE = PhaseConfig(sequence_length=48, batch_size=64, packing=True)


def test_show_tells_every_mask_and_pair(prepared):
    builder = BatchBuilder([prepared()], IdVocabulary(), PHASE, seed=1, phase_index=0)
    batch = builder.batch(0, np.arange(4))
    text = show(batch, IdVocabulary())
    assert text.count("\nrow ") == 3 and text.startswith("row 0: ")
    assert text.count("[MASK|") == (batch["input_ids"] == 4).sum()
    assert text.count("  sequence ") == batch["segment_ids"].max(1).sum() == text.count("[CLS]")
    predicted = batch["sop_weights"] > 0
    for label, words in ((1, "order swapped"), (0, "order original")):
        assert text.count(words) == (predicted & (batch["sop_labels"] == label)).sum()
    assert predicted.any()
    assert text.endswith(LEGEND) and text.count("Legend") == 1
    values, shares = distributions([batch], IdVocabulary())
    assert values["tokens per sequence"].sum() == values["tokens per row"].sum()
    for name, parts in shares.items():
        assert sum(parts.values()) == pytest.approx(1), name
    found = statistics([batch, builder.batch(1, np.arange(60))], IdVocabulary())
    assert found["rows"] == "64" and "predicted for" in found["sentence order"]


def test_known_rows():
    shape = dataclasses.replace(PHASE, packing=False, sequence_length=16)
    batch = empty_batch(shape, 2)
    batch["input_ids"][0, :8] = [2, 4, 4, 10, 7, 4, 1, 3]
    batch["segment_ids"][0, :8] = 1
    batch["mlm_positions"] = np.array([[1, 2, 4, 5], [0, 0, 0, 0]])
    batch["mlm_labels"] = np.array([[8, 70, 7, 9], [0, 0, 0, 0]])
    batch["mlm_weights"] = np.array([[1.0, 1, 1, 1], [0, 0, 0, 0]], np.float32)
    assert show(batch, IdVocabulary()).splitlines()[:3] == [
        "row 0: 8 of 16 tokens, 4 masked, 1 sequence",
        "  sequence 1: 8 tokens, order not predicted",
        "    A [CLS] [MASK|p8] [MASK|p70] p10 [=p7] [MASK|p9] <unk> [SEP]",
    ]
    assert statistics([batch], IdVocabulary()) == {
        "rows": "1",
        "tokens": "8",
        "padding": "50.00% of all positions",
        "tokens per row": "8.0",
        "tokens per sequence": "8.0",
        "mask rate": "50.00% of the tokens",
        "words per masked run": "1.50",  # a word of two tokens, and two words
        "masked tokens": "75.0% replaced by [MASK], 25.0% kept, 0.0% replaced by a token",
        "unknown tokens": "12.500%",
        "sentence order": "predicted for 0.0% of the sequences: 0.0% original, 0.0% swapped",
    }


def test_rows_of_a_run_are_those_it_trains_on(tmp_path, capsys):
    folder = tiny_models.prepared(tmp_path)
    phase = PhaseConfig(steps=5, sequence_length=16, batch_size=8)
    config = Config(
        seed=5,
        model=ModelConfig(max_position_embeddings=16),
        data=DataConfig(prepared=(folder, folder)),
        phases=(phase, phase),
    )
    (tmp_path / "config.toml").write_text(configfile.dumps(config))
    arguments = ["data", "show", "--config", str(tmp_path), "--step", "9"]
    assert cli.main([*arguments, "--row", "6"]) == 0
    corpora = [Corpus.open(folder)] * 2
    vocabulary = tiny_models.vocabulary()
    builder = BatchBuilder(corpora, vocabulary, phase, seed=5, phase_index=1)
    assert capsys.readouterr().out == show(builder.batch(3, np.array([6, 7])), vocabulary, 6) + "\n"
    assert cli.main([*arguments, "--row", "8"]) == 2
    assert "has 8 rows" in capsys.readouterr().err
    assert cli.main(["data", "show", "--config", str(tmp_path), "--phase", "1"]) == 0
    assert capsys.readouterr().out == show(builder.batch(0, np.arange(4)), vocabulary) + "\n"
    for wrong, message in (
        (["--phase", "0"], "--step 9 is in phase 1"),
        (["--step", "11"], "to 10"),
    ):
        assert cli.main([*arguments, *wrong]) == 2
        assert message in capsys.readouterr().err


def test_stats_name_config_and_phase_and_draw_a_figure(tmp_path, capsys):
    folder, figure = tiny_models.prepared(tmp_path), tmp_path / "rows.svg"
    assert cli.main(["data", "stats", folder, "--batches", "1", "--out", str(figure)]) == 0
    told = capsys.readouterr()
    assert "tiny, phase 0, train: rows of" in told.err and "the default" in told.err
    assert "original" in told.out and "swapped" in told.out
    assert ">swapped<" in figure.read_text() and "tiny, phase 0, train" in figure.read_text()


def test_folders_and_weights_that_do_not_fit_are_refused(tmp_path, capsys):
    assert cli.main(["data", "stats"]) == 2
    assert "names no prepared folders" in capsys.readouterr().err
    config = Config(data=DataConfig(prepared=("a", "b")), phases=(PhaseConfig(mixture=(1, 2)),))
    (tmp_path / "config.toml").write_text(configfile.dumps(config))
    assert cli.main(["data", "show", "one", "--config", str(tmp_path)]) == 2
    assert "2 mixture weights for 1 prepared folders" in capsys.readouterr().err


def test_folders_without_weights_are_mixed_by_size_as_in_a_run(tmp_path, capsys):
    first = tiny_models.prepared(tmp_path)
    (tmp_path / "b").mkdir()
    second = tiny_models.prepared(tmp_path / "b", validation_share=0.5)
    assert cli.main(["data", "show", first, second, "--row", "5"]) == 0
    phase = configfile.load("tiny").phases[0]
    corpora = [Corpus.open(first), Corpus.open(second)]
    builder = BatchBuilder(corpora, tiny_models.vocabulary(), phase, seed=0, phase_index=0)
    rows = builder.batch(0, np.arange(5, 9))
    assert capsys.readouterr().out == show(rows, tiny_models.vocabulary(), 5) + "\n"
