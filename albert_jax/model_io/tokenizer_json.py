"""tokenizer.json and its companions: our vocabularies for the Rust tokenizers of Transformers.

AlbertTokenizer of Transformers is not used: it rebuilds its own rules from a few flags, rewrites
`` and '' to ", and makes punctuation special (never masked) if it finds spiece.model alone. A
plain PreTrainedTokenizerFast takes the file as it is, so that its ids are those of training.
"""

from __future__ import annotations

import struct
import sys
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Any

import tokenizers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from albert_jax.data.vocabularies import sentencepiece
from albert_jax.data.vocabularies.normalize import TextRules
from albert_jax.data.vocabularies.sentencepiece import SPACE, SentencePiece
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.data.vocabularies.wordpiece import MAX_WORD, VOCAB, WordPiece, basic_tokenize
from albert_jax.errors import CheckpointError
from albert_jax.json_files import json_bytes
from albert_jax.protobuf_wire import WireError, fields


def tokenizer_files(vocabulary: Vocabulary, max_length: int) -> dict[str, bytes]:
    """Name -> content of the files that AutoTokenizer reads, with spiece.model or vocab.txt.

    A vocabulary of bare ids has no text and therefore no files. Raises CheckpointError for a
    SentencePiece model other than unigram.
    """
    if isinstance(vocabulary, SentencePiece):
        tokenizer, beside = _unigram(vocabulary), {sentencepiece.MODEL: vocabulary.model}
    elif isinstance(vocabulary, WordPiece):
        tokenizer, beside = _wordpiece(vocabulary), {VOCAB: vocabulary.files()[VOCAB]}
    else:
        return {}
    roles = ("pad", "unk", "cls", "sep", "mask")
    names = {role: vocabulary.id_to_token(getattr(vocabulary, f"{role}_id")) for role in roles}
    cls, sep = names["cls"], names["sep"]
    tokenizer.add_special_tokens(
        [
            tokenizers.AddedToken(name, special=True, normalized=False, lstrip=role == "mask")
            for role, name in names.items()
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, vocabulary.cls_id), (sep, vocabulary.sep_id)],
    )
    special = {f"{role}_token": name for role, name in names.items()}
    special |= {"bos_token": cls, "eos_token": sep}
    config = special | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "do_lower_case": vocabulary.rules.lower_case,
        "keep_accents": vocabulary.rules.keep_accents,
        "model_max_length": max_length,
        # Without token types every pair would be read as one sentence (Transformers 5).
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
    }
    return {
        "tokenizer.json": tokenizer.to_str(pretty=False).encode() + b"\n",
        "tokenizer_config.json": json_bytes(config),
        "special_tokens_map.json": json_bytes(special),
        **beside,
    }


def inexpressible_tokens(vocabulary: Vocabulary) -> list[str]:
    """Tokens "digits," inside words, where the original adds a word mark when it takes them apart.

    tokenizer.json cannot express this, so texts with one of them get other ids. The published
    vocabulary and those that we train have none.
    """
    if not isinstance(vocabulary, SentencePiece):
        return []
    inner = sentencepiece.is_inner_digits_comma
    tokens, _ = _contents(vocabulary.model)
    return [token for token, _, kind in tokens if kind == _NORMAL and inner(token)]


# ---- SentencePiece -------------------------------------------------------------------------------

_NORMAL, _USER_DEFINED, _UNUSED, _BYTE = 1, 4, 5, 6
"""Kinds of tokens in a SentencePiece model."""


def _unigram(vocabulary: SentencePiece) -> Tokenizer:
    tokens, character_map = _contents(vocabulary.model)
    highest = max(score for _, score, kind in tokens if kind == _NORMAL)
    scores = []
    for token, score, kind in tokens:
        if kind == _USER_DEFINED:
            # SentencePiece gives these tokens this score while it segments.
            score = len(token.encode()) * highest - 0.1
        elif kind == _UNUSED:
            score = -200.0
        elif sentencepiece.ends_in_digit_comma(token):
            # The original takes these tokens apart afterwards; here they are not chosen at all.
            score -= 100.0
        scores.append((token, score))
    has_bytes = any(kind == _BYTE for _, _, kind in tokens)
    tokenizer = Tokenizer(models.Unigram(scores, vocabulary.unk_id, byte_fallback=has_bytes))
    tokenizer.normalizer = normalizers.Sequence(
        [
            *_text_rules(vocabulary.rules),
            # SentencePiece's map composes decomposed characters (Korean, Bengali); the library
            # that reads this file applies the map to whole graphemes only.
            *([normalizers.NFC(), normalizers.Precompiled(character_map)] if character_map else []),
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Strip(left=False, right=True),
        ]
    )
    # Tokens with a word mark further in can only be found in text that is not split. The mark is
    # put in front of the first word only, because the text after [MASK] keeps its own spaces.
    across = any(SPACE in token.lstrip(SPACE) for token, _, _ in tokens)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, "first", split=not across)
    tokenizer.decoder = decoders.Metaspace(SPACE, "first")
    return tokenizer


