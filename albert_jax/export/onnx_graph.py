"""The network as an ONNX graph: one builder for all heads, each weight held once.

The passes are written out, and all that share a parameter set name the same initializers. Axes
are symbolic (programs.py). Weights stored as int8 are made float32 again by one Cast and one Mul.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from albert_jax.config import LAYER_NORM_EPS, Config
from albert_jax.export.programs import Axes, Program
from albert_jax.export.quantization import Int8
from albert_jax.model import sharing
from albert_jax.tasks.heads import NEVER
from albert_jax.tree import flatten

OPSET = 20
"""The first with Gelu; onnxruntime has it since 1.17."""

_MASKED = -1e9
"""Score of what a token does not see, as in model/attention.py."""


def build(
    program: Program,
    run_config: Config,
    params: Mapping[str, Any],
    int8: Mapping[str, Int8],
) -> Any:
    """The ModelProto of a program; `int8` holds the weights (by path) that are stored so."""
    import onnx

    graph = _Graph(onnx, run_config, flatten(params), int8)
    for name, value in _outputs(graph, program).items():
        graph.nodes.append(onnx.helper.make_node("Identity", [value], [name]))
    types = onnx.TensorProto

    def described(tensors: Mapping[str, Axes]) -> list[Any]:
        found = []
        for name, axes in tensors.items():
            whole = name.endswith("_places") or (name in program.inputs and name != "p_mask")
            kind = types.INT64 if whole else types.FLOAT
            found.append(onnx.helper.make_tensor_value_info(name, kind, list(axes)))
        return found

    made = onnx.helper.make_graph(
        graph.nodes,
        f"albert_{program.kind}",
        described(program.inputs),
        described(program.outputs),
        graph.initializers,
    )
    model = onnx.helper.make_model(
        made,
        producer_name="albert_jax",
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=9,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


class _Graph:
    """Nodes and initializers as they come up; values are known by their names."""

    def __init__(
        self, onnx: Any, run_config: Config, flat: Mapping[str, Any], int8: Mapping[str, Int8]
    ) -> None:
        self.onnx, self.run_config, self.model = onnx, run_config, run_config.model
        self.flat, self.int8 = flat, int8
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._known: dict[Any, str] = {}

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node; the name of its output, or a list of names."""
        number = len(self.nodes)
        names = [f"{kind}_{number}" + (f"_{i}" if i else "") for i in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, names, **attributes))
        return names if outputs > 1 else names[0]

    def store(self, name: str, array: Any) -> str:
        """An initializer."""
        array = np.asarray(array, order="C")  # ascontiguousarray would give scalars an axis
        self.initializers.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def constant(self, values: Any, dtype: Any = np.int64) -> str:
        """A small constant; equal ones are held once."""
        array = np.asarray(values, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = self.store(f"constant_{len(self._known)}", array)
        return self._known[key]

    def weight(self, path: str, index: int | None = None) -> str:
        """A parameter (of the stacked ones: set `index`), stored where it is first asked for."""
        key = path if index is None else f"{path}/{index}"
        if key not in self._known:
            chosen = slice(None) if index is None else index
            if path in self.int8:
                stored = self.int8[path]
                values = self.store(f"{key}/int8", stored.values[chosen])
                scales = np.expand_dims(stored.scales[chosen], 1 - stored.axis)
                # Not DequantizeLinear: onnxruntime makes that and a product into one of
                # rounded activations, whose errors add up over the passes.
                restored = self.op("Cast", values, to=self.onnx.TensorProto.FLOAT)
                self._known[key] = self.op("Mul", restored, self.store(f"{key}/scale", scales))
            else:
                self._known[key] = self.store(key, self.flat[path][chosen])
        return self._known[key]

    def dense(self, x: str, path: str, index: int | None = None) -> str:
        """Product with a kernel, and the bias where there is one."""
        y = self.op("MatMul", x, self.weight(f"{path}/kernel", index))
        if f"{path}/bias" not in self.flat:
            return y
        return self.op("Add", y, self.weight(f"{path}/bias", index))

    def norm(self, x: str, path: str, index: int | None = None) -> str:
        """LayerNorm over the last axis."""
        scale, bias = (self.weight(f"{path}/{leaf}", index) for leaf in ("scale", "bias"))
        return self.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=LAYER_NORM_EPS)

    def activate(self, x: str) -> str:
        """The configured activation."""
        match self.model.hidden_act:
            case "gelu_new":
                return self.op("Gelu", x, approximate="tanh")
            case "relu":
                return self.op("Relu", x)
            case "tanh":
                return self.op("Tanh", x)
            case _:
                return x

    def take(self, x: str, place: int, axis: int) -> str:
        """One place of an axis, which goes away."""
        return self.op("Gather", x, self.constant(place), axis=axis)


