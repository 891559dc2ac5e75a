"""The speed of training steps on the devices at hand, with random rows.

Neither the readers of data nor the checkpoints are loaded. The model FLOPs utilization is

    MFU = FLOPs of a step by model/flops.py / seconds of a step / devices / peak

where the peak is the data sheet's bfloat16 rate of the chip (plan/chips.py) or, for an unknown
chip, the measured rate of a large matrix product in the config's type, which is always reported
too. Recomputation does not count as work, and the random rows have no padding.
"""

from __future__ import annotations

import dataclasses
import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from albert_jax.config import Config, ModelConfig, PhaseConfig
from albert_jax.data.batches.batch import Batch, empty_batch, set_word_weights
from albert_jax.errors import ConfigError, NumericsError
from albert_jax.model import flops
from albert_jax.plan import chips

_WARM_UP_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class StepTiming:
    """Time, rates and memory of a measured training step; rates are those of one device."""

    config: str
    platform: str
    device: str
    devices: int
    batch_size: int
    sequence_length: int
    dtype: str
    attention: str
    remat: str
    steps: int
    """Number of timed steps."""
    step_seconds: float
    """Median."""
    step_seconds_p90: float
    """Nine steps out of ten took at most so long."""
    tokens_per_second: float
    """Of all devices."""
    flops_per_step: float
    """Floating-point operations of a step over all devices, by formula."""
    flops_per_second: float
    peak_flops_per_second: float | None
    """By the data sheet, if it is known."""
    matmul_flops_per_second: float
    """Measured with a large matrix product."""
    mfu: float
    """Share of the peak, or of the measured rate of matrix products if no peak is known."""
    compilation_seconds: float
    """Time to trace, lower and compile the step."""
    first_step_seconds: float
    """Time from the start of the process to the end of the first step."""
    peak_memory_bytes: int
    """Of one accelerator, or of this process on a CPU."""


