"""Compiled programs are found again by the next process, in the user's own folder."""

from __future__ import annotations

import os
import stat

import pytest

from albert_jax import compilation_cache as cache


@pytest.fixture(autouse=True)
def _clean(monkeypatch, tmp_path):
    for name in (cache.FOLDER, cache.LEAST):
        monkeypatch.setenv(name, "")  # so that what a test sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


@pytest.mark.thorough
def test_the_second_process_finds_what_the_first_compiled(albert, tmp_path):
    arguments = ("bench", "--config", "tiny", "--batch-size", "2", "--length", "8", "--steps", "1")
    environment = {cache.LEAST: "0"}
    folders = []
    for _ in range(2):
        done = albert(*arguments, env=environment)
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        folder = tmp_path / "home" / "albert_jax"
        folders.append({p.name for p in folder.rglob("*-cache")})
    assert folders[0] and folders[0] == folders[1]


def test_the_folder_is_for_its_user_alone_and_one_processor(tmp_path):
    cache.use()
    folder = cache.default_folder()
    assert os.environ[cache.FOLDER] == str(folder) and folder.is_relative_to(tmp_path)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert os.environ[cache.LEAST] == cache.LEAST_SECONDS


def test_what_the_user_set_stays(monkeypatch):
    monkeypatch.setenv(cache.FOLDER, "gs://bucket/compiled")
    monkeypatch.setenv(cache.LEAST, "5")
    cache.use()
    assert os.environ[cache.FOLDER] == "gs://bucket/compiled" and os.environ[cache.LEAST] == "5"


def test_without_a_folder_to_write_to_there_is_no_cache(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    cache.use()
    assert cache.FOLDER not in os.environ
