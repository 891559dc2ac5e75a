"""The words that a model expects behind [MASK], with their probabilities."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from albert_jax.config import ComputeConfig, ModelConfig
from albert_jax.errors import DataError
from albert_jax.tasks import old_features as features
from albert_jax.tasks.old_features import Batch

if TYPE_CHECKING:
    from albert_jax.data.vocabularies.vocabulary import Vocabulary
    from albert_jax.model_io.model import Model

MASK = "[MASK]"
"""What a person writes, whatever the vocabulary calls its own piece."""

ROWS = 16
"""Texts per batch."""

_ANCHORS = ("a", "the", "1")


class Candidate(NamedTuple):
    """One guess for one mask."""

    word: str
    """The piece as text; one that goes on a word begins with "##"."""
    id: int
    probability: float


class HeldOut(NamedTuple):
    """A sentence of the default corpus' held-out part with one word masked."""

    text: str
    word: str
    source: str
    """The module or topic that it comes from."""


def held_out_sentences() -> list[HeldOut]:
    """The three fixed sentences on which a run over the default corpus is shown."""
    data = resources.files("albert_jax.inference").joinpath("held_out_sentences.toml").read_text()
    return [HeldOut(**entry) for entry in tomllib.loads(data)["sentence"]]


def fill_mask(model: Model, texts: Sequence[str], *, top_k: int = 5) -> list[list[list[Candidate]]]:
    """The `top_k` likeliest pieces for each [MASK] of each text: [text][mask][candidate].

    Special pieces are not offered. Masks of one text do not see each other's guesses.

    Raises DataError, naming the text by its number, for one without [MASK] or longer than the
    model's position table.
    """
    params = model.params
    if "mlm_head" not in params:
        raise DataError("this model has no masked-language head: export it with its heads")
    vocabulary = model.vocabulary
    limit = model.config.max_position_embeddings
    rows = [_ids(text, number, vocabulary, limit) for number, text in enumerate(texts, start=1)]
    masks = [np.flatnonzero(row == vocabulary.mask_id) for row in rows]
    found: list[list[list[Candidate]]] = [[] for _ in rows]
    program = _program(model.config)
    lengths = [features.fitting_length(row.size, limit) for row in rows]
    for length in sorted(set(lengths)):
        these = [i for i, own in enumerate(lengths) if own == length]
        for start in range(0, len(these), ROWS):
            chunk = these[start : start + ROWS]
            batch = _batch([rows[i] for i in chunk], [masks[i] for i in chunk], length)
            logits = np.asarray(program(params, batch), np.float64)
            for place, i in enumerate(chunk):
                found[i] = [
                    guesses(logits[place, mask], vocabulary, top_k) for mask in range(masks[i].size)
                ]
    return found


def table(texts: Sequence[str], found: Sequence[Sequence[Sequence[Candidate]]]) -> str:
    """The guesses as lines of text."""
    lines = []
    for text, masks in zip(texts, found, strict=True):
        lines.append(text)
        for number, candidates in enumerate(masks, start=1):
            if len(masks) > 1:
                lines.append(f"  mask {number}")
            lines += [f"  {c.probability:7.2%}  {c.word}" for c in candidates]
    return "\n".join(lines)


def held_out_table(model: Model) -> str:
    """The held-out sentences with five guesses each, and how often the true word is in them."""
    sentences = held_out_sentences()
    found = fill_mask(model, [sentence.text for sentence in sentences])
    lines, right = [], 0
    for sentence, (candidates, *_) in zip(sentences, found, strict=True):
        words = [candidate.word for candidate in candidates]
        hit = sentence.word in words
        right += hit
        lines.append(table([sentence.text], [[candidates]]))
        verdict = f"number {words.index(sentence.word) + 1} of five" if hit else "not among five"
        lines.append(f"  true word: {sentence.word} ({sentence.source}), {verdict}")
    lines.append(f"true word among five: {right} of {len(sentences)}")
    return "\n".join(lines)


