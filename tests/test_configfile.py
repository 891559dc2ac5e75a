"""Config files: what is read, what is refused and in which words."""

from __future__ import annotations

import dataclasses
import json
import resource

import pytest

from albert_jax import configfile
from albert_jax.config import Config, DataConfig, PhaseConfig
from albert_jax.config_fields import leaves
from albert_jax.errors import CheckpointError, ConfigError
from albert_jax.tasks.classification import ClassificationConfig


@pytest.fixture
def write(tmp_path):
    def write(text, name="mine.toml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def test_dumps_is_complete_and_reloads_equal(write):
    config = Config(
        seed=7,
        data=DataConfig(prepared=("a b", 'c"d', "日本")),
        phases=(PhaseConfig(steps=3, depths=(6, 12)), PhaseConfig(mixture=(0.25, 1.0, 1e-7))),
    )
    text = configfile.dumps(config)
    assert configfile.load(write(text)) == config
    for path, _ in leaves(config):
        assert f"{path.rsplit('.', 1)[-1]} = " in text


def test_digest_follows_the_fields_alone(write):
    tiny = configfile.load("tiny")
    again = configfile.load(write("# a comment\nextends = 'tiny'\n"))
    assert configfile.digest(again) == configfile.digest(tiny)
    other = dataclasses.replace(tiny, seed=tiny.seed + 1)
    assert configfile.digest(other) != configfile.digest(tiny)


def test_extends_merges_tables_and_replaces_phases(write):
    tiny = configfile.load("tiny")
    path = write(
        "extends = 'tiny'\n[optimizer]\nlearning_rate = 0.002\n[[phases]]\nsequence_length = 9\n"
    )
    config = configfile.load(path)
    assert config.phases == (PhaseConfig(sequence_length=9),)
    assert config.optimizer == dataclasses.replace(tiny.optimizer, learning_rate=0.002)
    assert config.model == tiny.model


def test_extends_reads_relative_files_and_refuses_circles(write):
    write("extends = 'tiny'\nseed = 4\n", "below.toml")
    assert configfile.load(write("extends = 'below.toml'\n")).seed == 4
    write("extends = 'b.toml'\n", "a.toml")
    circle = write("extends = 'a.toml'\n", "b.toml")
    with pytest.raises(ConfigError, match="forms a cycle"):
        configfile.load(circle)


def test_a_task_may_be_named_by_the_config_below(write):
    config = configfile.load(
        write("extends = 'finetune/squad-v1'\n[task]\nmax_answer_length = 12\n")
    )
    assert config.task is not None and config.task.name == "squad-v1"
    assert config.task.max_answer_length == 12  # type: ignore[attr-defined]


def test_run_folder_is_read(tmp_path, write):
    write(configfile.dumps(Config(seed=3)), "config.toml")
    assert configfile.load(str(tmp_path)).seed == 3


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[optimizer]\nlerning_rate = 0.1\n", ["lerning_rate", "learning_rate"]),
        ("[optimiser]\nb1 = 0.1\n", ["optimiser", "optimizer"]),
        ("[[phases]]\nstep = 4\n", ["phases.0.step", "steps"]),
        ("[[phases]]\n[phases.objective]\nmaskrate = 0.1\n", ["phases.0.objective", "mask_rate"]),
        ("zzzzqqq = 1\n", ["zzzzqqq", "known", "model"]),
        ("seed = '4'\n", ["seed", "whole number", "string"]),
        ("seed = true\n", ["seed", "whole number"]),
        ("seed = 1.5\n", ["seed", "whole number"]),
        ("[optimizer]\nlearning_rate = '1e-4'\n", ["optimizer.learning_rate", "string"]),
        (
            "[[phases]]\nmixture = [1.0, 2.0]\n[data]\nprepared = ['a']\n",
            ["phases.0.mixture has 2 weights for 1 folders"],
        ),
        ("[optimizer]\nname = 'lamp'\n", ["optimizer.name", "'lamb'"]),
        ("[optimizer]\nlearning_rate = nan\n", ["optimizer.learning_rate", "finite"]),
        ("[optimizer]\nlearning_rate = inf\n", ["optimizer.learning_rate", "finite"]),
        ("[[phases]]\nmixture = [inf, 1.0]\n", ["phases.0.mixture", "finite"]),
        ("[optimizer]\nlearning_rate = 1000\n", ["optimizer.learning_rate", "between"]),
        ("[optimizer]\nlearning_rate = -0.1\n", ["optimizer.learning_rate", "between"]),
        ("[[phases]]\nsteps = 0\n", ["phases.0.steps", "at least 1"]),
        ("[[phases]]\nsteps = 99999999999999999999999\n", ["phases.0.steps", "64 bits"]),
        ("[[phases]]\nsequence_length = 1024\n", ["phases.0.sequence_length", "512"]),
        (
            "[[phases]]\nsequence_length = 8\n[phases.objective]\nmax_ngram = 9\n",
            ["max_ngram", "9"],
        ),
        (
            "[[phases]]\n[phases.objective]\nmask_rate = 0.0\nsentence_order = 'none'\n",
            ["phases.0.objective.mask_rate is 0, so nothing is predicted"],
        ),
        ("[model]\nhidden_size = 100\n", ["model.hidden_size", "num_attention_heads"]),
        ("model = 3\n", ["model", "table", "whole number"]),
        ("phases = 3\n", ["phases", "list"]),
        ("phases = [1]\n", ["phases.0", "table"]),
        ("phases = []\n", ["phases", "at least one"]),
        ("[data]\nprepared = 'x'\n", ["data.prepared", "list"]),
        ("seed = 1\nseed = 2\n", ["line 2"]),
        ("[model]\n[model]\n", ["line 2"]),
        ("seed = 010\n", ["line 1"]),
        ("seed: 1\n", ["not TOML"]),
        ("seed = 1979-05-27\n", ["seed", "date"]),
        ("extends = 3\n", ["extends"]),
        ("extends = 'tinny'\n", ["tinny", "tiny"]),
        (b"seed = 1 # \xff\n", ["UTF-8", "byte 11"]),
        (b"\x00\x01\x02", ["TOML"]),
    ],
)
def test_bad_files_are_told_in_one_line(write, text, parts):
    with pytest.raises(ConfigError) as caught:
        configfile.load(write(text))
    message = str(caught.value)
    assert "\n" not in message and "mine.toml" in message
    for part in parts:
        assert part in message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "text",
    [
        "[data]\nprepared = ['gs://b/x?token=S3CRETS3CRETS3CRET']\n",
        "[data]\nprepared = ['hf_S3CRETS3CRETS3CRETS3CRETS3CRET']\n",
        "[data]\nprepared = ['https://me:S3CRETS3CRETS3CRET@host/x']\n",
    ],
)
def test_secrets_are_refused_and_not_repeated(write, text):
    with pytest.raises(ConfigError, match="secret") as caught:
        configfile.load(write(text))
    assert "S3CRET" not in str(caught.value)


