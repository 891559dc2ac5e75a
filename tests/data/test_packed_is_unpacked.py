"""A packed row computes what its pairs would compute each in a row of its own."""

from __future__ import annotations

import jax
import numpy as np

from albert_jax.config import ComputeConfig, ModelConfig, PhaseConfig
from albert_jax.data.batches.builder import BatchBuilder
from albert_jax.model.init import init_params
from albert_jax.objectives.pretraining import pretraining_loss
from tests.data.made import SIZE, IdVocabulary, documents

LENGTH = 64
MODEL = ModelConfig(
    vocab_size=SIZE, embedding_size=8, hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
    intermediate_size=24, max_position_embeddings=LENGTH,
)  # fmt: skip


def taken_apart(batch):
    """The pairs of a packed batch, each in a row of its own and of the same length."""
    rows = []
    for r, segments in enumerate(batch["segment_ids"]):
        for pair in range(1, segments.max() + 1):
            places = np.flatnonzero(segments == pair)
            row = {
                name: np.zeros(LENGTH, np.int32)
                for name in ("input_ids", "token_type_ids", "segment_ids", "positions")
            }
            row["segment_ids"][: len(places)] = 1
            row["positions"][: len(places)] = np.arange(len(places))
            for name in ("input_ids", "token_type_ids"):
                row[name][: len(places)] = batch[name][r, places]
            mine = np.isin(batch["mlm_positions"][r], places) & (batch["mlm_weights"][r] > 0)
            for name in ("mlm_positions", "mlm_labels", "mlm_weights"):
                kept = np.where(mine, batch[name][r], 0)
                row[name] = kept - np.where(mine, places[0], 0) if "pos" in name else kept
            row["cls_positions"] = batch["cls_positions"][r, pair - 1 : pair] - places[0]
            for name in ("sop_labels", "sop_weights"):
                row[name] = batch[name][r, pair - 1 : pair]
            rows.append(row)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def test_losses_and_gradients_are_those_of_single_pairs(prepared):
    phase = PhaseConfig(sequence_length=LENGTH, batch_size=12, packing=True)
    corpus = prepared(documents(300, longest=3))
    packed = BatchBuilder([corpus], IdVocabulary(), phase, seed=1, phase_index=0).batch(
        3, np.arange(12)
    )
    single = taken_apart(packed)
    assert len(single["input_ids"]) > 2 * 12
    assert single["mlm_weights"].sum() == packed["mlm_weights"].sum() > 50
    assert single["sop_weights"].sum() == packed["sop_weights"].sum() > 10
    assert not single["cls_positions"].any()
    loss = pretraining_loss(MODEL, ComputeConfig(dtype="float32"))
    params = jax.tree.map(
        lambda leaf: leaf if (leaf == 1).all() else leaf * 8, init_params(MODEL, 0)
    )

    @jax.jit
    def run(params, batch):
        def total(params):
            found = loss(params, batch, dropout=None, num_layers=None)
            sums = [term.total for term in found.terms.values()]
            return sum(sums), (sums, found.sums)

        return jax.value_and_grad(total, has_aux=True)(params)

    (_, (sums, right)), gradient = run(params, packed)
    (_, (other_sums, other_right)), other_gradient = run(params, single)
    np.testing.assert_allclose(sums, other_sums, rtol=1e-5)
    assert right == other_right
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(other_gradient), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * (1 + np.abs(a).max()))
