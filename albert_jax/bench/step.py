"""How fast a config trains on the devices at hand, with made-up rows.

Loads neither what reads data nor what writes checkpoints. The model FLOPs utilisation is

    MFU = FLOPs of a step by observe/flops.py / seconds of a step / devices / peak

where the peak is the data sheet's bfloat16 rate of the chip (observe/chips.py), or, where none is
known, the rate of a large matrix product in the config's type, measured here; that measured rate
is always told beside it. Recomputation is not counted as work, and made-up rows have no padding.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from albert_jax.config import Config, ModelConfig, PhaseConfig
from albert_jax.errors import AlbertError, ConfigError
from albert_jax.observe import flops
from albert_jax.plan import chips

Batch = dict[str, np.ndarray]
_WARM_UP = 3


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured; times in seconds, rates per second."""

    config: str
    platform: str
    device: str
    devices: int
    rows: int
    sequence_length: int
    dtype: str
    attention: str
    remat: str
    steps: int
    """Steps that were timed."""
    step: float
    """Median time of a step."""
    slowest: float
    """Nine steps of ten were quicker."""
    tokens_per_second: float
    flops_per_step: float
    """By formula, all devices together."""
    flops_per_second: float
    """Of one device."""
    peak: float | None
    """Data-sheet rate of a device, if it is known."""
    product: float
    """Measured rate of a large matrix product on one device."""
    mfu: float
    """Share of the peak (of the measured product, if no peak is known)."""
    compilation: float
    """Tracing, lowering and compiling the step."""
    first_step: float
    """From the start of the process to the end of the first step."""
    peak_memory: int
    """Bytes: of one accelerator, or of this process on a CPU."""


