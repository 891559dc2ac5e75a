"""Training a SentencePiece vocabulary with ALBERT's special pieces and ids.

The recipe is the original's: a unigram model, <pad> 0, <unk> 1, [CLS] 2, [SEP] 3, [MASK] 4,
eight marks that are always pieces of their own, 0.99995 of all characters covered, and text
under the same rules that later encode it. A seeded sample of the sources is enough: pieces
depend on frequencies, which a few megabytes already show.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import sentencepiece as spm

from albert_jax import files
from albert_jax import protobuf_wire as wire
from albert_jax.data.sources import sentences, sources
from albert_jax.data.sources.sources import Document, Part, ReadOptions, Tally
from albert_jax.data.vocabularies import vocabulary
from albert_jax.data.vocabularies.fingerprint import json_bytes
from albert_jax.data.vocabularies.normalize import TextRules
from albert_jax.data.vocabularies.sentencepiece import SentencePiece, inner_digits
from albert_jax.errors import ConfigError, DataError

REPORT = "training.json"
"""Name of the file that tells what a vocabulary was trained on, and how well it covers it."""

SAMPLE_BYTES = 4_000_000
"""Text that the trainer sees by default; its time grows faster than the sample."""

USER_SYMBOLS = ("(", ")", '"', "-", ".", "\u2013", "\u00a3", "\u20ac")
COVERAGE = 0.99995
_THREADS = 4  # sums of floats depend on it, so it is no setting and not the number of cores
_PIECE, _NORMAL, _UNUSED = 1, 1, 5  # of sentencepiece_model.proto: field, and kinds of pieces
_LONGEST = 8192  # bytes; the trainer drops longer sentences without counting them


def train(
    specs: Sequence[str],
    vocab_size: int,
    out_dir: str,
    *,
    seed: int = 0,
    lower_case: bool = True,
    keep_accents: bool = False,
    sample_bytes: int = SAMPLE_BYTES,
    options: ReadOptions | None = None,
    rule: sentences.Rule = "split",
    language: str = "en",
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Trains a vocabulary into a folder and returns its coverage report; done already: at once.

    Args:
      specs: names of sources (sources.py).
      vocab_size: number of pieces, the special ones included.
      out_dir: gets the model, its settings and training.json.
      seed: decides which documents are sampled.
      lower_case, keep_accents: see normalize.TextRules.
      sample_bytes: how much text the trainer sees.
      options, rule, language: how files are understood and sentences are split.
      say: gets progress, line by line.

    Raises:
      ConfigError: a vocabulary that cannot hold the special pieces.
      DataError: no usable text, or too little for the size (the message gives the maximum); or a
        folder that holds a vocabulary made from other inputs.
      StorageError: the folder cannot be written.
    """
    options, say = options or ReadOptions(), say or (lambda _: None)
    if vocab_size < 20:
        raise ConfigError(f"vocabulary size {vocab_size}: it must be at least 20")
    if sample_bytes < 1000:
        raise ConfigError(f"sample of {sample_bytes} bytes: it must have at least 1000")
    sentences.check_language(language)
    parts = sources.parts(specs, options)
    inputs = {
        "sources": [part.identity() for part in parts],
        "reading": [options.format, options.field, options.on_bad_text],
        "sentences": sentences.description(rule, language),
        "vocab_size": vocab_size,
        "seed": seed,
        "lower_case": lower_case,
        "keep_accents": keep_accents,
        "sample_bytes": sample_bytes,
        "sentencepiece": spm.__version__,
    }
    done = _finished(str(out_dir), inputs)
    if done is not None:
        say(f"{out_dir} holds this vocabulary already")
        return done
    rules = TextRules(lower_case=lower_case, keep_accents=keep_accents)
    tally = Tally()
    texts: list[str] = []
    origin: list[int] = []
    for source, document in sample(parts, options, seed, sample_bytes, tally):
        found = sentences.sentences(document.text, rule, language)
        texts += found
        origin += [source] * len(found)
    cleaned = rules.apply_all(texts)
    if not any(cleaned):
        raise DataError(f"{parts[0].path}: no text was found: give files with text in them")
    say(f"training {vocab_size:,} pieces on {sum(map(len, cleaned)):,} characters")
    model = _train(cleaned, vocab_size)
    vocab = SentencePiece(model, lower_case=lower_case, keep_accents=keep_accents)
    paths = list(dict.fromkeys(part.path for part in parts))
    report = coverage(vocab, texts, [paths.index(parts[i].path) for i in origin], paths)
    report.update(inputs=inputs, fingerprint=vocab.fingerprint, bad_lines=tally.bad_lines)
    vocabulary.save(vocab, str(out_dir))
    files.write(files.join(str(out_dir), REPORT), json_bytes(report))
    return report


