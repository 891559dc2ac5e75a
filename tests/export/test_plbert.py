"""The folder of a PL-BERT: what it holds, what is refused, and reading one again."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from albert_jax.data.vocabularies import symbols
from albert_jax.errors import CheckpointError, ConfigError
from albert_jax.export import export as exporting
from albert_jax.export.export import export
from albert_jax.model.init import init_params
from albert_jax.model_io import directories, plbert, safetensors_files
from albert_jax.model_io.warm_start import initial_params_from
from albert_jax.verify import verify
from tests.model_io.structures import pretrained, same, tiny, weights

PUBLISHED = """\
log_dir: "Checkpoint"
batch_size: 192
dataset_params:
    tokenizer: "transfo-xl-wt103"
    vocab_size: 7

model_params:
    vocab_size: 178
    hidden_size: 16
    num_attention_heads: 2 # a comment
    intermediate_size: 24
    max_position_embeddings: 32
    num_hidden_layers: 3
    dropout: 0.1
"""


def speech(table="plbert", **changes):
    vocabulary = symbols.from_spec(table)
    config = tiny(vocab_size=vocabulary.size, **changes)
    return pretrained(config, vocabulary=vocabulary, step=1200)


@pytest.fixture
def folder(tmp_path):
    pytest.importorskip("torch", reason="needs the extra parity (torch)")
    export(speech(), str(tmp_path / "plbert"), to="plbert")
    return tmp_path / "plbert"


def test_it_holds_what_the_programs_look_for(folder):
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    assert names == [
        "config.yml", "conversion.json", "kokoro", "kokoro/bert.pth", "kokoro/config.json",
        "model.safetensors", "step_1200.t7", "symbols.json", "vocabulary.json",
    ]  # fmt: skip
    kokoro = json.loads((folder / "kokoro" / "config.json").read_text())
    assert kokoro["n_token"] == 178 and "vocab_size" not in kokoro["plbert"]
    assert kokoro["vocab"]["ə"] == symbols.NAMED["plbert"]["ə"]
    assert not {"$", "M"} & kokoro["vocab"].keys()


def test_our_own_folder_is_read_back(folder):
    assert all(check.ok for check in verify(str(folder)))
    read = directories.read(str(folder))
    model = speech()
    assert read.format == "plbert" and read.vocabulary is not None
    assert read.vocabulary.fingerprint == model.vocabulary.fingerprint
    assert read.config == model.config
    body = {name: model.params[name] for name in ("embeddings", "encoder", "pooler")}
    assert same(read.params, body)


def test_a_published_one_is_read_from_safetensors(tmp_path):
    """With the names of the files of torch, and heads that we do not have."""
    config = tiny(vocab_size=178, embedding_size=128)
    params = weights(config)
    tensors = {plbert.PREFIX + name: x for name, x in plbert.body(params, config).items()}
    tensors |= {
        "module.encoder.embeddings.position_ids": np.arange(32)[None],
        "module.mask_predictor.weight": np.ones((178, 16), np.float32),
        "module.word_predictor.bias": np.ones(99, np.float32),
    }
    (tmp_path / "config.yml").write_text(PUBLISHED)
    safetensors_files.write(tmp_path / "model.safetensors", tensors)
    read = directories.read(str(tmp_path), vocabulary="plbert")
    assert read.config == config and read.vocabulary is not None
    assert read.vocabulary.id_to_token(16) == " "
    assert same(read.params, {n: params[n] for n in ("embeddings", "encoder", "pooler")})


def test_a_folder_with_torch_files_alone_gets_the_recipe(tmp_path):
    (tmp_path / "config.yml").write_text(PUBLISHED)
    (tmp_path / "step_9.t7").write_bytes(b"\x80\x02")
    with pytest.raises(CheckpointError, match=r"0 \.safetensors files.*save_file .*docs/speech.md"):
        directories.read(str(tmp_path))


def test_a_config_without_a_structure_is_refused(tmp_path):
    (tmp_path / "config.yml").write_text("dataset_params:\n  vocab_size: 178\n")
    with pytest.raises(CheckpointError, match="no mapping model_params"):
        directories.read(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_hidden_groups": 3}, "num_hidden_groups 3"),
        ({"inner_group_num": 2}, "inner_group_num 2"),
        ({"sharing": "attention"}, "sharing attention"),
        ({"hidden_act": "relu"}, "hidden_act relu"),
        ({"type_vocab_size": 3}, "type_vocab_size 3"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_structure_that_the_programs_would_not_build_is_refused(changes, named, tmp_path):
    pytest.importorskip("torch", reason="needs the extra parity (torch)")
    with pytest.raises(CheckpointError, match=f"{named}, but a program that reads config.yml"):
        export(speech(**changes), str(tmp_path / "out"), to="plbert")
    assert not (tmp_path / "out").exists()


def test_other_vocabularies_heads_and_a_missing_torch_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="--head mlm: --to plbert always holds no head"):
        exporting.check("plbert", "mlm", "float32")
    monkeypatch.setattr(exporting.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs the package torch: pip install torch"):
        exporting.check("plbert", None, "float32")
    monkeypatch.undo()
    pytest.importorskip("torch", reason="needs the extra parity (torch)")
    with pytest.raises(CheckpointError, match="writes models over symbols"):
        export(pretrained(tiny()), str(tmp_path / "out"), to="plbert")


def test_another_language_starts_from_the_body(folder):
    """Symbols of both tables keep their vectors, new ones and the heads start from nothing."""
    new = symbols.from_spec("plbert+ʥ")
    config = dataclasses.replace(speech().config, vocab_size=new.size, word_vocab_size=7)
    started = initial_params_from(str(folder), config, new, seed=5)
    body, fresh = speech().params, init_params(config, 5)
    assert same(started["encoder"], body["encoder"])
    table = started["embeddings"]["word_embeddings"]["embedding"]
    named = sorted(id for id in symbols.NAMED["plbert"].values())
    old = body["embeddings"]["word_embeddings"]["embedding"]
    assert np.array_equal(table[named], old[named])
    expected = fresh["embeddings"]["word_embeddings"]["embedding"][178]
    assert np.array_equal(table[178], expected)
    for head in ("mlm_head", "word_head"):
        assert same(started[head], fresh[head])


def test_a_head_of_words_survives_our_own_formats_alone(tmp_path):
    config = tiny(vocab_size=178, word_vocab_size=7)
    model = pretrained(config, vocabulary=symbols.from_spec("plbert"))
    export(model, str(tmp_path / "ours"), to="native")
    assert same(directories.read(str(tmp_path / "ours")).params, model.params)
    export(model, str(tmp_path / "hub"))
    read = directories.read(str(tmp_path / "hub"))
    assert read.config.word_vocab_size == 0 and "word_head" not in read.params
    raw = json.loads((tmp_path / "hub" / "config.json").read_text())
    assert "word_vocab_size" not in raw and "bos_token_id" not in raw
    assert (tmp_path / "hub" / "symbols.json").is_file()
