"""The command line of `albert-jax`: it finds the command, reports errors and sets the exit code.

Each command is a frozen dataclass in `albert_jax/commands` whose fields are its options (parsed by
tyro, explained by their docstrings) and whose `run` does the work. Only the module of the given
command is imported, so help is quick and never loads jax.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import re
import resource
import sys
from itertools import pairwise
from typing import NoReturn

from albert_jax import compilation_cache, exits, logs
from albert_jax.errors import nearest
from albert_jax.exits import USAGE

COMMANDS = {
    "tokenizer train": ("albert_jax.commands.tokenizer:TokenizerTrain", "learn a vocabulary"),
    "data prepare": ("albert_jax.commands.data:DataPrepare", "turn text into documents of ids"),
    "data show": ("albert_jax.commands.data:DataShow", "print rows as the model reads them"),
    "data stats": ("albert_jax.commands.data:DataStats", "figures of many rows, as a table"),
    "pretrain": ("albert_jax.commands.pretrain:Pretrain", "train, or continue a run"),
    "replay": ("albert_jax.commands.replay:ReplayStep", "do a step again, name its worst rows"),
    "evaluate": ("albert_jax.commands.evaluate:Evaluate", "measure a run on held-out text"),
    "fill-mask": ("albert_jax.commands.fill_mask:FillMask", "guess the words behind [MASK]"),
    "finetune": ("albert_jax.commands.finetune:Finetune", "train a task from labeled examples"),
    "predict": ("albert_jax.commands.predict:Predict", "apply a fine-tuned run to new examples"),
    "embed": ("albert_jax.commands.embed:Embed", "turn sentences into vectors"),
    "tokenize": ("albert_jax.commands.tokenize:Tokenize", "show the tokens and ids of texts"),
    "explain": ("albert_jax.commands.explain:Explain", "draw attention, guesses, attributions"),
    "score": ("albert_jax.commands.score:Score", "likelihood of sentences, minimal pairs"),
    "serve": ("albert_jax.commands.serve:Serve", "try models on a local web page"),
    "export": ("albert_jax.commands.export:Export", "write a directory for Transformers"),
    "import": ("albert_jax.commands.import_model:Import", "read weights of other programs"),
    "verify": ("albert_jax.commands.verify:Verify", "check all of a run, data or an export"),
    "bench": ("albert_jax.commands.bench:Bench", "measure speed and memory on this machine"),
    "doctor": ("albert_jax.commands.doctor:Doctor", "look at devices, versions, disk and clock"),
    "plan": ("albert_jax.commands.plan:Plan", "compile for a slice: memory, time and cost"),
    "config show": ("albert_jax.commands.config:ConfigShow", "print a config with all fields"),
}

MAX_OPEN_FILES = 1 << 16
"""Number of files that a command may have open at a time, if the system allows as many."""

EQUIVALENT_OPTIONS = {
    "--lr": "--optimizer.learning-rate",
    "--learning-rate": "--optimizer.learning-rate",
    "--batch-size": "--phases.0.batch-size",
    "--per-device-train-batch-size": "--phases.0.batch-size",
    "--epochs": "--task.num-train-epochs",
    "--num-train-epochs": "--task.num-train-epochs",
    "--steps": "--phases.0.steps",
    "--max-length": "--phases.0.sequence-length",
    "--max-seq-length": "--phases.0.sequence-length",
    "--weight-decay": "--optimizer.weight-decay",
}
"""Our options for those of other trainers, in the commands of WITH_FIELDS."""
WITH_FIELDS = ("pretrain", "finetune", "config show")
"""Commands that have every field of a config as an option."""
LISTS = re.compile(
    r"--(text|ids|decontaminate|data|data\.prepared|allow-change|special-ids|num-layers|beam"
    r"|phases\.\d+\.(mixture|depths)|run\.save-at-words)"
)
"""Options with several values, of which a repetition would silently lose the first."""
DEVICE_OPTIONS = ("--gpu", "--gpus", "--cuda", "--tpu", "--cpu", "--device", "--devices")
"""Options of other programs for what an environment variable decides here."""


def main(argv: list[str] | None = None) -> int:
    """Runs one command line and returns its exit code; an error is one last line on stderr."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    debug = "--debug" in options
    if debug:
        arguments.remove("--debug")
    logs.set_up(debug)
    _allow_many_open_files()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character must not end a run.
            stream.reconfigure(errors="backslashreplace")
    for argument in arguments:
        if any("\ud800" <= character <= "\udfff" for character in argument):
            return exits.print_last_line(f"{argument!r} is not in UTF-8: convert it", USAGE)
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except (KeyboardInterrupt, Exception) as error:
        return exits.report_error(error, debug)


