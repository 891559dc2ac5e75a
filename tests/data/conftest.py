"""Small prepared folders made from random ids."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from albert_jax.data.corpus.corpus import Corpus
from albert_jax.data.corpus.shard_writer import ShardWriter
from tests.data.made import SIZE, add_documents, documents


@pytest.fixture
def prepared(tmp_path: Path):
    """Makes a prepared folder from documents, in two shards, and opens it."""

    def make(docs=None, name: str = "prepared", vocab_size: int = SIZE) -> Corpus:
        docs = documents(300) if docs is None else docs
        folder = tmp_path / name
        shards = []
        for number, part in enumerate((docs[: len(docs) // 2], docs[len(docs) // 2 :])):
            with ShardWriter(folder, f"train-{number}", vocab_size) as writer:
                add_documents(writer, part)
                shards.append(writer.close())
        manifest = {
            "format": 1, "vocabulary": "a" * 64, "vocab_size": vocab_size,
            "splits": {"train": shards, "validation": shards[:1]}, "unigram_sha256": "b" * 64,
        }  # fmt: skip
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return Corpus.open(folder)

    return make


@pytest.fixture
def small_windows(monkeypatch):
    """Windows, blocks and groups so small that a tiny corpus has many of each."""
    from albert_jax.data.batches import order
    from albert_jax.data.corpus import shard_writer

    monkeypatch.setattr(shard_writer, "WINDOW_TOKENS", 400)
    monkeypatch.setattr(order, "BLOCK_WINDOWS", 3)
    monkeypatch.setattr(order, "GROUP_ROWS", 60)