def from_texts(texts: Sequence[str], most: int) -> SentencePiece:
    """A vocabulary of at most `most` pieces trained on these texts alone; as many as they support.

    For a network that starts without pretraining. Raises DataError for too little text.
    """
    rules = TextRules(lower_case=True, keep_accents=False)
    cleaned = rules.apply_all(list(texts))
    try:
        model = _train(cleaned, most)
    except _TooMany as error:
        model = _train(cleaned, error.largest)
    return SentencePiece(model, lower_case=True, keep_accents=False)


def sample(
    parts: Sequence[Part], options: ReadOptions, seed: int, sample_bytes: int, tally: Tally
) -> Iterator[tuple[int, Document]]:
    """(number of its part, document) of a seeded sample of about `sample_bytes` characters.

    Documents are chosen by a hash of seed, part and number. Of a corpus of very many parts at
    most 64, chosen likewise, are read; each gives its share.
    """
    chosen = sorted(range(len(parts)), key=lambda i: _draw(seed, i, -1))[:64]
    weight = sum(parts[i].weight for i in chosen)
    # Compressed files hold several times their size; drawing from a part ends with its share.
    ratio = min(1.0, 1.5 * sample_bytes / weight)
    for i in sorted(chosen):
        allowance = sample_bytes * parts[i].weight / weight if ratio < 1 else float("inf")
        for number, document in enumerate(sources.read(parts[i], options, tally)):
            if allowance <= 0:
                break
            if ratio >= 1 or _draw(seed, i, number) < ratio:
                allowance -= len(document.text)
                yield i, document


def coverage(
    vocab: vocabulary.Vocabulary, texts: Sequence[str], source: Sequence[int], paths: Sequence[str]
) -> dict[str, Any]:
    """How well a vocabulary fits some texts: in all, and for each source.

    Args:
      texts: sentences.
      source: for each sentence the index of its source in `paths`.
      paths: names of the sources.
    """
    ids, lengths = vocab.encode_flat(texts)
    size = np.array([len(text.encode("utf-8", "surrogatepass")) for text in texts])
    owner = np.asarray(source, np.int64)
    count = len(paths)
    tokens = np.bincount(owner, lengths, count)
    unknown = np.bincount(np.repeat(owner, lengths), ids == vocab.unk_id, count)
    read = np.bincount(owner, size, count)
    pieces = sorted((vocab.id_to_token(i) for i in range(vocab.size)), key=lambda p: (-len(p), p))
    return {
        "tokens": int(tokens.sum()),
        "unknown_rate": float(unknown.sum() / max(tokens.sum(), 1)),
        "bytes_per_token": float(read.sum() / max(tokens.sum(), 1)),
        "longest_pieces": pieces[:10],
        "unused_pieces": int(np.count_nonzero(np.bincount(ids, minlength=vocab.size) == 0)),
        "sources": [
            {
                "path": path,
                "tokens": int(tokens[i]),
                "unknown_rate": float(unknown[i] / max(tokens[i], 1)),
                "bytes_per_token": float(read[i] / max(tokens[i], 1)),
            }
            for i, path in enumerate(paths)
        ],
    }


