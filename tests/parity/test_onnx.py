"""ONNX graphs in onnxruntime: our outputs, small files, and what int8 weights change."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from albert_jax.data.vocabularies.id_range import IdRange
from albert_jax.export import onnx_graph, programs, quantization
from albert_jax.export.export import export
from albert_jax.model_io import safetensors_files
from albert_jax.tree import flatten
from tests import tiny_models
from tests.export.test_graphs import inputs_of, of_kind
from tests.model_io.structures import STRUCTURES, finetuned, tiny

onnx = pytest.importorskip("onnx", reason="needs the extra parity (onnx)")
runtime = pytest.importorskip("onnxruntime", reason="needs the extra parity (onnxruntime)")

KINDS = ("pretraining", "mlm", "base", "classification", "regression", "multiple-choice", "squad-v1",
         "squad-v2", "token-classification", "sentence-embedding", "generation")  # fmt: skip
BOUND = 1e-5


def session(content: bytes):
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run(opened, program: programs.Program, inputs: dict) -> dict[str, np.ndarray]:
    given = {k: v.astype(np.int64) if v.dtype == np.int32 else v for k, v in inputs.items()}
    return dict(zip(program.outputs, opened.run(None, given), strict=True))


def worst(program, params, opened, vocab: int, seed: int, shapes=((1, 32), (3, 9))) -> float:
    """Largest difference over some batches, relative where values are large; places are equal."""
    found = 0.0
    for rows, length in shapes:
        inputs = inputs_of(program, vocab, seed + length, rows, length)
        ours, theirs = jax.jit(program.call)(params, inputs), run(opened, program, inputs)
        for name, value in theirs.items():
            expected = np.asarray(ours[name])
            assert value.shape == expected.shape, name
            if name.endswith("_positions"):
                # Places that cannot be answers are as good as each other.
                likely = np.asarray(ours[name.replace("_positions", "_log_probs")]) > -1e20
                assert np.array_equal(value[likely], expected[likely]), name
            else:
                delta = np.abs(value - expected) / np.maximum(1, np.abs(expected))
                found = max(found, float(delta.max()))
    return found


def content_of(kind: str, config, seed: int = 0, int8: bool = False, **settings):
    model, head = of_kind(kind, config, seed, **settings)
    params = model.params
    program = programs.program(model, head)
    stored, seen = quantization.quantize(params) if int8 else ({}, params)
    content = onnx_graph.serialize(program, model, stored)
    return program, params, seen, content


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["mlm", "multiple-choice", "squad-v1", "squad-v2"])
@pytest.mark.parametrize("words", ["text", "bare ids"])
def test_the_program_in_the_card_runs(kind, words, tmp_path):
    pytest.importorskip("transformers", reason="needs the extra parity (transformers)")
    model, head = of_kind(kind, tiny_models.MODEL)
    if words == "bare ids":
        ids = IdRange(64, pad_id=0, cls_id=1, sep_id=2, mask_id=3)
        model = dataclasses.replace(model, vocabulary=ids)
    folder = str(tmp_path / "x")
    export(model, folder, to="onnx", head=head)
    card = (tmp_path / "x" / "README.md").read_text()
    assert ("tokenizer.json" in card) == (tmp_path / "x" / "tokenizer.json").exists()
    code = card.split("```python\n")[1].split("```")[0].replace("THIS_FOLDER", folder)
    names: dict = {}
    exec(code, names)
    program = programs.program(model, head)
    assert len(names["outputs"]) == len(program.outputs)


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_equal_ours(kind, seed, record_property):
    structure = ("shared", "groups")[seed]
    program, params, _, content = content_of(kind, tiny(**STRUCTURES[structure]), seed)
    found = worst(program, params, session(content), 64, seed)
    record_property("onnxruntime against ours", found)
    print(f"onnxruntime against ours: {found:.2e} (bound {BOUND:.0e})")
    assert found <= BOUND


@pytest.mark.parity
@pytest.mark.parametrize("structure", STRUCTURES)
def test_every_sharing_and_activation(structure):
    program, params, _, content = content_of("base", tiny(**STRUCTURES[structure]), 3)
    assert worst(program, params, session(content), 64, 3) <= BOUND


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["classification", "multiple-choice"])
def test_classifiers_over_the_mean(kind):
    program, params, _, content = content_of(kind, tiny(), pooling="mean")
    assert worst(program, params, session(content), 64, 0) <= BOUND


BIG = {"vocab_size": 500, "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 12}


@pytest.mark.parity
def test_the_file_holds_the_shared_layer_once(tmp_path):
    """Twelve layers; exporters that trace write the layer twelve times."""
    program, params, _, content = content_of("pretraining", tiny(**BIG))
    safetensors_files.write(tmp_path / "x.safetensors", flatten(params))
    size = (tmp_path / "x.safetensors").stat().st_size
    print(f"ONNX {len(content)} bytes, safetensors {size}: {len(content) / size:.3f}")
    assert 0.99 * size < len(content) <= 1.1 * size
    layer = sum(leaf.size * 4 for leaf in jax.tree.leaves(params["encoder"]))
    assert layer > 0.5 * size  # a second copy would show
    # What runs is that, too: the stored initializers are those of the parameters.
    graph = onnx.load_model_from_string(content).graph
    names = [x.name for x in graph.initializer]
    assert len(set(names)) == len(names)
    assert sum("encoder/" in name for name in names) == len(flatten(params["encoder"]))
    assert worst(program, params, session(content), 500, 0) <= BOUND


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["pretraining", "squad-v2", "token-classification"])
def test_int8_weights_compute_what_they_stand_for(kind, tmp_path):
    program, params, seen, content = content_of(kind, tiny(**BIG), int8=True)
    safetensors_files.write(tmp_path / "x.safetensors", flatten(params))
    assert len(content) <= 0.4 * (tmp_path / "x.safetensors").stat().st_size
    opened = session(content)
    assert worst(program, seen, opened, 500, 0) <= 1e-4
    if kind != "squad-v2":  # there the rounding may choose other places
        assert worst(program, params, opened, 500, 0) > 1e-4


@pytest.mark.parity
def test_drift_and_score_are_recorded(tmp_path, capsys):
    dev = tmp_path / "dev.tsv"
    lines = [
        f"{text}\t{('no', 'yes', 'perhaps')[i % 3]}" for i, text in enumerate(tiny_models.SENTENCES)
    ]
    dev.write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    settings = {"dev": str(dev), "metrics": ("accuracy", "f1"), "pooling": "cls"}
    model = finetuned("classification", tiny_models.MODEL, **settings)
    told = export(model, str(tmp_path / "x"), to="onnx", dtype="int8")
    record = json.loads((tmp_path / "x" / "conversion.json").read_text())
    assert record["weights"] == "int8" and record["max_difference"] < 1e-4
    layers = record["int8"]["layers"]
    assert [row["layer"] for row in layers] == [1, 2]
    assert all(0.99 < row["cosine"] < 1.00001 and 0 < row["max_difference"] < 0.5 for row in layers)
    score = record["int8"]["score"]
    assert score["examples"] == 8 and set(score["float32"]) == set(score["int8"]) == {
        "accuracy",
        "f1",
    }
    assert "accuracy:" in told and len(told.splitlines()) == 1 + 1 + 2 + 2
    dev.unlink()
    told = export(model, str(tmp_path / "y"), to="onnx", dtype="int8")
    assert "score not measured" in told and "dev.tsv" in told
    # What the folder's tokenizer says goes straight into the graph.
    described = json.loads((tmp_path / "x" / "config.json").read_text())
    assert described["architectures"] == ["AlbertForSequenceClassification"]


@pytest.mark.parity
@pytest.mark.parametrize("kind", KINDS)
def test_folders_of_every_task(tmp_path, kind):
    model, head = of_kind(kind, tiny_models.MODEL)
    told = export(model, str(tmp_path / "x"), to="onnx", head=head)
    assert (tmp_path / "x" / "conversion.json").exists() and "difference" in told
