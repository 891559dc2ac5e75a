"""The default corpus: found in this installation, clean, without duplicates, never imported."""

from __future__ import annotations

import subprocess
import sys

from albert_jax.data.sources import python_docs


def test_documents() -> None:
    found = python_docs.documents()
    assert sum(len(document.text) for document in found) > 1_000_000
    groups = {document.group for document in found}
    assert {"typing", "inspect"} <= groups and any(g.startswith("topic:") for g in groups)
    assert not any(".test" in g or "site-packages" in g for g in groups)
    assert len({document.text for document in found}) >= len(found) - 5
    assert not any(">>>" in document.text for document in found)


def test_cleaning() -> None:
    text = """Return the :class:`~a.b.Thing` that was
    asked for, or ``None`` if there is none.

    >>> thing(1)
    2

    - first item of a list of things
      that goes on here
    - second item of the very same list

    x = [i ** 2 for i in y] + f(z)[3:]
    """
    assert python_docs.clean(text).split("\n") == [
        "Return the a.b.Thing that was asked for, or None if there is none.",
        "first item of a list of things that goes on here",
        "second item of the very same list",
    ]


def test_nothing_of_it_is_imported() -> None:
    code = (
        "import sys; from albert_jax.data.sources import python_docs; python_docs.documents(); "
        "assert not {'this', 'antigravity', 'tkinter', 'turtle', 'pydoc_data.topics'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
