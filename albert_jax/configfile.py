"""Reads and writes configs as TOML: presets, the config of a run folder, and files of others.

A file is hostile until it is checked: its size, nesting and numbers are looked at before it is
parsed, every key must exist (else the nearest name is given), every value must have its
field's type, and nothing in it is ever run. `extends` names another preset or file; tables are
merged key by key, but `phases` replace the phases of the file that is extended.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import itertools
import json
import re
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, Literal

from albert_jax import files
from albert_jax.config import Config, TaskConfig, leaves
from albert_jax.errors import CheckpointError, ConfigError

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
_MAX_CODE = 100_000
_MAX_DIGITS = 100
_MAX_EXTENDS = 8
_SECRET_KEY = re.compile(r"token$|secret|passw|api_?key|credential|private_?key|auth", re.I)
_SECRET_VALUE = re.compile(
    r"-----BEGIN|\b(hf|ghp|gho|github_pat|glpat|xox[a-z])[_-]\w{16}|\bAKIA[0-9A-Z]{16}"
    r"|(token|secret|password|key|signature)=[^&\s]{8}|://[^/@\s]+:[^/@\s]+@",
    re.I,
)
DEFAULT_TASK = "classification"
"""The task of a config that has a section `task` without a name."""
RENAMED = {
    "rows": "batch_size",
    "micro_batches": "gradient_accumulation_steps",
    "passes": "depths",
    "short_pair_prob": "short_seq_prob",
    "mask": "mask_unit",
    "ngram_law": "ngram_distribution",
    "clip_norm": "max_grad_norm",
    "log_every": "logging_steps",
    "evaluate_every": "eval_steps",
    "evaluate_rows": "max_eval_samples",
    "checkpoint_every": "save_steps",
    "keep": "save_total_limit",
    "pairs": "minimal_pairs",
    "profile": "profile_steps",
    "epochs": "num_train_epochs",
    "head_dropout": "classifier_dropout_prob",
    "choices": "max_choices",
    "qa_length": "max_qa_length",
    "stride": "doc_stride",
    "query_length": "max_query_length",
    "answer_length": "max_answer_length",
    "best_answers": "n_best_size",
    "beam": "start_n_top",
    "group": "pairs_per_row",
    "canvas": "max_target_length",
    "full_share": "full_mask_prob",
    "end_weight": "padding_weight",
    "rounds": "denoising_steps",
    "teacher_share": "distillation_weight",
    "teacher_temperature": "distillation_temperature",
    "teacher_states": "hidden_state_weight",
}
"""Fields of version 0.1 and their present names, which the message about them gives."""
_HARMLESS = ("run.", "compute.", "parallel.", "data.workers")


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
    config: unknown or secret-looking key, wrong type, value outside its range.
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


def from_dict(raw: dict[str, Any], where: str) -> Config:
    """Builds and validates a Config from nested plain values; `where` stands in messages."""
    config = _build(Config, raw, where, "")
    try:
        config.validate()
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return config


def with_task(config: Config, name: str | None) -> Config:
    """The config with the settings of another task, which keep what both tasks have.

    Without a name the config keeps its task, or gets the default one. Raises ConfigError for an
    unknown name.
    """
    from albert_jax.tasks import registry

    old = config.task
    name = name or (old.name if old is not None else DEFAULT_TASK)
    kind = registry.get(name).config_class
    if old is not None and type(old) is kind:
        return config
    default = {} if old is None else dataclasses.asdict(type(old)())
    known = {field.name for field in dataclasses.fields(kind)} - {"name"}
    kept = {k: getattr(old, k) for k in default if k in known and getattr(old, k) != default[k]}
    return dataclasses.replace(config, task=kind(**kept))


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


def difference(config: Config, preset: Config) -> list[str]:
    """One line per field that differs: `optimizer.learning_rate = 0.001 (was 0.005)`."""
    return list(_changes(preset, config).values())


def same_run(old: Config, new: Config, allow_change: tuple[str, ...] = ()) -> list[str]:
    """Checks that a run made with `old` may go on with `new`; returns the changes to log.

    Fields of run, compute and parallel and data.workers may always change. Fields of the model
    never. Any other needs its name, or the name of its section, in `allow_change`. Raises
    CheckpointError (model), ConfigError (the rest), each with the difference.
    """
    known = [path for config in (old, new) for path, _ in leaves(config)]
    for name in allow_change:
        if not any(_inside(path, name) for path in known):
            raise ConfigError(f"--allow-change {name}: no such field{nearest(name, known)}")
    changes = _changes(old, new)
    model = [line for path, line in changes.items() if path.startswith("model.")]
    if model:
        raise CheckpointError(
            f"this run folder belongs to another model: {_brief(model)}: use another --out"
        )
    refused = {
        path: line
        for path, line in changes.items()
        if not path.startswith(_HARMLESS) and not any(_inside(path, n) for n in allow_change)
    }
    if refused:
        raise ConfigError(
            f"this run folder belongs to another config: {_brief(list(refused.values()))}: use "
            f"another --out, or --allow-change {' '.join(itertools.islice(refused, 3))}"
        )
    return list(changes.values())


def _changes(old: Config, new: Config) -> dict[str, str]:
    before, after = dict(leaves(old)), dict(leaves(new))
    changed = {}
    for path in dict.fromkeys([*before, *after]):
        if path not in after:
            changed[path] = f"{path} is gone (was {_show(before[path])})"
        elif path not in before:
            changed[path] = f"{path} = {_show(after[path])} (new)"
        elif before[path] != after[path]:
            changed[path] = f"{path} = {_show(after[path])} (was {_show(before[path])})"
    return changed


def _show(value: object) -> str:
    return json.dumps(value)


def _brief(lines: list[str]) -> str:
    more = f"; and {len(lines) - 6} more" if len(lines) > 6 else ""
    return "; ".join(lines[:6]) + more


def _inside(path: str, name: str) -> bool:
    return path == name or path.startswith(name + ".")


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
    if len(code) > _MAX_CODE:
        raise ConfigError(f"config {where} has over {_MAX_CODE} bytes beside comments: shorten it")
    if re.search(rf"[0-9_]{{{_MAX_DIGITS}}}", code):
        raise ConfigError(f"config {where} has a number of {_MAX_DIGITS} digits: shorten it")
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
    _build(Config, raw, str(path), "")
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


def _build(kind: type, raw: Any, where: str, path: str) -> Any:
    """An instance of a config dataclass from a table; missing keys take their default."""
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: {path or 'the file'} must be a table, not {_kind(raw)}")
    hints = _hints(kind)
    for key in raw:
        full = f"{path}.{key}" if path else key
        if key in hints:
            continue
        if _SECRET_KEY.search(key):
            raise ConfigError(
                f"{where}: {full[:80]} looks like a secret: remove it, configs are copied around"
            )
        near = difflib.get_close_matches(key[:80], hints, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(hints)}"
        renamed = "schedule" if key == "learning_rate" else RENAMED.get(key)
        if renamed in hints:
            hint = f"it is called {renamed} now"
        raise ConfigError(f"{where}: unknown key {full[:80]!r}; {hint}")
    values = {
        key: _value(hints[key], value, where, f"{path}.{key}" if path else key)
        for key, value in raw.items()
    }
    return kind(**values)


def _task_class(raw: Any, where: str) -> type:
    """The settings class of the task that a table names."""
    from albert_jax.tasks import registry

    name = raw.get("name", DEFAULT_TASK) if isinstance(raw, dict) else DEFAULT_TASK
    if not isinstance(name, str):
        raise ConfigError(f"{where}: task.name must be a string, not {_kind(name)}")
    try:
        return registry.get(name).config_class
    except ConfigError as error:
        raise ConfigError(f"{where}: task.name: {error}") from None


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _value(hint: Any, raw: Any, where: str, path: str) -> Any:
    """`raw` as the type of its field; ConfigError names file, field and expected type."""
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), raw, where, path)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        kind = _task_class(raw, where) if arguments[0] is TaskConfig else arguments[0]
        return _value(kind, raw, where, path)
    if origin is tuple:
        if not isinstance(raw, list):
            raise ConfigError(f"{where}: {path} must be a list, not {_kind(raw)}")
        if arguments[-1] is not ... and len(raw) != len(arguments):
            raise ConfigError(f"{where}: {path} must have {len(arguments)} values, not {len(raw)}")
        return tuple(_value(arguments[0], v, where, f"{path}.{i}") for i, v in enumerate(raw))
    if origin is Literal:
        if not isinstance(raw, str) or raw not in arguments:
            near = difflib.get_close_matches(raw, arguments, 1) if isinstance(raw, str) else []
            hint_text = f"; did you mean {near[0]!r}?" if near else ""
            choices = ", ".join(repr(a) for a in arguments)
            raise ConfigError(f"{where}: {path} must be one of {choices}{hint_text}")
        return raw
    number = isinstance(raw, (int, float)) and not isinstance(raw, bool)
    if hint is float and number:
        if isinstance(raw, int) and abs(raw) > 2**63:
            raise ConfigError(f"{where}: {path} is beyond 64 bits: give a smaller number")
        return float(raw)
    if type(raw) is not hint:
        told = f": write {path.rsplit('.', 1)[-1]} = {raw}" if _is_number(raw) else ""
        raise ConfigError(f"{where}: {path} must be {_NAMES[hint]}, not {_kind(raw)}{told}")
    if hint is int and abs(raw) > 2**63:
        raise ConfigError(f"{where}: {path} is beyond 64 bits: give a smaller number")
    if isinstance(raw, str) and _SECRET_VALUE.search(raw):
        raise ConfigError(f"{where}: the value of {path} looks like a secret: remove it")
    return raw


_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}


def _kind(raw: Any) -> str:
    if isinstance(raw, dict):
        return "a table"
    if isinstance(raw, list):
        return "a list"
    return _NAMES.get(type(raw), f"a {type(raw).__name__}")


def _is_number(raw: Any) -> bool:
    """Whether a string is a short number in quotes, the commonest wrong type."""
    if not isinstance(raw, str) or len(raw) > 20:
        return False
    try:
        float(raw)
    except ValueError:
        return False
    return True
