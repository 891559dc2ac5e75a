"""ONNX: the network as one file for onnxruntime, with any batch size and length.

All layers are written out, and those that share a parameter set name the same initializers, so
that each weight is held once. Weights stored as int8 become float32 again by one Cast and one Mul.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.config import LAYER_NORM_EPS
from albert_jax.export.programs import Axes, Program
from albert_jax.export.quantization import Int8
from albert_jax.model import sharing
from albert_jax.model_io.model import Model
from albert_jax.tasks import registry
from albert_jax.tasks.support.rows import NEGATIVE
from albert_jax.tree import flatten

OPSET = 20
"""The first version with Gelu; onnxruntime has it since 1.17."""

_MASKED = -1e9
"""Attention score of what a token does not see, as in model/attention.py."""


def serialize(program: Program, model: Model, int8: Mapping[str, Int8]) -> bytes:
    """The file; equal weights give equal bytes."""
    import onnx

    graph = Graph(model, int8)
    for name, value in zip(program.outputs, _outputs(graph, program, model), strict=True):
        graph.nodes.append(onnx.helper.make_node("Identity", [value], [name]))

    def described(tensors: Mapping[str, Axes]) -> list[Any]:
        infos = []
        for name, axes in tensors.items():
            integer = name.endswith("_positions") or (name in program.inputs and name != "p_mask")
            kind = onnx.TensorProto.INT64 if integer else onnx.TensorProto.FLOAT
            infos.append(onnx.helper.make_tensor_value_info(name, kind, list(axes)))
        return infos

    proto = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            f"albert_{program.kind}",
            described(program.inputs),
            described(program.outputs),
            graph.initializers,
        ),
        producer_name="albert_jax",
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=9,
    )
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString(deterministic=True)


def run(path: Path, program: Program, inputs: dict[str, np.ndarray]) -> Mapping[str, Any]:
    """Outputs by name, from ONNX' reference implementation."""
    from onnx.reference import ReferenceEvaluator

    wide = {n: x.astype(np.int64) if x.dtype == np.int32 else x for n, x in inputs.items()}
    with np.errstate(divide="ignore"):  # The logarithm of a probability may be that of 0.
        values: Any = ReferenceEvaluator(str(path)).run(None, wide)
    return dict(zip(program.outputs, values, strict=True))


def usage(program: Program) -> list[str]:
    """Python that runs the graph on some ids."""
    shape = (1, 2, 16) if len(program.inputs["input_ids"]) == 3 else (1, 16)
    lines = [
        "import numpy",
        "import onnxruntime",
        "",
        f'ids = numpy.ones({shape}, "int64")',
        'inputs = {"input_ids": ids, "token_type_ids": 0 * ids, "attention_mask": ids}',
    ]
    if "p_mask" in program.inputs:
        lines.append('inputs["p_mask"] = 0 * ids.astype("float32")  # 1 where no answer can stand')
    return [
        *lines,
        'session = onnxruntime.InferenceSession("THIS_FOLDER/model.onnx")',
        "outputs = session.run(None, inputs)",
    ]


