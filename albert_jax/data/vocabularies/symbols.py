"""Vocabularies of single symbols, such as the phonemes that speech programs read.

A table tells the id of each symbol. `plbert` is that of PL-BERT and StyleTTS2, `kokoro` that of
Kokoro, and a file holds one's own. There is no [CLS] and no [SEP]: rows are running text. "$" is
padding, "M" takes the place of a masked symbol, and " " stands between words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from albert_jax import files
from albert_jax.config import MAX_VOCABULARY
from albert_jax.data.vocabularies.fingerprint import SETTINGS, canonical_json, fingerprint
from albert_jax.errors import DataError

FILE = "symbols.json"
"""Name of the table in a folder."""
MAX_BYTES = 16 << 20
"""Larger tables are refused."""
PAD, MASK, SEPARATOR = "$", "M", " "
_FREE = "\0"
_LATIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# The apostrophe stands there twice, and programs take the second place.
_PLBERT = (
    '$;:,.!?¡¿—…"«»“” '
    + _LATIN
    + "ɑɐɒæɓʙβɔɕçɗɖðʤəɘɚɛɜɝɞɟʄɡɠɢʛɦɧħɥʜɨɪʝɭɬɫɮʟɱɯɰŋɳɲɴøɵɸθœɶʘɹɺɾɻʀʁɽʂʃʈʧʉʊʋⱱʌɣɤʍχʎʏʑʐʒʔʡʕʢ"
    + f"ǀǁǂǃˈˌːˑʼʴʰʱʲʷˠˤ˞↓↑→↗↘{_FREE}\u0329'ᵻ"
)
# Kokoro leaves 64 ids free. Two of them are taken for padding and masks, as PL-BERT has them.
_KOKORO = (
    '$;:,.!?··—…"()“” \u0303ʣʥʦʨᵝꭧAI···M·O·Q·ST··W·Yᵊabcdef·hijklmnopqrstuvwxyz'
    "ɑɐɒæ··βɔɕç·ɖðʤə·ɚɛɜ··ɟ·ɡ······ɥ·ɨɪʝ······ɯɰŋɳɲɴø·ɸθœ··ɹ·ɾɻ·ʁɽʂʃʈʧ·ʊʋ·ʌɣɤ·χʎ···ʒʔ·······"
    "ˈˌː···ʰ·ʲ····↓·→↗↘···ᵻ"
).replace("·", _FREE)
NAMED = {
    name: {symbol: id for id, symbol in enumerate(table) if symbol != _FREE}
    for name, table in (("plbert", _PLBERT), ("kokoro", _KOKORO))
}
"""The tables that have a name."""


class Symbols:
    """A table of symbols as a `vocabulary.Vocabulary`."""

    cls_id = sep_id = unk_id = -1

    def __init__(self, table: Mapping[str, int], where: str = FILE) -> None:
        """Makes a vocabulary of the symbols with their ids; ids may be free.

        Raises:
          DataError: An entry is not a single character with an id of its own, or "$", "M" or " " is
            missing; messages name the table as `where`.
        """
        names: dict[int, str] = {}
        for symbol, id in table.items():
            if len(symbol) != 1 or type(id) is not int or not 0 <= id < MAX_VOCABULARY:
                raise DataError(
                    f"{where}: the entry {symbol!r}: {id!r} is not a single character with an id "
                    "from 0: fix it"
                )
            if names.setdefault(id, symbol) != symbol:
                raise DataError(f"{where}: {names[id]!r} and {symbol!r} both have id {id}: fix one")
        missing = [symbol for symbol in (PAD, MASK, SEPARATOR) if symbol not in table]
        if missing:
            raise DataError(
                f"{where}: lacks {', '.join(map(repr, missing))}: $ is padding, M a mask, and a "
                "space separates words: add them"
            )
        self.table = dict(sorted(table.items(), key=lambda item: item[1]))
        self.size = max(names) + 1
        self._names = names
        self.pad_id, self.mask_id = table[PAD], table[MASK]
        self.separator_id = table[SEPARATOR]
        self.starts_word = np.ones(self.size, bool)
        sizes = [len(names.get(i, "").encode()) for i in range(self.size)]
        self.token_bytes = np.array(sizes, np.int32)
        self.token_bytes[[self.pad_id, self.mask_id]] = 0
        self.fingerprint = fingerprint(self.files())

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """int32 ids of each text; what the table lacks is left out, as speech programs do."""
        found = ([self.table[s] for s in text if s in self.table] for text in texts)
        return [np.array(ids, np.int32) for ids in found]

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """All ids in one int32 array, and an int64 array with the number of ids of each text."""
        ids = self.encode(texts)
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        return np.fromiter(chain.from_iterable(ids), np.int32, int(lengths.sum())), lengths

    def token_texts(self, text: str) -> list[str]:
        """The symbols of a text that the table has."""
        return [symbol for symbol in text if symbol in self.table]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        return "".join(self.id_to_token(int(i)) for i in ids)

    def id_to_token(self, id: int) -> str:
        """The symbol with this id, or the number of a free id."""
        return self._names.get(id, f"<{id}>")

    def files(self) -> dict[str, bytes]:
        """The table and the settings."""
        table = (json.dumps(self.table, indent=0, ensure_ascii=False) + "\n").encode()
        return {FILE: table, SETTINGS: canonical_json({"kind": "symbols", "file": FILE})}


def parse(content: bytes, where: str) -> Symbols:
    """Reads a table: a JSON object of symbols and ids, or one symbol a line with ids from 0.

    Raises DataError for a file of another form.
    """
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
        table = json.loads(text, object_pairs_hook=list) if text.lstrip()[:1] == "{" else None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is not a table of symbols ({error}): write it again") from error
    if table is None:
        lines = text.removesuffix("\n").split("\n")
        table = list(zip(lines, range(len(lines)), strict=True))
    seen = set()
    for symbol, _ in table:
        if symbol in seen:
            raise DataError(f"{where}: the symbol {symbol!r} appears twice: delete one")
        seen.add(symbol)
    return Symbols(dict(table), where)


def from_spec(spec: str) -> Symbols:
    """The table of a name, a file or a folder, and after a "+" more symbols for its end.

    `plbert+12345` are the symbols of PL-BERT with their ids, and five more behind them. Raises
    DataError for a table of another form, or if there is none.
    """
    name, _, more = spec.partition("+")
    if name not in NAMED:  # A path may have a "+" of its own.
        whole = files.is_folder(spec) or files.read(spec, limit=1) is not None
        name, _, more = (spec, "", "") if whole or "+" not in spec else spec.rpartition("+")
    if name in NAMED:
        symbols = Symbols(NAMED[name], name)
    else:
        if files.is_folder(name):
            name = files.join(name, FILE)
        content = files.read(name, limit=MAX_BYTES)
        if content is not None and len(content) > MAX_BYTES:
            raise DataError(
                f"{name}: is larger than {MAX_BYTES} bytes: it is not a table of symbols"
            )
        if content is None:
            raise DataError(
                f"{name}: no such table of symbols: give plbert, kokoro, or a file with one symbol "
                "a line"
            )
        symbols = parse(content, name)
    new = [symbol for symbol in dict.fromkeys(more) if symbol not in symbols.table]
    ids = range(symbols.size, symbols.size + len(new))
    return Symbols(symbols.table | dict(zip(new, ids, strict=True)), spec) if new else symbols
