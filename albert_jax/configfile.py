"""Reads and writes configs as TOML: presets, the config of a run folder, and files of others.

Nothing in a file is ever run, and its size and nesting are checked before it is parsed. `extends`
names another preset or file: tables are merged key by key, but `phases` replace the phases of the
file that is extended.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import itertools
import json
import re
import tomllib
from pathlib import Path
from typing import Any

from albert_jax import files
from albert_jax.config import Config
from albert_jax.config_builder import build, from_dict
from albert_jax.errors import ConfigError

MAX_BYTES = 100_000
MAX_DEPTH = 32
_MAX_EXTENDS = 8


def preset_folder() -> Path:
    """Folder of the presets: beside the modules when installed, in configs/ of a checkout."""
    here = Path(__file__).resolve().parent
    return here / "configs" if (here / "configs").is_dir() else here.parent / "configs"


def presets() -> list[str]:
    """Names of all presets, sorted; those of fine-tuning begin with "finetune/"."""
    folder = preset_folder()
    found = [*folder.glob("*.toml"), *folder.glob("finetune/*.toml")]
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in found)


def load(name: str) -> Config:
    """The validated config of a preset (`tiny`), a TOML file, or a run folder (also in a bucket).

    Raises ConfigError (exit code 2) for a file that is missing, too large, not TOML, or not a
    config: an unknown key, a wrong type, or a value outside its range.
    """
    if not files.is_bucket(name):
        return from_dict(_merged(name, None, ()), name)
    path = name if name.endswith(".toml") else files.join(name, "config.toml")
    data = files.read(path)
    if data is None:
        raise ConfigError(f"config {path} does not exist: give a TOML file or a run folder")
    return parse(data, path)


def parse(data: bytes, where: str) -> Config:
    """The validated config in the bytes of a TOML file; `where` stands in messages.

    Raises ConfigError as `load` does.
    """
    raw = _tables(data, where)
    return from_dict(_over_base(raw, Path(where), ()), where)


def base_of(name: str) -> tuple[str, Config]:
    """(name, config) that differences of `name` are counted from.

    The preset or file that it extends; else itself if it is a preset; else the defaults.
    """
    if files.is_bucket(name):
        return "defaults", Config()
    path = _find(name, None)
    base = _tables(_read(path), str(path)).get("extends")
    if isinstance(base, str):
        return base, from_dict(_merged(base, path, ()), base)
    if path.is_relative_to(preset_folder()):
        return path.relative_to(preset_folder()).with_suffix("").as_posix(), load(name)
    return "defaults", Config()


def to_dict(config: Config) -> dict[str, Any]:
    """Nested plain values (dict, list, str, int, float, bool) of all fields; TOML has no null,
    so a task that is None is absent."""
    raw = json.loads(json.dumps(dataclasses.asdict(config), allow_nan=False))
    return {name: value for name, value in raw.items() if value is not None}


def dumps(config: Config) -> str:
    """Complete TOML that `load` reads back to an equal config."""
    import tomli_w  # reading, which is all that measuring needs, does without it

    return tomli_w.dumps(to_dict(config))


def digest(config: Config) -> str:
    """SHA-256 (hex) of all fields: the same for equal configs, whatever file they came from."""
    return hashlib.sha256(json.dumps(to_dict(config), sort_keys=True).encode()).hexdigest()


def nearest(name: str, known: list[str]) -> str:
    """`; did you mean X?` for the closest known name, or nothing."""
    near = difflib.get_close_matches(name, known, 1, 0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _find(name: str, near: Path | None) -> Path:
    """Path of a preset's name, a file (relative to the file that extends it) or a run folder."""
    path = Path(name).expanduser()
    if near is not None and not path.is_absolute() and path.suffix == ".toml":
        path = near.parent / path
    if name in presets():
        return preset_folder() / f"{name}.toml"
    try:
        if path.is_dir() and (path / "config.toml").is_file():
            return path / "config.toml"
        if path.is_file():
            return path.resolve()
    except (OSError, ValueError) as error:
        raise ConfigError(f"config {name!r} cannot be read: {error}") from None
    if path.exists():
        raise ConfigError(f"config {name} is not a file, nor a run folder with a config.toml")
    by = f" (extended by {near})" if near else ""
    raise ConfigError(
        f"config {name!r}{by} does not exist{nearest(path.stem, presets())}; "
        f"presets: {', '.join(presets())}"
    )


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"config {path} cannot be read: {error.strerror}") from None


def _tables(data: bytes, where: str) -> dict[str, Any]:
    """Parses TOML after checking that doing so is cheap."""
    if len(data) > MAX_BYTES:
        raise ConfigError(f"config {where} is larger than {MAX_BYTES} bytes: it is not a config")
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        place = f"config {where} is not UTF-8 at byte {error.start}"
        raise ConfigError(f"{place}: save it as UTF-8") from None
    code = "\n".join(line for line in text.split("\n") if not line.lstrip().startswith("#"))
    steps = [1 if bracket in "[{" else -1 for bracket in re.findall(r"[\[\]{}]", code)]
    depth = max(itertools.accumulate(steps), default=0)
    # A dotted key is nesting too, and the parser needs quadratic time for a long one.
    dots = max(part.count(".") for part in re.split(r"[,\n]", code))
    if max(depth, dots) > MAX_DEPTH:
        raise ConfigError(f"config {where} is nested deeper than {MAX_DEPTH}: flatten it")
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        # A long message may quote the file; its beginning tells enough.
        reason = str(error) if len(str(error)) < 120 else "cannot be parsed"
        raise ConfigError(f"config {where} is not TOML: {reason}") from None


def _merged(name: str, near: Path | None, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The tables of a file over those of the files it extends, each checked by itself."""
    path = _find(name, near)
    if path in seen or len(seen) >= _MAX_EXTENDS:
        chain = " -> ".join(p.name for p in (*seen, path))
        raise ConfigError(f"config {path}: extends goes round or is too long: {chain}")
    return _over_base(_tables(_read(path), str(path)), path, seen)


def _over_base(raw: dict[str, Any], path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    base = raw.pop("extends", None)
    build(Config, raw, str(path), "")
    if base is None:
        return raw
    if not isinstance(base, str):
        raise ConfigError(f"config {path}: extends must be the name of a preset or file")
    return _overlay(_merged(base, path, (*seen, path)), raw)


def _overlay(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        below = base.get(key)
        merged[key] = (
            _overlay(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
        )
    return merged