def test_names_of_folders_are_no_secrets(write):
    text = "[data]\nprepared = ['hf_wikipedia_20231101_en', 'x/key_words']\n"
    assert len(configfile.load(write(text)).data.prepared) == 2


def test_a_mixture_may_wait_for_folders_of_the_command_line(write):
    text = "[[phases]]\nmixture = [0.7, 0.3]\n"
    assert configfile.load(write(text)).phases[0].mixture == (0.7, 0.3)


def test_the_value_of_an_unknown_key_is_not_repeated(write):
    for text in ("hf_token = 'S3CRETS3CRET'\n", "[data]\napi_key = 'S3CRETS3CRET'\n"):
        with pytest.raises(ConfigError, match="unknown key") as caught:
            configfile.load(write(text))
        assert "S3CRET" not in str(caught.value)


_HOSTILE = [
    b"a = " + b"[" * 100_000,
    b"a = " + b"{a=" * 100_000,
    b"a = " + b"9" * 900_000,
    b"a" + b".a" * 90_000 + b" = 1",
    b"[" + b"a." * 90_000 + b"a]",
    b"a = '" + b"x" * 900_000,
    b"#" * 2_000_000,
]
_LINEAR = [
    b"seed = " + b"1" * 90_000,
    b"seed = 0x" + b"f" * 90_000,
    b"a = '" + b"\\" * 90_000,
    b"seed = 1\n" * 10_000,
    b"".join(b"a%d = 1\n" % i for i in range(9_000)),
    b"a = [" + b"1," * 48_000 + b"]",
    b"[[phases]]\n" * 8_000 + b"x = 1",
]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("text", _HOSTILE, ids=range(len(_HOSTILE)))
def test_hostile_files_never_reach_the_parser(write, text, monkeypatch):
    path = write(text)
    monkeypatch.setattr(configfile.tomllib, "loads", lambda _: pytest.fail("parsed"))
    with pytest.raises(ConfigError):
        configfile.load(path)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("text", _LINEAR, ids=range(len(_LINEAR)))
