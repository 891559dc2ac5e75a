from __future__ import annotations

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax.config import ComputeConfig, Config, ModelConfig, PhaseConfig
from albert_jax.errors import ConfigError
from albert_jax.model import albert, attention, layers
from albert_jax.model.albert import FLOAT32
from albert_jax.model.dropout import LayerDropout, drop, row_keys
from albert_jax.model.init import init_params

TINY = ModelConfig(
    vocab_size=60, embedding_size=8, hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
    intermediate_size=24, max_position_embeddings=16,
)  # fmt: skip


def rows(count: int = 3, length: int = 10, seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    ends = np.array([length, 6, 0])[:count, None]
    place = np.arange(length)
    return {
        "input_ids": draw.integers(0, 60, (count, length)).astype(np.int32),
        "token_type_ids": np.zeros((count, length), np.int32),
        "positions": np.tile(place.astype(np.int32), (count, 1)),
        "segment_ids": (place < ends).astype(np.int32),
    }


def spread(config: ModelConfig, seed: int = 0) -> dict:
    """Parameters large enough for differences to show."""
    # LayerNorm scales stay 1, so that outputs, and rounding with them, stay near 1.
    return jax.tree.map(
        lambda leaf: leaf if (leaf == 1).all() else leaf * 8, init_params(config, seed)
    )


MODES = [
    "all",
    *(pytest.param(mode, marks=pytest.mark.thorough) for mode in ("attention", "ffn", "none")),
]


@pytest.mark.parametrize("mode", MODES)
def test_scan_unrolled_and_recomputed_are_one_function(mode):
    config = dataclasses.replace(TINY, sharing=mode, num_hidden_groups=1 if mode == "none" else 2)
    params, batch = spread(config), rows()
    results = {}
    for unroll, remat in ((False, "none"), (True, "dots"), (False, "full")):
        compute = dataclasses.replace(FLOAT32, unroll=unroll, remat=remat)

        def total(params, compute=compute):
            hidden = albert.encode(params, config, batch, compute=compute)
            return jnp.sum(jnp.sin(hidden)), hidden

        results[unroll, remat] = jax.jit(jax.value_and_grad(total, has_aux=True))(params)
    (_, hidden), gradient = results[False, "none"]
    for (_, other), other_gradient in results.values():
        np.testing.assert_allclose(other, hidden, atol=2e-5)
        for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(other_gradient), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5 * (1 + np.abs(a).max()))


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("dropout", ["", "hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_states_at_positions_are_those_of_the_whole_row(unroll, dropout):
    config = dataclasses.replace(TINY, **({dropout: 0.3} if dropout else {}))
    params, batch = spread(config), rows()
    compute = dataclasses.replace(FLOAT32, unroll=unroll)
    keys = row_keys(0, 5, jnp.arange(len(batch["input_ids"])))
    positions = jnp.array([[3, 0, 3], [1, 2, 9]] + [[0, 4, 5]] * (len(keys) - 2))

    def states(params, **options):
        return albert.encode(params, config, batch, compute=compute, dropout=keys, **options)

    def total(params, at_positions: bool):
        if at_positions:
            found = states(params, positions=positions)
        else:
            found = layers.gather_positions(states(params), positions)
        return jnp.sum(jnp.sin(found)), found

    expected, found = (
        jax.value_and_grad(total, has_aux=True)(params, at_positions)
        for at_positions in (False, True)
    )
    np.testing.assert_allclose(found[0][1], expected[0][1], atol=2e-5)
    for a, b in zip(jax.tree.leaves(expected[1]), jax.tree.leaves(found[1]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * (1 + np.abs(a).max()))


def test_depth_is_an_argument():
    params, batch = spread(TINY), rows()
    _, each = albert.encode_all_layers(params, TINY, batch, compute=FLOAT32)
    for depth in (1, 2, 3):
        shallow = albert.encode(params, TINY, batch, compute=FLOAT32, num_layers=depth)
        np.testing.assert_allclose(shallow, each[depth - 1], atol=1e-6)


@pytest.mark.parametrize("mode", ["all", "none"])
@pytest.mark.parametrize("num_layers", [2, 3])
def test_layers_one_by_one_and_captured_states_are_the_encoder(mode, num_layers):
    config = dataclasses.replace(
        TINY, sharing=mode, num_hidden_groups=1 if mode == "none" else 2, inner_group_num=2
    )
    params, batch = spread(config), rows()
    hidden, each = albert.encode_all_layers(
        params, config, batch, compute=FLOAT32, num_layers=num_layers
    )
    x = albert.embed(params, config, batch, compute=FLOAT32)
    layer = jax.jit(lambda x, n: albert.apply_layer(
        params, config, x, batch["segment_ids"], n, num_layers=num_layers
    ))  # fmt: skip
    for number in range(num_layers):
        x = layer(x, number)
        np.testing.assert_allclose(x, each[2 * number + 1], atol=2e-5)
    np.testing.assert_allclose(x, hidden, atol=2e-5)
    for unroll in (False, True):
        _, moved = albert.encode_all_layers(
            params, config, batch,
            compute=dataclasses.replace(FLOAT32, unroll=unroll), num_layers=num_layers,
            capture=lambda a, b: {"by": jnp.abs(b - a).sum(-1)},
        )  # fmt: skip
        first = albert.embed(params, config, batch, compute=FLOAT32)
        for i, after in enumerate(each):
            before = each[i - 1] if i else first
            np.testing.assert_allclose(moved["by"][i], np.abs(after - before).sum(-1), atol=1e-3)


def test_packed_pairs_do_not_see_each_other_and_padding_is_finite():
    params, batch = spread(TINY), rows()
    packed = {
        **batch,
        "segment_ids": np.repeat([[1, 1, 1, 1, 2, 2, 2, 2, 0, 0]], 3, 0).astype(np.int32),
    }
    before = albert.encode(params, TINY, packed, compute=FLOAT32)
    changed = {**packed, "input_ids": packed["input_ids"].copy()}
    changed["input_ids"][:, 4:] = 7
    after = albert.encode(params, TINY, changed, compute=FLOAT32)
    assert np.array_equal(before[:, :4], after[:, :4])
    assert not np.array_equal(before[:, 4:8], after[:, 4:8])
    assert np.isfinite(albert.encode(params, TINY, batch, compute=FLOAT32)).all()


def test_heads_read_the_given_positions():
    params = spread(TINY)
    hidden = jax.random.normal(jax.random.key(0), (2, 10, 16))
    places = jnp.array([[3, 3, 9], [0, 1, 2]], jnp.int32)
    logits = albert.mlm_logits(params, TINY, hidden, places)
    assert logits.shape == (2, 3, 60) and logits.dtype == jnp.float32
    whole = albert.mlm_logits(params, TINY, hidden, jnp.tile(jnp.arange(10), (2, 1)))
    np.testing.assert_allclose(logits[0, 2], whole[0, 9], atol=1e-6)
    pooled = albert.pooler_output(
        params, TINY, hidden, {"cls_positions": jnp.array([[0, 5], [5, 0]])}
    )
    one = albert.pooler_output(params, TINY, hidden, {"cls_positions": jnp.array([[5]] * 2)})
    np.testing.assert_allclose(pooled[0, 1], one[0, 0], atol=1e-6)
    assert albert.sop_logits(params, TINY, pooled).shape == (2, 2, 2)


def test_bfloat16_is_close_and_losses_stay_float32():
    params, batch = init_params(TINY, 0), rows()
    exact = albert.encode(params, TINY, batch, compute=FLOAT32)
    half = albert.encode(params, TINY, batch, compute=ComputeConfig(dtype="bfloat16"))
    assert half.dtype == jnp.bfloat16
    assert np.abs(half.astype(jnp.float32) - exact).max() < 0.1
    assert albert.mlm_logits(params, TINY, half, batch["positions"]).dtype == jnp.float32


def test_dropout_masks_belong_to_rows_and_sites():
    keys = row_keys(3, 7, jnp.arange(6))
    x = jnp.ones((6, 400))
    full = drop(x, keys, 0.1, 1)
    # The masks of rows 2 to 4 are the same when they stand in another part of the batch.
    assert np.array_equal(drop(x[:3], row_keys(3, 7, jnp.arange(2, 5)), 0.1, 1), full[2:5])
    assert len({row.tobytes() for row in np.asarray(full)}) == 6
    for other in (
        drop(x, keys, 0.1, 2),
        drop(x, row_keys(3, 8, jnp.arange(6)), 0.1, 1),
        drop(x, row_keys(4, 7, jnp.arange(6)), 0.1, 1),
    ):
        assert not np.array_equal(full, other)
    assert float((full == 0).mean()) == pytest.approx(0.1, abs=0.03)
    assert float(full.mean()) == pytest.approx(1.0, abs=0.03)
    assert drop(x, None, 0.5, 1) is x and drop(x, keys, 0.0, 1) is x
    assert jax.random.key_impl(keys) == "threefry2x32"


def test_dropout_is_new_in_every_block():
    config = dataclasses.replace(TINY, hidden_dropout_prob=0.5)
    keys = row_keys(0, 0, jnp.arange(3))
    here = LayerDropout(keys, 0.5, 0.0)
    masks = [np.asarray(here.at(p).hidden(jnp.ones((3, 4, 16)), 2)).tobytes() for p in range(3)]
    assert len(set(masks)) == 3
    params, batch = spread(config), rows()
    scanned = albert.encode(params, config, batch, compute=FLOAT32, dropout=keys)
    unrolled = albert.encode(
        params, config, batch, compute=dataclasses.replace(FLOAT32, unroll=True), dropout=keys
    )
    np.testing.assert_allclose(scanned, unrolled, atol=2e-5)
    assert not np.allclose(
        scanned, albert.encode(params, config, batch, compute=FLOAT32), atol=1e-2
    )


@pytest.mark.parametrize("queries", [10, 4])
def test_gradients_of_attention_are_those_of_its_formula(queries):
    """The products have backward passes of their own."""
    draw = np.random.default_rng(0)
    query, key, value = (
        jnp.asarray(draw.normal(size=(2, 3, length, 8)), jnp.float32)
        for length in (queries, 10, 10)
    )
    segments = jnp.asarray(np.sort(draw.integers(0, 3, (2, 10))))
    mask = attention.same_segment(segments)[:, :, :queries]
    off = LayerDropout(None, 0.0, 0.0)

    def formula(query, key, value):
        scores = query @ jnp.swapaxes(key, 2, 3) / np.sqrt(8)
        return jax.nn.softmax(jnp.where(mask, scores, -1e9)) @ value

    def gradients(attend):
        total = jax.grad(lambda *x: jnp.sum(jnp.sin(attend(*x))), argnums=(0, 1, 2))
        return jax.jit(total)(query, key, value)

    ours = gradients(lambda *x: attention.XLA.attend(*x, mask, off))
    for found, expected in zip(ours, gradients(formula), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_the_splash_kernel_agrees_with_the_reference():
    draw = np.random.default_rng(0)
    query, key, value = (jnp.asarray(draw.normal(size=(2, 2, 128, 64)), jnp.float32) for _ in "qkv")
    segments = np.ones((2, 128), np.int32)
    segments[0, 50:90], segments[0, 90:], segments[1, 100:] = 2, 0, 0
    off = LayerDropout(None, 0.0, 0.0)

    def run(backend, query, key, value):
        mask = backend.prepare(jnp.asarray(segments))
        out = backend.attend(query, key, value, mask, off)
        return jnp.sum(jnp.sin(out)), out

    found = [
        jax.jit(jax.value_and_grad(lambda *x, b=b: run(b, *x), argnums=(0, 1, 2), has_aux=True))(
            query, key, value
        )
        for b in (attention.XLA, attention.splash(interpret=True))
    ]
    np.testing.assert_allclose(found[0][0][1], found[1][0][1], atol=3e-6)
    for a, b in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_rows_that_a_kernel_does_not_take_go_to_the_reference():
    """Batches may be shorter than the rows that the backend was chosen for."""
    kernel = attention.splash(interpret=True)
    assert kernel.at(256) is kernel and kernel.at(96) is attention.XLA
    config = dataclasses.replace(TINY, hidden_size=64, num_attention_heads=1)
    params, batch = spread(config), rows()
    assert batch["input_ids"].shape[1] % 128
    found = [
        albert.encode(params, config, batch, compute=FLOAT32, backend=backend)
        for backend in (kernel, attention.XLA)
    ]
    np.testing.assert_array_equal(*found)


def test_projections_with_the_heads_last_are_the_same_function():
    last = dataclasses.replace(
        attention.XLA,
        attend=lambda *x: attention.XLA.attend(
            *(y.transpose(0, 2, 1, 3) for y in x[:3]), *x[3:]
        ).transpose(0, 2, 1, 3),
        heads_first=False,
    )
    params, batch = spread(TINY), rows()

    def loss(params, backend):
        return jnp.sum(
            jnp.sin(albert.encode(params, TINY, batch, compute=FLOAT32, backend=backend))
        )

    found = [jax.value_and_grad(loss)(params, backend) for backend in (attention.XLA, last)]
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), *(f[1] for f in found))


def _config(backend: str, **changes) -> Config:
    model = ModelConfig(**{"attention_probs_dropout_prob": 0.0, **changes})
    phase = PhaseConfig(sequence_length=128, packing=True)
    return Config(model=model, phases=(phase,), compute=ComputeConfig(attention=backend))


def _device(platform: str, kind: str = "", **more) -> types.SimpleNamespace:
    return types.SimpleNamespace(platform=platform, device_kind=kind, **more)


CPU, GPU, TPU = _device("cpu"), _device("gpu", compute_capability="9.0"), _device("tpu", "TPU v4")


def test_the_default_backend_is_the_fastest_that_can():
    assert attention.choose(_config("auto"), CPU).name == "xla"
    assert attention.choose(_config("auto"), GPU).name == "cudnn"
    assert attention.choose(_config("auto"), TPU).name == "splash"
    dropping = _config("auto", attention_probs_dropout_prob=0.1)
    assert {attention.choose(dropping, device).name for device in (CPU, GPU, TPU)} == {"xla"}


def test_devices_that_are_too_old_for_a_kernel():
    """Mosaic on TPU v2 and v3 has no product in bfloat16; cuDNN's attention begins at Ampere."""
    auto, single = _config("auto"), _config("auto")
    single = dataclasses.replace(single, compute=ComputeConfig(dtype="float32"))
    for kind in ("TPU v2", "TPU v3"):
        old = _device("tpu", kind)
        assert attention.choose(auto, old).name == "xla"
        assert attention.choose(single, old).name == "splash"
        with pytest.raises(ConfigError, match=f"bfloat16 on a {kind}"):
            attention.choose(_config("splash"), old)
    turing = _device("gpu", "Tesla T4", compute_capability="7.5")
    assert attention.choose(auto, turing).name == "xla"
    with pytest.raises(ConfigError, match="Ampere.*7.5"):
        attention.choose(_config("cudnn"), turing)


def test_models_that_were_trained_elsewhere_take_what_is_here():
    assert attention.fastest(_config("splash"), CPU).name == "xla"
    assert attention.fastest(_config("xla"), TPU).name == "splash"
    odd = dataclasses.replace(_config("auto"), phases=(PhaseConfig(sequence_length=127),))
    assert attention.choose(odd, GPU).name == "xla"


def test_a_backend_that_cannot_is_refused_by_name():
    with pytest.raises(ConfigError, match="compute.attention 'splash' runs on tpu, not on cpu"):
        attention.choose(_config("splash"), CPU)
    with pytest.raises(ConfigError, match="cudnn.*attention_probs_dropout_prob"):
        attention.choose(_config("cudnn", attention_probs_dropout_prob=0.1), GPU)
    short = dataclasses.replace(_config("splash"), phases=(PhaseConfig(sequence_length=96),))
    with pytest.raises(ConfigError, match=r"multiple of 128 .*phases\.0\.sequence_length is 96"):
        attention.choose(short, TPU)
