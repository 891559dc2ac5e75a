"""A vocabulary without text, random documents to go with it, and what "the same bytes" means."""

from __future__ import annotations

import hashlib

import numpy as np

from albert_jax import files
from albert_jax.data.corpus.shard_writer import ShardWriter

SIZE = 120


class IdVocabulary:
    """A vocabulary of 120 ids; those from 60 on continue a word."""

    separator_id = -1

    size, pad_id, unk_id, cls_id, sep_id, mask_id = SIZE, 0, 1, 2, 3, 4
    starts_word = np.arange(SIZE) < 60
    token_bytes = np.full(SIZE, 3, np.int32)

    def __init__(self, fingerprint: str = "a" * 64) -> None:
        self.fingerprint = fingerprint

    def id_to_token(self, id: int) -> str:
        return {0: "<pad>", 1: "<unk>", 2: "[CLS]", 3: "[SEP]", 4: "[MASK]"}.get(id, f"p{id}")


def documents(count: int, seed: int = 0, longest: int = 9) -> list[tuple[np.ndarray, np.ndarray]]:
    """Random documents as (ids, sentence lengths)."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        lengths = rng.integers(1, 25, rng.integers(1, longest))
        made.append((rng.integers(5, SIZE, lengths.sum()), lengths))
    return made


def add_documents(writer: ShardWriter, docs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Writes documents into a shard."""
    for ids, lengths in docs:
        writer.add_many(ids, lengths, np.array([len(lengths)]))


def digest(directory: str) -> str:
    """Hex SHA-256 over all files of a prepared folder: what "the same bytes" means."""
    total = hashlib.sha256()
    for name in files.file_sizes(directory):
        if not name.startswith(".lock"):
            total.update(f"{name} {files.sha256(files.join(directory, name))}\n".encode())
    return total.hexdigest()
