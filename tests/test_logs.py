"""Where messages of libraries go: stderr without a run, a file of the run's folder with one."""

from __future__ import annotations

import logging

import pytest

from albert_jax import logs


@pytest.fixture
def library(monkeypatch):
    """The logger of a library, under a handler of this project alone."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    return logging.getLogger("some.library")


def handler(monkeypatch, *, debug: bool = False) -> logs.LibraryLog:
    made = logs.LibraryLog(debug=debug)
    monkeypatch.setattr(logging.getLogger(), "handlers", [made])
    return made


def test_without_a_run_errors_are_lines_and_warnings_are_not(library, monkeypatch, capsys):
    handler(monkeypatch)
    library.warning("a hint")
    library.error("a failure")
    assert capsys.readouterr().err == "a failure\n"


def test_in_a_run_they_are_kept_in_its_folder(library, monkeypatch, capsys, tmp_path):
    log = handler(monkeypatch)
    log.use_folder(str(tmp_path))
    assert log.file() is None
    library.info("too little to keep")
    assert log.file() is None and not (tmp_path / logs.FILE).exists()
    library.warning("a hint")
    log.keep_trace(ValueError("of ours"))
    assert log.file() == str(tmp_path / logs.FILE)
    kept = (tmp_path / logs.FILE).read_text()
    assert "some.library WARNING: a hint" in kept and "ValueError: of ours" in kept
    assert capsys.readouterr().err == ""


def test_a_message_waits_for_a_disk_that_takes_it(library, monkeypatch, tmp_path):
    log, folder = handler(monkeypatch), tmp_path / "later"
    log.use_folder(str(folder))
    library.error("before the folder is there")
    assert log.file() is None
    folder.mkdir()
    library.error("after")
    kept = (folder / logs.FILE).read_text()
    assert kept.index("before the folder") < kept.index("after") and log.file()


def test_with_debug_everything_is_shown(library, monkeypatch, capsys, tmp_path):
    log = handler(monkeypatch, debug=True)
    log.use_folder(str(tmp_path))
    library.warning("a hint")
    assert "a hint" in capsys.readouterr().err and not (tmp_path / logs.FILE).exists()
