"""Weights of one structure as the start of another."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from albert_jax.config import ComputeConfig, ModelConfig
from albert_jax.data.vocabularies.id_range import IdRange
from albert_jax.data.vocabularies.sentencepiece import SentencePiece
from albert_jax.errors import CheckpointError, ConfigError
from albert_jax.export.export import export
from albert_jax.model import albert
from albert_jax.model.init import init_params
from albert_jax.model_io import warm_start
from albert_jax.model_io.weights import Weights
from tests import tiny_models
from tests.model_io.structures import pretrained, same, tiny, weights

COMPUTE = ComputeConfig(dtype="float32", attention="xla")


def _loaded(config: ModelConfig, params: dict, vocabulary=None) -> Weights:
    return Weights(config=config, params=params, format="native", vocabulary=vocabulary)


def _hidden(params, config: ModelConfig, num_layers=None) -> np.ndarray:
    ids = np.random.default_rng(0).integers(5, 64, (2, 10)).astype(np.int32)
    batch = {
        "input_ids": ids,
        "token_type_ids": np.zeros_like(ids),
        "segment_ids": np.ones_like(ids),
        "positions": np.tile(np.arange(10, dtype=np.int32), (2, 1)),
    }
    return np.asarray(albert.encode(params, config, batch, compute=COMPUTE, num_layers=num_layers))


@pytest.mark.parametrize("mode", ["attention", "ffn", "none"])
@pytest.mark.parametrize("groups", [1, 2])
def test_untying_changes_nothing_that_is_computed(mode, groups):
    shared = tiny(num_hidden_layers=4, num_hidden_groups=groups, inner_group_num=2)
    params = weights(shared)
    untied = dataclasses.replace(shared, sharing=mode)
    found = warm_start.regroup(params, shared, untied)
    assert np.array_equal(_hidden(found, untied), _hidden(params, shared))
    assert same(warm_start.regroup(found, untied, shared), params)


def test_deeper_from_shallower():
    shallow, deep = tiny(num_hidden_layers=2), tiny(num_hidden_layers=6)
    params = weights(shallow)
    found = warm_start.fit(_loaded(shallow, params), deep, None, seed=0)
    assert same(found, params)
    assert np.array_equal(_hidden(found, deep), _hidden(params, shallow, num_layers=6))
    own = dataclasses.replace(shallow, sharing="none")
    taller = dataclasses.replace(deep, sharing="none")
    params = weights(own)
    found = warm_start.fit(_loaded(own, params), taller, None, seed=0)
    bias = params["encoder"]["attention"]["query"]["bias"]
    stacked = found["encoder"]["attention"]["query"]["bias"]
    assert [int(np.flatnonzero((bias == row).all(1))[0]) for row in stacked] == [0, 0, 0, 1, 1, 1]


def test_missing_heads_and_longer_positions_are_drawn():
    old, new = tiny(), tiny(max_position_embeddings=40)
    params = weights(old)
    body = {k: v for k, v in params.items() if k in ("embeddings", "encoder")}
    found = warm_start.fit(_loaded(old, body), new, None, seed=3)
    fresh = init_params(new, 3)
    assert same(found["pooler"], fresh["pooler"]) and same(found["mlm_head"], fresh["mlm_head"])
    table = found["embeddings"]["position_embeddings"]["embedding"]
    assert np.array_equal(table[:32], params["embeddings"]["position_embeddings"]["embedding"])
    assert np.array_equal(table[32:], fresh["embeddings"]["position_embeddings"]["embedding"][32:])


def test_another_width_is_refused():
    for change in ({"hidden_size": 32}, {"num_attention_heads": 4}, {"hidden_act": "relu"}):
        (name,) = change
        with pytest.raises(CheckpointError, match=f"has {name} "):
            warm_start.fit(_loaded(tiny(), weights(tiny())), tiny(**change), None, seed=0)
    with pytest.raises(ConfigError, match="comes without its vocabulary"):
        warm_start.fit(_loaded(tiny(), weights(tiny())), tiny(vocab_size=60), None, seed=0)


class _Other(SentencePiece):
    """The fixture's pieces in another order, one of them replaced by a word of several."""

    def __init__(self, known: SentencePiece) -> None:
        self.known = known
        order = [*range(5), *range(known.size - 1, 4, -1)]
        self.names = [known.id_to_token(i) for i in order]
        self.names[-1] = "▁argument" + known.id_to_token(30).removeprefix("▁")
        self.size = known.size
        self.fingerprint = "other"

    def id_to_token(self, id: int) -> str:
        return self.names[id]


def test_a_new_vocabulary_keeps_shared_rows_and_averages_the_others():
    vocabulary = tiny_models.vocabulary()
    config = tiny()
    params = weights(config)
    other = _Other(vocabulary)
    found = warm_start.fit(_loaded(config, params, vocabulary), config, other, seed=0)
    old = params["embeddings"]["word_embeddings"]["embedding"]
    new = found["embeddings"]["word_embeddings"]["embedding"]
    assert np.array_equal(new[:5], old[:5])
    assert np.array_equal(new[5:-1], old[:5:-1])
    ids = vocabulary.encode([other.names[-1].replace("▁", "")])[0]
    assert len(ids) > 1
    assert np.allclose(new[-1], old[ids].mean(0), atol=1e-7)
    assert np.allclose(found["mlm_head"]["bias"][-1], params["mlm_head"]["bias"][ids].mean())
    assert same(found["encoder"], params["encoder"])


def test_ids_without_text_keep_their_sense_in_another_range():
    old = IdRange(6, pad_id=0, cls_id=1, sep_id=2, mask_id=3)
    new = IdRange(8, pad_id=7, cls_id=1, sep_id=2, mask_id=3)
    assert warm_start.matching_ids(old, new) == [[], [1], [2], [3], [4], [5], [], [0]]


def test_start_from_a_directory(tmp_path):
    config = tiny()
    model = pretrained(config)
    export(model, str(tmp_path / "native"), to="native")
    target = dataclasses.replace(config, num_hidden_layers=5)
    found = warm_start.initial_params_from(
        str(tmp_path / "native"), target, model.vocabulary, seed=0
    )
    assert same(found, model.params)
