"""The table of names: complete, invertible, and strict about what does not belong."""

from __future__ import annotations

import numpy as np
import pytest

from albert_jax.errors import CheckpointError
from albert_jax.model import sharing
from albert_jax.model.albert import abstract_params
from albert_jax.model_io.huggingface import from_huggingface, to_huggingface
from albert_jax.model_io.parameter_conversion import to_format
from albert_jax.model_io.parameter_names import TABLE
from albert_jax.model_io.tf1 import from_original
from albert_jax.tree import flatten
from tests.model_io.structures import STRUCTURES, same, tiny, weights


def to_original(params, config):
    return to_format(params, config, "original")


FORMATS = {
    "original": (to_original, from_original),
    "huggingface": (to_huggingface, from_huggingface),
}


@pytest.mark.parametrize("kind", STRUCTURES)
def test_table_knows_every_parameter(kind):
    config = tiny(**STRUCTURES[kind], word_vocab_size=5)
    paths = {parameter.path for parameter in TABLE}
    if config.embedding_size == config.hidden_size:
        paths -= {"embeddings/projection/kernel", "embeddings/projection/bias"}
    assert flatten(abstract_params(config)).keys() == paths


@pytest.mark.parametrize("kind", STRUCTURES)
@pytest.mark.parametrize("form", FORMATS)
def test_round_trip_is_bit_exact(form, kind):
    config = tiny(**STRUCTURES[kind])
    to, back = FORMATS[form]
    params = weights(config)
    assert same(back(to(params, config), config), params)


def transformers_group(layer: int, layers: int, groups: int) -> int:
    """The group of a layer by modeling_albert.py."""
    return int(layer / (layers / groups))


@pytest.mark.parametrize(("layers", "groups"), [(4, 3), (22, 22)])
def test_each_layer_gets_the_group_by_transformers_rounding(layers, groups):
    config = tiny(
        num_hidden_layers=layers, num_hidden_groups=groups, inner_group_num=2, hidden_size=4,
        num_attention_heads=1,
    )  # fmt: skip
    params = weights(config)
    written = to_huggingface(params, config)
    scale = params["encoder"]["ffn"]["layer_norm"]["scale"]
    for number, chosen in enumerate(sharing.table(config).ffn):
        layer, inner = divmod(number, 2)
        group = transformers_group(layer, layers, groups)
        block = f"albert.encoder.albert_layer_groups.{group}.albert_layers.{inner}"
        assert np.array_equal(written[f"{block}.full_layer_layer_norm.weight"], scale[chosen])
    assert written.keys() == to_huggingface(from_huggingface(written, config), config).keys()


def test_optimizer_slots_and_hub_prefix_are_understood():
    config = tiny()
    params = weights(config)
    stored = {f"module/{k}": v for k, v in to_original(params, config).items()}
    stored |= {f"{k}/adam_m": v for k, v in list(stored.items())} | {"global_step": np.int64(3)}
    assert same(from_original(stored, config), params)


def test_whole_heads_may_be_absent_but_not_parts():
    config = tiny()
    params = weights(config)
    body = {k: v for k, v in params.items() if k in ("embeddings", "encoder")}
    found = from_huggingface(to_huggingface(body, config), config)
    assert same(found, body)
    stored = to_huggingface(params, config)
    del stored["predictions.dense.bias"]
    with pytest.raises(CheckpointError, match=r"predictions\.dense\.bias is missing"):
        from_huggingface(stored, config)


def test_names_without_prefix_and_tied_copies():
    config = tiny()
    params = weights(config)
    stored = to_huggingface(params, config)
    table = stored["albert.embeddings.word_embeddings.weight"]
    stored["predictions.decoder.weight"] = table.copy()
    stored["predictions.decoder.bias"] = stored.pop("predictions.bias")
    stored["albert.embeddings.position_ids"] = np.arange(32)[None]
    assert same(from_huggingface(stored, config), params)
    stored["predictions.decoder.weight"] = table + 1
    with pytest.raises(CheckpointError, match="ALBERT ties them"):
        from_huggingface(stored, config)
    body = {k: v for k, v in params.items() if k in ("embeddings", "encoder", "pooler")}
    bare = {k.removeprefix("albert."): v for k, v in to_huggingface(body, config).items()}
    assert same(from_huggingface(bare, config), body)


@pytest.mark.parametrize("form", FORMATS)
def test_wrong_tensors_are_named(form):
    config = tiny()
    to, back = FORMATS[form]
    stored = to(weights(config), config)
    victim = next(name for name in stored if "ffn" in name and name.endswith(("weight", "kernel")))
    for change, message in (
        (stored[victim].T, "looks transposed"),
        (stored[victim][:-1], "do not belong together"),
    ):
        with pytest.raises(CheckpointError, match=message) as error:
            back(stored | {victim: change}, config)
        assert victim in str(error.value)
    with pytest.raises(CheckpointError, match="stray is not expected"):
        back(stored | {"stray": stored[victim]}, config)
    del stored[victim]
    with pytest.raises(CheckpointError, match="is missing"):
        back(stored, config)


def test_equal_sizes_allow_an_identity_only():
    config = tiny(embedding_size=16)
    stored = to_huggingface(weights(config), config)
    weight = "albert.encoder.embedding_hidden_mapping_in.weight"
    assert np.array_equal(stored[weight], np.eye(16))
    with pytest.raises(CheckpointError, match="not the identity"):
        from_huggingface(stored | {weight: stored[weight] * 2}, config)


def test_copies_that_went_apart_are_not_merged():
    config = tiny(sharing="attention")
    stored = to_huggingface(weights(config), config)
    name = "albert.encoder.albert_layer_groups.1.albert_layers.0.attention.query.bias"
    stored[name] = stored[name] + 1
    with pytest.raises(CheckpointError, match="sharing 'none'"):
        from_huggingface(stored, config)
