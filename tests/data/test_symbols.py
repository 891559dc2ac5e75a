"""Tables of symbols: the named ones, one's own, and rows without [CLS] and [SEP]."""

from __future__ import annotations

import json

import numpy as np
import pytest

from albert_jax.config import ObjectiveConfig, PhaseConfig
from albert_jax.data.batches.builder import BatchBuilder
from albert_jax.data.batches.row_plan import PlanSettings, plan_rows
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.data.prepare.plan import PrepareOptions
from albert_jax.data.prepare.prepare import prepare
from albert_jax.data.vocabularies import symbols, vocabulary
from albert_jax.data.vocabularies.symbols import NAMED, Symbols, from_spec
from albert_jax.errors import ConfigError, DataError

TEXT = "".join(f"wˈɜːd {'ab' * i} kˈæt.\nðə {'ʃ' * i} end!\n\n" for i in range(1, 90))


def test_a_path_may_have_a_plus_of_its_own(tmp_path):
    path = tmp_path / "en+de" / "table.txt"
    path.parent.mkdir()
    path.write_text("$\nM\n \na\n")
    assert from_spec(str(path)).size == 4
    assert from_spec(f"{path}+cd").size == 6


def test_the_published_tables_have_their_ids():
    """Places that are known from the programs: both have 178 ids, PL-BERT's "'" its second one."""
    ours = {name: Symbols(table) for name, table in NAMED.items()}
    assert {v.size for v in ours.values()} == {178}
    known = {
        "plbert": {"$": 0, ";": 1, " ": 16, "A": 17, "M": 29, "Z": 42, "a": 43, "z": 68, "ɑ": 69,
                   "ə": 83, "ˈ": 156, "ː": 158, "\u0329": 175, "'": 176, "ᵻ": 177},
        "kokoro": {"$": 0, ";": 1, " ": 16, "\u0303": 17, "ꭧ": 23, "A": 24, "I": 25, "O": 31,
                   "M": 29, "Y": 41, "ᵊ": 42, "a": 43, "ə": 83, "ɚ": 85, "ʧ": 133, "ˈ": 156,
                   "↓": 169, "↘": 173, "ᵻ": 177},
    }  # fmt: skip
    for name, places in known.items():
        assert {symbol: NAMED[name][symbol] for symbol in places} == places
    assert len(NAMED["plbert"]) == 177 and len(NAMED["kokoro"]) == 116
    assert ours["plbert"].id_to_token(174) == "<174>"


def test_a_table_is_saved_and_read_back(tmp_path):
    table = from_spec("plbert+ʥ5a")
    assert from_spec("plbert++").table["+"] == 178
    assert table.size == 180 and table.table["ʥ"] == 178 and table.table["5"] == 179
    vocabulary.save(table, str(tmp_path))
    read = vocabulary.load(str(tmp_path))
    assert read.fingerprint == table.fingerprint and read.size == 180
    ids, lengths = read.encode_flat(["ə5 a", "", "字ʥ"])
    assert lengths.tolist() == [4, 0, 1] and read.decode(ids) == "ə5 aʥ"
    assert vocabulary.load("kokoro").fingerprint == Symbols(NAMED["kokoro"]).fingerprint
    assert (read.cls_id, read.sep_id, read.unk_id) == (-1, -1, -1)


