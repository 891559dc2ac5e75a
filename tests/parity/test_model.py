"""Outputs, losses and gradients of the original, number by number, for every golden structure."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax import tree
from albert_jax.config import ComputeConfig
from albert_jax.model import albert
from albert_jax.model.layers import gelu_new
from albert_jax.objectives import loss_terms
from albert_jax.objectives.pretraining import pretraining_loss
from tests.parity.golden_model import batch_of, structure, variables
from tests.reference import golden_cases

OUTPUT, LOSS, FULLY_MASKED = 1e-5, 1e-5, 3e-4
COMPUTE = ComputeConfig(dtype="float32", attention="xla")


FOLDERS = [path.parent for path in golden_cases("model/*/golden.npz")]


def test_there_are_cases(golden: Path):
    assert FOLDERS, f"{golden / 'model'} holds no golden structures"


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def case(request):
    config = structure(request.param)
    with np.load(request.param / "golden.npz") as file:
        arrays = {name: file[name] for name in file.files}
    return config, variables(arrays, "var/", config), batch_of(arrays), arrays


def _close(record, name: str, ours, theirs, bound, where=None):
    difference = np.abs(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64))
    if where is not None:
        difference = difference[np.broadcast_to(where, difference.shape)]
    worst = float(difference.max(initial=0.0))
    record(name, worst)
    print(f"{name}: {worst:.2e} (bound {bound:.0e})")
    assert np.isfinite(ours).all() and worst <= bound, f"{name}: {worst:.3e} > {bound:.3e}"


def test_outputs_losses_and_gradients(case, record_property):
    config, params, batch, gold = case
    close = lambda *args, **kwargs: _close(record_property, *args, **kwargs)  # noqa: E731
    real = batch["segment_ids"] == 1
    empty = ~real.any(axis=1)
    assert empty.any() == (0 in gold["in/input_mask"].sum(axis=1))

    def forward(params):
        embedded = albert.embed(params, config, batch, compute=COMPUTE)
        hidden, each = albert.encode_all_layers(params, config, batch, compute=COMPUTE)
        pooled = albert.pooler_output(params, config, hidden, batch)
        mlm = albert.mlm_logits(params, config, hidden, batch["mlm_positions"])
        sop = albert.sop_logits(params, config, pooled)
        probs = albert.attention_probabilities(
            params, config, embedded[None], batch["segment_ids"]
        )[0]
        return hidden, each, pooled[:, 0], mlm.reshape(-1, config.vocab_size), sop[:, 0], probs

    loss = pretraining_loss(config, COMPUTE)

    def total(params):
        found = loss(params, batch, dropout=None, num_layers=None)
        weights = {name: jnp.sum(batch[name]) for name in loss_terms.weight_names(batch)}
        parts = {n: t.total / t.divisor(weights[t.weights]) for n, t in found.terms.items()}
        return loss_terms.mean(found.terms, weights), parts

    differentiate = jax.value_and_grad(total, has_aux=True)
    program = jax.jit(lambda params: (forward(params), differentiate(params)))
    outputs, ((value, parts), gradients) = program(params)
    hidden, each, pooled, mlm, sop, probs = map(np.asarray, outputs)

    # The empty row: the original adds -10000 to every key, which costs it ten bits.
    for rows, bound, note in ((~empty, OUTPUT, ""), (empty, FULLY_MASKED, " (empty row)")):
        if not rows.any():
            continue
        seen = (real | empty[:, None])[rows][..., None]
        close("sequence" + note, hidden[rows], gold["out/sequence_output"][rows], bound, seen)
        close("layers" + note, each[:, rows], gold["out/layer_outputs"][:, rows], bound, seen)
        close("pooled" + note, pooled[rows], gold["out/pooled_output"][rows], bound)
        attention = gold["out/layer0_attention_probs"][rows]
        close("attention" + note, probs[rows], attention, bound, seen[:, None])
        logs = jax.nn.log_softmax(sop[rows])
        close("sop log-probs" + note, logs, gold["out/sop_log_probs"][rows], bound)
        places = np.repeat(rows, batch["mlm_positions"].shape[1])
        logs = jax.nn.log_softmax(mlm[places])
        close("mlm log-probs" + note, logs, gold["out/mlm_log_probs"][places], bound)

    close("total loss", value, gold["out/total_loss"], LOSS)
    close("mlm loss", parts["mlm"], gold["out/mlm_loss"], LOSS)
    close("sop loss", parts["sop"], gold["out/sop_loss"], LOSS)
    ours, theirs = tree.flatten(gradients), tree.flatten(variables(gold, "grad/", config))
    assert ours.keys() == theirs.keys()
    worst = 0.0
    for path, gradient in theirs.items():
        largest = 0.0 if path.endswith("key/bias") else float(np.abs(gradient).max())
        difference = float(np.abs(np.asarray(ours[path]) - gradient).max())
        worst = max(worst, difference)
        assert difference <= 1e-5 + 1e-5 * largest, f"gradient of {path}: {difference:.3e}"
    record_property("gradients", worst)
    largest = max(float(np.abs(gradient).max()) for gradient in theirs.values())
    print(f"gradients: {worst:.2e} (bound {1e-5 + 1e-5 * largest:.1e})")


def test_a_wrong_activation_would_be_seen():
    """The tolerance separates the tanh GELU from the exact one."""
    x = np.linspace(-3, 3, 601, dtype=np.float32)
    assert np.abs(gelu_new(x) - jax.nn.gelu(x, approximate=True)).max() < 1e-6
    assert np.abs(gelu_new(x) - jax.nn.gelu(x, approximate=False)).max() > 1e-4
