"""A corpus that every Python installation carries: its own documentation, about 2 MB of English.

It consists of the docstrings of the standard library and the language reference behind `help()`.
Files are parsed with `ast`; nothing is imported or executed. A document's group is the module or
topic that it came from, so modules and topics are held out as a whole.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import sysconfig
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from albert_jax.data.sources.document import Document
from albert_jax.errors import DataError

SPEC = "python-docs:"
"""Name of the source on the command line."""

_SKIPPED = frozenset(
    "__pycache__ dist-packages ensurepip idlelib lib2to3 pydoc_data site-packages test "
    "tests turtledemo".split()
)
_MIN_CHARACTERS = 200_000


class HeldOutSentence(NamedTuple):
    """A sentence of a held-out document with one word masked."""

    text: str
    word: str
    """The word that stood where [MASK] stands."""
    source: str
    """The module or topic that it comes from."""


HELD_OUT_SENTENCES = (
    HeldOutSentence(
        'Return "True" [MASK] the string is a valid identifier according to the language '
        "definition, section Identifiers and keywords.",
        "if",
        "topic:string-methods",
    ),
    HeldOutSentence(
        'Return "True" if there are only whitespace characters in the string and there is [MASK] '
        'least one character, "False" otherwise.',
        "at",
        "topic:string-methods",
    ),
    HeldOutSentence(
        "Raised when the Queue.put_nowait() method is [MASK] on a full Queue.",
        "called",
        "asyncio.queues",
    ),
)
"""Sentences of the documentation that Python 3.11 to 3.13 carry, from modules and topics that the
default split holds out."""


@cache
def documents() -> tuple[Document, ...]:
    """All documents in the order of their names, without repeated docstrings.

    Raises:
      DataError: This Python was installed without the sources of its standard library.
    """
    root = sysconfig.get_paths()["stdlib"]
    seen: set[str] = set()
    all_documents: list[Document] = []
    for path in _files(root):
        module = os.path.relpath(path, root)[:-3].replace(os.sep, ".").removesuffix(".__init__")
        for name, docstrings in _docstrings(path):
            texts = []
            for docstring in docstrings:
                text = clean(docstring)
                if text and text not in seen:
                    seen.add(text)
                    texts.append(text)
            if texts:
                all_documents.append(Document(f"{module}:{name}", "\n".join(texts), group=module))
    for topic, text in sorted(_topics(root).items()):
        if text := clean(text):
            all_documents.append(Document(f"topic:{topic}", text, group=f"topic:{topic}"))
    if sum(len(document.text) for document in all_documents) < _MIN_CHARACTERS:
        raise DataError(
            f"{root}: this Python has no sources of its standard library, so there is no "
            "default corpus: give text of your own with --text FILES"
        )
    return tuple(all_documents)


def clean(docstring: str) -> str:
    """Turns a docstring into paragraphs, one per line, without examples, tables and markup."""
    paragraphs: list[str] = []
    for block in re.split(r"\n[ \t]*\n", inspect.cleandoc(docstring)):
        lines = [" ".join(line.split()) for line in block.split("\n")]
        if any(line.startswith((">>>", "...")) for line in lines):
            continue
        kept: list[str] = []
        for line in lines:
            if not line or _RULE.match(line) or line.startswith(".. "):
                continue
            line = _ROLE.sub(r"\1", line).replace("``", "").replace("`", "")
            if kept and not _ITEM.match(line):
                kept[-1] += " " + line
            else:
                kept.append(_ITEM.sub("", line))
        paragraphs += [line for line in kept if _is_prose(line)]
    return "\n".join(paragraphs)


_RULE = re.compile(r"[-=*~^+#_.|\s]+$")  # underlines of headings, borders of tables
_ROLE = re.compile(r":[a-zA-Z:]+:`~?([^`<]*)(?:<[^`]*>)?`")  # :func:`~os.path.join` -> os.path.join
_ITEM = re.compile(r"(?:[*+-]|\(?\d{1,2}[.)])\s+")


def _is_prose(line: str) -> bool:
    """Returns whether words make up most of a line, as they do not in code, grammars and tables."""
    plain = sum(map(str.isalpha, line)) + line.count(" ")
    return len(line) >= 20 and line.count(" ") >= 3 and plain >= 0.8 * len(line)


def _files(root: str) -> Iterator[str]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - _SKIPPED)
        yield from (os.path.join(folder, name) for name in sorted(names) if name.endswith(".py"))


def _docstrings(path: str) -> Iterator[tuple[str, list[str]]]:
    """Yields (name, docstrings) of the module with its functions, and of each class."""
    tree = _parse(path)
    if tree is None:
        return
    classes = [node for node in _definitions(tree) if isinstance(node, ast.ClassDef)]
    functions = [node for node in _definitions(tree) if not isinstance(node, ast.ClassDef)]
    yield "", [text for node in (tree, *functions) for text in _own(node)]
    for node in classes:
        yield node.name, list(_nested(node))


def _nested(node: ast.ClassDef) -> Iterator[str]:
    yield from _own(node)
    for inner in _definitions(node):
        yield from _nested(inner) if isinstance(inner, ast.ClassDef) else _own(inner)


_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _definitions(node: ast.AST) -> Iterator[_Definition]:
    """Classes and functions directly in a body, also under `if` and `try`."""
    for statement in getattr(node, "body", ()):
        if isinstance(statement, _Definition):
            yield statement
        elif isinstance(statement, ast.If | ast.Try | ast.With):
            yield from _definitions(statement)


def _own(node: ast.Module | _Definition) -> Iterator[str]:
    text = ast.get_docstring(node, clean=False)
    if text:
        yield text


def _parse(path: str) -> ast.Module | None:
    try:
        with open(path, "rb") as file:
            source = file.read()
        # Tables and generated code have no docstrings, and parsing is what takes time here.
        return ast.parse(source) if b'"""' in source or b"'''" in source else None
    except (OSError, SyntaxError, ValueError):
        return None  # A few files of the library are broken on purpose.


def _topics(root: str) -> dict[str, str]:
    try:
        with open(os.path.join(root, "pydoc_data", "topics.py"), "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return {}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            topics = ast.literal_eval(node.value)
            return {str(name): str(text) for name, text in topics.items()}
    return {}
