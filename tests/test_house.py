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

PACKAGES = (
    "errors", "logs", "exits", "version", "tree", "protobuf_wire", "config_fields", "config", "local_disk", "files", "json_files", "compilation_cache", "data",
    "model", "objectives", "optim", "parallel", "checkpoint", "observe", "tasks", "config_builder", "configfile",
    "model_io", "inference", "evaluation", "train", "finetuning", "export", "plan", "bench", "serve", "verify",
    "api", "__init__", "commands", "cli", "__main__",
)  # fmt: skip
"""A module imports modules of its own package or of earlier packages. There are no exceptions."""

INSIDE = {"data": ("counter_rng", "sources", "vocabularies", "corpus", "prepare", "batches")}
"""Packages that are divided further, by the same rule."""

MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60

PURE = ("model/", "objectives/", "optim/", "parallel/", "train/step.py", "train/state.py")
"""What also runs where only jax, flax, optax and numpy are installed."""

MATHEMATICS = tuple(
    f"albert_jax.{name}."
    for name in ("config", "errors", "tree", "data.batches.batch", "model", "objectives", "optim")
) + ("albert_jax.model", "albert_jax.objectives", "albert_jax.tree")
"""What model, objectives and optim may import: neither files nor meshes."""

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


def _package(path: Path) -> str:
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


def _own_imports(path: Path) -> list[tuple[str, ...]]:
    """The imports of a file from the package, as parts below its root: ("data", "batches", ...)."""
    parts = [name.split(".") for name in _imports(path)]
    return [tuple(p[1:]) for p in parts if p[0] == "albert_jax" and len(p) > 1]


def _all(check) -> None:
    """Applies a check to every module: it yields what is wrong there, and nothing may be."""
    wrong = [f"{_name(path)}: {message}" for path in MODULES for message in check(path)]
    assert not wrong, "\n".join(wrong)


def test_imports_go_one_way():
    def check(path):
        package = _package(path)
        if package not in PACKAGES:
            yield f"{package} has no place in the order of packages"
            return
        for name in _own_imports(path):
            other = name[0] if name[0] in PACKAGES else "__init__"
            if name != ("__version__",) and PACKAGES.index(other) > PACKAGES.index(package):
                yield f"imports {'.'.join(name)}"
            own = path.relative_to(PACKAGE).parts[1:2]
            if other == package and package in INSIDE and own != ("__init__.py",):
                order = INSIDE[package]
                if order.index(name[1]) > order.index(own[0].removesuffix(".py")):
                    yield f"imports {'.'.join(name)}"

    _all(check)


def test_modules_of_a_room_do_not_import_each_other_in_circles():
    edges = {}
    for path in MODULES:
        name = path.relative_to(PACKAGE).with_suffix("").parts
        edges[name] = {
            candidate
            for imported in _own_imports(path)
            for candidate in (imported, imported[:-1])
            if candidate and (PACKAGE.joinpath(*candidate).with_suffix(".py")).exists()
        }
    done: set[tuple[str, ...]] = set()

    def visit(name: tuple[str, ...], path: tuple[tuple[str, ...], ...]) -> None:
        assert name not in path, " -> ".join("/".join(p) for p in (*path, name))
        if name not in done:
            for other in edges.get(name, ()):
                visit(other, (*path, name))
            done.add(name)

    for name in edges:
        visit(name, ())


def test_files_and_functions_stay_short():
    def check(path):
        text = path.read_text()
        if len(text.splitlines()) > MAX_FILE_LINES:
            yield f"{len(text.splitlines())} lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    yield f"{node.name} has {length} lines"

    _all(check)


def test_rooms_import_only_what_they_may():
    def check(path):
        outside = {name.split(".")[0] for name in _imports(path)}
        outside -= set(sys.stdlib_module_names) | {"albert_jax"}
        name = _name(path)
        if name.startswith(PURE) and outside - {"jax", "flax", "optax", "numpy"}:
            yield f"imports {outside}"
        if name.startswith(("model/", "objectives/", "optim/")):
            own = [module for module in _imports(path) if module.startswith("albert_jax.")]
            yield from (f"imports {module}" for module in own if not module.startswith(MATHEMATICS))
        if name.startswith("data/") and outside & {"jax", "flax", "optax", "orbax"}:
            yield f"imports {outside}"
        if "grain" in outside and name != "data/batches/pipeline.py":
            yield "imports grain"

    _all(check)


def test_nothing_that_runs_data():
    _all(lambda path: [p for p in NEVER if re.search(p, path.read_text())])


def test_flax_and_jax_are_used_the_one_way():
    def check(path):
        text = path.read_text()
        yield from set(re.findall(r"\bnnx\.(\w+)", text)) - NNX
        yield from (pattern for pattern in GONE if re.search(pattern, text))
        if re.search(r"\bjax\._src\b", text) and _name(path) != "parallel/jax_internals.py":
            yield "uses jax._src"

    _all(check)


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
    assert set(api.__all__) < set(dir(albert_jax))
    for name in api.__all__:
        assert getattr(albert_jax, name) is getattr(api, name)
    with pytest.raises(AttributeError):
        _ = albert_jax.nothing


def test_training_loads_neither_tensorflow_nor_torch():
    loaded = _loaded("import albert_jax.train.pretraining, albert_jax.train.loop")
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


def test_the_map_names_files_that_exist_and_a_short_reading_list():
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`((?:\w+/)*\w+\.py)`", page))
    assert len(named) > 20
    for name in named:
        places = [PACKAGE / name, ROOT / name, *PACKAGE.glob(f"**/{name}")]
        assert any(place.is_file() for place in places), name
    chapter = page.split("## Six files to read first")[1]
    first = re.findall(r"^\d+\. `(\S+)`", chapter, re.M)
    assert len(first) == 6
    assert sum(len((ROOT / name).read_text().splitlines()) for name in first) < 1200


def test_the_picture_is_drawn_from_the_present_imports():
    from tests import draw_architecture

    assert draw_architecture.FILE.read_text() == draw_architecture.svg(), (
        "draw it again: python -m tests.draw_architecture"
    )
