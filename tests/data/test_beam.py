"""Preparation on Apache Beam: the bytes of the pool, and its one line for what is bad."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from albert_jax.data.prepare import beam
from albert_jax.data.prepare.plan import PrepareOptions
from albert_jax.data.prepare.prepare import prepare
from albert_jax.data.vocabularies.id_range import IdRange
from albert_jax.data.vocabularies.training import TrainingOptions, train
from albert_jax.data.vocabularies.vocabulary import load
from albert_jax.errors import ConfigError, DataError
from tests.data.made import digest

WORDS = "the baker sold warm bread and sweet cakes to every child near old town bridge".split()

# Beam hands DirectRunner's pipelines to a program that it would fetch from the network; this one
# of its two runners in Python never does, and no pipeline is different for it.
RUNNER = ("BundleBasedDirectRunner",)


def write(folder: Path) -> str:
    for file in range(3):
        lines = [
            " ".join(WORDS[(i * k + file) % len(WORDS)] for k in range(1, 9)) + f" {i}. The end."
            for i in range(100)
        ]
        (folder / f"{file}.txt").write_text("\n\n".join(lines), encoding="utf-8")
    return f"{folder}/*.txt"


@pytest.fixture
def no_beam(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "apache_beam", None)


def test_without_beam_the_message_says_how_to_get_it(no_beam: None, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(4, 30, (50, 40))
    np.save(tmp_path / "rows.npy", rows)
    ids = IdRange(30, pad_id=0, cls_id=1, sep_id=2, mask_id=3)
    specs, out = [f"ids:{tmp_path / 'rows.npy'}"], str(tmp_path / "p")
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[beam\]'"):
        prepare(specs, ids, out, PrepareOptions(beam=RUNNER))
    with pytest.raises(ConfigError, match="leave out workers and shard"):
        PrepareOptions(beam=RUNNER, workers=2)


def test_the_bytes_are_those_of_the_pool(tmp_path: Path) -> None:
    pytest.importorskip("apache_beam", reason="Apache Beam (extra beam) is not installed")
    text = write(tmp_path)
    train([text], str(tmp_path / "vocabulary"), TrainingOptions(vocab_size=60))
    vocab = load(str(tmp_path / "vocabulary"))
    found = []
    for name, how in (("pool", {"workers": 2}), ("beam", {"beam": RUNNER})):
        options = PrepareOptions(part_bytes=2000, **how)  # type: ignore[arg-type]
        prepare([text], vocab, str(tmp_path / name), options)
        found.append(digest(str(tmp_path / name)))
    assert found[0] == found[1]


def test_errors_of_workers_arrive_as_they_are(tmp_path: Path) -> None:
    pytest.importorskip("apache_beam", reason="Apache Beam (extra beam) is not installed")
    text = write(tmp_path)
    train([text], str(tmp_path / "vocabulary"), TrainingOptions(vocab_size=60))
    vocab = load(str(tmp_path / "vocabulary"))
    whole = (tmp_path / "1.txt").read_bytes()
    (tmp_path / "1.txt").write_bytes(whole[:3000] + b"\xff" + whole[3001:])
    options = PrepareOptions(part_bytes=2000, beam=RUNNER)
    with pytest.raises(DataError, match=r"1\.txt: invalid UTF-8 at byte 3000") as caught:
        prepare([text], vocab, str(tmp_path / "p"), options)
    assert "\n" not in str(caught.value)
    (tmp_path / "1.txt").write_bytes(whole)
    prepare([text], vocab, str(tmp_path / "p"), options)
    with pytest.raises(ConfigError, match="runner NoSuch cannot be used"):
        prepare([text], vocab, str(tmp_path / "q"), PrepareOptions(beam=("NoSuch",)))
    with pytest.raises(ConfigError, match="cannot be used: argument --direct_num_workers"):
        beam.run((*RUNNER, "direct_num_workers=many"), print, [(0,)], str(tmp_path / "failed"))
