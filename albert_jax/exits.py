"""The exit of a process: its code, its last line, and leaving in bounded time.

docs/reliability.md has the table of exits. After each of them data workers and their shared memory
are gone, and so are temporary files unless the process was killed; the next start removes those of
saves. Every way out of the command line goes through this file: an error through
`report_error`, SIGTERM and SIGINT through `note_signal`, a peer that is gone or stuck through
`abort`, and the process itself through `exit_process`.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import io
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import NoReturn

from albert_jax import logs
from albert_jax.errors import AlbertError, PeerError, Stopped, StorageError, one_line

USAGE, INTERNAL, BROKEN_PIPE = 2, 70, 141
INTERRUPTED = 128 + signal.SIGINT
LEAVE_SECONDS = 20.0
"""Time that a process may take to end after its last line."""

_received: list[int] = []
_ending = threading.Event()
_before_exit: list[Callable[[int], None]] = []


class Interrupted(KeyboardInterrupt):
    """SIGTERM or SIGINT came where nothing saves: `finally` blocks clean up, then it ends."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


# ---- signals -------------------------------------------------------------------------------------


def note_signal(number: int) -> bool:
    """Records SIGTERM or SIGINT; returns True for the signal that starts the shutdown.

    SIGTERM may come any number of times, as schedulers send it. A second SIGINT is a person in a
    hurry and ends the process at once.
    """
    _received.append(number)
    if number == signal.SIGINT and _received.count(signal.SIGINT) > 1:
        abort("SIGINT again: leaving at once, nothing more is saved", INTERRUPTED)
    first = not _ending.is_set()
    _ending.set()
    return first


def reset_signals() -> None:
    """Forgets earlier signals, because a new command or loop of this process begins."""
    _received.clear()
    _ending.clear()


@contextlib.contextmanager
def signals() -> Iterator[None]:
    """Inside the block the first SIGTERM or SIGINT raises Interrupted (train/stop.py: none does).

    A signal that the parent has told us to ignore, as a shell does for background jobs, stays so.
    """

    def handle(number: int, frame: object) -> None:
        if note_signal(number):
            raise Interrupted(number)

    previous = {}
    reset_signals()
    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:
            previous[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def is_out_of_memory(error: BaseException | None) -> bool:
    """True if a device had too little memory, which JAX tells by the text of its error."""
    return type(error).__name__ == "JaxRuntimeError" and "RESOURCE_EXHAUSTED" in str(error)


# ---- the last line -------------------------------------------------------------------------------


def report_error(error: BaseException, debug: bool = False) -> int:
    """Prints the last line of an error (after the traceback, with --debug); returns its code."""
    _ending.set()
    if isinstance(error, BrokenPipeError):
        # The reader of our output has left (`| head`): leave as quietly as other tools do.
        with contextlib.suppress(OSError, ValueError, io.UnsupportedOperation):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    code, text = _code_and_text(error, debug)
    return print_last_line(text, code, error if debug else None)


def _code_and_text(error: BaseException, debug: bool) -> tuple[int, str]:
    if isinstance(error, KeyboardInterrupt):
        if getattr(error, "number", signal.SIGINT) == signal.SIGTERM:
            return Stopped.exit_code, "stopped by SIGTERM: start the same command again to go on"
        return INTERRUPTED, "interrupted: start the same command again to go on"
    if isinstance(error, AlbertError):
        code, text = error.exit_code, str(error)
    elif isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        code, text = StorageError.exit_code, f"{where}{error.strerror or error}"
    elif is_out_of_memory(error):
        logs.libraries.keep_trace(error)
        said = str(error).splitlines()[0][:200]
        advice = (
            "in training raise --phases.N.gradient-accumulation-steps or lower "
            "--phases.N.batch-size, else give shorter texts"
        )
        code, text = PeerError.exit_code, f"a device ran out of memory: {advice} ({said})"
    else:
        logs.libraries.keep_trace(error)
        code, text = INTERNAL, f"internal error: {type(error).__name__}: {error}"
    file = None if isinstance(error, Stopped) else logs.libraries.file()
    if code == INTERNAL:
        return code, f"{text}; {f'its trace is in {file}' if file else 'add --debug for its trace'}"
    return code, f"{text} (messages of libraries: {file})" if file else text


def print_last_line(text: str, code: int, traced: BaseException | None = None) -> int:
    """Prints `text` as the last line, after the trace of `traced`, and returns `code`."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        if traced is not None:
            traceback.print_exception(traced)
        print(f"albert-jax: {one_line(text)}", file=sys.stderr, flush=True)
    return code


# ---- leaving -------------------------------------------------------------------------------------


def before_exit(work: Callable[[int], None]) -> None:
    """Calls `work` with the exit code before the process ends."""
    _before_exit.append(work)


def run(command: Callable[[], int]) -> NoReturn:
    """Runs the command line as the whole of a process, which ends with its exit code."""
    logs.catch_everything()
    with signals():
        try:
            code = command()
        except KeyboardInterrupt as error:
            code = report_error(error)
        _ending.set()
        exit_process(code)


def exit_process(code: int) -> NoReturn:
    """Ends the process, at most LEAVE_SECONDS after the work of `before_exit`.

    Python would wait for every thread; those of Orbax wait for ever after a failed save or a jump
    of the clock. All that is ours is on the disk by now.
    """
    for work in _before_exit:
        with contextlib.suppress(Exception):
            work(code)
    timer = threading.Timer(LEAVE_SECONDS, os._exit, [code])
    timer.daemon = True
    timer.start()
    _flush()
    with contextlib.suppress(Exception):
        # What runs at the exit may complain; the last line has been said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        atexit._run_exitfuncs()
    os._exit(code)


def abort(
    line: str, code: int = PeerError.exit_code, *, stacks: bool = False, linger: float = 0.0
) -> NoReturn:
    """Ends the process from any thread without clean-up, which could wait for what hangs.

    `stacks` prints those of all threads first; `linger` are seconds between the line and the end.
    """
    with contextlib.suppress(Exception):
        stream = sys.__stderr__
        if stacks and stream is not None:
            faulthandler.dump_traceback(file=stream, all_threads=True)
        os.write(2, f"albert-jax: {one_line(line)}\n".encode(errors="backslashreplace"))
    time.sleep(linger)
    os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
