"""Rules of the house: who imports whom, what never appears, what stays light."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "albert_jax"
MODULES = sorted(PACKAGE.rglob("*.py"))

LEVELS = {
    "errors": 0,
    "version": 0,
    "config": 1,
    "files": 2,
    "tree": 2,
    "configfile": 3,
    "model": 4,
    "data": 4,
    "objectives": 4,
    "optim": 4,
    "parallel": 4,
    "checkpoint": 4,
    "observe": 4,
    "tasks": 4,
    "train": 5,
    "evaluate": 5,
    "convert": 5,
    "plan": 5,
    "api": 6,
    "bench": 6,
    "serve": 6,
    "__init__": 6,
    "commands": 7,
    "cli": 8,
    "__main__": 9,
}
"""A module imports modules of its own room, or of lower levels."""

SIBLINGS = {
    ("objectives", "model"),
    ("parallel", "optim"),
    ("tasks", "data"),
    ("tasks", "model"),
    ("tasks", "objectives"),
    ("train", "evaluate"),
    ("train", "convert"),
    ("evaluate", "convert"),
    ("convert", "evaluate"),
    ("plan", "train"),
}
"""(importer, imported) of one level that are allowed."""

PURE = ("model", "objectives", "optim", "parallel", "train/step.py", "train/state.py")
"""What also runs where only jax, flax, optax and numpy are installed."""

NEVER = (
    r"\bpickle\b",
    r"(?<![\w.])eval\(",
    r"(?<![\w.])exec\(",
    r"yaml\.load",
    r"shell\s*=\s*True",
    r"allow_pickle\s*=\s*True",
    r"torch\.load",
    r"extractall",
    r"trust_remote_code\s*=\s*True",
)


NNX = {"Module", "Param", "split", "merge", "to_pure_dict", "eval_shape", "GraphDef"}
"""Flax is a definition language here; its transforms, optimizers and hidden state stay out."""

GONE = (r"\bpmap\(", r"jax\.experimental\.shard_map", r"jax\.experimental\.pjit")
"""Ways of running on many devices that JAX has left behind."""


def _name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path) -> list[str]:
    """Dotted names imported anywhere in a file, outside `if TYPE_CHECKING` blocks."""
    found = []

    def walk(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.orelse:
                walk(child)
            return
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found.extend(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            walk(child)

    walk(ast.parse(path.read_text()))
    return found


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_imports_go_down(path):
    room = _room(path)
    assert room in LEVELS, f"{room} has no level"
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] != "albert_jax" or len(parts) == 1:
            continue
        other = parts[1] if parts[1] in LEVELS else "__init__"
        allowed = (
            other == room
            or LEVELS[other] < LEVELS[room]
            or (room, other) in SIBLINGS
            or name == "albert_jax.__version__"
        )
        assert allowed, f"{_name(path)} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_rooms_import_only_what_they_may(path):
    outside = {name.split(".")[0] for name in _imports(path)}
    outside -= set(sys.stdlib_module_names) | {"albert_jax"}
    name = _name(path)
    if name.startswith(PURE):
        assert outside <= {"jax", "flax", "optax", "numpy"}
    if name.startswith("data/"):
        assert not outside & {"jax", "flax", "optax", "orbax"}
        assert "grain" not in outside or name == "data/pipeline.py"
    if name.startswith(("model/", "data/", "objectives/")):
        assert not any(n.startswith("albert_jax.parallel") for n in _imports(path))


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_nothing_that_runs_data(path):
    text = path.read_text()
    for pattern in NEVER:
        assert not re.search(pattern, text), f"{_name(path)}: {pattern}"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_flax_and_jax_are_used_the_one_way(path):
    text = path.read_text()
    assert set(re.findall(r"\bnnx\.(\w+)", text)) <= NNX
    for pattern in GONE:
        assert not re.search(pattern, text), f"{_name(path)}: {pattern}"


def test_the_patterns_find_what_they_forbid():
    guilty = [
        "import pickle",
        "eval(x)",
        " exec(x)",
        "run(x, shell=True)",
        "np.load(f, allow_pickle=True)",
    ]
    for line in guilty:
        assert any(re.search(pattern, line) for pattern in NEVER), line
    for line in ["ast.literal_eval(x)", "make_eval_step(", "retrieval(x)"]:
        assert not any(re.search(pattern, line) for pattern in NEVER), line


def _loaded(code: str) -> set[str]:
    """Top-level modules in a fresh process after `code`."""
    code += "\nimport sys; print('\\nLOADED', *{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.rsplit("LOADED", 1)[1].split())


HEAVY = {
    "jax", "flax", "optax", "orbax", "grain", "numpy", "array_record", "tensorflow",
    "tensorflow_datasets", "torch", "transformers", "matplotlib", "pyarrow", "tokenizers",
    "sentencepiece", "tyro",
}  # fmt: skip


def test_importing_the_package_loads_nothing_heavy():
    assert not _loaded("import albert_jax") & HEAVY


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["pretrain", "--help"], ["pretrain", "--config", "tiny", "--help"],
     ["tokenizer", "train", "--help"], ["fill-mask", "--help"], ["export", "--help"],
     ["explain", "--help"]],
    ids=" ".join,
)  # fmt: skip
def test_help_loads_no_jax(arguments):
    loaded = _loaded(f"from albert_jax import cli\nassert cli.main({arguments!r}) == 0")
    assert not loaded & (HEAVY - {"tyro", "numpy"})


def test_public_names_are_those_of_the_api():
    import albert_jax
    from albert_jax import api

    assert sorted(albert_jax.__all__) == sorted([*api.__all__, "__version__"])
    for name in api.__all__:
        assert getattr(albert_jax, name) is getattr(api, name)
    with pytest.raises(AttributeError):
        _ = albert_jax.nothing


def test_training_loads_neither_tensorflow_nor_torch():
    loaded = _loaded("import albert_jax.train.pretrain, albert_jax.train.loop")
    assert not loaded & {"tensorflow", "torch", "transformers", "tensorflow_datasets"}


def test_every_package_and_data_file_is_installed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    folders = {p.parent.relative_to(ROOT).as_posix().replace("/", ".") for p in MODULES}
    assert listed == folders | {"albert_jax.configs"}
    data = {p for p in PACKAGE.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    for path in data:
        package = path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        patterns = setup["options.package_data"].get(package, "").split()
        assert any(path.match(p) for p in patterns), f"{path} is not in package_data"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_every_module_and_public_name_says_what_it_is(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree) or not tree.body, f"{_name(path)} has no docstring"
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{_name(path)}: {node.name} has no docstring"


def test_constraints_pin_what_setup_asks_for():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    pinned = {
        re.sub(r"[-_.]+", "-", line.split("==")[0]).lower()
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    wanted = setup["options"]["install_requires"] + setup["options.extras_require"]["test"]
    for line in wanted.strip().splitlines():
        name = re.sub(r"[-_.]+", "-", re.match(r"[\w-]+", line.strip())[0]).lower()
        assert name in pinned, f"{name} has no exact version in constraints.txt"
