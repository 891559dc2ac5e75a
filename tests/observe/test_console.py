"""The console degrades, but never ends a run."""

import io
import os
import subprocess
import sys

import pytest

from albert_jax.observe.console import PLAIN_SECONDS, Console, progress_line, safe_output


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_line_is_overwritten_completely(monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    console = Console(stream)
    console.progress("a long line of progress")
    console.progress("short")
    console.say("message")
    console.close()
    shown = _screen(stream.getvalue())
    assert shown == ["message", ""]
    last_live = stream.getvalue().split("\r")[2]
    assert last_live.rstrip() == "short" and len(last_live) == len("a long line of progress")


def test_terminal_line_fits_the_width(monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "20")
    stream = Terminal()
    Console(stream).progress("x" * 300)
    assert len(stream.getvalue().strip("\r")) == 19


def test_plain_lines_are_limited_in_rate() -> None:
    now = [0.0]
    stream = io.StringIO()
    console = Console(stream, now=lambda: now[0])
    for second in range(int(PLAIN_SECONDS) + 1):
        now[0] = second
        console.progress(f"at {second}")
    assert stream.getvalue().split("\n") == ["at 0", f"at {int(PLAIN_SECONDS)}", ""]


def test_closed_stream_is_silence() -> None:
    stream = io.StringIO()
    console = Console(stream)
    stream.close()
    console.say("nobody hears this")
    console.progress("nor this")


def test_text_that_the_stream_cannot_encode_is_escaped() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Console(stream).say("中")
    assert raw.getvalue() == b"\\u4e2d\n"


def test_stdout_closed_by_head_does_not_change_the_exit_code() -> None:
    program = (
        "from albert_jax.observe.console import Console\n"
        "console = Console()\n"
        "for i in range(20000): console.say(f'line {i}')\n"
        "raise SystemExit(3)\n"
    )
    reading, writing = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    os.read(reading, 10)
    os.close(reading)
    _, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (3, "")


def test_the_streams_of_the_caller_come_back(monkeypatch) -> None:
    """Output is protected during a run only; a stream that was None is None again."""
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(KeyError), safe_output():
        print("nobody reads this")
        print("nor this", file=sys.stderr)
        raise KeyError
    assert sys.stdout is closed and sys.stderr is None


def test_the_progress_line_has_the_numbers_of_the_row() -> None:
    line = progress_line({"step": 5, "mlm_loss": 4.5, "sop_loss": None, "eta": 185.0}, 20)
    assert line == "step 5/20  mlm 4.500  3m05s left"


def _screen(text: str) -> list[str]:
    """The screen of a terminal after `text`: carriage returns overwrite."""
    lines = []
    for line in text.split("\n"):
        cells: list[str] = []
        for part in line.split("\r"):
            cells[: len(part)] = part
        lines.append("".join(cells).rstrip())
    return lines
