"""The console command: commands, errors and exit codes, help, output that others read."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import tomllib

import pytest

from albert_jax import cli, config_fields, configfile, errors
from albert_jax.commands import options
from albert_jax.commands.config import ConfigShow
from albert_jax.tasks import registry
from tests import tiny_models

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(configfile.preset_folder().parent)}


@pytest.fixture
def call(capsys):
    """Runs the command in this process: (exit code, stdout, stderr)."""

    def call(*arguments):
        code = cli.main(list(arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return call


def _last(err):
    return err.rstrip("\n").splitlines()[-1]


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_verb_explains_itself(call, command):
    code, out, err = call(*command.split(), "--help")
    assert code == 0 and not err
    assert f"albert-jax {command}" in out and "show this help" in out


def test_overview_names_every_verb(call):
    code, out, _ = call("--help")
    assert code == 0
    for command in cli.COMMANDS:
        assert f"  {command} " in out
    assert call()[0] == 2
    assert call("data")[0] == 2
    code, out, _ = call("--version")
    assert code == 0 and re.fullmatch(r"albert-jax \d+\.\d+\.\d+\n", out)


def test_help_is_a_verb(call):
    assert call("help") == call("--help")
    assert call("help", "fill-mask") == call("fill-mask", "--help")
    assert call("help", "data") == call("data", "--help")
    assert call("help", "data", "show") == call("data", "show", "--help")


def test_finetune_help_names_every_task(call):
    code, out, _ = call("finetune", "--help")
    words = set(re.split(r"[^\w-]+", out.split("--task NAME")[1].split("--train")[0]))
    assert code == 0 and set(registry.names()) <= words


def test_pretrain_help_shows_fields_with_the_defaults_of_the_preset(call):
    code, out, _ = call("pretrain", "--config", "tiny", "--help")
    assert code == 0
    text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", out).split())
    tiny = configfile.load("tiny")
    assert (
        f"--optimizer.learning-rate FLOAT Peak learning rate. (default: {tiny.optimizer.learning_rate})"
        in text
    )
    assert (
        f"--phases.1.sequence-length INT S: tokens per row. (default: {tiny.phases[1].sequence_length})"
        in text
    )
    for path, _ in config_fields.leaves(tiny):
        assert f"--{path.replace('_', '-')}" in out


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["pretran"], ["'pretran'", "did you mean pretrain"]),
        (["data", "shw"], ["'data shw'", "data show"]),
        (["tokenizer", "train", "--txt", "x"], ["missing --text FILE"]),
        (["evaluate"], ["missing RUN"]),
        (["pretrain", "--config", "tiny"], ["missing", "--out RUN"]),
        (["pretrain", "--config", "tiny", "--out"], ["--out"]),
        (["pretrain", "--config", "tiny", "--out", "x", "--optimizer.lerning-rate", "1"],
         ["--optimizer.lerning-rate", "did you mean --optimizer.learning-rate?"]),
        # Also one letter from an option whose name is longer.
        (["pretrain", "--config", "tiny", "--out", "x", "--optimizer.learning-rat", "1"],
         ["--optimizer.learning-rat,", "did you mean --optimizer.learning-rate?"]),
        (["pretrain", "--config", "tiny", "--out", "x", "--phases.2.steps", "1"], ["--phases.2.steps"]),
        (["pretrain", "--config", "tiny", "--out", "x", "--seed", "abc"], ["--seed", "'abc'"]),
        (["pretrain", "--config", "tiny", "--out", "x", "--optimizer.name", "lamp"], ["lamb", "lamp"]),
        (["pretrain", "--config", "tyny", "--out", "x"], ["'tyny'", "did you mean tiny?"]),
        (["pretrain", "--config", "tiny", "--out", "x", "--optimizer.learning-rate", "nan"],
         ["optimizer.learning_rate", "finite"]),
        (["pretrain", "--config", "tiny", "--out", "x", "--model.hidden-size", "130"],
         ["model.hidden_size", "model.num_attention_heads"]),
        (["pretrain", "--config", "tiny", "--out", "x"], ["data.prepared", "--data"]),
        (["pretrain", "--config", "tiny", "--out", "x", "--data", "d", "--init", "a", "--from", "b@1"],
         ["--init", "--from"]),
        (["config", "show", "--config", "tiny", "--get", "optimizer.lr"], ["optimizer.lr"]),
        (["evaluate", "x", "--step", "last"], ["--step last", "newest"]),
        (["data", "prepare", "--text", "x", "--tokenizer", "t", "--out", "o", "--shard", "4/4"], ["shard 4/4"]),
        (["fill-mask", "x", "[MASK]", "--top-k", "0"], ["--top-k 0"]),
        (["pretrain", "--config", "tiny", "--out", "x", "--lr", "1e-3"],
         ["--lr", "did you mean --optimizer.learning-rate?"]),
        (["finetune", "--out", "x", "--batch_size", "8", "--lr=1e-3"],
         ["did you mean --phases.0.batch-size and --optimizer.learning-rate?"]),
        (["finetune", "--out", "x", "--epochs", "3"], ["did you mean --task.num-train-epochs?"]),
        (["pretrain", "--config", "tiny", "--out", "x", "--epochs", "3"],
         ["did you mean --phases.0.steps?"]),
        (["finetune", "--out", "x", "--max-length", "64"],
         ["did you mean --phases.0.sequence-length?"]),
        (["finetune", "--out", "x", "--max-seq-length", "64"],
         ["did you mean --phases.0.sequence-length?"]),
        (["finetune", "--out", "x", "--steps", "64"], ["did you mean --phases.0.steps?"]),
        (["pretrain", "--config", "tiny", "--lr", "64"], ["missing --out RUN"]),
        (["finetune", "--out", "x", "--gpu", "0"], ["JAX_PLATFORMS", "cuda"]),
        (["help", "pretran"], ["'pretran'", "did you mean pretrain"]),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) and v and v[0] in "".join(cli.COMMANDS) else "",
)  # fmt: skip
def test_wrong_usage_is_one_last_line(call, arguments, parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*arguments)
    assert code in (2, 3) and not out
    assert _last(err).startswith("albert-jax: ")
    for part in parts:
        assert part in _last(err)
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (errors.ConfigError("a\nb"), 2, "albert-jax: a b"),
        (errors.DataError("d"), 3, "albert-jax: d"),
        (errors.CheckpointError("c"), 4, "albert-jax: c"),
        (errors.NumericsError("n"), 5, "albert-jax: n"),
        (errors.PeerError("p"), 6, "albert-jax: p"),
        (errors.StorageError("s"), 7, "albert-jax: s"),
        (errors.Stopped("t"), 75, "albert-jax: t"),
        (OSError(28, "No space left on device", "f"), 7, "albert-jax: f: No space left on device"),
        (
            ZeroDivisionError("z"),
            70,
            "albert-jax: internal error: ZeroDivisionError: z; add --debug",
        ),
        (KeyboardInterrupt(), 130, "albert-jax: interrupted"),
        (BrokenPipeError(), 141, None),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, BaseException) else "",
)
def test_errors_become_exit_codes(call, monkeypatch, error, code, text):
    def fail(self):
        raise error

    monkeypatch.setattr(ConfigShow, "run", fail)
    for debug in (False, True):
        got, _, err = call("config", "show", "--config", "tiny", *["--debug"] * debug)
        assert got == code
        if text is None:
            assert not err
        else:
            assert _last(err).startswith(text)
            assert ("Traceback" in err) == debug


def test_overrides_reach_pretraining(monkeypatch, tmp_path, capsys):
    from albert_jax.train import pretraining

    seen = {}
    monkeypatch.setattr(
        pretraining, "run", lambda config, out, **o: seen.update(o, config=config, out=out)
    )
    data = tiny_models.prepared(tmp_path)
    arguments = ["pretrain", "--config", "tiny", "--out", "r", "--data", data, "b", "--phases.0.steps", "7",
                 "--phases.0.depths", "2", "4", "--compute.unroll", "False", "--optimizer.learning_rate=2e-3",
                 "--phases.0.objective.mask-unit", "span", "--from", "q@5", "--allow-change", "seed", "run"]  # fmt: skip
    assert cli.main(arguments) == 0
    config, tiny = seen.pop("config"), configfile.load("tiny")
    assert seen == {"out": "r", "init": None, "parent": "q@5", "allow_change": ("seed", "run")}
    changed = {line.split(" ")[0] for line in configfile.difference(config, tiny)}
    assert changed == {"data.prepared", "phases.0.steps", "phases.0.depths", "compute.unroll",
                       "optimizer.learning_rate", "phases.0.objective.mask_unit", "model.vocab_size"}  # fmt: skip
    assert config.data.prepared == (data, "b") and config.phases[0].depths == (2, 4)
    # The size is that of the data, as a line says; one that is asked for is not changed.
    assert config.model.vocab_size == 64
    assert "model.vocab_size = 64, as in " in capsys.readouterr().err
    assert cli.main([*arguments, "--model.vocab-size", "99"]) == 0
    assert seen["config"].model.vocab_size == 99 and not capsys.readouterr().err


def test_config_show_prints_a_config_that_reads_back(call, tmp_path):
    code, out, err = call("config", "show", "--config", "tiny", "--optimizer.learning-rate", "1e-3")
    assert code == 0 and not err
    (tmp_path / "shown.toml").write_text(out)
    again = configfile.load(str(tmp_path / "shown.toml"))
    assert again.optimizer.learning_rate == 0.001
    assert tomllib.loads(out) == configfile.to_dict(again)
    assert f"# digest {configfile.digest(again)}" in out
    assert "# differs from tiny:\n#   optimizer.learning_rate = 0.001 (was " in out
    assert "parameters " in out
    assert "# same as tiny" in call("config", "show", "--config", "tiny")[1]


@pytest.mark.parametrize(
    ("field", "value"),
    [("model.vocab_size", "4000"), ("model.vocab-size", "4000"), ("compute.unroll", "auto"),
     ("optimizer.name", "muon"), ("data.prepared", ""), ("phases.0.objective.mask_unit", "ngram")],
)  # fmt: skip
def test_config_show_gets_one_value_for_scripts(call, field, value):
    assert call("config", "show", "--config", "tiny", "--get", field)[:2] == (0, value + "\n")


def test_odd_paths_and_texts_arrive(albert, tmp_path):
    folder = tmp_path / "a b\n文"
    folder.mkdir()
    (folder / "-c.toml").write_text("extends = 'tiny'\nseed = 5\n")
    for cwd, path in (
        (folder, "./-c.toml"),
        (folder, "-c.toml"),
        (tmp_path, str(folder / "-c.toml")),
    ):
        done = albert("config", "show", f"--config={path}", "--get", "seed", cwd=cwd)
        assert (done.returncode, done.stdout) == (0, "5\n"), done.stderr
    done = albert("fill-mask", str(folder), "--", "-- [MASK]")
    assert done.returncode == 4 and _last(done.stderr).startswith("albert-jax: ")


def test_a_poor_environment_is_enough(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "albert_jax", "config", "show", "--config", "文", "--get", "seed"],
        env={"PATH": "/nonexistent", "LANG": "C", "LC_ALL": "C", "TMPDIR": "/nonexistent",
             "PYTHONPATH": str(configfile.preset_folder().parent)},
        cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 2
    assert "does not exist" in done.stderr and "Traceback" not in done.stderr


def test_a_reader_that_leaves_is_no_error():
    command = [sys.executable, "-m", "albert_jax", "config", "show", "--config", "tiny"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True)
    process.stdout.close()
    assert process.wait(120) == 141
    assert process.stderr.read() == ""
    process.stderr.close()


def test_interrupt_is_one_line(tmp_path):
    code = (
        "import os, signal; from albert_jax import cli; from albert_jax.commands.config import ConfigShow\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it\n"
        "ConfigShow.run = lambda self: os.kill(os.getpid(), signal.SIGINT)\n"
        "raise SystemExit(cli.main(['config', 'show', '--config', 'tiny']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 130 != -signal.SIGINT
    assert done.stderr == "albert-jax: interrupted: start the same command again to go on\n"


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ("pretrain --config tiny", "tiny"),
        ("pretrain --config=tiny --out x", "tiny"),
        ("pretrain --config a --config b", "b"),
        ("pretrain --config --init y", None),
        ("pretrain --config", None),
        ("pretrain", None),
    ],
)
def test_an_option_that_is_looked_up_first(arguments, value):
    assert options.given(arguments.split(), "--config") == value


HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202e\x9b31m" + "n" * 3_000_000


def test_what_foreign_files_say_cannot_steer_a_terminal(call, monkeypatch, tmp_path):
    """Neither in an error nor in a warning; and it does not fill the screen."""

    def fail(self):
        logging.getLogger("albert_jax.checkpoint").warning("found %s", HOSTILE)
        raise errors.CheckpointError(f"{HOSTILE} is not expected: give another name")

    monkeypatch.setattr(ConfigShow, "run", fail)
    code, out, err = call("config", "show", "--config", "tiny")
    assert code == 4 and not out
    warning, error = err.splitlines()
    assert warning.startswith(r"found \x1b[2J\x1b]0;owned\x07\u202e\x9b31mnnn")
    assert error.startswith(r"albert-jax: \x1b[2J") and error.endswith(": give another name")
    assert all(len(line) < 3000 and line.isprintable() for line in (warning, error))


def test_a_foreign_name_in_a_file_is_printed_escaped(call, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    described = {"model_type": "\x1b[31mred", "hidden_size": 1}
    (tmp_path / "config.json").write_text(json.dumps(described))
    code, _, err = call("import", str(tmp_path), "--out", str(tmp_path / "out"))
    assert code == 4 and r"describes a \x1b[31mred model" in _last(err) and "\x1b" not in err


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("a\nb\tc  d", "a b c d"),
        ("数据 is here\u3000now", "数据 is here now"),
        ("\ud800 caf\u00e9", r"\ud800 caf\u00e9".replace(r"\u00e9", "\u00e9")),
        ("x" * 400, "x" * 400),
        ("x" * 401, "x" * 200 + "[... 1 characters ...]" + "x" * 200),
        ("", ""),
    ],
)
def test_one_line(text, printed):
    assert errors.one_line(text) == printed


def test_a_line_of_many_words_has_an_end():
    line = errors.one_line("begin " + "word " * 10_000 + "end")
    assert line.startswith("begin word") and line.endswith(" end") and len(line) < 2100


@pytest.mark.parametrize(
    "command",
    [
        "data prepare --text a --text b --out x",
        "pretrain --data a --data b --out x",
        "pretrain --allow_change a --allow-change b --out x",
        "evaluate run --num-layers 1 --num-layers 2",
        "pretrain --phases.0.mixture 1 --phases.0.mixture 2 --out x",
    ],
)
def test_a_second_list_of_values_is_refused(capsys, command):
    assert cli.main(command.split()) == 2
    assert re.search(r"--\S+ is given twice: give it once", capsys.readouterr().err)


@pytest.mark.parametrize("out", [["--out", ""], ["--out="]])
def test_an_empty_out_is_not_the_root_of_the_disk(capsys, out):
    assert cli.main(["pretrain", "--config", "tiny", "--data", "d", *out]) == 2
    assert "--out is empty" in capsys.readouterr().err


def test_an_argument_that_is_not_utf8_is_one_line(capsys):
    assert cli.main(["predict", "run", "\udcb2\udccb"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("is not in UTF-8: convert it")


def test_pictures_have_the_ending_of_what_they_are(capsys, tmp_path):
    assert cli.main(["data", "stats", str(tmp_path), "--out", "rows.png"]) == 2
    assert "give a name with .svg" in capsys.readouterr().err


def test_blank_lines_at_the_end_of_a_file_are_no_sentences(tmp_path):
    for text in (b"one\ntwo\n\n", b"one\r\ntwo\r\n\r\n"):
        (tmp_path / "s.txt").write_bytes(text)
        records = options.sentence_records(str(tmp_path / "s.txt"))
        assert [record.fields["sentence"] for record in records] == ["one", "two"]