def _contents(model: bytes) -> tuple[list[tuple[str, float, int]], bytes]:
    """([(token, score, kind)], precompiled character map) of a unigram SentencePiece model."""
    tokens: list[tuple[str, float, int]] = []
    character_map: Any = b""
    try:
        for number, value in fields(model):
            if not isinstance(value, bytes):
                continue
            inner: dict[int, Any] = dict(fields(value))
            if number == 1:
                (score,) = struct.unpack("<f", inner.get(2, bytes(4)))
                tokens.append((inner.get(1, b"").decode(), score, inner.get(3, _NORMAL)))
            elif number == 2 and inner.get(3, 1) != 1:
                raise CheckpointError(
                    "the vocabulary is a SentencePiece model other than unigram, which "
                    "tokenizer.json cannot express: train one with `albert-jax tokenizer train`"
                )
            elif number == 3:
                character_map = inner.get(2, b"")
    except (WireError, UnicodeDecodeError, struct.error) as error:
        raise CheckpointError(
            f"the SentencePiece model of this vocabulary is damaged ({error}): copy it again, or "
            "train one with albert-jax tokenizer train"
        ) from None
    return tokens, character_map


def _text_rules(rules: TextRules) -> list[Any]:
    """The rules of data/vocabularies/normalize.py as normalizers."""
    steps: list[Any] = []
    if rules.collapse_spaces:
        steps.append(normalizers.Replace(Regex(f"[{_ranges('space')}]+"), " "))
    if not rules.keep_accents:
        # StripAccents is not used: it also drops vowel signs of Indic scripts and Thai.
        # A mark at the very beginning becomes a space, because without its first character the
        # first word would not be recognized as the first.
        marks = f"[{_ranges('marks')}]"
        steps += [
            normalizers.NFKD(),
            normalizers.Replace(Regex(f"^{marks}+"), " "),
            normalizers.Replace(Regex(marks), ""),
        ]
    if rules.lower_case:
        steps += [_FINAL_SIGMA, normalizers.Lowercase()]
    return steps


_KINDS: dict[str, Callable[[str], bool]] = {
    "space": str.isspace,
    "marks": lambda char: unicodedata.combining(char) != 0,
    "blank": lambda char: (
        not basic_tokenize(char, False).strip() and basic_tokenize(char, False) != ""
    ),
    "dropped": lambda char: basic_tokenize(char, False) == "",
    "nonspacing": lambda char: unicodedata.category(char) == "Mn",
    "alone": lambda char: len(basic_tokenize(char, False)) > 1,
}
"""Sets of characters as the vocabularies see them."""

_FINAL_SIGMA = normalizers.Replace(Regex(r"(?<=\p{L})\x{03A3}(?!\p{L})"), "\u03c2")
"""Lowers a capital sigma at the end of a word to its final form, which Lowercase does not know."""


@cache
def _ranges(kind: str) -> str:
    """A set of characters for the inside of a pattern's brackets."""
    belongs, spans = _KINDS[kind], []
    for code in range(sys.maxunicode + 1):
        if not 0xD800 <= code < 0xE000 and belongs(chr(code)):
            if spans and spans[-1][1] == code - 1:
                spans[-1][1] = code
            else:
                spans.append([code, code])
    return "".join(rf"\x{{{a:X}}}-\x{{{b:X}}}" for a, b in spans)


# ---- WordPiece -----------------------------------------------------------------------------------


def _wordpiece(vocabulary: WordPiece) -> Tokenizer:
    """The rules of data/vocabularies/wordpiece.py; its spaces become splits."""
    ids = {vocabulary.id_to_token(i): i for i in range(vocabulary.size)}
    unknown = vocabulary.id_to_token(vocabulary.unk_id)
    tokenizer = Tokenizer(
        models.WordPiece(ids, unk_token=unknown, max_input_chars_per_word=MAX_WORD)
    )
    steps: list[Any] = [
        normalizers.Replace(Regex(f"[{_ranges('blank')}]"), " "),
        normalizers.Replace(Regex(f"[{_ranges('dropped')}]"), ""),
    ]
    if vocabulary.lower_case:
        steps += [_FINAL_SIGMA, normalizers.Lowercase(), normalizers.NFD()]
        steps.append(normalizers.Replace(Regex(f"[{_ranges('nonspacing')}]"), ""))
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(f"[{_ranges('alone')}]"), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer
