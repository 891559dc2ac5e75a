"""A document: the unit of reading, of dropping duplicates, and of the held-out split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Document:
    """One text with a name, or one row of token ids."""

    id: str
    """Where it came from; used in messages."""
    text: str
    """Paragraphs or sentences, one per line (line feeds only); empty if it has ids."""
    group: str = ""
    """Documents of one group are held out together; empty: the document stands for itself."""
    ids: np.ndarray | None = None
    """Token ids [tokens] of a document that came without text."""
    lengths: np.ndarray | None = None
    """Tokens of each unit [units] of such a document."""

    def content(self) -> bytes:
        """The bytes that make it a duplicate of another."""
        if self.ids is not None:
            return np.asarray(self.ids, "<i8").tobytes()
        return self.text.encode("utf-8", "surrogatepass")
