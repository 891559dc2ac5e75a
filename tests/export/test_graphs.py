"""The network as one graph: StableHLO here; ONNX in tests/parity, where it can be run."""

from __future__ import annotations

import importlib.util
import json

import jax
import numpy as np
import pytest

from albert_jax import api, cli
from albert_jax.errors import CheckpointError
from albert_jax.export import graph_folder, programs, quantization, stablehlo
from albert_jax.export.export import export
from albert_jax.model import albert
from albert_jax.model_io.model import Model
from albert_jax.tree import flatten
from tests import tiny_models
from tests.model_io.structures import finetuned, pretrained, tiny, weights


def inputs_of(program: programs.Program, vocab: int, seed: int, rows: int, length: int) -> dict:
    """Rows of unequal length, as Transformers' tokenizers would give them."""
    draw = np.random.default_rng(seed)
    sizes = {"batch": rows, "choices": 3, "length": length}
    shape = tuple(sizes[str(axis)] for axis in program.inputs["input_ids"])
    mask = np.arange(length) < draw.integers(min(6, length), length + 1, (*shape[:-1], 1))
    mask = np.asarray(mask, np.int32)
    found = {
        "input_ids": draw.integers(0, vocab, shape).astype(np.int32) * mask,
        "token_type_ids": draw.integers(0, 2, shape).astype(np.int32) * mask,
        "attention_mask": mask,
    }
    if "p_mask" in program.inputs:
        found["p_mask"] = (1 - mask).astype(np.float32)
    if "choices" in program.inputs["input_ids"]:
        for value in found.values():
            value[0, -1] = 0  # a question with fewer choices
    return found


def of_kind(kind: str, config, seed: int = 0, **settings) -> tuple[Model, str | None]:
    """(model, head to export) of a kind of program."""
    if kind in ("pretraining", "mlm", "base"):
        return pretrained(config, weights(config, seed)), kind
    return finetuned(kind, config, seed, **settings), None


@pytest.mark.parametrize(
    "kind", ["pretraining", "multiple-choice", "squad-v2", "sentence-embedding"]
)
def test_a_stablehlo_program_takes_any_batch_and_length(kind):
    model, head = of_kind(kind, tiny())
    program, params = programs.program(model, head), model.params
    content = stablehlo.serialize(program, model, {})
    again = jax.export.deserialize(bytearray(content))
    assert again.platforms == stablehlo.PLATFORMS
    for rows, length in ((1, 32), (3, 9)):
        inputs = inputs_of(program, 64, length, rows, length)
        expected = jax.jit(program.call)(params, inputs)
        found = again.call(inputs)
        assert list(found) == list(expected) and set(found) == set(program.outputs)
        for name, axes in program.outputs.items():
            sizes = {"batch": rows, "choices": 3, "length": length}
            assert found[name].shape == tuple(sizes.get(axis, axis) for axis in axes)
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="length|shapes"):
        again.call(inputs_of(program, 64, 0, 1, 33))


def test_a_program_holds_shared_weights_once():
    sizes = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 12}
    model = pretrained(tiny(vocab_size=500, **sizes))
    program = programs.program(model, None)
    content = stablehlo.serialize(program, model, {})
    size = sum(leaf.size * 4 for leaf in jax.tree.leaves(model.params))
    assert size < len(content) <= 1.1 * size


