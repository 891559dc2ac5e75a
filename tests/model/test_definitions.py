"""NNX is a language for definitions here and nothing more."""

from __future__ import annotations

import ast
import sys

FORBIDDEN = {
    "jit", "grad", "value_and_grad", "scan", "vmap", "pmap", "remat", "Optimizer", "sow",
    "Dropout", "MultiHeadAttention", "BatchNorm", "Rngs", "RngStream", "cond", "while_loop",
}  # fmt: skip


def test_only_the_thin_surface_of_nnx_is_used(root):
    used = set()
    for file in (root / "albert_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if node.value.id == "nnx":
                    used.add(node.attr)
            if isinstance(node, ast.ImportFrom) and node.module == "flax.nnx":
                used |= {name.name for name in node.names}
            assert not (isinstance(node, ast.ImportFrom) and node.module == "flax.linen")
    assert used and not used & FORBIDDEN
    assert used <= {
        "Module",
        "Param",
        "split",
        "merge",
        "state",
        "eval_shape",
        "to_pure_dict",
        "GraphDef",
    }


def test_these_rooms_import_jax_flax_optax_numpy_and_nothing_else(root):
    allowed = {"jax", "flax", "optax", "numpy", "albert_jax"}
    ours = {"config", "errors", "tree", "model", "objectives", "optim", "parallel", "train"}
    package = root / "albert_jax"
    files = [
        f
        for room in ("model", "objectives", "optim", "parallel")
        for f in (package / room).glob("*.py")
    ]
    for file in [*files, package / "train" / "state.py", package / "train" / "step.py"]:
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [name.name for name in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                top, _, rest = name.partition(".")
                assert top in allowed or top in sys.stdlib_module_names, (
                    f"{file.name} imports {name}"
                )
                if top == "albert_jax" and rest:
                    assert rest.split(".")[0] in ours, f"{file.name} imports {name}"