def _encode(g: _Graph, ids: str, types: str, mask: str) -> str:
    """Hidden states [B, S, H] of three [B, S]."""
    length = g.op("Shape", ids, start=1, end=2)
    tables = "embeddings/{}_embeddings/embedding".format
    places = g.op("Slice", g.weight(tables("position")), g.constant([0]), length, g.constant([0]))
    x = g.op("Gather", g.weight(tables("word")), ids)
    x = g.op("Add", g.op("Add", x, places), g.op("Gather", g.weight(tables("token_type")), types))
    x = g.norm(x, "embeddings/layer_norm")
    if g.model.embedding_size != g.model.hidden_size:
        x = g.dense(x, "embeddings/projection")
    queries, keys = (g.op("Unsqueeze", mask, g.constant([1, axis])) for axis in (3, 2))
    seen = g.op("Equal", queries, keys)
    table = sharing.table(g.model)
    for attention, ffn in zip(table.attention, table.ffn, strict=True):
        x = _attend(g, x, seen, attention)
        inner = g.activate(g.dense(x, "encoder/ffn/intermediate", ffn))
        inner = g.dense(inner, "encoder/ffn/output", ffn)
        x = g.norm(g.op("Add", x, inner), "encoder/ffn/layer_norm", ffn)
    return x


def _attend(g: _Graph, x: str, seen: str, index: int) -> str:
    """One attention sublayer with the parameter set `index`."""
    heads, size = g.model.num_attention_heads, g.model.head_size

    def split(name: str, order: list[int]) -> str:
        y = g.dense(x, f"encoder/attention/{name}", index)
        return g.op("Transpose", g.op("Reshape", y, g.constant([0, 0, heads, size])), perm=order)

    query, value = split("query", [0, 2, 1, 3]), split("value", [0, 2, 1, 3])
    query = g.op("Mul", query, g.constant(size**-0.5, np.float32))
    scores = g.op("MatMul", query, split("key", [0, 2, 3, 1]))
    scores = g.op("Where", seen, scores, g.constant(_MASKED, np.float32))
    context = g.op("MatMul", g.op("Softmax", scores, axis=-1), value)
    context = g.op("Transpose", context, perm=[0, 2, 1, 3])
    context = g.op("Reshape", context, g.constant([0, 0, heads * size]))
    output = g.dense(context, "encoder/attention/output", index)
    return g.norm(g.op("Add", x, output), "encoder/attention/layer_norm", index)


def _outputs(g: _Graph, program: Program) -> dict[str, str]:
    """Output of the program -> value of the graph."""
    ids, types, mask = "input_ids", "token_type_ids", "attention_mask"
    if program.kind == "choice":
        ids, types, mask = (g.op("Flatten", name, axis=2) for name in (ids, types, mask))
    hidden = _encode(g, ids, types, mask)
    match program.kind:
        case "pretraining":
            found = [_mlm(g, hidden), g.dense(_pooled(g, hidden), "sop_head")]
        case "mlm" | "generation":
            found = [_mlm(g, hidden)]
        case "base":
            found = [hidden, _pooled(g, hidden)]
        case "classification" | "regression":
            found = [g.dense(_sentence(g, hidden, mask), "head/classifier")]
        case "choice":
            found = [_choices(g, g.dense(_sentence(g, hidden, mask), "head/classifier"))]
        case "tagging":
            found = [g.dense(hidden, "head/tagger")]
        case "embedding":
            found = [_normalised(g, _mean(g, hidden, mask))]
        case "squad-v1":
            both = g.dense(hidden, "head/span")
            found = [g.take(both, side, 2) for side in (0, 1)]
        case _:
            found = _searched_spans(g, hidden)
    return dict(zip(program.outputs, found, strict=True))


def _pooled(g: _Graph, hidden: str) -> str:
    return g.op("Tanh", g.dense(g.take(hidden, 0, 1), "pooler"))