class Graph:
    """A graph that is being built; values are known by their names.

    Methods add nodes for what the model's modules compute, and return the name of the result.
    """

    def __init__(self, model: Model, int8: Mapping[str, Int8]) -> None:
        import onnx

        self.onnx, self.model = onnx, model.config
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.mask = "attention_mask"
        """The mask of plain rows; grouped rows have a flattened one."""
        self._flat, self._int8 = flatten(model.params), int8
        self._known: dict[Any, str] = {}

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node and returns the name of its output, or a list of names."""
        number = len(self.nodes)
        names = [f"{kind}_{number}" + (f"_{i}" if i else "") for i in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, names, **attributes))
        return names if outputs > 1 else names[0]

    def cast(self, x: str, kind: str) -> str:
        """A value in a type of TensorProto ("FLOAT")."""
        return self.op("Cast", x, to=getattr(self.onnx.TensorProto, kind))

    def _store(self, name: str, array: Any) -> str:
        """Adds an initializer."""
        array = np.asarray(array, order="C")  # ascontiguousarray would give scalars an axis.
        self.initializers.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def constant(self, values: Any, dtype: Any = np.int64) -> str:
        """A small constant; equal ones are stored once."""
        array = np.asarray(values, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = self._store(f"constant_{len(self._known)}", array)
        return self._known[key]

    def weight(self, path: str, index: int | None = None) -> str:
        """A parameter, or the set `index` of a stacked one, stored when it is first used."""
        key = path if index is None else f"{path}/{index}"
        if key not in self._known:
            chosen = slice(None) if index is None else index
            if path in self._int8:
                stored = self._int8[path]
                values = self._store(f"{key}/int8", stored.values[chosen])
                # Not DequantizeLinear, because onnxruntime fuses it with a product into one of
                # rounded activations, whose errors add up over the layers.
                floats = self.cast(values, "FLOAT")
                self._known[key] = self.op(
                    "Mul", floats, self._store(f"{key}/scale", stored.scales[chosen])
                )
            else:
                self._known[key] = self._store(key, self._flat[path][chosen])
        return self._known[key]

    def dense(self, x: str, path: str, index: int | None = None) -> str:
        """A dense layer, with a bias if it has one."""
        y = self.op("MatMul", x, self.weight(f"{path}/kernel", index))
        if f"{path}/bias" not in self._flat:
            return y
        return self.op("Add", y, self.weight(f"{path}/bias", index))

    def norm(self, x: str, path: str, index: int | None = None) -> str:
        """LayerNorm over the last axis."""
        scale, bias = (self.weight(f"{path}/{leaf}", index) for leaf in ("scale", "bias"))
        return self.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=LAYER_NORM_EPS)

    def activate(self, x: str) -> str:
        """The configured activation."""
        if self.model.hidden_act == "gelu_new":
            return self.op("Gelu", x, approximate="tanh")
        operator = {"relu": "Relu", "tanh": "Tanh", "linear": "Identity"}[self.model.hidden_act]
        return self.op(operator, x)

    def take(self, x: str, index: int, axis: int) -> str:
        """One index of an axis, which is removed."""
        return self.op("Gather", x, self.constant(index), axis=axis)

    def unsqueeze(self, x: str, *axes: int) -> str:
        """Adds axes of size 1."""
        return self.op("Unsqueeze", x, self.constant(axes))

    def pooled(self, hidden: str) -> str:
        """The pooled [CLS] [B, H]."""
        return self.op("Tanh", self.dense(self.take(hidden, 0, 1), "pooler"))

    def mlm_logits(self, hidden: str) -> str:
        """Logits over the vocabulary [B, S, V]."""
        x = self.norm(self.activate(self.dense(hidden, "mlm_head/dense")), "mlm_head/layer_norm")
        table = self.op(
            "Transpose", self.weight("embeddings/word_embeddings/embedding"), perm=[1, 0]
        )
        return self.op("Add", self.op("MatMul", x, table), self.weight("mlm_head/bias"))

    def sentence_vector(self, hidden: str, pooling: str) -> str:
        """One vector per row [B, H]: the pooled [CLS], or the mean of the real tokens."""
        if pooling == "cls":
            return self.pooled(hidden)
        real = self.cast(self.op("Greater", self.mask, self.constant(0)), "FLOAT")
        real = self.unsqueeze(real, 2)
        total = self.op("ReduceSum", self.op("Mul", hidden, real), self.constant([1]), keepdims=0)
        count = self.op("ReduceSum", real, self.constant([1]), keepdims=0)
        return self.op("Div", total, self.op("Max", count, self.constant(1, np.float32)))

    def normalized(self, x: str) -> str:
        """Vectors [B, H] of length 1."""
        square = self.op("ReduceSumSquare", x, self.constant([1]), keepdims=1)
        square = self.op("Max", square, self.constant(1e-24, np.float32))
        return self.op("Div", x, self.op("Sqrt", square))

    def masked_choices(self, logits: str) -> str:
        """Logits [B * G, 1] -> [B, G]; padding choices get NEGATIVE in rows that have a choice."""
        logits = self.op("Reshape", logits, self.op("Shape", "input_ids", start=0, end=2))
        present = self.op("Greater", self.take("attention_mask", 0, 2), self.constant(0))
        counts = self.op("ReduceMax", self.cast(present, "INT32"), self.constant([1]))
        padding = self.op("And", self.cast(counts, "BOOL"), self.op("Not", present))
        return self.op("Where", padding, self.constant(NEGATIVE, np.float32), logits)


def _encode(g: Graph, ids: str, types: str, mask: str) -> str:
    """Hidden states [B, S, H] of ids, token types and mask [B, S]."""
    length = g.op("Shape", ids, start=1, end=2)
    words, positions, token_types = (
        g.weight(f"embeddings/{name}_embeddings/embedding")
        for name in ("word", "position", "token_type")
    )
    positions = g.op("Slice", positions, g.constant([0]), length, g.constant([0]))
    x = g.op("Add", g.op("Gather", words, ids), positions)
    x = g.op("Add", x, g.op("Gather", token_types, types))
    x = g.norm(x, "embeddings/layer_norm")
    if g.model.embedding_size != g.model.hidden_size:
        x = g.dense(x, "embeddings/projection")
    visible = g.op("Equal", g.unsqueeze(mask, 1, 3), g.unsqueeze(mask, 1, 2))
    table = sharing.table(g.model)
    for attention, ffn in zip(table.attention, table.ffn, strict=True):
        x = _attend(g, x, visible, attention)
        inner = g.activate(g.dense(x, "encoder/ffn/intermediate", ffn))
        inner = g.dense(inner, "encoder/ffn/output", ffn)
        x = g.norm(g.op("Add", x, inner), "encoder/ffn/layer_norm", ffn)
    return x


def _attend(g: Graph, x: str, visible: str, index: int) -> str:
    """One attention sublayer with the parameter set `index`."""
    heads, size = g.model.num_attention_heads, g.model.head_size

    def split(name: str, order: list[int]) -> str:
        y = g.dense(x, f"encoder/attention/{name}", index)
        return g.op("Transpose", g.op("Reshape", y, g.constant([0, 0, heads, size])), perm=order)

    query, value = split("query", [0, 2, 1, 3]), split("value", [0, 2, 1, 3])
    query = g.op("Mul", query, g.constant(size**-0.5, np.float32))
    scores = g.op("MatMul", query, split("key", [0, 2, 3, 1]))
    scores = g.op("Where", visible, scores, g.constant(_MASKED, np.float32))
    context = g.op("MatMul", g.op("Softmax", scores, axis=-1), value)
    context = g.op("Transpose", context, perm=[0, 2, 1, 3])
    context = g.op("Reshape", context, g.constant([0, 0, heads * size]))
    output = g.dense(context, "encoder/attention/output", index)
    return g.norm(g.op("Add", x, output), "encoder/attention/layer_norm", index)


def _outputs(g: Graph, program: Program, model: Model) -> list[str]:
    """The value of the graph for each output of the program."""
    names = ("input_ids", "token_type_ids", "attention_mask")
    if len(program.inputs["input_ids"]) == 3:  # grouped rows
        names = tuple(g.op("Flatten", name, axis=2) for name in names)
    ids, types, g.mask = names
    hidden = _encode(g, ids, types, g.mask)
    if program.kind == "mlm":
        return [g.mlm_logits(hidden)]
    if program.kind == "base":
        return [hidden, g.pooled(hidden)]
    if program.kind == "pretraining":
        return [g.mlm_logits(hidden), g.dense(g.pooled(hidden), "sop_head")]
    assert model.run_config.task is not None
    return registry.create(model.run_config.task).onnx_outputs(g, hidden)