def _train(cleaned: list[str], vocab_size: int) -> bytes:
    model = io.BytesIO()
    lines = (part for text in cleaned for part in _short(text))
    try:
        with _quiet():
            spm.SentencePieceTrainer.train(
                sentence_iterator=lines,
                model_writer=model,
                model_type="unigram",
                vocab_size=vocab_size,
                pad_id=0,
                unk_id=1,
                bos_id=-1,
                eos_id=-1,
                control_symbols=["[CLS]", "[SEP]", "[MASK]"],
                user_defined_symbols=list(USER_SYMBOLS),
                character_coverage=COVERAGE,
                max_sentence_length=_LONGEST,
                shuffle_input_sentence=False,
                num_threads=_THREADS,
                minloglevel=3,
            )
    except (RuntimeError, OSError, ValueError) as error:
        raise _refusal(str(error), vocab_size) from error
    return _without_inner_digits(model.getvalue())


def _without_inner_digits(model: bytes) -> bytes:
    """The model with its pieces "digits," inside words set aside.

    The original splits such a piece again and leaves a word mark inside the word, which a
    tokenizer.json cannot say; without these pieces the exported tokenizer gives the same ids.
    """
    parts: list[bytes] = []
    for number, content in wire.fields(model):
        if not isinstance(content, bytes):  # all that a model holds are messages
            raise DataError("the vocabulary cannot be read again: update sentencepiece")
        if number == _PIECE:
            piece = dict(wire.fields(content))
            name = piece[1]
            normal = piece.get(3, _NORMAL) == _NORMAL
            if normal and isinstance(name, bytes) and inner_digits(name.decode()):
                content += bytes([3 << 3, _UNUSED])
        parts += [bytes([number << 3 | 2]), wire.encode_varint(len(content)), content]
    return b"".join(parts)


class _TooMany(DataError):
    """More pieces were asked for than the text supports; `largest` is how many it does."""

    def __init__(self, message: str, largest: int) -> None:
        super().__init__(message)
        self.largest = largest


def _refusal(message: str, vocab_size: int) -> DataError:
    largest = re.search(r"value <= (\d+)", message)
    if largest:
        return _TooMany(
            f"vocabulary size {vocab_size} is more than the text supports: give at most "
            f"{largest.group(1)}, or more text",
            int(largest.group(1)),
        )
    fewest = re.search(r"required_chars\D+(\d+) vs (\d+)", message)
    if fewest:
        return DataError(
            f"vocabulary size {vocab_size} is less than the characters of the text: give more than "
            f"{fewest.group(2)}"
        )
    return DataError(
        f"the vocabulary cannot be trained ({' '.join(message.split())[:200]}): give more text"
    )


def _short(text: str) -> Iterator[str]:
    """The text in parts that the trainer accepts, cut at spaces where there are any."""
    limit = _LONGEST // 4  # no character has more than four bytes
    while len(text) > limit:
        place = text.rfind(" ", 1, limit)
        place = limit if place < 0 else place
        yield text[:place]
        text = text[place:]
    yield text


class _quiet:
    """Keeps the trainer's log, which it writes past Python, off the terminal."""

    def __enter__(self) -> None:
        self._saved = os.dup(2)
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)

    def __exit__(self, *_: object) -> None:
        os.dup2(self._saved, 2)
        os.close(self._saved)


def _draw(seed: int, part: int, number: int) -> float:
    key = f"{seed} {part} {number}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") / 2.0**64


def _finished(out_dir: str, inputs: dict[str, Any]) -> dict[str, Any] | None:
    content = files.read(files.join(out_dir, REPORT))
    if content is None:
        return None
    try:
        report = json.loads(content)
        before = report["inputs"]
        other = sorted(key for key in inputs if before.get(key) != inputs[key])
        fingerprint = report["fingerprint"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{out_dir}/{REPORT}: is damaged: delete the folder") from error
    if other:
        raise DataError(
            f"{out_dir}: holds a vocabulary from other inputs ({', '.join(other)}): choose another "
            "--out or delete it"
        )
    if vocabulary.load(out_dir).fingerprint != fingerprint:
        raise DataError(f"{out_dir}: its files do not fit {REPORT}: delete the folder")
    return report