def made_rows(model: ModelConfig, phase: PhaseConfig, rows: int, seed: int = 0) -> Batch:
    """A batch of full rows of random pieces, one pair each, all masked places used."""
    draw, length = np.random.default_rng(seed), phase.sequence_length
    masked = phase.max_predictions_per_seq
    place = np.tile(np.arange(length, dtype=np.int32), (rows, 1))
    low = min(5, model.vocab_size - 1)

    def pieces(*shape: int) -> np.ndarray:
        return draw.integers(low, model.vocab_size, shape, dtype=np.int32)

    return {
        "input_ids": pieces(rows, length),
        "token_type_ids": (place >= length // 2).astype(np.int32) * (model.type_vocab_size > 1),
        "segment_ids": np.ones((rows, length), np.int32),
        "positions": place,
        "mlm_positions": np.sort(draw.random((rows, length)).argsort(1)[:, :masked]).astype("i4"),
        "mlm_labels": pieces(rows, masked),
        "mlm_weights": np.ones((rows, masked), np.float32),
        "cls_positions": np.zeros((rows, 1), np.int32),
        "sop_labels": draw.integers(0, 2, (rows, 1), dtype=np.int32),
        "sop_weights": np.ones((rows, 1), np.float32),
    }


def adjusted(config: Config, *, phase: int = 0, rows: int | None, length: int | None) -> Config:
    """The config with one phase only, of `rows` x `length` if they are given.

    Raises ConfigError for a phase that is not there, and for sizes that contradict the config.
    """
    if not 0 <= phase < len(config.phases):
        raise ConfigError(f"--phase {phase}: the config has {len(config.phases)}, counted from 0")
    chosen = config.phases[phase]
    if rows is not None:
        chosen = dataclasses.replace(chosen, batch_size=rows, gradient_accumulation_steps=1)
    if length is not None:
        chosen = dataclasses.replace(chosen, sequence_length=length)
    chosen = dataclasses.replace(chosen, depths=(), packing=False, mixture=())
    config = dataclasses.replace(config, phases=(chosen,))
    config.validate()
    return config


class Stepper:
    """The one train step of a config on all devices, compiled, with its state and batches."""

    def __init__(self, config: Config) -> None:
        import jax

        from albert_jax.model import attention
        from albert_jax.model.init import init_params
        from albert_jax.objectives.pretraining import pretraining_loss
        from albert_jax.parallel.mesh import check_rows, global_batch, local_rows, make_mesh
        from albert_jax.train.state import init_state
        from albert_jax.train.step import make_train_step

        self._jax, phase = jax, config.phases[0]
        self.mesh = mesh = make_mesh(config.parallel)
        check_rows(phase.batch_size, phase.gradient_accumulation_steps, mesh, "phases.0")
        backend = attention.choose(config, mesh.devices.flat[0])
        self.attention = backend.name
        state = init_state(config, init_params(config.model, config.seed), mesh)
        mine = local_rows(mesh, phase.batch_size)

        def place(seed: int) -> Any:
            rows = made_rows(config.model, phase, phase.batch_size, seed)
            return lambda: global_batch(
                {name: column[mine] for name, column in rows.items()}, mesh, phase.batch_size
            )

        self._batches = [place(seed) for seed in range(2)]
        self._scalars = {"learning_rate": np.float32(1e-4), "seed": np.int32(config.seed)}
        loss = pretraining_loss(config.model, config.compute, backend)
        step = make_train_step(config, phase, mesh, loss)
        began = time.perf_counter()
        self._step = step.lower(state, self._batches[0](), self._scalars).compile()
        self.compilation = time.perf_counter() - began
        self._state, self._count = state, 0

    def run(self, steps: int) -> list[float]:
        """Seconds of each of `steps` steps. Like the training loop it copies every batch to the
        devices and reads each loss one step late."""
        waiting, ends = None, [time.perf_counter()]
        for _ in range(steps):
            batch = self._batches[self._count % len(self._batches)]()
            self._state, metrics = self._step(self._state, batch, self._scalars)
            self._count += 1
            if waiting is not None:
                self._read(waiting)
                ends.append(time.perf_counter())
            waiting = metrics["loss"]
        self._read(waiting)
        ends.append(time.perf_counter())
        return [after - before for before, after in zip(ends, ends[1:], strict=False)]

    def _read(self, loss: Any) -> None:
        if not np.isfinite(self._jax.device_get(loss)):
            raise AlbertError(f"the loss of step {self._count} is not finite")


def measure(config: Config, name: str, *, steps: int = 20) -> Figures:
    """Measures a config of one phase (`adjusted`) on all devices; `name` is for the table."""
    import jax

    phase, stepper = config.phases[0], Stepper(config)
    stepper.run(1)
    first_step = _age()
    stepper.run(_WARM_UP - 1)
    times = sorted(stepper.run(steps))
    median = statistics.median(times)
    device, count = jax.devices()[0], jax.device_count()
    # The compiler may hold other programs' memory: read before the matrix product below.
    memory = peak_memory(device)
    chip = chips.of_device(device.device_kind)
    peak = chip.flops / chip.devices if chip else None
    product = product_rate(config.compute.dtype)
    work = flops.per_step(config.model, phase)
    rate = work / median / count
    return Figures(
        config=name,
        platform=device.platform,
        device=device.device_kind,
        devices=count,
        rows=phase.batch_size,
        sequence_length=phase.sequence_length,
        dtype=config.compute.dtype,
        attention=stepper.attention,
        remat=config.compute.remat,
        steps=steps,
        step=median,
        slowest=times[min(len(times) - 1, int(len(times) * 0.9))],
        tokens_per_second=phase.batch_size * phase.sequence_length / median,
        flops_per_step=work,
        flops_per_second=rate,
        peak=peak,
        product=product,
        mfu=rate / (peak or product),
        compilation=stepper.compilation,
        first_step=first_step,
        peak_memory=memory,
    )


def product_rate(dtype: str, *, seconds: float = 0.5) -> float:
    """FLOP/s of the best of several large matrix products on the first device."""
    import jax
    import jax.numpy as jnp

    size = 1536 if jax.devices()[0].platform == "cpu" else 8192
    left = jnp.ones((size, size), dtype)
    multiply = jax.jit(lambda a, b: a @ b)
    jax.block_until_ready(multiply(left, left))
    best, deadline = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < deadline:
        began = time.perf_counter()
        result = left
        for _ in range(8):
            result = multiply(left, left)
        jax.block_until_ready(result)
        best = min(best, (time.perf_counter() - began) / 8)
    return 2 * size**3 / best


def table(figures: Figures) -> str:
    """The figures as lines for people."""
    f = figures
    compared = f"{f.mfu:.1%} of {(f.peak or f.product) / 1e12:.4g} TFLOP/s"
    compared += " (data sheet)" if f.peak else " (measured matrix product)"
    rows = {
        "config": f"{f.config}: {f.rows} x {f.sequence_length}, {f.dtype}, attention "
        f"{f.attention}, rematerialisation {f.remat}",
        "devices": f"{f.devices} x {f.device}",
        "step": f"{f.step * 1e3:.4g} ms (median of {f.steps}; nine of ten below "
        f"{f.slowest * 1e3:.4g} ms)",
        "tokens/s": f"{f.tokens_per_second:,.0f}",
        "FLOP/s": f"{f.flops_per_second / 1e12:.4g} T a device",
        "MFU": compared,
        "product": f"{f.product / 1e12:.4g} TFLOP/s measured: {f.flops_per_second / f.product:.1%}",
        "compilation": f"{f.compilation:.1f} s",
        "first step": f"{f.first_step:.1f} s after the start of the process",
        "peak memory": f"{f.peak_memory / chips.GIB:.2f} GiB"
        + (" of the process" if f.platform == "cpu" else " of a device"),
    }
    return "\n".join(f"{name:12} {value}" for name, value in rows.items())


def run(
    name: str,
    config: Config,
    *,
    phase: int = 0,
    rows: int | None = None,
    length: int | None = None,
    steps: int = 20,
    as_json: bool = False,
) -> None:
    """Measures and prints: the work of `albert-jax bench`."""
    if steps < 1:
        raise ConfigError(f"--steps {steps}: give at least 1")
    found = measure(adjusted(config, phase=phase, rows=rows, length=length), name, steps=steps)
    print(json.dumps(dataclasses.asdict(found)) if as_json else table(found))


def _age() -> float:
    """Seconds since this process began, as the kernel counts them; 0 where it does not tell."""
    try:
        with open("/proc/self/stat", encoding="ascii") as file:
            ticks = int(file.read().rsplit(")", 1)[1].split()[19])
        with open("/proc/uptime", encoding="ascii") as file:
            return float(file.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0


def peak_memory(device: Any) -> int:
    """Most bytes in use so far: of one accelerator, or of this process on a CPU."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
