"""The errors a person can cause or fix, and the exit code of each.

Every message is one line that says what is wrong, where, and how to fix it. The command line
prints it last and leaves with ``exit_code``. Anything else that is raised is a bug (code 70).
"""

import difflib
from collections.abc import Iterable


class AlbertError(Exception):
    """Base of all errors that the command line answers with one line."""

    exit_code = 70


class ConfigError(AlbertError):
    """Wrong usage, or a config that contradicts itself, the data or the devices."""

    exit_code = 2


class OtherVersionError(ConfigError):
    """The config of a run that another version of the package began, with other fields."""


class DataError(AlbertError):
    """A corpus, tokenizer, shard or record that cannot be used as it is."""

    exit_code = 3


class CheckpointError(AlbertError):
    """A checkpoint, import or export that cannot be trusted or written."""

    exit_code = 4


class NumericsError(AlbertError):
    """Losses or gradients that stay non-finite."""

    exit_code = 5


class PeerError(AlbertError):
    """A process of the cluster is gone, stuck or different, or the devices ran out of memory."""

    exit_code = 6


class StorageError(AlbertError):
    """A disk or bucket that is full, missing or not writable."""

    exit_code = 7


class Stopped(AlbertError):
    """A signal ended the run after its state was saved: start the same command again."""

    exit_code = 75


def name_of(error: AlbertError) -> str:
    """The name of the class of an error in this module, or of its nearest base here."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == __name__)


MAX_LINE, MAX_WORD = 2000, 400
"""Most characters of a printed line, and of a name in it."""


def one_line(text: str) -> str:
    """A message as it is printed: one line of bounded length in which nothing steers a terminal.

    Names from foreign files stand in messages as they are; here their control characters are
    written as escapes, and what is too long loses its middle.
    """
    words = [_shortened(word, MAX_WORD) for word in text[: 1 << 24].split()]
    line = _shortened(" ".join(words), MAX_LINE)
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}[... {len(text) - most} characters ...]{text[-most // 2 :]}"


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: `; did you mean X?`, or nothing."""
    near = difflib.get_close_matches(name[:80], list(known), 1, 0.5)
    return f"; did you mean {near[0]}?" if near else ""
