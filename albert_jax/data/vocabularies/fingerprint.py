"""The settings, the fingerprint, and the record of the inputs of a folder that was made here."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from albert_jax.errors import DataError

SETTINGS = "vocabulary.json"
"""Name of the settings file that every saved vocabulary has."""


def canonical_json(value: dict[str, Any]) -> bytes:
    """Sorted JSON, so that equal values are equal bytes. Fingerprints depend on its form."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def fingerprint(contents: dict[str, bytes]) -> str:
    """Hex SHA-256 over names and contents of a vocabulary's files."""
    digest = hashlib.sha256()
    for name, content in sorted(contents.items()):
        digest.update(f"{name}\n{len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def checked_record(
    folder: str, content: bytes, inputs: dict[str, Any], made: str
) -> dict[str, Any]:
    """Parses the file of a folder that records under "inputs" what the folder was made from.

    Raises:
      DataError: The file is damaged, or the folder was made from other inputs.
    """
    try:
        record = json.loads(content)
        made_from = record["inputs"]
        names = {*inputs, *made_from}
        different = sorted(name for name in names if made_from.get(name) != inputs.get(name))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder}: its manifest is damaged: delete the folder") from error
    if different:
        raise DataError(
            f"{folder}: was {made} from other inputs ({', '.join(different)}): "
            "choose another --out or delete it"
        )
    return record
