"""The programs that load a PL-BERT take our folder as it is and compute what we compute."""

from __future__ import annotations

import importlib.util
import json
import os
import sys

import numpy as np
import pytest

from albert_jax.config import ModelConfig
from albert_jax.data.vocabularies import symbols
from albert_jax.export.export import export
from albert_jax.model import albert
from tests.model_io.structures import pretrained, tiny, weights

torch = pytest.importorskip("torch", reason="needs the extra parity (torch)")
transformers = pytest.importorskip("transformers", reason="needs the extra parity (transformers)")
pytestmark = pytest.mark.parity
BOUND = 1e-5
STRUCTURES = {
    "small": tiny(vocab_size=178, embedding_size=8, max_position_embeddings=64),
    "published": ModelConfig(vocab_size=178, intermediate_size=2048),
}


@pytest.fixture(scope="module", params=STRUCTURES)
def exported(request, tmp_path_factory):
    config = STRUCTURES[request.param]
    params = weights(config)
    if request.param == "published":  # Twelve passes of large random numbers would say little.
        from albert_jax.model.init import init_params

        params = init_params(config, 3)
    model = pretrained(config, params, vocabulary=symbols.from_spec("kokoro"), step=70)
    folder = tmp_path_factory.mktemp("plbert") / request.param
    export(model, str(folder), to="plbert")
    return model, folder


def styletts2(folder):
    """An AlbertModel as StyleTTS2 loads it: the newest step, names without their prefixes."""
    yaml = pytest.importorskip("yaml")
    structure = yaml.safe_load((folder / "config.yml").read_text())["model_params"]
    model = transformers.AlbertModel(transformers.AlbertConfig(**structure))
    steps = [
        int(name.split("_")[-1].split(".")[0])
        for name in os.listdir(folder)
        if name.startswith("step_")
    ]
    path = f"{folder}/step_{max(steps)}.t7"
    state = torch.load(path, map_location="cpu", weights_only=True)["net"]
    inner = {name[7:]: tensor for name, tensor in state.items()}
    own = {n[8:]: tensor for n, tensor in inner.items() if n.startswith("encoder.")}
    del own["embeddings.position_ids"]
    missing, unexpected = model.load_state_dict(own, strict=False)
    assert not unexpected and set(missing) <= {"embeddings.position_ids"}
    model.eval()
    return lambda ids, mask: model(ids, attention_mask=mask).last_hidden_state


def kokoro(folder):
    """Kokoro's own model with our state dict and our entries of its config.json."""
    spec = importlib.util.find_spec("kokoro")
    if spec is None or importlib.util.find_spec("loguru") is None:
        pytest.skip("needs the packages kokoro (--no-deps) and loguru")
    if "kokoro" not in sys.modules:  # Its __init__ asks for the front end, which is not needed.
        sys.modules["kokoro"] = importlib.util.module_from_spec(spec)
    from kokoro.model import KModel  # pyright: ignore[reportMissingImports]

    config = json.loads((folder / "kokoro" / "config.json").read_text()) | {
        "hidden_dim": 32, "style_dim": 128, "n_layer": 1, "max_dur": 5, "dropout": 0.2,
        "text_encoder_kernel_size": 3, "dim_in": 16, "n_mels": 16,
        "istftnet": {
            "upsample_kernel_sizes": [4, 4], "upsample_rates": [2, 2], "gen_istft_hop_size": 2,
            "gen_istft_n_fft": 8, "resblock_kernel_sizes": [3], "upsample_initial_channel": 32,
            "resblock_dilation_sizes": [[1, 3, 5]],
        },
    }  # fmt: skip
    model = KModel("ours", config, str(folder / "kokoro" / "bert.pth"))
    assert model.vocab["ə"] == symbols.NAMED["kokoro"]["ə"]
    model.bert.eval()
    return lambda ids, mask: model.bert(ids, attention_mask=mask)


def _ours(model, batch):
    return np.asarray(albert.encode(model.params, model.config, batch), np.float64)


@pytest.mark.parametrize("loader", [styletts2, kokoro])
def test_hidden_states_are_ours(loader, exported, record_property):
    """Rows alone, with padding, and several in one packed row."""
    model, folder = exported
    forward, rng = loader(folder), np.random.default_rng(0)
    total = model.config.max_position_embeddings
    lengths = [total // 8, total // 2, total // 4]
    texts = [rng.integers(1, 178, n) for n in lengths]
    rows = np.zeros((3, total), np.int32)
    segments = np.zeros((3, total), np.int32)
    packed = {"segment_ids": np.zeros((1, total), np.int32), "positions": rows[:1].copy()}
    packed_ids, start, worst = rows[:1].copy(), 0, 0.0
    for i, text in enumerate(texts):
        rows[i, : len(text)], segments[i, : len(text)] = text, 1
        place = slice(start, start + len(text))
        packed_ids[0, place], packed["segment_ids"][0, place] = text, i + 1
        packed["positions"][0, place] = np.arange(len(text))
        start += len(text)
    zeros = np.zeros((3, total), np.int32)
    single = _ours(model, {
        "input_ids": rows, "segment_ids": segments, "token_type_ids": zeros,
        "positions": np.tile(np.arange(total), (3, 1)),
    })  # fmt: skip
    together = _ours(model, packed | {"input_ids": packed_ids, "token_type_ids": zeros[:1]})[0]
    with torch.no_grad():
        padded = forward(torch.from_numpy(rows).long(), torch.from_numpy(segments)).numpy()
        start = 0
        for i, text in enumerate(texts):
            size = len(text)
            ids = torch.from_numpy(text)[None].long()
            alone = forward(ids, torch.ones(1, size, dtype=torch.int64)).numpy()[0]
            found = (single[i, :size], padded[i, :size], together[start : start + size])
            worst = max(worst, *(float(np.abs(x - alone).max()) for x in found))
            start += size
    record_property("hidden states against ours", worst)
    assert worst <= BOUND