def _ids(text: str, number: int, vocabulary: Vocabulary, limit: int) -> np.ndarray:
    """[CLS] text [SEP] as int32 ids; every [MASK] is one mask piece."""
    if MASK not in text:
        raise DataError(f"text {number} has no {MASK}: write {MASK} where a word is wanted: {text}")
    parts = ([vocabulary.cls_id], masked_pieces(text, vocabulary), [vocabulary.sep_id])
    ids = np.concatenate([np.asarray(part, np.int32) for part in parts])
    if ids.size > limit:
        raise DataError(
            f"text {number} has {ids.size} pieces, but the model reads {limit}: shorten it"
        )
    return ids


def masked_pieces(text: str, vocabulary: Vocabulary) -> np.ndarray:
    """Ids of a text, int32, without special ones at its ends; every [MASK] is one mask piece."""
    first, *rest = text.split(MASK)
    parts: list[Any] = [*vocabulary.encode([first])]
    for part in rest:
        parts += [[vocabulary.mask_id], _after_mask(part, vocabulary)]
    return np.concatenate([np.asarray(part, np.int32) for part in parts])


def _after_mask(part: str, vocabulary: Vocabulary) -> np.ndarray:
    """Ids of what follows a mask. Without a space between, as in "[MASK].", its first piece goes
    on the masked word; alone it would begin a word of its own, which the model has never seen
    there. So it is encoded behind a word that keeps its own pieces, and that word is cut off."""
    if part and not part[0].isspace():
        for anchor in _ANCHORS:
            alone, together = vocabulary.encode([anchor, anchor + part])
            if np.array_equal(together[: alone.size], alone):
                return together[alone.size :]
    return vocabulary.encode([part])[0]


def _batch(rows: Sequence[np.ndarray], masks: Sequence[np.ndarray], length: int) -> Batch:
    """The columns that the encoder and the head read; always ROWS rows, so one shape compiles."""
    sequences = [features.Tokens(row, row.size) for row in rows]
    batch = features.sequence_rows(sequences, length, ROWS)
    places = 1 << max(0, (max(m.size for m in masks) - 1).bit_length())
    batch["mlm_positions"] = np.zeros((ROWS, places), np.int32)
    for i, mask in enumerate(masks):
        batch["mlm_positions"][i, : mask.size] = mask
    return batch


@functools.cache
def _program(config: ModelConfig) -> Any:
    """The jitted (params, batch) -> float32 logits [rows, masks, V]; one per structure, so that
    asking again compiles nothing."""
    import jax

    from albert_jax.model import albert

    compute = ComputeConfig(dtype="float32")

    def forward(params: Any, batch: Any) -> jax.Array:
        hidden = albert.encode(params, config, batch, compute=compute)
        return albert.mlm_logits(params, config, hidden, batch["mlm_positions"])

    return jax.jit(forward)


def guesses(logits: np.ndarray, vocabulary: Vocabulary, top_k: int) -> list[Candidate]:
    """The `top_k` likeliest pieces under logits [V], special ones left out."""
    banned = {vocabulary.pad_id, vocabulary.unk_id, vocabulary.cls_id}
    banned |= {vocabulary.sep_id, vocabulary.mask_id}
    shifted = np.exp(logits - logits.max())
    probabilities = shifted / shifted.sum()
    allowed = probabilities.copy()
    allowed[[id for id in banned if id >= 0]] = -1.0
    best = np.argsort(-allowed, kind="stable")[:top_k]
    return [
        Candidate(_word(int(id), vocabulary), int(id), float(probabilities[id]))
        for id in best
        if allowed[id] >= 0
    ]


def _word(id: int, vocabulary: Vocabulary) -> str:
    word = vocabulary.decode([id]).strip() or vocabulary.piece(id)
    if word.startswith("##") or vocabulary.starts_word[id] or not word[0].isalnum():
        return word
    return "##" + word
