"""Training a vocabulary: SentencePiece with ALBERT's special tokens and ids, or WordPiece.

WordPiece is learned in wordpiece_training.py. The settings of SentencePiece are the original's: a
unigram model, <pad> 0, <unk> 1, [CLS] 2, [SEP] 3, [MASK] 4, eight marks that are always tokens of
their own, 0.99995 of all characters covered, and text that is cleaned by the same rules as when it
is encoded. A seeded sample of the sources is enough, because the tokens depend on frequencies,
which a few megabytes already show.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import sentencepiece as spm
import tokenizers

from albert_jax import files, protobuf_wire
from albert_jax.data.sources import sentences, sources, text_files
from albert_jax.data.sources.document import Document, Part, ReadCounts
from albert_jax.data.sources.sentences import Rule
from albert_jax.data.sources.sources import ReadOptions
from albert_jax.data.vocabularies import vocabulary, wordpiece_training
from albert_jax.data.vocabularies.fingerprint import canonical_json, checked_record
from albert_jax.data.vocabularies.normalize import TextRules
from albert_jax.data.vocabularies.sentencepiece import MODEL, SentencePiece, is_inner_digits_comma
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.data.vocabularies.wordpiece import VOCAB
from albert_jax.errors import ConfigError, DataError

REPORT = "training.json"
"""Name of the file that tells what a vocabulary was trained on, and how well it covers it."""
USER_SYMBOLS = ("(", ")", '"', "-", ".", "\u2013", "\u00a3", "\u20ac")
CHARACTER_COVERAGE = 0.99995
MIN_SAMPLED_PARTS = 64
"""Of a corpus with more parts at least these, chosen by hash, are read."""
SPACELESS = 1 / 16
"""Text with fewer spaces than this share of its characters is written without spaces: its "words"
would be longer than the trainer's longest token (16 characters)."""
_LONGEST_OF_HAN, _LONGEST_OF_OTHERS = 4, 8
"""Most characters of a token of text without spaces. There nothing else keeps the trainer from
tokens of several words, which no other sentence has. Nearly all Chinese words have at most 4
characters; words of Japanese and Thai are written with more."""
_NUM_THREADS = 4
"""Fixed, because the trained model depends on the number of threads."""
_MAX_SENTENCE_BYTES = 8192
"""The trainer drops longer sentences without counting them. No character has more than 4 bytes."""
_PIECE, _TYPE, _NORMAL, _UNUSED = 1, 3, 1, 5
"""Field numbers and types of pieces in sentencepiece_model.proto."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options for training a vocabulary."""

    vocab_size: int
    """Most tokens, the special ones included; a small text supports fewer."""
    seed: int = 0
    """Seed of the sample of documents."""
    kind: Literal["sentencepiece", "characters", "wordpiece"] = "sentencepiece"
    """Kind of tokens: pieces of text, or characters or pieces of words in a vocab.txt."""
    lower_case: bool = True
    keep_accents: bool = False
    """See normalize.TextRules."""
    keep_width: bool = False
    """Keep the forms of characters that Unicode calls compatible, such as full-width punctuation.
    It needs `keep_accents`, because dropping accents replaces them as well."""
    sample_bytes: int = 4_000_000
    """Bytes of text that the trainer sees. Its time grows faster than the sample."""
    reading: ReadOptions = field(default_factory=ReadOptions)
    """Options for reading files."""
    sentences: Rule = "split"
    """Rule for finding sentences."""
    language: str = "en"
    """Language whose abbreviations the sentence splitter knows."""

    def __post_init__(self) -> None:
        if self.vocab_size < 20:
            raise ConfigError(f"vocabulary size {self.vocab_size}: it must be at least 20")
        if self.sample_bytes < 1000:
            raise ConfigError(f"sample of {self.sample_bytes} bytes: it must have at least 1000")
        sentences.check_language(self.language)
        of_pieces = self.kind == "sentencepiece"
        if of_pieces and self.keep_width and not self.keep_accents:
            raise ConfigError(
                "full-width characters are kept only where accents are: give keep_accents "
                "(--keep-accents True) too"
            )
        if not of_pieces and self.keep_accents and self.lower_case:
            raise ConfigError(
                f"kind {self.kind}: a vocab.txt keeps accents if and only if it keeps the case: "
                "give lower_case false (--lower-case False) too"
            )