def test_large_files_take_little_memory_and_a_short_line(write, text):
    path = write(text)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConfigError) as caught:
        configfile.load(path)
    assert len(str(caught.value)) < 600
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(ConfigError, match=r"base-v3' does not exist.*base-v"):
        configfile.load("base-v3")
    with pytest.raises(ConfigError, match="does not exist"):
        configfile.load(str(tmp_path / "none.toml"))
    with pytest.raises(ConfigError, match="not a file"):
        configfile.load(str(tmp_path))
    with pytest.raises(ConfigError, match="does not exist"):
        configfile.load("a\0b")


def test_difference_and_base(write):
    path = write("extends = 'tiny'\n[optimizer]\nlearning_rate = 0.002\n")
    name, base = configfile.base_of(path)
    assert name == "tiny"
    was = base.optimizer.learning_rate
    lines = configfile.difference(configfile.load(path), base)
    assert lines == [f"optimizer.learning_rate = 0.002 (was {was})"]
    assert configfile.base_of("base-v1") == ("base-v1", configfile.load("base-v1"))
    assert configfile.base_of(write("seed = 1\n", "own.toml")) == ("defaults", Config())


def _with(config, section, **changes):
    part = dataclasses.replace(getattr(config, section), **changes)
    return dataclasses.replace(config, **{section: part})


def test_what_may_continue_tells_harmless_refused_and_other_models():
    old = Config()
    assert configfile.check_may_continue(old, old) == []
    harmless = _with(_with(old, "run", save_total_limit=2), "compute", remat="full")
    assert len(configfile.check_may_continue(old, harmless)) == 2
    with pytest.raises(CheckpointError, match=r"model.hidden_size = 384 \(was 768\)") as model:
        configfile.check_may_continue(old, _with(old, "model", hidden_size=384), ("model",))
    assert model.value.exit_code == 4
    faster = _with(old, "optimizer", learning_rate=0.001)
    with pytest.raises(ConfigError, match=r"--allow-change optimizer.learning_rate"):
        configfile.check_may_continue(old, faster)
    for name in ("optimizer.learning_rate", "optimizer"):
        assert len(configfile.check_may_continue(old, faster, (name,))) == 1
    with pytest.raises(ConfigError, match=r"optimizer\.learning_rate"):
        configfile.check_may_continue(old, faster, ("optimizer.b1",))
    with pytest.raises(ConfigError, match=r"did you mean optimizer.b1"):
        configfile.check_may_continue(old, faster, ("optimizer.bb1",))
    longer = dataclasses.replace(old, phases=(*old.phases, PhaseConfig(steps=5)))
    with pytest.raises(ConfigError, match=r"phases\.1"):
        configfile.check_may_continue(old, longer)
    assert configfile.check_may_continue(old, longer, ("phases",))


def test_a_run_of_another_version_is_refused_with_that_version(tmp_path):
    (tmp_path / "config.toml").write_text("[optimizer]\nclip_norm = 1.0\n")
    with pytest.raises(ConfigError, match=r"unknown key 'optimizer\.clip_norm'"):
        configfile.load(str(tmp_path))
    record = {"environment": {"packages": {"albert-jax": "9.1.0"}}}
    (tmp_path / "record.json").write_text(json.dumps(record))
    for name in (str(tmp_path), str(tmp_path / "config.toml")):
        with pytest.raises(ConfigError, match=r"clip_norm.*; use albert-jax 9\.1\.0, "):
            configfile.load(name)


def test_paths_of_what_exists_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "train.tsv").touch()
    task = ClassificationConfig(train="train.tsv", dev="hf:imdb:test")
    config = Config(data=DataConfig(prepared=("data", "gs://b/data")), task=task)
    found = configfile.with_absolute_paths(config)
    assert found.data.prepared == (f"{tmp_path}/data", "gs://b/data")
    assert found.task is not None
    assert (found.task.train, found.task.dev) == (f"{tmp_path}/train.tsv", "hf:imdb:test")
    assert configfile.with_absolute_paths(found) == found
    published = configfile.without_folders(found)
    assert published.data.prepared == ("data", "gs://b/data")
    assert str(tmp_path) not in configfile.dumps(published)