def _mlm(g: _Graph, hidden: str) -> str:
    x = g.norm(g.activate(g.dense(hidden, "mlm_head/dense")), "mlm_head/layer_norm")
    table = g.op("Transpose", g.weight("embeddings/word_embeddings/embedding"), perm=[1, 0])
    return g.op("Add", g.op("MatMul", x, table), g.weight("mlm_head/bias"))


def _sentence(g: _Graph, hidden: str, mask: str) -> str:
    """What a sentence is judged by, [B, H]."""
    assert g.run_config.task is not None
    return _mean(g, hidden, mask) if g.run_config.task.pooling == "mean" else _pooled(g, hidden)


def _mean(g: _Graph, hidden: str, mask: str) -> str:
    """Mean of the states of real tokens."""
    real = g.op("Cast", g.op("Greater", mask, g.constant(0)), to=g.onnx.TensorProto.FLOAT)
    real = g.op("Unsqueeze", real, g.constant([2]))
    total = g.op("ReduceSum", g.op("Mul", hidden, real), g.constant([1]), keepdims=0)
    count = g.op("ReduceSum", real, g.constant([1]), keepdims=0)
    return g.op("Div", total, g.op("Max", count, g.constant(1, np.float32)))


def _normalised(g: _Graph, x: str) -> str:
    square = g.op("ReduceSumSquare", x, g.constant([1]), keepdims=1)
    return g.op("Div", x, g.op("Sqrt", g.op("Max", square, g.constant(1e-24, np.float32))))


def _choices(g: _Graph, logits: str) -> str:
    """[B * G, 1] -> [B, G], empty choices out of the running where there is any at all."""
    logits = g.op("Reshape", logits, g.op("Shape", "input_ids", start=0, end=2))
    there = g.op("Greater", g.take("attention_mask", 0, 2), g.constant(0))
    whole = g.op("Cast", there, to=g.onnx.TensorProto.INT32)
    some = g.op("Cast", g.op("ReduceMax", whole, g.constant([1])), to=g.onnx.TensorProto.BOOL)
    gone = g.op("And", some, g.op("Not", there))
    return g.op("Where", gone, g.constant(-NEVER, np.float32), logits)


def _searched_spans(g: _Graph, hidden: str) -> list[str]:
    """The beam search of SQuAD 2.0 (tasks/heads.py, search_spans)."""
    assert g.run_config.task is not None
    starts, ends = g.run_config.task.beam
    size = g.model.hidden_size
    allowed = g.op("Sub", g.constant(1, np.float32), "p_mask")
    never = g.op("Mul", "p_mask", g.constant(NEVER, np.float32))

    def masked(logits: str, allowed: str, never: str) -> str:
        return g.op("Sub", g.op("Mul", logits, allowed), never)

    start = masked(g.take(g.dense(hidden, "head/start"), 0, 2), allowed, never)
    best, places = g.op(
        "TopK", g.op("LogSoftmax", start, axis=-1), g.constant([starts]), outputs=2, axis=-1
    )
    at_starts = g.op("GatherND", hidden, g.op("Unsqueeze", places, g.constant([2])), batch_dims=1)
    # The kernel takes [state, state of the start]: two products instead of one over all pairs.
    of_state, of_start = g.op(
        "Split", g.weight("head/end/dense/kernel"), g.constant([size, size]), outputs=2, axis=0
    )
    x = g.op("Add", g.op("MatMul", hidden, of_state), g.weight("head/end/dense/bias"))
    x = g.op("Unsqueeze", x, g.constant([1]))
    shift = g.op("Unsqueeze", g.op("MatMul", at_starts, of_start), g.constant([2]))
    x = g.norm(g.op("Tanh", g.op("Add", x, shift)), "head/end/layer_norm")
    end = g.take(g.dense(x, "head/end/output"), 0, 3)
    wide = [g.op("Unsqueeze", name, g.constant([1])) for name in (allowed, never)]
    end = g.op("LogSoftmax", masked(end, *wide), axis=-1)
    best_ends, end_places = g.op("TopK", end, g.constant([ends]), outputs=2, axis=-1)
    share = g.op("Unsqueeze", g.op("Softmax", start, axis=-1), g.constant([1]))
    expected = g.op("Squeeze", g.op("MatMul", share, hidden), g.constant([1]))
    both = g.op("Concat", expected, g.take(hidden, 0, 1), axis=-1)
    x = g.op("Tanh", g.dense(both, "head/answer/dense"))
    return [best, places, best_ends, end_places, g.take(g.dense(x, "head/answer/output"), 0, 1)]
