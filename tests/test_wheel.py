"""The wheel, installed into a fresh environment and used outside the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from albert_jax.version import __version__

ROOT = Path(__file__).resolve().parent.parent
WORDS = (
    "the file is read and the other file is written by a program that a user has started".split()
)


def call(*words: str | Path, cwd: Path) -> str:
    """The output of a command that must succeed, without the variables that name the checkout."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel; the requirements are those of the tests."""
    pytest.importorskip("setuptools", reason="needs the extra test (setuptools)")
    place = tmp_path_factory.mktemp("wheel")
    # setuptools writes beside the sources, so it is given a copy of them.
    source = place / "source"
    for name in ("albert_jax", "configs"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    options = ("--no-deps", "--no-index", "--quiet")
    call(*pip, "wheel", *options, "--no-build-isolation", "-w", place, source, cwd=place)
    (wheel,) = place.glob("*.whl")
    assert wheel.name == f"albert_jax-{__version__}-py3-none-any.whl"
    shutil.rmtree(source)
    environment = place / "fresh"
    call(sys.executable, "-m", "venv", "--without-pip", environment, cwd=place)
    (packages,) = environment.glob("lib/python*/site-packages")
    # A folder that is added in this way is searched last, and its own .pth files (such as that of
    # an editable installation of the checkout) are not read.
    (packages / "requirements.pth").write_text(sysconfig.get_path("purelib") + "\n")
    program = environment / "bin" / "python"
    call(*pip, "--python", program, "install", *options, wheel, cwd=place)
    return program.parent


@pytest.mark.slow
def test_the_package_is_complete(fresh: Path, tmp_path: Path) -> None:
    code = (
        "import albert_jax, importlib.resources as r\n"
        "print(albert_jax.__file__, albert_jax.__version__)\n"
        "assert (r.files('albert_jax.serve') / 'page.html').is_file()\n"
        "assert albert_jax.load.__doc__\n"
    )
    where, version = call(fresh / "python", "-c", code, cwd=tmp_path).split()
    assert Path(where).is_relative_to(fresh.parent) and version == __version__
    assert "pretrain" in call(fresh / "albert-jax", "--help", cwd=tmp_path)
    for preset in ("tiny", "finetune/default"):
        shown = call(fresh / "albert-jax", "config", "show", "--config", preset, cwd=tmp_path)
        assert "[model]" in shown


@pytest.mark.slow
def test_a_model_is_trained(fresh: Path, tmp_path: Path) -> None:
    text = "\n\n".join(
        "\n".join(
            " ".join(WORDS[(document * line + i) % len(WORDS)] for i in range(12)) + "."
            for line in range(1, 9)
        )
        for document in range(60)
    )
    (tmp_path / "text.txt").write_text(text)
    for command in (
        "tokenizer train --text text.txt --vocab-size 36 --out tokenizer",
        "data prepare --text text.txt --tokenizer tokenizer --out data",
        "pretrain --config tiny --data data --out run --model.vocab-size 36 --phases.0.steps 1 "
        "--phases.1.steps 1 --phases.0.batch-size 8 --phases.1.batch-size 8",
        "export run --out export",
    ):
        output = call(fresh / "albert-jax", *command.split(), cwd=tmp_path)
        if command.startswith("pretrain"):
            assert "2 in all" in output
    assert (tmp_path / "export" / "model.safetensors").is_file()
