"""The same weights, the same batches, dropout off: our training beside Transformers'.

The other side is PyTorch throughout: AlbertForPreTraining, autograd, and the original's LAMB or
AdamW written out below (no bias correction, epsilon outside the root, decay and trust ratio for
everything but biases and LayerNorm, clipping to a global norm of 1).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from albert_jax.config import (
    ComputeConfig,
    Config,
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
    PhaseConfig,
)
from albert_jax.export import huggingface
from albert_jax.model.init import init_params
from tests.model_io.structures import pretrained

torch = pytest.importorskip("torch", reason="needs the extra parity (torch)")
transformers = pytest.importorskip("transformers", reason="needs the extra parity (transformers)")

SHORT, LONG = (12, 2e-5), (200, 1e-3)
ROWS, LENGTH, MASKED = 8, 24, 5


def run_config(optimizer: str, steps: int) -> Config:
    # Transformers applies the layers of one group; two groups make LAMB's units visible.
    model = ModelConfig(
        vocab_size=120, embedding_size=16, hidden_size=32, num_hidden_layers=4,
        num_hidden_groups=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=LENGTH, initializer_range=0.1,
    )  # fmt: skip
    rate = 0.01 if optimizer == "lamb" else 2e-3
    return Config(
        model=model,
        phases=(PhaseConfig(steps=steps, sequence_length=LENGTH, batch_size=ROWS),),
        optimizer=OptimizerConfig(name=optimizer, learning_rate=rate, warmup_steps=5),  # type: ignore[arg-type]
        compute=ComputeConfig(dtype="float32", attention="xla"),
        parallel=ParallelConfig(data=1),
    )


def batch(step: int) -> dict[str, np.ndarray]:
    """Rows of a language with few frequent words, so that 200 steps teach something."""
    draw = np.random.default_rng([7, step])
    ids = 5 + np.minimum(draw.geometric(0.15, (ROWS, LENGTH)), 114)
    lengths = draw.integers(LENGTH // 2, LENGTH + 1, (ROWS, 1))
    real = np.arange(LENGTH) < lengths
    ids[:, 0] = 2
    ids = ids * real
    places = np.stack([draw.choice(np.arange(1, n), MASKED, False) for n in lengths[:, 0]])
    labels = np.take_along_axis(ids, places, 1)
    np.put_along_axis(ids, places, 4, 1)
    weights = np.ones((ROWS, MASKED), np.float32)
    weights[:2, -2:] = 0.0
    order = (draw.random((ROWS, 1)) < 0.5).astype(np.int32)
    found = {
        "input_ids": ids,
        "token_type_ids": (np.arange(LENGTH) >= lengths // 2) * real,
        "segment_ids": real,
        "positions": np.tile(np.arange(LENGTH), (ROWS, 1)),
        "mlm_positions": places,
        "mlm_labels": labels,
        "cls_positions": np.zeros((ROWS, 1)),
        "sop_labels": order,
    }
    ints = {name: np.ascontiguousarray(value, np.int32) for name, value in found.items()}
    return ints | {"mlm_weights": weights, "sop_weights": np.ones((ROWS, 1), np.float32)}


def ours(config: Config, steps: int) -> np.ndarray:
    """Losses [steps] of the train step, each before its update."""
    import jax
    import jax.numpy as jnp

    from albert_jax.objectives.pretraining import pretraining_loss
    from albert_jax.optim.schedule import learning_rate
    from albert_jax.parallel.mesh import batch_sharding, make_mesh
    from albert_jax.train.state import init_state
    from albert_jax.train.step import make_train_step

    mesh = make_mesh(config.parallel, jax.devices()[:1])
    state = init_state(config, init_params(config.model, 0), mesh)
    loss = pretraining_loss(config.model, config.compute)
    step = make_train_step(config, config.phases[0], mesh, loss)
    found = []
    for number in range(steps):
        rows = jax.device_put(batch(number), batch_sharding(mesh))
        scalars = {
            "learning_rate": jnp.float32(learning_rate(config, number)),
            "seed": jnp.int32(0),
        }
        state, metrics = step(state, rows, scalars)
        found.append(float(metrics["loss"]))
    return np.array(found)


def theirs(config: Config, steps: int, folder: Path) -> np.ndarray:
    """The same with PyTorch, from the export of the same initial weights."""
    from albert_jax.optim.schedule import learning_rate

    huggingface.export(pretrained(config.model, init_params(config.model, 0)), str(folder))
    model = transformers.AutoModelForPreTraining.from_pretrained(folder, local_files_only=True)
    model.eval()  # no dropout; gradients flow all the same
    names, values = zip(*model.named_parameters(), strict=True)
    moments = [(torch.zeros_like(v), torch.zeros_like(v)) for v in values]
    found = []
    for number in range(steps):
        rows = {name: torch.tensor(value) for name, value in batch(number).items()}
        out = model(
            input_ids=rows["input_ids"].long(),
            token_type_ids=rows["token_type_ids"].long(),
            attention_mask=rows["segment_ids"].long(),
        )
        places = rows["mlm_positions"].long()[..., None].expand(-1, -1, config.model.vocab_size)
        logits = torch.gather(out.prediction_logits, 1, places)
        entropy = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), rows["mlm_labels"].long(), reduction="none"
        )
        weights = rows["mlm_weights"]
        mlm = (entropy * weights).sum() / (weights.sum() + 1e-5)
        sop = torch.nn.functional.cross_entropy(out.sop_logits, rows["sop_labels"][:, 0].long())
        total = mlm + sop
        gradients = torch.autograd.grad(total, values)
        found.append(total.item())
        norm = torch.sqrt(sum((g.double() ** 2).sum() for g in gradients))
        scale = float(1.0 / max(1.0, norm))
        rate = learning_rate(config, number)
        with torch.no_grad():
            for name, value, gradient, moment in zip(
                names, values, gradients, moments, strict=True
            ):
                _update(config.optimizer, name, value, gradient * scale, moment, rate)
    return np.array(found)


def _update(config: OptimizerConfig, name, value, gradient, moment, rate: float) -> None:
    m, v = moment
    m.mul_(config.b1).add_(gradient, alpha=1 - config.b1)
    v.mul_(config.b2).add_(gradient * gradient, alpha=1 - config.b2)
    change = m / (v.sqrt() + config.eps)
    excluded = "bias" in name or "norm" in name.lower()
    if not excluded:
        change = change + config.weight_decay * value
        if config.name == "lamb":
            size, length = value.norm(), change.norm()
            if size > 0 and length > 0:
                rate = rate * float(size / length)
    value.sub_(rate * change)


@pytest.mark.parity
@pytest.mark.parametrize("optimizer", ["lamb", "adamw"])
@pytest.mark.parametrize(
    "length", [pytest.param(SHORT, id="12"), pytest.param(LONG, id="200", marks=pytest.mark.slow)]
)
def test_losses_side_by_side(optimizer, length, tmp_path, record_property):
    steps, bound = length
    config = run_config(optimizer, 200)
    a, b = ours(config, steps), theirs(config, steps, tmp_path / "start")
    difference = np.abs(a - b)
    worst = float(difference.max())
    record_property(f"{optimizer}, losses of {steps} steps", worst)
    print(f"training, {optimizer}, losses of {steps} steps: {worst:.2e} (bound {bound:.0e})")
    if steps == LONG[0]:
        assert a[-20:].mean() < a[:20].mean() - 0.5, "nothing was learnt, so nothing is shown"
        drawing = Path(os.environ.get("ALBERT_JAX_DRAWINGS", tmp_path))
        draw(a, b, drawing / f"training-{optimizer}.png")
        assert (drawing / f"training-{optimizer}.png").stat().st_size > 1000
    assert difference[: SHORT[0]].max() <= SHORT[1] and worst <= bound


def draw(a: np.ndarray, b: np.ndarray, path: Path) -> None:
    """Both curves, and their distance below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6))
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(b, linewidth=3, alpha=0.4, label="Transformers (PyTorch)")
    above.plot(a, linewidth=1, label="albert_jax")
    above.set_ylabel("loss")
    above.legend()
    below.semilogy(np.maximum(np.abs(a - b), 1e-9))
    below.axhline(LONG[1], linestyle=":")
    below.set_ylabel("absolute difference")
    below.set_xlabel("step")
    figure.savefig(path)
