"""The train step, and its counterparts for evaluation.

The step is a pure function of (state, batch, scalars). Loss and gradient are computed in a region
that is manual over the mesh axes that split rows (slice, data, fsdp) and automatic over tensor, so
every reduction is written here, once: parameters are gathered in float32 before the layers, the
total weights come from the batch before the backward pass, and gradients are accumulated in
float32 and reduced once, outside any loop. No collective is part of the differentiated function.
Norms, clipping and the optimizer work on global arrays after the region.

Shapes: B rows of the global batch, b rows of one device, A gradient accumulation steps. A batch is
a dict of columns [B, ...]; parameters and gradients are nested dicts of float32 arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from albert_jax.config import Config, OptimizerConfig, PhaseConfig
from albert_jax.model.albert import Batch, abstract_params
from albert_jax.model.dropout import row_keys
from albert_jax.objectives.loss_terms import Loss, mean, means, weight_names
from albert_jax.optim.optimizer import make_optimizer, map_state
from albert_jax.parallel.mesh import ROW_AXES, batch_sharding
from albert_jax.parallel.rules import fsdp_dimension, parameter_shardings, parameter_specs
from albert_jax.train.state import TrainState, abstract_state
from albert_jax.tree import path_of

Params = Any
"""Nested dict of arrays."""
Sums = dict[str, jax.Array]
TrainStep = Callable[[TrainState, Batch, Mapping[str, Any]], tuple[TrainState, dict[str, Any]]]
EvalStep = Callable[[Params, Batch], Any]

ROWS, REPLICATED = PartitionSpec(ROW_AXES), PartitionSpec()


def make_train_step(
    config: Config,
    phase: PhaseConfig,
    mesh: Mesh,
    loss: Loss,
    params: Params = None,
    num_layers: int | None = None,
) -> TrainStep:
    """Makes the jitted step (state, batch, scalars) -> (state, metrics); the state is donated.

    The batch is global, with rows split like `batch_sharding`; the rows of the phase must divide
    over the mesh (`mesh.check_rows`). `scalars` are learning_rate (float32) and seed (int32). The
    metrics are float32 scalars of the global batch: loss, one loss per term, the sums of the loss,
    the total weights, grad_norm (before clipping), learning_rate, skipped and skipped_in_a_row.
    `params` are the parameters or their shapes, by default those of config.model with all heads.
    `num_layers` is the depth; None means the model's own.
    """
    shapes = abstract_params(config.model) if params is None else params
    frozen = frozen_parameters(shapes, phase, pretraining=config.task is None)
    compute_gradients = _gradient_function(
        loss, mesh, shapes, frozen, phase.gradient_accumulation_steps, num_layers
    )

    def step(
        state: TrainState, batch: Batch, scalars: Mapping[str, Any]
    ) -> tuple[TrainState, dict[str, Any]]:
        seed = jnp.asarray(scalars["seed"], jnp.int32)
        gradients, metrics = compute_gradients(state.params, dict(batch), seed, state.step)
        metrics["grad_norm"] = optax.tree.norm(gradients)
        metrics["learning_rate"] = jnp.asarray(scalars["learning_rate"], jnp.float32)
        state = _apply_gradients(state, gradients, metrics, config.optimizer, frozen)
        for name in ("skipped", "skipped_in_a_row"):
            metrics[name] = getattr(state, name).astype(jnp.float32)
        return state, metrics

    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, shapes, mesh))
    replicated = NamedSharding(mesh, REPLICATED)
    return jax.jit(
        step,
        in_shardings=(shardings, batch_sharding(mesh), replicated),
        out_shardings=(shardings, replicated),
        donate_argnums=0,
    )


def make_eval_step(mesh: Mesh, loss: Loss, params: Params) -> EvalStep:
    """Makes a jitted (params, batch) -> float32 sums over the global batch, dropout off.

    The keys are "<term>_sum", the names of the weight columns and those of the loss's own sums:
    the mean loss over many batches is the quotient of two sums. `params` may be shapes.
    """
    axes = _used_axes(mesh)

    def evaluate(params: Params, batch: Batch) -> Sums:
        terms, sums = loss(params, batch, dropout=None, num_layers=None)
        sums = {f"{name}_sum": term.total for name, term in terms.items()} | sums
        return _sum_over_devices(sums | _total_weights(batch), axes)

    return _jit_on_rows(evaluate, mesh, params, REPLICATED)


def make_output_step(mesh: Mesh, outputs: EvalStep, params: Params) -> EvalStep:
    """Makes a jitted (params, batch) -> arrays [B, ...] of `outputs`, replicated."""
    return _jit_on_rows(outputs, mesh, params, ROWS)


def _jit_on_rows(
    function: EvalStep, mesh: Mesh, shapes: Params, out_specs: PartitionSpec
) -> EvalStep:
    """Jits `function(params, rows)` as applied to the rows of each device."""
    specs = parameter_specs(shapes, mesh)

    def local(params: Params, batch: Batch) -> Any:
        return function(jax.tree.map(_gather, params, specs), batch)

    def apply(params: Params, batch: Batch) -> Any:
        return _manual_region(local, mesh, (_manual(specs), ROWS), out_specs)(params, dict(batch))

    return jax.jit(
        apply,
        in_shardings=(parameter_shardings(shapes, mesh), batch_sharding(mesh)),
        out_shardings=NamedSharding(mesh, REPLICATED),
    )


def frozen_parameters(params: Params, phase: PhaseConfig, *, pretraining: bool) -> Params:
    """True where the phase leaves a parameter as it is; heads without a loss would only decay."""
    frozen, objective = ("encoder/",) * (phase.freeze == "encoder"), phase.objective
    if pretraining:
        frozen += ("pooler/", "sop_head/") * (objective.sentence_order == "none")
        frozen += ("mlm_head/",) * (objective.mask_rate == 0)
        frozen += ("word_head/",) * (objective.word_prediction == "none")
    return jax.tree.map_with_path(lambda keys, _: path_of(keys).startswith(frozen), params)


def _apply_gradients(
    state: TrainState, gradients: Params, metrics: Sums, config: OptimizerConfig, frozen: Params
) -> TrainState:
    """The next state, from gradients and the metrics loss, grad_norm and learning_rate.

    A step that is not finite leaves parameters, optimizer state and averaged copy bitwise as they
    were; frozen parameters and the leaves of the optimizer state that belong to them never change.
    """
    norm = metrics["grad_norm"]
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)

    def select(is_frozen: bool, new: jax.Array, old: jax.Array) -> jax.Array:
        return old if is_frozen else jnp.where(finite, new, old)

    scale = config.max_grad_norm / jnp.maximum(norm, config.max_grad_norm)
    gradients = jax.tree.map(lambda gradient: gradient * scale, gradients)
    optimizer = make_optimizer(config, metrics["learning_rate"])
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    params = jax.tree.map(select, frozen, params, state.params)
    frozen_state = map_state(
        optimizer, lambda _, is_frozen: is_frozen, opt_state, frozen, others=lambda _: False
    )
    ema, decay = state.ema, config.ema_decay
    if ema is not None:
        ema = jax.tree.map(
            lambda mean, w: jnp.where(finite, decay * mean + (1.0 - decay) * w, mean), ema, params
        )
    skipped = 1 - finite.astype(jnp.int32)
    return TrainState(
        step=state.step + 1,
        params=params,
        opt_state=jax.tree.map(select, frozen_state, opt_state, state.opt_state),
        ema=ema,
        skipped=state.skipped + skipped,
        skipped_in_a_row=(state.skipped_in_a_row + 1) * skipped,
    )


def _gradient_function(
    loss: Loss,
    mesh: Mesh,
    shapes: Params,
    frozen: Params,
    gradient_accumulation_steps: int,
    num_layers: int | None,
) -> Callable[..., tuple[Params, Sums]]:
    """(params, batch, seed, step) to gradients (zeros for frozen parameters), sharded like params,
    and sums of the global batch."""
    axes, specs = _used_axes(mesh), parameter_specs(shapes, mesh)

    def local(
        params: Params, batch: Batch, rows: jax.Array, seed: jax.Array, step: jax.Array
    ) -> tuple[Params, Sums]:
        weights = _sum_over_devices(_total_weights(batch), axes)

        def mean_loss(params: Params, part: tuple[Batch, jax.Array]) -> tuple[jax.Array, Sums]:
            batch, rows = part
            params = jax.tree.map(
                lambda w, is_frozen: jax.lax.stop_gradient(w) if is_frozen else w, params, frozen
            )
            dropout = row_keys(seed, step, rows)
            terms, sums = loss(params, batch, dropout=dropout, num_layers=num_layers)
            losses = {f"{name}_loss": value for name, value in means(terms, weights).items()}
            value = mean(terms, weights)
            return value, {"loss": value} | losses | sums

        gradients, sums = _accumulate(
            jax.grad(mean_loss, has_aux=True),
            jax.tree.map(_gather, params, specs),
            (batch, rows),
            gradient_accumulation_steps,
        )
        gradients = jax.tree.map(partial(_reduce, axes), params, gradients, specs, frozen)
        return gradients, _sum_over_devices(sums, axes) | weights

    def compute(
        params: Params, batch: Batch, seed: jax.Array, step: jax.Array
    ) -> tuple[Params, Sums]:
        rows = jnp.arange(next(iter(batch.values())).shape[0], dtype=jnp.int32)
        manual = _manual(specs)
        in_specs = (manual, ROWS, ROWS, REPLICATED, REPLICATED)
        region = _manual_region(local, mesh, in_specs, (manual, REPLICATED))
        return region(params, batch, rows, seed, step)

    return compute


def _accumulate(
    differentiate: Callable[..., Any], params: Params, rows: Any, num_parts: int
) -> Any:
    """Sums of `differentiate(params, part)` over A parts [b / A, ...] of the rows [b, ...]."""
    if num_parts == 1:
        return differentiate(params, rows)
    parts = jax.tree.map(lambda x: x.reshape(num_parts, -1, *x.shape[1:]), rows)
    shapes = jax.eval_shape(differentiate, params, jax.tree.map(lambda x: x[0], parts))
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), shapes)

    def add(total: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, differentiate(params, part)), None

    return jax.lax.scan(add, zero, parts)[0]


def _manual_region(
    function: Callable[..., Any], mesh: Mesh, in_specs: tuple[Any, ...], out_specs: Any
) -> Callable[..., Any]:
    """`function` on the rows and the parts of parameters that each device holds."""
    # A fused kernel cannot live in a checked region, and jax 0.10.2 does not refuse an unchecked
    # region inside a checked one but sums cotangents wrongly.
    return jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs,
        axis_names=set(ROW_AXES), check_vma=False,
    )  # fmt: skip


def _manual(specs: Params) -> Params:
    """The part of each parameter's spec that the manual region sees: not the tensor axis."""
    return jax.tree.map(
        lambda spec: PartitionSpec(*(axis if axis == "fsdp" else None for axis in spec)), specs
    )


