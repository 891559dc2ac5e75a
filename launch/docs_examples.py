"""An extension of the documentation site: doctests are drawn as code.

The docstrings have bare `>>>` lines, which Markdown takes for quotations; the site's reader of
docstrings knows examples by a section of that name.
"""

from __future__ import annotations

import re
from typing import Any

import griffe  # pyright: ignore[reportMissingImports]

_DOCTEST = re.compile(r"(?m)^>>> .*(?:\n.+)*")


def with_section(docstring: str) -> str:
    """The docstring with a line "Examples:" over each block of doctests, which is indented."""
    return _DOCTEST.sub(
        lambda block: "Examples:\n" + re.sub("(?m)^", "    ", block.group()), docstring
    )


class Examples(griffe.Extension):
    """Changes each docstring when it has been read."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Called by griffe with every module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = with_section(obj.docstring.value)
