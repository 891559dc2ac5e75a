"""Messages of libraries are lines on stderr, and in a run lines of a file in its folder."""

from __future__ import annotations

import logging

from albert_jax import logs

library = logging.getLogger("some.library")


def handler(monkeypatch, *, debug: bool = False) -> logs.LibraryLog:
    """The handler, in place of all others."""
    made = logs.LibraryLog(debug=debug)
    monkeypatch.setattr(logging.getLogger(), "handlers", [made])
    return made


def test_without_a_run_errors_are_lines_and_warnings_are_not(monkeypatch, capsys):
    handler(monkeypatch)
    library.warning("a hint")
    library.error("a failure")
    assert capsys.readouterr().err == "a failure\n"


def test_in_a_run_they_are_kept_in_its_folder(monkeypatch, capsys, tmp_path):
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


def test_a_message_waits_for_a_disk_that_takes_it(monkeypatch, tmp_path):
    log, folder = handler(monkeypatch), tmp_path / "later"
    log.use_folder(str(folder))
    library.error("before the folder is there")
    assert log.file() is None
    folder.mkdir()
    library.error("after")
    kept = (folder / logs.FILE).read_text()
    assert kept.index("before the folder") < kept.index("after") and log.file()


def test_with_debug_everything_is_shown(monkeypatch, capsys, tmp_path):
    log = handler(monkeypatch, debug=True)
    log.use_folder(str(tmp_path))
    library.warning("a hint")
    assert "a hint" in capsys.readouterr().err and not (tmp_path / logs.FILE).exists()