def test_the_folder_of_a_graph(tmp_path, capsys):
    source = tiny_models.directory(tmp_path)
    assert cli.main(["export", source, "--to", "stablehlo", "--out", str(tmp_path / "x")]) == 0
    printed = capsys.readouterr().out
    assert "stablehlo graph of pretraining" in printed
    names = {path.name for path in (tmp_path / "x").iterdir()}
    assert {
        "model.stablehlo",
        "config.json",
        "tokenizer.json",
        "README.md",
        "conversion.json",
    } <= names
    record = json.loads((tmp_path / "x" / "conversion.json").read_text())
    assert record["max_difference"] < 1e-5
    promise = f"written by jax {jax.__version__}: it loads with that and with releases of the six "
    assert record["compatibility"].startswith(promise) and promise in printed
    card = (tmp_path / "x" / "README.md").read_text()
    assert f"# written by jax {jax.__version__}\n# it loads with that and with" in card
    assert record["outputs"]["prediction_logits"] == ["batch", "length", 64]
    again = jax.export.deserialize(bytearray((tmp_path / "x" / "model.stablehlo").read_bytes()))
    model = api.load(source)
    rows = api.rows(model.vocabulary, ["the file is found"], length=12)
    found = again.call(
        {"input_ids": rows["input_ids"], "token_type_ids": rows["token_type_ids"],
         "attention_mask": rows["segment_ids"]}
    )  # fmt: skip
    hidden = api.encode(model.params, model.config, rows)
    states = api.pooler_output(model.params, model.config, hidden, rows)
    ours = api.sop_logits(model.params, model.config, states)
    np.testing.assert_allclose(found["sop_logits"], ours[:, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "exit_code", "parts"),
    [
        (["--to", "stablehlo", "--dtype", "int8"], 2, ["--dtype int8", "float32", "--to onnx"]),
        (["--dtype", "int8"], 2, ["--dtype int8", "float32 or bfloat16", "--to onnx"]),
        (
            ["--to", "onnx", "--dtype", "bfloat16"],
            2,
            ["bfloat16", "float32 or int8", "huggingface"],
        ),
        (["--to", "tf1"], 2, ["--to"]),
        (["--to", "native", "--head", "base"], 2, ["--head base", "--to native"]),
        (["--to", "onxx"], 2, ["--to"]),
        (["--to", "onnx"], 2, ["package onnx: pip install onnx"]),
        (["--to", "stablehlo"], 2, ["package flatbuffers: pip install flatbuffers"]),
    ],
    ids=str,
)
def test_combinations_that_do_not_exist(options, exit_code, parts, tmp_path, capsys, monkeypatch):
    installed = importlib.util.find_spec
    missing = {"onnx", "flatbuffers"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in missing else installed(name)
    )
    code = cli.main(["export", str(tmp_path), "--out", str(tmp_path / "x"), *options])
    last = capsys.readouterr().err.rstrip("\n").splitlines()[-1]
    assert code == exit_code and last.startswith("albert-jax: ")
    for part in parts:
        assert part in last
    assert not list(tmp_path.iterdir())


def test_a_head_that_the_weights_lack(tmp_path, monkeypatch):
    model = finetuned("token-classification", tiny())
    with pytest.raises(CheckpointError, match="no mlm_head, which mlm needs"):
        export(model, str(tmp_path / "x"), to="stablehlo", head="mlm")
    monkeypatch.setattr(graph_folder, "MAX_BYTES", 1000)
    with pytest.raises(CheckpointError, match="one stablehlo file holds 1,000"):
        export(model, str(tmp_path / "x"), to="stablehlo")
    assert not list(tmp_path.iterdir())


def test_rounding_restores_within_half_a_step():
    params = weights(tiny())
    stored, seen = quantization.quantize(params)
    assert "encoder/ffn/output/kernel" in stored and "pooler/bias" not in stored
    for path, leaf in flatten(params).items():
        delta = np.abs(flatten(seen)[path] - leaf)
        if path not in stored:
            assert not delta.any()
            continue
        axis = -1 if path.endswith("embedding") else -2
        assert np.all(delta <= np.abs(leaf).max(axis, keepdims=True) / 254 * 1.001)
        assert stored[path].values.min() >= -127
    again, _ = quantization.quantize(seen)
    assert all(np.array_equal(again[p].values, stored[p].values) for p in stored)


def test_drift_is_that_of_the_states():
    config = tiny()
    params = weights(config)
    batch = {
        "input_ids": np.ones((2, 8), np.int32), "token_type_ids": np.zeros((2, 8), np.int32),
        "segment_ids": np.ones((2, 8), np.int32), "positions": np.tile(np.arange(8, dtype=np.int32), (2, 1)),
    }  # fmt: skip
    same = quantization.drift(params, params, config, batch)
    assert [row["max_difference"] for row in same] == [0.0] * 3
    assert all(row["cosine"] == pytest.approx(1, abs=1e-6) for row in same)
    _, changed = quantization.quantize(params)
    _, before = albert.encode_all_layers(params, config, batch)
    _, after = albert.encode_all_layers(changed, config, batch)
    found = [row["max_difference"] for row in quantization.drift(params, changed, config, batch)]
    expected = [float(np.abs(a - b).max()) for a, b in zip(before, after, strict=True)]
    assert found == pytest.approx(expected, rel=1e-3) and min(found) > 0
