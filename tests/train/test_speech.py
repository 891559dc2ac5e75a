"""A run over phonemes: both losses fall, its scores name words, and what does not fit is refused."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from albert_jax.config import (
    ComputeConfig,
    Config,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PhaseConfig,
    RunConfig,
)
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.data.prepare.plan import PrepareOptions
from albert_jax.data.prepare.prepare import prepare
from albert_jax.data.sources.sources import ReadOptions
from albert_jax.data.vocabularies.symbols import from_spec
from albert_jax.errors import CheckpointError, ConfigError, DataError, Stopped
from albert_jax.evaluation.pretraining import evaluate
from albert_jax.finetuning.network import pretrained_network
from albert_jax.inference import scoring
from albert_jax.inference.fill_mask import fill_mask
from albert_jax.model_io import model as models
from albert_jax.train.pretraining import run
from tests.stopping import stop_after

NOUNS = {"cat": "kˈæt", "dog": "dˈɑɡ", "hen": "hˈɛn", "fish": "fˈɪʃ"}
VERBS = {"sees": "sˈiːz", "hears": "hˈɪɹz", "feeds": "fˈiːdz"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("speech"), np.random.default_rng(0)
    lines = []
    for _ in range(400):
        a, b = rng.choice(list(NOUNS), 2)
        verb = rng.choice(list(VERBS))
        spoken = f"ðə {NOUNS[a]} {VERBS[verb]} ðə {NOUNS[b]}."
        lines.append(f"the {a} {verb} the {b}.\t{spoken}")
    (folder / "text.txt").write_text("\n\n".join(
        "\n".join(lines[i : i + 4]) for i in range(0, 400, 4)), encoding="utf-8")  # fmt: skip
    options = PrepareOptions(
        phonemes="file", sentences="line", min_characters=1, workers=1, validation_share=0.1,
        reading=ReadOptions(), word_limit=8,
    )  # fmt: skip
    prepare([str(folder / "text.txt")], from_spec("plbert"), str(folder / "data"), options)
    return str(folder / "data")


def config(data: str, words: str, **changes) -> Config:
    objective = ObjectiveConfig(
        sentence_order="none", mask_unit="word", mask_rate=0.2, word_prediction=words
    )
    phase = PhaseConfig(
        steps=60, sequence_length=48, batch_size=16, packing=True, objective=objective
    )
    model = ModelConfig(**({
        "vocab_size": 178, "embedding_size": 16, "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 48,
        "initializer_range": 0.1, "word_vocab_size": 16,
    } | changes))  # fmt: skip
    return Config(
        model=model,
        data=DataConfig(prepared=(data,)),
        phases=(phase,),
        optimizer=OptimizerConfig(name="adamw", learning_rate=0.01, warmup_steps=5),
        compute=ComputeConfig(dtype="float32"),
        run=RunConfig(logging_steps=10, eval_steps=0, max_eval_samples=32, save_steps=1000),
    )


@pytest.mark.parametrize("words", ["masked", "all"])
def test_both_losses_fall(data, words, tmp_path):
    run(config(data, words), str(tmp_path / "run"))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    first, *_, last = (row for row in rows if row["kind"] == "train")
    assert last["word_loss"] < 0.85 * first["word_loss"]
    assert last["mlm_loss"] < first["mlm_loss"]
    assert last["word_accuracy"] > (0.4 if words == "all" else 0.2)
    model = models.load(str(tmp_path / "run"))
    scores = evaluate(model)[2]
    assert scores["word_loss"] == pytest.approx(rows[-1]["word_loss"], rel=1e-4)
    assert scores["sop_pairs"] == 0
    if words == "all":
        [[candidates]] = fill_mask(model, ["ðə kˈ[MASK]t sˈiːz ðə dˈɑɡ."], top_k=3)
        assert len(candidates) == 3
        assert all(model.vocabulary.id_to_token(c.id) == c.word != "M" for c in candidates)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(data, tmp_path, monkeypatch):
    """The columns of words and labels are read on from the same place."""
    whole = config(data, "masked")
    short = dataclasses.replace(whole, phases=(dataclasses.replace(whole.phases[0], steps=9),))
    run(short, str(tmp_path / "whole"))
    with monkeypatch.context() as patched:
        stop_after(4, patched.setattr)
        with pytest.raises(Stopped):
            run(short, str(tmp_path / "stopped"))
    run(short, str(tmp_path / "stopped"))
    one, other = (models.load(str(tmp_path / name)) for name in ("whole", "stopped"))
    assert one.step == other.step == 9
    for mine, theirs in zip(
        jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True
    ):
        assert mine.tobytes() == theirs.tobytes()


def test_more_words_than_the_model_has_room_for_are_refused(data, tmp_path):
    assert Corpus.open(data).columns.num_labels == 10
    with pytest.raises(
        ConfigError, match="model.word_vocab_size is 9, but .* has labels of 10 words"
    ):
        run(config(data, "all", word_vocab_size=9), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_what_needs_cls_is_refused(data, tmp_path):
    small = config(data, "masked")
    run(small, str(tmp_path / "run"))
    with pytest.raises(CheckpointError, match=r"has a vocabulary without \[CLS\]"):
        pretrained_network(str(tmp_path / "run"), ModelConfig(), None)
    vocabulary = models.load(str(tmp_path / "run")).vocabulary
    assert scoring.encode_sentences(vocabulary, [], [], 48) == []
    with pytest.raises(DataError, match=r"a vocabulary without \[CLS\] scores no sentences"):
        scoring.encode_sentences(vocabulary, ["ðə"], ["text 1"], 48)