def train(
    specs: Sequence[str],
    out_dir: str,
    options: TrainingOptions,
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Trains a vocabulary into a folder, unless that is done already, and returns its report.

    Args:
      specs: Names of sources; see sources.py.
      out_dir: Gets the model, its settings and training.json, which is the report.
      options: What the vocabulary is trained on.
      log: Called with progress, line by line.

    Raises:
      ConfigError: `specs` is empty.
      DataError: There is no usable text, or it has more characters than the vocabulary tokens, or
        the folder holds a vocabulary that was made from other inputs.
      StorageError: The folder cannot be written.
    """
    if not specs:
        raise ConfigError("no text: name at least one file with --text")
    parts = sources.parts(specs, options.reading)
    inputs = _inputs(parts, options)
    report = _finished_report(out_dir, inputs)
    if report is not None:
        log(f"{out_dir} holds this vocabulary already")
        return report
    counts = ReadCounts()
    texts: list[str] = []
    for document in sample(parts, options, counts):
        texts += sentences.sentences(document.text, options.sentences, options.language)
    rules = TextRules(lower_case=options.lower_case, keep_accents=options.keep_accents)
    cleaned = rules.apply_all(texts)
    if not any(cleaned):
        raise DataError(f"{parts[0].path}: no text was found: give files with text in them")
    log(f"training {options.vocab_size:,} tokens on {sum(map(len, cleaned)):,} characters")
    if options.kind == "sentencepiece":
        model = _train_at_most(cleaned, options.vocab_size, keep_width=options.keep_width)
        vocab = SentencePiece(model, lower_case=rules.lower_case, keep_accents=rules.keep_accents)
    else:
        vocab = wordpiece_training.train(
            texts, options.kind, options.vocab_size, lower_case=options.lower_case
        )
    if vocab.size < options.vocab_size:
        log(f"the text supports {vocab.size:,} tokens: the vocabulary has as many")
    ids, _ = vocab.encode_flat(texts)
    num_bytes = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    report = {
        "inputs": inputs,
        "fingerprint": vocab.fingerprint,
        "bad_lines": counts.bad_lines,
        "tokens": len(ids),
        "unknown_rate": float(np.mean(ids == vocab.unk_id)),
        "bytes_per_token": num_bytes / len(ids),
    }
    _refuse_another(out_dir, vocab)
    vocabulary.save(vocab, out_dir)
    files.write(files.join(out_dir, REPORT), canonical_json(report))
    return report


class VocabularyTooLargeError(Exception):
    """The text supports only so many tokens, the first argument."""


class VocabularyTooSmallError(DataError):
    """The text has more characters than the vocabulary tokens: it needs more than `fewest`."""

    def __init__(self, vocab_size: int, fewest: int) -> None:
        super().__init__(
            f"vocabulary size {vocab_size} is less than the characters of the text: give more than "
            f"{fewest}"
        )
        self.fewest = fewest


def from_texts(texts: Sequence[str], max_size: int) -> SentencePiece:
    """Trains a vocabulary on some texts alone, for a model that starts without pretraining.

    It has `max_size` tokens, or as many as the texts support, or a quarter more than their
    characters if these are more. Raises DataError for too little text.
    """
    cleaned = TextRules(lower_case=True, keep_accents=False).apply_all(texts)
    try:
        model = _train_at_most(cleaned, max_size)
    except VocabularyTooSmallError as error:
        model = _train_at_most(cleaned, error.fewest + error.fewest // 4)
    return SentencePiece(model, lower_case=True, keep_accents=False)


def _train_at_most(cleaned: Sequence[str], max_size: int, *, keep_width: bool = False) -> bytes:
    """A model with `max_size` tokens, or with as many as the text supports. Raises DataError."""
    try:
        return _train(cleaned, max_size, keep_width=keep_width)
    except VocabularyTooLargeError as error:
        return _train(cleaned, error.args[0], keep_width=keep_width)


def sample(
    parts: Sequence[Part], options: TrainingOptions, counts: ReadCounts
) -> Iterator[Document]:
    """Yields a seeded sample of documents with about `sample_bytes` bytes of text.

    Documents are chosen by a hash of seed, part and number, and each part that is read gives its
    share.
    """
    seed, chosen, weight = options.seed, [], 0
    for i in sorted(range(len(parts)), key=lambda i: _draw(seed, i, -1)):
        if len(chosen) >= MIN_SAMPLED_PARTS and weight >= 1.5 * options.sample_bytes:
            break
        chosen.append(i)
        weight += parts[i].weight
    # Compressed files hold several times their size; drawing from a part ends with its share.
    ratio = min(1.0, 1.5 * options.sample_bytes / weight)
    for i in sorted(chosen):
        share = options.sample_bytes * parts[i].weight / weight
        allowance = share if ratio < 1 else float("inf")
        for number, document in enumerate(sources.read(parts[i], options.reading, counts)):
            if allowance <= 0:
                break
            if ratio >= 1 or _draw(seed, i, number) < ratio:
                allowance -= len(document.text.encode("utf-8", "surrogatepass"))
                yield document


def _train(cleaned: Sequence[str], vocab_size: int, *, keep_width: bool) -> bytes:
    model = io.BytesIO()
    # Settings that are given stand in the model, so the usual ones are left to the trainer.
    settings: dict[str, Any] = {"normalization_rule_name": "identity"} if keep_width else {}
    if longest := _longest_token(cleaned):
        settings["max_sentencepiece_length"] = longest
    try:
        spm.SentencePieceTrainer.train(
            sentence_iterator=(
                part
                for text in cleaned
                for part in text_files.cut_at_spaces(text, _MAX_SENTENCE_BYTES // 4)
            ),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            pad_id=0,
            unk_id=1,
            bos_id=-1,
            eos_id=-1,
            control_symbols=["[CLS]", "[SEP]", "[MASK]"],
            user_defined_symbols=list(USER_SYMBOLS),
            character_coverage=CHARACTER_COVERAGE,
            max_sentence_length=_MAX_SENTENCE_BYTES,
            shuffle_input_sentence=False,
            num_threads=_NUM_THREADS,
            minloglevel=3,
            **settings,
        )
    except (RuntimeError, OSError, ValueError) as error:
        raise _refusal(str(error), vocab_size) from error
    return _without_inner_digits(model.getvalue())


def _longest_token(cleaned: Sequence[str]) -> int | None:
    """Most characters of a token of text without spaces; None for all other text."""
    counts = Counter(itertools.chain.from_iterable(cleaned))
    total = counts.total()
    if counts[" "] >= SPACELESS * total:
        return None
    han = sum(count for character, count in counts.items() if "\u3400" <= character <= "\u9fff")
    return _LONGEST_OF_HAN if han > total / 2 else _LONGEST_OF_OTHERS


def _without_inner_digits(model: bytes) -> bytes:
    """Marks the tokens "digits," inside words as unused.

    The original divides such a token again and leaves a word mark inside the word, which a
    tokenizer.json cannot express. Without these tokens the exported tokenizer gives the same ids.
    """
    parts: list[bytes] = []
    for number, content in protobuf_wire.fields(model):
        if not isinstance(content, bytes):  # A model holds only messages.
            raise DataError("the vocabulary cannot be read again: update sentencepiece")
        if number == _PIECE:
            piece = dict(protobuf_wire.fields(content))
            name = piece[1]
            is_normal = piece.get(_TYPE, _NORMAL) == _NORMAL
            if is_normal and isinstance(name, bytes) and is_inner_digits_comma(name.decode()):
                content += bytes([_TYPE << 3, _UNUSED])
        parts += [bytes([number << 3 | 2]), protobuf_wire.encode_varint(len(content)), content]
    return b"".join(parts)


def _refusal(message: str, vocab_size: int) -> Exception:
    """The error for a message of the trainer."""
    largest = re.search(r"value <= (\d+)", message)
    if largest:
        return VocabularyTooLargeError(int(largest.group(1)))
    fewest = re.search(r"required_chars\D+(\d+) vs (\d+)", message)
    if fewest:
        return VocabularyTooSmallError(vocab_size, int(fewest.group(2)))
    return DataError(
        f"the vocabulary cannot be trained ({' '.join(message.split())[:200]}): give more text"
    )


def _refuse_another(out_dir: str, vocab: Vocabulary) -> None:
    """Raises DataError for a folder with the files of another vocabulary."""
    for name in {*vocab.files(), MODEL, VOCAB}.intersection(files.names(out_dir)):
        # A killed command may have left some of the same files.
        if files.read(files.join(out_dir, name)) != vocab.files().get(name):
            raise DataError(f"{out_dir} holds another vocabulary: choose another --out")


def _draw(seed: int, part: int, number: int) -> float:
    key = f"{seed} {part} {number}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") / 2.0**64


def _inputs(parts: Sequence[Part], options: TrainingOptions) -> dict[str, Any]:
    """Everything that decides the vocabulary, in a form that can be compared."""
    reading, kind = options.reading, options.kind
    inputs = {
        "sources": [part.identity() for part in parts],
        "reading": [reading.format, reading.field, reading.on_bad_text],
        "sentences": sentences.description(options.sentences, options.language),
        "vocab_size": options.vocab_size,
        "seed": options.seed,
        "lower_case": options.lower_case,
        "keep_accents": options.keep_accents,
        "sample_bytes": options.sample_bytes,
    }
    if kind == "sentencepiece":
        chosen = {"keep_width": True} if options.keep_width else {}
        return inputs | chosen | {"sentencepiece": spm.__version__}
    return inputs | {"kind": kind, "tokenizers": tokenizers.__version__}


def _finished_report(out_dir: str, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """The report of a finished folder, or None if there is none.

    Raises DataError if the folder was made from other inputs or is damaged.
    """
    content = files.read(files.join(out_dir, REPORT))
    if content is None:
        return None
    report = checked_record(out_dir, content, inputs, "trained")
    if vocabulary.load(out_dir).fingerprint != report.get("fingerprint"):
        raise DataError(f"{out_dir}: its files do not match {REPORT}: delete the folder")
    return report
