"""Checkpoints of albert_zh: the same hidden states and logits as its program computes."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax import api
from albert_jax.commands.import_model import Import
from albert_jax.data.vocabularies.wordpiece import SPECIAL
from albert_jax.errors import CheckpointError
from albert_jax.export import huggingface as writer
from albert_jax.model_io import directories
from tests.model_io import tf1_files
from tests.model_io.structures import pretrained

V, E, H, F, LAYERS, HEADS = 40, 8, 16, 32, 3, 4
CONFIG = {
    "attention_probs_dropout_prob": 0.0, "directionality": "bidi", "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0, "hidden_size": H, "embedding_size": E, "initializer_range": 0.02,
    "intermediate_size": F, "max_position_embeddings": 24, "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS, "pooler_type": "first_token_transform", "type_vocab_size": 2,
    "vocab_size": V,
}  # fmt: skip
SHAPES = {
    "bert/embeddings/word_embeddings": (V, E), "bert/embeddings/word_embeddings_2": (E, H),
    "bert/embeddings/position_embeddings": (24, H), "bert/embeddings/token_type_embeddings": (2, H),
    "cls/predictions/output_bias": (V,),
    "cls/seq_relationship/output_weights": (2, H), "cls/seq_relationship/output_bias": (2,),
}  # fmt: skip
LAYER = "bert/encoder/layer_shared"
DENSE = {
    f"{LAYER}/attention/self/query": (H, H), f"{LAYER}/attention/self/key": (H, H),
    f"{LAYER}/attention/self/value": (H, H), f"{LAYER}/attention/output/dense": (H, H),
    f"{LAYER}/intermediate/dense": (H, F), f"{LAYER}/output/dense": (F, H),
    "bert/pooler/dense": (H, H), "cls/predictions/transform/dense": (H, H),
}  # fmt: skip
NORMS = (
    "bert/embeddings/LayerNorm", f"{LAYER}/attention/output/LayerNorm",
    f"{LAYER}/output/LayerNorm", "cls/predictions/transform/LayerNorm",
)  # fmt: skip


def variables() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)

    def draw(*shape: int, mean: float = 0.0) -> np.ndarray:
        return (mean + 0.3 * rng.standard_normal(shape)).astype(np.float32)

    found = {name: draw(*shape) for name, shape in SHAPES.items()}
    for name, shape in DENSE.items():
        found |= {f"{name}/kernel": draw(*shape), f"{name}/bias": draw(shape[1])}
    for name in NORMS:
        found |= {f"{name}/gamma": draw(H, mean=1.0), f"{name}/beta": draw(H)}
    slots = {f"{name}/adam_{slot}": array for name, array in found.items() for slot in "mv"}
    return found | slots | {"global_step": np.array(9, np.int64)}


def write(folder, **changed) -> dict[str, np.ndarray]:  # noqa: ANN001, ANN003
    """The files of albert_base_zh.zip."""
    folder.mkdir()
    values = variables() | changed
    tf1_files.write(folder / "albert_model.ckpt", values)
    (folder / "albert_config_base.json").write_text(json.dumps(CONFIG))
    (folder / "checkpoint").write_text('model_checkpoint_path: "albert_model.ckpt"\n')
    characters = [chr(0x4E00 + i) for i in range(V - len(SPECIAL))]
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *characters]), encoding="utf-8")
    return values


def computed(values: dict[str, np.ndarray], ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hidden states and logits of one row of a single segment, as albert_zh's modeling.py."""
    v = {name: array.astype(np.float64) for name, array in values.items()}

    def dense(name: str, x: np.ndarray) -> np.ndarray:
        return x @ v[f"{name}/kernel"] + v[f"{name}/bias"]

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        centered = x - x.mean(-1, keepdims=True)
        scaled = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-12)
        return scaled * v[f"{name}/gamma"] + v[f"{name}/beta"]

    def gelu(x: np.ndarray) -> np.ndarray:
        return x * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    def heads(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), HEADS, -1).swapaxes(0, 1)

    table, projection = v["bert/embeddings/word_embeddings"], v["bert/embeddings/word_embeddings_2"]
    x = table[ids] @ projection + v["bert/embeddings/token_type_embeddings"][0]
    x = norm("bert/embeddings/LayerNorm", x + v["bert/embeddings/position_embeddings"][: len(ids)])
    for _ in range(LAYERS):
        q, k, val = (
            heads(dense(f"{LAYER}/attention/self/{n}", x)) for n in ("query", "key", "value")
        )
        scores = np.exp(q @ k.swapaxes(1, 2) / np.sqrt(H // HEADS))
        context = (scores / scores.sum(-1, keepdims=True) @ val).swapaxes(0, 1).reshape(len(ids), H)
        attended = dense(f"{LAYER}/attention/output/dense", context)
        attended = norm(f"{LAYER}/attention/output/LayerNorm", attended + x)
        inner = gelu(dense(f"{LAYER}/intermediate/dense", attended))
        x = norm(f"{LAYER}/output/LayerNorm", dense(f"{LAYER}/output/dense", inner) + attended)
    head = norm(
        "cls/predictions/transform/LayerNorm", gelu(dense("cls/predictions/transform/dense", x))
    )
    return x, head @ projection.T @ table.T + v["cls/predictions/output_bias"]


def test_values_are_those_of_its_program(tmp_path, capsys):
    values = write(tmp_path / "albert_base_zh")
    Import(source=str(tmp_path / "albert_base_zh"), out=str(tmp_path / "in")).run()
    assert "(tf1)" in (line := capsys.readouterr().out) and "without" not in line
    found = directories.read(tmp_path / "in")
    assert found.config.embedding_size == H and found.config.num_hidden_groups == 1
    assert found.vocabulary is not None and found.vocabulary.size == V
    ids = found.vocabulary.encode(["一丁丂七"])[0]
    row = np.array([[2, *ids.tolist(), 3]], np.int32)
    batch = {
        "input_ids": row, "token_type_ids": np.zeros_like(row), "segment_ids": np.ones_like(row),
        "positions": np.arange(row.size, dtype=np.int32)[None],
    }  # fmt: skip
    hidden = api.encode(found.params, found.config, batch)
    logits = api.mlm_logits(found.params, found.config, hidden, jnp.arange(row.size)[None])
    expected, expected_logits = computed(values, row[0])
    assert np.abs(np.asarray(hidden[0]) - expected).max() < 1e-5
    assert np.abs(np.asarray(logits[0]) - expected_logits).max() < 5e-5
    writer.export(pretrained(found.config, found.params), tmp_path / "hf")
    again = directories.read(tmp_path / "hf")
    assert again.config == found.config


def test_what_is_wrong_is_told_in_one_line(tmp_path):
    write(tmp_path / "a", **{"bert/embeddings/word_embeddings_2": np.zeros((E + 1, H), np.float32)})
    with pytest.raises(CheckpointError, match=r"word_embeddings \[40, 8\] cannot be multiplied by"):
        directories.read(tmp_path / "a")
    write(tmp_path / "b", **{f"{LAYER}/extra/kernel": np.zeros((2, 2), np.float32)})
    with pytest.raises(CheckpointError, match="extra/kernel"):
        directories.read(tmp_path / "b")
    write(tmp_path / "c")
    (tmp_path / "c/albert_config_base.json").rename(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match=r"albert_config\.json"):
        directories.read(tmp_path / "c")
    given = directories.read(tmp_path / "c", config=str(tmp_path / "config.json"))
    assert given.config.embedding_size == H
