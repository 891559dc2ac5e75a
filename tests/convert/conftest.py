"""A small vocabulary, learnt in a second."""

from __future__ import annotations

import argparse
import io

import pytest
import sentencepiece as spm

from albert_jax.data.vocabularies.sentencepiece import SentencePiece


@pytest.fixture(scope="session")
def vocabulary() -> SentencePiece:
    """A unigram vocabulary of 150 pieces, learnt from the documentation of argparse."""
    lines = [" ".join(doc.split()).lower() for doc in _docs() if doc]
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=150,
        model_type="unigram",
        pad_id=0,
        unk_id=1,
        bos_id=-1,
        eos_id=-1,
        control_symbols=["[CLS]", "[SEP]", "[MASK]"],
        user_defined_symbols=["(", ")", '"', "-", ".", "–", "£", "€"],
        minloglevel=2,
        num_threads=1,
    )
    return SentencePiece(model.getvalue())


def _docs() -> list[str]:
    found = [argparse.__doc__ or ""]
    for item in vars(argparse).values():
        found.append(getattr(item, "__doc__", "") or "")
        found += (
            [getattr(m, "__doc__", "") or "" for m in vars(item).values()]
            if isinstance(item, type)
            else []
        )
    return [line for doc in found for line in doc.split("\n") if line.strip()]