def random_rows(model: ModelConfig, phase: PhaseConfig, batch_size: int, seed: int = 0) -> Batch:
    """A batch of full rows of random tokens with one pair each and all masked positions used."""
    rng, length = np.random.default_rng(seed), phase.sequence_length
    masked = phase.max_predictions_per_seq
    positions = np.tile(np.arange(length, dtype=np.int32), (batch_size, 1))
    first_id = min(5, model.vocab_size - 1)

    def tokens(*shape: int) -> np.ndarray:
        return rng.integers(first_id, model.vocab_size, shape, dtype=np.int32)

    order = rng.random((batch_size, length)).argsort(1)
    batch = empty_batch(phase, batch_size) | {
        "input_ids": tokens(batch_size, length),
        "token_type_ids": (positions >= length // 2).astype(np.int32) * (model.type_vocab_size > 1),
        "segment_ids": np.ones((batch_size, length), np.int32),
        "positions": positions,
        "mlm_positions": np.sort(order[:, :masked]).astype(np.int32),
        "mlm_labels": tokens(batch_size, masked),
        "mlm_weights": np.ones((batch_size, masked), np.float32),
    }
    batch["sop_labels"][:, 0] = rng.integers(0, 2, batch_size)
    batch["sop_weights"][:, 0] = 1
    if "word_labels" in batch:
        labels = batch["word_labels"]
        labels[:] = rng.integers(0, max(1, model.word_vocab_size), labels.shape)
        set_word_weights(batch, phase)
    return batch


def single_phase(
    config: Config, number: int = 0, batch_size: int | None = None, length: int | None = None
) -> Config:
    """The config with one of its phases only, of `batch_size` x `length` where they are given.

    Raises ConfigError for a phase that does not exist, or sizes that contradict the config.
    """
    if not 0 <= number < len(config.phases):
        raise ConfigError(f"--phase {number}: the config has {len(config.phases)}, counted from 0")
    phase = dataclasses.replace(config.phases[number], depths=(), packing=False, mixture=())
    if batch_size is not None:
        phase = dataclasses.replace(phase, batch_size=batch_size, gradient_accumulation_steps=1)
    if length is not None:
        phase = dataclasses.replace(phase, sequence_length=length)
    config = dataclasses.replace(config, phases=(phase,))
    config.validate()
    return config


class Stepper:
    """The train step of a config of one phase on all devices, compiled, with state and batches."""

    def __init__(self, config: Config, num_layers: int | None = None) -> None:
        """Compiles the step at a depth; None is the model's own."""
        from albert_jax.model import attention
        from albert_jax.model.init import init_params
        from albert_jax.model.unroll import with_unroll
        from albert_jax.objectives.pretraining import pretraining_loss
        from albert_jax.parallel.mesh import check_rows, global_batch, local_rows, make_mesh
        from albert_jax.train.state import init_state
        from albert_jax.train.step import make_train_step

        phase, mesh = config.phases[0], make_mesh(config.parallel)
        config = with_unroll(config, mesh.devices.flat[0])
        check_rows(phase.batch_size, phase.gradient_accumulation_steps, mesh, "phases.0")
        backend = attention.choose(config, mesh.devices.flat[0])
        self.attention = backend.name
        state = init_state(config, init_params(config.model, config.seed), mesh)
        local = local_rows(mesh, phase.batch_size)

        def batch(seed: int) -> Callable[[], Any]:
            columns = random_rows(config.model, phase, phase.batch_size, seed)
            columns = {name: column[local] for name, column in columns.items()}
            return lambda: global_batch(columns, mesh, phase.batch_size)

        self._batches = [batch(seed) for seed in range(2)]
        self._scalars = {"learning_rate": np.float32(1e-4), "seed": np.int32(config.seed)}
        loss = pretraining_loss(config.model, config.compute, backend, objective=phase.objective)
        step = make_train_step(config, phase, mesh, loss, num_layers=num_layers)
        start = time.perf_counter()
        self._step = step.lower(state, self._batches[0](), self._scalars).compile()
        self.compilation = time.perf_counter() - start
        self._state, self._count = state, 0

    def run(self, steps: int) -> list[float]:
        """Seconds of each of `steps` steps.

        Like the training loop it copies every batch to the devices and reads each loss one step
        late.
        """
        pending, times = None, [time.perf_counter()]
        for _ in range(steps):
            batch = self._batches[self._count % len(self._batches)]()
            self._state, metrics = self._step(self._state, batch, self._scalars)
            self._count += 1
            if pending is not None:
                self._read(pending)
                times.append(time.perf_counter())
            pending = metrics["loss"]
        self._read(pending)
        times.append(time.perf_counter())
        return [after - before for before, after in pairwise(times)]

    def _read(self, loss: Any) -> None:
        if not np.isfinite(np.asarray(loss)):
            raise NumericsError(
                f"the loss of step {self._count} is not finite: try it with compute.dtype float32"
            )


def measure(config: Config, name: str, *, steps: int = 20) -> StepTiming:
    """Measures a config of one phase on all devices; `name` is for the table."""
    import jax

    phase, stepper = config.phases[0], Stepper(config)
    stepper.run(1)
    first_step = _process_age()
    stepper.run(_WARM_UP_STEPS - 1)
    times = sorted(stepper.run(steps))
    median = statistics.median(times)
    device, count = jax.devices()[0], jax.device_count()
    memory = peak_memory(device)  # read before the matrix product below needs memory, too
    chip = chips.of_device(device.device_kind)
    peak = chip.flops / chip.devices if chip else None
    product = matmul_rate(config.compute.dtype)
    work = flops.per_step(config.model, phase)
    flops_per_second = work / median / count
    return StepTiming(
        config=name,
        platform=device.platform,
        device=device.device_kind,
        devices=count,
        batch_size=phase.batch_size,
        sequence_length=phase.sequence_length,
        dtype=config.compute.dtype,
        attention=stepper.attention,
        remat=config.compute.remat,
        steps=steps,
        step_seconds=median,
        step_seconds_p90=times[min(len(times) - 1, int(len(times) * 0.9))],
        tokens_per_second=phase.batch_size * phase.sequence_length / median,
        flops_per_step=work,
        flops_per_second=flops_per_second,
        peak_flops_per_second=peak,
        matmul_flops_per_second=product,
        mfu=flops_per_second / (peak or product),
        compilation_seconds=stepper.compilation,
        first_step_seconds=first_step,
        peak_memory_bytes=memory,
    )


def seconds_per_step(config: Config) -> list[float]:
    """Median seconds of a few steps of each phase, the mean over its depths."""

    def median(number: int, depth: int | None) -> float:
        stepper = Stepper(single_phase(config, number), depth)
        stepper.run(_WARM_UP_STEPS)
        return statistics.median(stepper.run(5))

    return [
        statistics.mean(median(number, depth) for depth in phase.depths or (None,))
        for number, phase in enumerate(config.phases)
    ]


def matmul_rate(dtype: str, *, seconds: float = 0.5) -> float:
    """FLOP/s of the fastest of several large matrix products on the first device."""
    import jax
    import jax.numpy as jnp

    size = 1536 if jax.devices()[0].platform == "cpu" else 8192
    left = jnp.ones((size, size), dtype)
    multiply = jax.jit(lambda a, b: a @ b)
    jax.block_until_ready(multiply(left, left))
    best, deadline = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < deadline:
        start = time.perf_counter()
        result = left
        for _ in range(8):
            result = multiply(left, left)
        jax.block_until_ready(result)
        best = min(best, (time.perf_counter() - start) / 8)
    return 2 * size**3 / best


def table(timing: StepTiming) -> str:
    """The timing as lines of text."""
    t = timing
    best = t.peak_flops_per_second or t.matmul_flops_per_second
    origin = "data sheet" if t.peak_flops_per_second else "measured matrix product"
    memory_of = "the process" if t.platform == "cpu" else "a device"
    lines = {
        "config": f"{t.config}: {t.batch_size} x {t.sequence_length}, {t.dtype}, attention "
        f"{t.attention}, rematerialization {t.remat}",
        "devices": f"{t.devices} x {t.device}",
        "step": f"{t.step_seconds * 1e3:.4g} ms (median of {t.steps}; nine out of ten at most "
        f"{t.step_seconds_p90 * 1e3:.4g} ms)",
        "tokens/s": f"{t.tokens_per_second:,.0f}",
        "FLOP/s": f"{t.flops_per_second / 1e12:.4g} T per device",
        "MFU": f"{t.mfu:.1%} of {best / 1e12:.4g} TFLOP/s ({origin})",
        "product": f"{t.matmul_flops_per_second / 1e12:.4g} TFLOP/s measured: "
        f"{t.flops_per_second / t.matmul_flops_per_second:.1%}",
        "compilation": f"{t.compilation_seconds:.1f} s",
        "first step": f"{t.first_step_seconds:.1f} s after the start of the process",
        "peak memory": f"{t.peak_memory_bytes / chips.GIB:.2f} GiB of {memory_of}",
    }
    return "\n".join(f"{name:12} {value}" for name, value in lines.items())


def _process_age() -> float:
    """Seconds since this process began, by the kernel's count; 0 where it does not say."""
    try:
        with open("/proc/self/stat", encoding="ascii") as file:
            ticks = int(file.read().rsplit(")", 1)[1].split()[19])
        with open("/proc/uptime", encoding="ascii") as file:
            return float(file.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0


def peak_memory(device: Any) -> int:
    """Peak bytes in use so far, of an accelerator or (on a CPU) of this process."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
