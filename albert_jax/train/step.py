"""The one train step, and its counterpart for evaluation.

The step is a pure function of (state, batch, scalars). Loss and gradient stand in a region that
is manual over the axes that split rows (slice, data, fsdp) and automatic over tensor, so that
every reduction is written here, once: parameters are gathered in float32 before the passes, the
weights' totals come from the batch before the backward pass, gradients add up over micro-batches
in float32 and are reduced once, outside any loop. No collective stands inside the differentiated
function. Norms, clipping and the update rule work on global arrays after the region.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from albert_jax import tree
from albert_jax.config import Config, PhaseConfig
from albert_jax.model.albert import abstract_params
from albert_jax.model.dropout import row_keys
from albert_jax.objectives.terms import Loss, mean, weight_names
from albert_jax.optim.optimizer import build
from albert_jax.parallel.mesh import ROW_AXES, batch_sharding, check_rows
from albert_jax.parallel.rules import fsdp_dimension, parameter_shardings, parameter_specs
from albert_jax.train.state import TrainState, state_shardings

Flat = dict[str, jax.Array]
Batch = Mapping[str, jax.Array]
TrainStep = Callable[[TrainState, Batch, Mapping[str, Any]], tuple[TrainState, dict[str, Any]]]
EvalStep = Callable[[Any, Batch], dict[str, jax.Array]]


def make_train_step(
    config: Config,
    phase: PhaseConfig,
    mesh: Mesh,
    loss: Loss,
    *,
    params: Any = None,
    num_layers: int | None = None,
) -> TrainStep:
    """A jitted step (state, batch, scalars) -> (state, metrics); the given state is consumed.

    `params` are the parameters or their shapes (None: those of config.model with both heads),
    `passes` the depth (None: the model's own; one step per depth). The batch is global, its rows
    split as `batch_sharding` says; every column that a term of the loss names as weights ends in
    "_weights". `scalars` are learning_rate (float32) and seed (int32). Metrics, all float32
    scalars: loss, one loss per term, the sums of the loss and the weights' totals of the global
    batch, grad_norm (before clipping), learning_rate, skipped, skipped_in_a_row.

    Raises ConfigError when the phase's rows do not divide over the mesh and micro-batches.
    """
    check_rows(phase.batch_size, phase.gradient_accumulation_steps, mesh, "phases")
    shapes = abstract_params(config.model) if params is None else params
    specs = tree.flatten(parameter_specs(shapes, mesh))
    trained = [path for path in specs if not _frozen(path, phase)]
    rule = build(config.optimizer)

    def step(
        state: TrainState, batch: Batch, scalars: Mapping[str, Any]
    ) -> tuple[TrainState, dict[str, Any]]:
        flat = tree.flatten(state.params)
        numbers = jnp.arange(next(iter(batch.values())).shape[0], dtype=jnp.int32)
        gradients, metrics = _gradients(
            loss, mesh, specs, trained, phase.gradient_accumulation_steps, num_layers, flat,
            dict(batch), numbers, jnp.asarray(scalars["seed"], jnp.int32), state.step,
        )  # fmt: skip
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in gradients.values()))
        scale = config.optimizer.max_grad_norm / jnp.maximum(norm, config.optimizer.max_grad_norm)
        gradients = {path: gradient * scale for path, gradient in gradients.items()}

        rate = jnp.asarray(scalars["learning_rate"], jnp.float32)
        old = {path: flat[path] for path in trained}
        moments = type(state.opt_state)(*(tree.flatten(part) for part in state.opt_state))
        old_moments = type(moments)(*({path: part[path] for path in trained} for part in moments))
        updates: Any
        updates, new_moments = rule.update(gradients, old_moments, old, learning_rate=rate)
        new = {path: old[path] + updates[path] for path in trained}

        good = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
        keep = partial(jax.tree.map, lambda new, old: jnp.where(good, new, old))
        new, new_moments = keep(new, old), keep(new_moments, old_moments)
        params = flat | new
        ema = state.ema
        if ema is not None:
            decay = config.optimizer.ema_decay
            ema = tree.flatten(ema)
            averaged = {path: decay * ema[path] + (1.0 - decay) * params[path] for path in ema}
            ema = tree.unflatten(keep(averaged, ema))
        bad = 1 - good.astype(jnp.int32)
        state = TrainState(
            step=state.step + 1,
            params=tree.unflatten(params),
            opt_state=type(moments)(
                *(tree.unflatten(a | b) for a, b in zip(moments, new_moments, strict=True))
            ),
            ema=ema,
            skipped=state.skipped + bad,
            skipped_in_a_row=(state.skipped_in_a_row + 1) * bad,
        )
        metrics |= {
            "grad_norm": norm,
            "learning_rate": rate,
            "skipped": state.skipped.astype(jnp.float32),
            "skipped_in_a_row": state.skipped_in_a_row.astype(jnp.float32),
        }
        return state, metrics

    shardings = state_shardings(config, shapes, mesh)
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.jit(
        step,
        in_shardings=(shardings, batch_sharding(mesh), whole),
        out_shardings=(shardings, whole),
        donate_argnums=0,
    )


def make_eval_step(
    config: Config, mesh: Mesh, loss: Loss, *, params: Any = None, num_layers: int | None = None
) -> EvalStep:
    """A jitted (params, batch) -> sums over the global batch, dropout off, float32 scalars.

    Keys: "<term>_sum" and the weights' totals by their own names, so that mean losses of many
    batches are sums of the one over sums of the other, and the loss's own sums.
    """
    shapes = abstract_params(config.model) if params is None else params
    specs = tree.flatten(parameter_specs(shapes, mesh))
    axes = _used_axes(mesh)

    def local(flat: Flat, batch: Batch) -> dict[str, jax.Array]:
        found = loss(
            tree.unflatten(_gather(flat, specs)), batch, dropout=None, num_layers=num_layers
        )
        sums = {f"{name}_sum": term.total for name, term in found.terms.items()} | found.sums
        sums |= {name: jnp.sum(batch[name]) for name in weight_names(batch)}
        return _total(sums, axes)

    def evaluate(params: Any, batch: Batch) -> dict[str, jax.Array]:
        return _region(local, mesh, specs, (PartitionSpec(ROW_AXES),), PartitionSpec())(
            tree.flatten(params), dict(batch)
        )

    return jax.jit(
        evaluate,
        in_shardings=(
            parameter_shardings(shapes, mesh),
            batch_sharding(mesh),
        ),
        out_shardings=NamedSharding(mesh, PartitionSpec()),
    )


def make_output_step(
    mesh: Mesh, outputs: Callable[[Any, Batch], Any], *, params: Any
) -> Callable[[Any, Batch], Any]:
    """A jitted (params, batch) -> arrays of `outputs`, one entry per row, whole on every device."""
    specs = tree.flatten(parameter_specs(params, mesh))
    rows = PartitionSpec(ROW_AXES)

    def local(flat: Flat, batch: Batch) -> Any:
        return outputs(tree.unflatten(_gather(flat, specs)), batch)

    def find(params: Any, batch: Batch) -> Any:
        return _region(local, mesh, specs, (rows,), rows)(tree.flatten(params), dict(batch))

    return jax.jit(
        find,
        in_shardings=(parameter_shardings(params, mesh), batch_sharding(mesh)),
        out_shardings=NamedSharding(mesh, PartitionSpec()),
    )


def _frozen(path: str, phase: PhaseConfig) -> bool:
    return phase.freeze == "encoder" and path.startswith("encoder/")


def _used_axes(mesh: Mesh) -> tuple[str, ...]:
    """Row axes of more than one device; a reduction over the others would be an empty one."""
    return tuple(axis for axis in ROW_AXES if mesh.shape[axis] > 1)


def _total(values: dict[str, jax.Array], axes: tuple[str, ...]) -> dict[str, jax.Array]:
    """Sums scalars over devices in one reduction."""
    if not axes:
        return values
    names = list(values)
    total = jax.lax.psum(jnp.stack([values[name].astype(jnp.float32) for name in names]), axes)
    return dict(zip(names, total, strict=True))


def _region(
    function: Callable[..., Any],
    mesh: Mesh,
    specs: Mapping[str, PartitionSpec],
    in_specs: tuple[PartitionSpec, ...],
    out_specs: Any,
) -> Callable[..., Any]:
    """`function(flat parameters, ...)` on each device's own rows and parts of parameters."""
    return jax.shard_map(
        function,
        mesh=mesh,
        in_specs=({path: _manual(spec) for path, spec in specs.items()}, *in_specs),
        out_specs=out_specs,
        axis_names=set(ROW_AXES),
        # A fused kernel cannot live in a checked region, and jax 0.10.2 does not refuse an
        # unchecked region inside a checked one but sums cotangents wrongly.
        check_vma=False,
    )


def _manual(spec: PartitionSpec) -> PartitionSpec:
    """The part of a parameter's spec that the manual region sees: not the tensor axis."""
    return PartitionSpec(*(axis if axis == "fsdp" else None for axis in spec))


def _gather(flat: Flat, specs: Mapping[str, PartitionSpec]) -> Flat:
    """Whole parameters from each device's parts, in float32, once."""
    whole = {}
    for path, leaf in flat.items():
        dimension = fsdp_dimension(specs[path])
        if dimension is not None:
            leaf = jax.lax.all_gather(leaf, "fsdp", axis=dimension, tiled=True)
        whole[path] = leaf
    return whole


def _reduce(flat: Flat, specs: Mapping[str, PartitionSpec], axes: tuple[str, ...]) -> Flat:
    """Sums gradients over devices; each keeps the part that it stores."""
    parts = {}
    for path, leaf in flat.items():
        dimension = fsdp_dimension(specs[path])
        rest = axes
        if dimension is not None:
            leaf = jax.lax.psum_scatter(leaf, "fsdp", scatter_dimension=dimension, tiled=True)
            rest = tuple(axis for axis in axes if axis != "fsdp")
        parts[path] = jax.lax.psum(leaf, rest) if rest else leaf
    return parts


def _gradients(
    loss: Loss,
    mesh: Mesh,
    specs: Mapping[str, PartitionSpec],
    trained: list[str],
    gradient_accumulation_steps: int,
    num_layers: int | None,
    flat: Flat,
    batch: dict[str, jax.Array],
    numbers: jax.Array,
    seed: jax.Array,
    step: jax.Array,
) -> tuple[Flat, dict[str, jax.Array]]:
    """Gradients of the trained parameters, placed like them, and sums of the global batch."""
    axes = _used_axes(mesh)

    def local(
        flat: Flat, batch: Batch, numbers: jax.Array, seed: jax.Array, step: jax.Array
    ) -> tuple[Flat, dict[str, jax.Array]]:
        whole = _gather(flat, specs)
        fixed = {path: leaf for path, leaf in whole.items() if path not in trained}
        weights = _total({name: jnp.sum(batch[name]) for name in weight_names(batch)}, axes)

        def one(
            trainable: Flat, part: tuple[Batch, jax.Array]
        ) -> tuple[jax.Array, dict[str, jax.Array]]:
            rows, numbers = part
            keys = row_keys(seed, step, numbers)
            found = loss(
                tree.unflatten(fixed | trainable), rows, dropout=keys, num_layers=num_layers
            )
            sums = {
                f"{name}_loss": term.total / term.divisor(weights[term.weights])
                for name, term in found.terms.items()
            }
            value = mean(found.terms, weights)
            return value, {"loss": value} | sums | found.sums

        differentiate = jax.grad(one, has_aux=True)
        trainable = {path: whole[path] for path in trained}
        gradients, sums = _accumulate(
            differentiate, trainable, (batch, numbers), gradient_accumulation_steps
        )
        return _reduce(gradients, specs, axes), _total(sums, axes) | weights

    rows, whole = PartitionSpec(ROW_AXES), PartitionSpec()
    out = ({path: _manual(specs[path]) for path in trained}, whole)
    region = _region(local, mesh, specs, (rows, rows, whole, whole), out)
    return region(flat, batch, numbers, seed, step)


def _accumulate(
    differentiate: Callable[..., Any], trainable: Flat, rows: Any, gradient_accumulation_steps: int
) -> Any:
    """Sums of `differentiate(trainable, part)` over the micro-batches of this device's rows."""
    if gradient_accumulation_steps == 1:
        return differentiate(trainable, rows)
    parts = jax.tree.map(lambda x: x.reshape(gradient_accumulation_steps, -1, *x.shape[1:]), rows)
    shapes = jax.eval_shape(differentiate, trainable, jax.tree.map(lambda x: x[0], parts))
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), shapes)

    def add(total: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, differentiate(trainable, part)), None

    return jax.lax.scan(add, zero, parts)[0]
