"""Exports against Transformers: the same logits, no tensor missing, none unexpected."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from albert_jax.config import ComputeConfig, ModelConfig
from albert_jax.export import huggingface
from albert_jax.model import albert
from albert_jax.model.init import init_params
from albert_jax.model_io import directories
from albert_jax.tree import flatten, unflatten
from tests.model_io.structures import pretrained

torch = pytest.importorskip("torch", reason="needs the extra parity (torch)")
transformers = pytest.importorskip("transformers", reason="needs the extra parity (transformers)")

LOGITS = 1e-5
COMPUTE = ComputeConfig(dtype="float32", attention="xla")


def random_structure(seed: int) -> ModelConfig:
    """A tiny structure with every choice drawn."""
    draw = np.random.default_rng(seed)
    heads = int(draw.choice([1, 2, 4]))
    hidden = heads * int(draw.choice([4, 8, 12]))
    layers = int(draw.integers(1, 6))
    mode = str(draw.choice(["all", "all", "attention", "ffn", "none"]))
    return ModelConfig(
        vocab_size=int(draw.integers(30, 90)),
        embedding_size=hidden if draw.random() < 0.2 else int(draw.choice([4, 8, 16])),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_hidden_groups=int(draw.integers(1, layers + 1)),
        inner_group_num=int(draw.integers(1, 3)),
        num_attention_heads=heads,
        intermediate_size=int(draw.integers(5, 60)),
        hidden_act=str(draw.choice(["gelu_new", "gelu_new", "relu", "tanh"])),  # type: ignore[arg-type]
        max_position_embeddings=24,
        type_vocab_size=int(draw.integers(2, 4)),
        sharing=mode,  # type: ignore[arg-type]
    )


def random_weights(config: ModelConfig, seed: int) -> dict:
    """Parameters in which biases and scales matter too."""
    draw = np.random.default_rng(seed)
    return unflatten(
        {
            path: (leaf * (4 if "kernel" in path else 1) + draw.normal(0, 0.1, leaf.shape)).astype(
                np.float32
            )
            for path, leaf in flatten(init_params(config, seed)).items()
        }
    )


def random_rows(config: ModelConfig, seed: int, rows: int = 3, length: int = 20):
    """(our batch, the other program's inputs): rows of unequal length, two sentences each."""
    draw = np.random.default_rng(seed)
    ids = draw.integers(0, config.vocab_size, (rows, length)).astype(np.int32)
    lengths = draw.integers(4, length + 1, rows)
    real = (np.arange(length) < lengths[:, None]).astype(np.int32)
    types = (np.arange(length) >= lengths[:, None] // 2).astype(np.int32) * real
    places = np.tile(np.arange(length, dtype=np.int32), (rows, 1))
    batch = {
        "input_ids": ids * real,
        "token_type_ids": types,
        "segment_ids": real,
        "positions": places,
        "mlm_positions": places,
        "cls_positions": np.zeros((rows, 1), np.int32),
    }
    inputs = {"input_ids": ids * real, "token_type_ids": types, "attention_mask": real}
    return batch, {name: torch.tensor(value, dtype=torch.long) for name, value in inputs.items()}


def our_logits(params, config: ModelConfig, batch) -> tuple[np.ndarray, np.ndarray]:
    """MLM logits of all places [B, S, V] and SOP logits [B, 2]."""

    @jax.jit
    def forward(params):
        hidden = albert.encode(params, config, batch, compute=COMPUTE)
        pooled = albert.pooler_output(params, config, hidden, batch)
        mlm = albert.mlm_logits(params, config, hidden, batch["mlm_positions"])
        return mlm, albert.sop_logits(params, config, pooled)[:, 0]

    mlm, sop = forward(params)
    return np.asarray(mlm), np.asarray(sop)


def load_quietly(name: str, folder):
    """(model in evaluation mode, what did not match) of a directory."""
    found, info = getattr(transformers, name).from_pretrained(
        folder, output_loading_info=True, local_files_only=True
    )
    return found.eval(), {key: value for key, value in info.items() if value}


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(20))
def test_logits_equal_those_of_transformers(seed, tmp_path, record_property):
    config = random_structure(seed)
    params = random_weights(config, seed)
    huggingface.export(pretrained(config, params), str(tmp_path / "x"))
    model, problems = load_quietly("AutoModelForPreTraining", tmp_path / "x")
    assert not problems and type(model).__name__ == "AlbertForPreTraining"
    batch, inputs = random_rows(config, seed)
    with torch.no_grad():
        theirs = model(**inputs)
    mlm, sop = our_logits(params, config, batch)
    real = batch["segment_ids"] == 1
    worst = max(
        float(np.abs(mlm - theirs.prediction_logits.numpy())[real].max()),
        float(np.abs(sop - theirs.sop_logits.numpy()).max()),
    )
    record_property("logits against Transformers", worst)
    print(f"logits against Transformers: {worst:.2e} (bound {LOGITS:.0e})")
    assert worst <= LOGITS


@pytest.mark.parity
@pytest.mark.parametrize("head", ["mlm", "base"])
def test_other_heads_load_without_remarks(head, tmp_path):
    config = random_structure(1)
    params = random_weights(config, 1)
    huggingface.export(pretrained(config, params), str(tmp_path / "x"), head=head)
    name = {"mlm": "AutoModelForMaskedLM", "base": "AutoModel"}[head]
    model, problems = load_quietly(name, tmp_path / "x")
    assert not problems
    batch, inputs = random_rows(config, 1)
    real = batch["segment_ids"] == 1
    with torch.no_grad():
        theirs = model(**inputs)
    if head == "mlm":
        mlm, _ = our_logits(params, config, batch)
        assert np.abs(mlm - theirs.logits.numpy())[real].max() <= LOGITS
    else:
        hidden = np.asarray(albert.encode(params, config, batch, compute=COMPUTE))
        assert np.abs(hidden - theirs.last_hidden_state.numpy())[real].max() <= LOGITS


@pytest.mark.parity
def test_what_transformers_saves_comes_in(tmp_path, record_property):
    """Random models made and saved there, all three classes."""
    config = transformers.AlbertConfig(
        vocab_size=40, embedding_size=8, hidden_size=16, num_hidden_layers=4, num_hidden_groups=2,
        num_attention_heads=2, intermediate_size=20, max_position_embeddings=24,
        hidden_act="gelu_new", inner_group_num=2, initializer_range=0.3,
    )  # fmt: skip
    for name in ("AlbertForPreTraining", "AlbertForMaskedLM", "AlbertModel"):
        torch.manual_seed(0)
        model = getattr(transformers, name)(config).eval()
        model.save_pretrained(tmp_path / name)
        found = directories.read(tmp_path / name)
        batch, inputs = random_rows(found.config, 2)
        with torch.no_grad():
            theirs = model(**inputs, output_hidden_states=False)
        real = batch["segment_ids"] == 1
        hidden = albert.encode(found.params, found.config, batch, compute=COMPUTE)
        if name == "AlbertModel":
            ours, expected = np.asarray(hidden), theirs.last_hidden_state.numpy()
        else:
            places = batch["mlm_positions"]
            ours = np.asarray(albert.mlm_logits(found.params, found.config, hidden, places))
            expected = (theirs.logits if "logits" in theirs else theirs.prediction_logits).numpy()
        worst = float(np.abs(ours - expected)[real].max())
        record_property("imported from Transformers", worst)
        print(f"imported from Transformers: {worst:.2e} (bound {LOGITS:.0e})")
        assert worst <= LOGITS


@pytest.mark.parity
def test_the_originals_checkpoints_in_transformers(golden, tmp_path, record_property):
    """TF1 checkpoint -> ours -> Transformers: the original's own outputs."""
    cases = sorted(p for p in (golden / "model").iterdir() if p.is_dir())
    assert cases, f"{golden / 'model'} holds no cases"
    for case in cases:
        found = directories.read(case)
        huggingface.export(pretrained(found.config, found.params), str(tmp_path / case.name))
        model, problems = load_quietly("AutoModelForPreTraining", tmp_path / case.name)
        assert not problems
        with np.load(case / "golden.npz") as gold:
            mask, positions = gold["in/input_mask"], gold["in/masked_lm_positions"]
            inputs = {
                "input_ids": gold["in/input_ids"],
                "token_type_ids": gold["in/segment_ids"],
                "attention_mask": mask,
            }
            expected_mlm, expected_sop = gold["out/mlm_logits"], gold["out/sop_logits"]
        with torch.no_grad():
            theirs = model(**{k: torch.tensor(v, dtype=torch.long) for k, v in inputs.items()})
        whole = mask.any(axis=1)
        mlm = np.take_along_axis(theirs.prediction_logits.numpy(), positions[..., None], axis=1)
        mlm = np.abs(mlm - expected_mlm.reshape(mlm.shape))[whole].max()
        sop = np.abs(theirs.sop_logits.numpy() - expected_sop)[whole].max()
        worst = float(max(mlm, sop))
        record_property("original through Transformers", worst)
        print(f"original through Transformers: {worst:.2e} (bound 2e-05)")
        assert worst <= 2e-5, case.name