def _used_axes(mesh: Mesh) -> tuple[str, ...]:
    """The row axes of more than one device; a reduction over the others would be empty."""
    return tuple(axis for axis in ROW_AXES if mesh.shape[axis] > 1)


def _total_weights(batch: Batch) -> Sums:
    return {name: jnp.sum(batch[name]) for name in weight_names(batch)}


def _sum_over_devices(values: Sums, axes: tuple[str, ...]) -> Sums:
    """Sums scalars over the devices in one reduction."""
    if not axes:
        return values
    stacked = jnp.stack([value.astype(jnp.float32) for value in values.values()])
    return dict(zip(values, jax.lax.psum(stacked, axes), strict=True))


def _gather(leaf: jax.Array, spec: PartitionSpec) -> jax.Array:
    """A complete float32 parameter from the parts of all devices."""
    dimension = fsdp_dimension(spec)
    if dimension is None:
        return leaf
    return jax.lax.all_gather(leaf, "fsdp", axis=dimension, tiled=True)


def _reduce(
    axes: tuple[str, ...], part: jax.Array, gradient: jax.Array, spec: PartitionSpec, frozen: bool
) -> jax.Array:
    """The sum of a gradient over the devices, of which each keeps the part that it stores."""
    if frozen:
        return jnp.zeros_like(part)
    dimension = fsdp_dimension(spec)
    if dimension is not None:
        gradient = jax.lax.psum_scatter(gradient, "fsdp", scatter_dimension=dimension, tiled=True)
        axes = tuple(axis for axis in axes if axis != "fsdp")
    return jax.lax.psum(gradient, axes) if axes else gradient
