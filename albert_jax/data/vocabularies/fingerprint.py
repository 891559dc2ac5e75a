"""The settings file of a saved vocabulary, and the fingerprint over all its files."""

from __future__ import annotations

import hashlib
import json
from typing import Any

SETTINGS = "vocabulary.json"
"""Name of the settings file that every saved vocabulary has."""


def json_bytes(value: dict[str, Any]) -> bytes:
    """Sorted JSON, so that equal values are equal bytes. Fingerprints depend on its form."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def fingerprint(contents: dict[str, bytes]) -> str:
    """Hex SHA-256 over names and contents of a vocabulary's files."""
    digest = hashlib.sha256()
    for name, content in sorted(contents.items()):
        digest.update(f"{name}\n{len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()