def entry() -> NoReturn:
    """The console command: a process that ends with the code of its command line."""
    exits.run(main)


def _allow_many_open_files() -> None:
    """Raises the limit of open files: each shard of prepared text keeps four of them open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(MAX_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else USAGE
    if arguments[0] == "help":
        return _dispatch([*arguments[1:], "--help"])
    if arguments[0] == "--version":
        import albert_jax

        print(f"albert-jax {albert_jax.__version__}")
        return 0
    for words in (2, 1):
        command = " ".join(arguments[:words])
        if command in COMMANDS and len(arguments) >= words:
            return _run(command, arguments[words:])
    group = [command for command in COMMANDS if command.startswith(arguments[0] + " ")]
    if group and (len(arguments) == 1 or arguments[1] in ("-h", "--help")):
        print(_overview(group))
        return 0 if len(arguments) > 1 else USAGE
    command = " ".join(arguments[: 2 if group else 1])
    hint = nearest(command, group or COMMANDS) or f"; commands: {', '.join(group or COMMANDS)}"
    return exits.print_last_line(f"unknown command {command!r}{hint}", USAGE)


def _overview(commands: list[str] | None = None) -> str:
    lines = ["usage: albert-jax COMMAND [OPTIONS] [--debug]", ""]
    lines += [f"  {command:16} {COMMANDS[command][1]}" for command in commands or COMMANDS]
    lines += ["", "albert-jax COMMAND --help explains each option; --version prints the version."]
    return "\n".join(lines)


def _run(command: str, arguments: list[str]) -> int:
    import tyro

    names = [word.partition("=")[0].replace("_", "-") for word in arguments]
    for option in filter(LISTS.fullmatch, names):
        if names.count(option) > 1:
            text = f"{option} is given twice: give it once, followed by all its values"
            return exits.print_last_line(f"{text} (albert-jax {command} --help)", USAGE)
    if ("--out", "") in pairwise(arguments) or "--out=" in arguments:
        return exits.print_last_line("--out is empty: name a file or folder", USAGE)
    module, name = COMMANDS[command][0].split(":")
    options_class = getattr(importlib.import_module(module), name)
    defaults = getattr(options_class, "defaults", None)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            parsed = tyro.cli(
                options_class,
                args=arguments,
                prog=f"albert-jax {command}",
                config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands),
                **({"default": defaults(arguments)} if defaults else {}),
            )
    except SystemExit as end:
        if not end.code:
            return 0  # Help was asked for and printed.
        sys.stderr.write(errors.getvalue())
        return exits.print_last_line(_usage_error(errors.getvalue(), command), USAGE)
    compilation_cache.use()
    return parsed.run() or 0


def _usage_error(box: str, command: str) -> str:
    """One line for the boxed message of tyro: its first sentence, and the nearest option."""
    title, *lines = [re.sub(r"^[│╭╰─ ]+|[─│╮╯ ]+$", "", line) for line in box.splitlines()]
    sections: list[list[str]] = [[]]
    for line in lines:
        if line.strip(" -"):
            sections[-1].append(line)
        else:  # A rule between sections; a poor terminal draws it with hyphens.
            sections.append([])
    message, *others = [section for section in sections if section] or [[title]]
    options = [line.split()[0] for part in others for line in part if line.startswith("--")]
    text = " ".join(message)
    typed = [word.replace("_", "-") for word in re.findall(r"(?<!\S)--[\w.-]+", text)]
    if text.startswith("Missing from"):
        text = "missing " + ", ".join(line for line in message if re.match(r"--|[A-Z|]+$", line))
    elif devices := [word for word in typed if word in DEVICE_OPTIONS]:
        text += f"; {devices[0]}: the variable JAX_PLATFORMS (cuda, tpu, cpu) chooses the devices"
    elif command in WITH_FIELDS and (
        ours := [EQUIVALENT_OPTIONS[word] for word in typed if word in EQUIVALENT_OPTIONS]
    ):
        if command == "pretrain":
            ours = [word.replace("task.num-train-epochs", "phases.0.steps") for word in ours]
        text += f"; did you mean {' and '.join(ours)}?"
    elif "Perhaps" in box and options:
        # tyro lists the options that could be meant, but not the nearest one first.
        closest = difflib.get_close_matches(next(iter(typed), ""), options, 1, 0.0) or options
        text += f"; did you mean {closest[0]}?"
    return f"{text} (albert-jax {command} --help)"