def test_ones_own_table_is_lines_or_json(tmp_path):
    (tmp_path / "lines.txt").write_bytes("\ufeff$\r\nM\r\n \r\na\r\nɣ\r\n".encode())
    (tmp_path / "ids.json").write_text(json.dumps({"$": 0, "M": 1, " ": 2, "a": 3, "ɣ": 4}))
    lines, ids = (from_spec(str(tmp_path / name)) for name in ("lines.txt", "ids.json"))
    assert lines.table == ids.table and lines.size == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("$\nM\na\n", r"lacks ' ': \$ is padding"),
        ("$\nM\n \nab\n", "'ab': 3 is not a single character"),
        ("$\nM\n \na\na\n", "'a' appears twice"),
        ('{"$": 0, "M": 1, " ": 1}', "'M' and ' ' both have id 1"),
        ('{"$": 0, "M": 1, " ": -2}', "' ': -2 is not a single character with an id"),
        ('{"$": 0, "M": true, " ": 2}', "'M': True is not a single"),
        ('{"$": 0, "M": 1, " ": 2', "is not a table of symbols"),
        ("\xff", "is not a table of symbols"),
    ],
)
def test_bad_tables_are_refused_in_one_line(content, message, tmp_path):
    (tmp_path / "t").write_bytes(content.encode("latin-1" if content == "\xff" else "utf-8"))
    with pytest.raises(DataError, match=message):
        from_spec(str(tmp_path / "t"))
    with pytest.raises(DataError, match="no such table of symbols: give plbert, kokoro"):
        from_spec(str(tmp_path / "nothing"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("symbols")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    options = PrepareOptions(sentences="line", min_characters=1, validation_share=0.1, workers=1)
    prepare([str(folder / "text.txt")], from_spec("plbert"), str(folder / "data"), options)
    return Corpus.open(str(folder / "data"))


def _builder(corpus, **changes):
    objective = ObjectiveConfig(**({"sentence_order": "none", "mask_unit": "word"} | changes))
    phase = PhaseConfig(sequence_length=64, batch_size=32, objective=objective)
    return BatchBuilder([corpus], corpus.vocabulary(), phase, seed=1, phase_index=0)


def _rows(batch):
    """The rows as they were before the masks, as text."""
    ids = batch["input_ids"].copy()
    row, place = np.nonzero(batch["mlm_weights"])
    ids[row, batch["mlm_positions"][row, place]] = batch["mlm_labels"][row, place]
    table = symbols.from_spec("plbert")
    lengths = batch["segment_ids"].sum(axis=1)
    return [table.decode(i[:n]) for i, n in zip(ids, lengths, strict=True)]


def test_rows_are_running_text(corpus):
    """No place is kept for special tokens, and a row is one piece of a document."""
    batch = _builder(corpus).batch(0, np.arange(32))
    rows = _rows(batch)
    documents = [text.replace("\n", "") for text in TEXT.split("\n\n")]
    assert all(any(row in document for document in documents) for row in rows)
    assert max(map(len, rows)) == 64
    assert not batch["token_type_ids"].any() and not batch["sop_weights"].any()
    used = batch["segment_ids"] > 0
    assert (batch["positions"][used] == np.nonzero(used)[1]).all()
    assert (batch["input_ids"][~used] == 0).all()


def test_a_plan_without_special_tokens_has_no_second_segment():
    settings = PlanSettings(20, 0.0, "none", True, special_tokens=False)
    plan = plan_rows(np.array([3, 1]), np.array([4, 5, 6, 20]), settings, key=3)
    assert plan.b_size.sum() == 0 and sorted(plan.a_size.tolist()) == [15, 20]
    assert repr(settings).endswith("packing=True, bare=True)")
    assert repr(PlanSettings(20, 0.0, "none", True)).endswith("packing=True, pairs=False)")
    assert repr(PlanSettings(20, 0.0, "sop", True)).endswith("packing=True)")


def test_running_text_may_end_within_a_sentence():
    """Long sentences neither lose tokens at the ends of rows nor undo random lengths."""
    document = (np.array([2]), np.array([795, 805]))
    fixed = plan_rows(*document, PlanSettings(80, 0.0, "none", False, special_tokens=False), key=3)
    assert fixed.a_size.sum() >= 1590 and (fixed.a_size == 80).mean() > 0.8
    drawn = plan_rows(*document, PlanSettings(80, 1.0, "none", True, special_tokens=False), key=3)
    assert drawn.a_size.sum() >= 1590 and len(set(drawn.a_size.tolist())) >= 6


def test_an_order_needs_cls(corpus):
    with pytest.raises(ConfigError, match=r"sentence_order is sop, .* no \[CLS\]"):
        _builder(corpus, sentence_order="sop")
