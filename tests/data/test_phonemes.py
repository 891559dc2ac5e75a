"""Text as phonemes with the word of each: front ends, words, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from albert_jax import cli, files
from albert_jax.config import ObjectiveConfig, PhaseConfig
from albert_jax.data.batches.builder import BatchBuilder
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.data.prepare import phonemes, spoken_words
from albert_jax.data.prepare.phonemes import PhonemesFrontEnd
from albert_jax.data.prepare.plan import Plan, PrepareOptions
from albert_jax.data.prepare.prepare import prepare
from albert_jax.data.sources.document import Document
from albert_jax.data.sources.sources import ReadOptions
from albert_jax.data.vocabularies.symbols import from_spec
from albert_jax.errors import ConfigError, DataError
from tests.data.made import digest

MARKS = frozenset(';:,.!?¡¿—…"«»“”')
LINES = [f"The {w}, a {w}s {w}'s!\tðə {w}ˈ, ɐ {w}z {w}ˌ!" for w in "bat cat dog fig hen".split()]
TABLE = from_spec("plbert")


def espeak(voice: str = "en-us") -> phonemes.Reader:
    pytest.importorskip("phonemizer", reason="needs the extra speech")
    return phonemes.reader(PrepareOptions(phonemes=voice, sentences="line"), TABLE)


def encode(reader: phonemes.Reader, text: str, labels: list[str], table=TABLE):  # noqa: ANN001
    return PhonemesFrontEnd(reader, table, ["<unk>", " ", *labels]).encode([Document("d", text)])


def parts(encoded, table=TABLE) -> list[str]:  # noqa: ANN001
    """The symbols of each word, a space behind them, as the word starts cut them."""
    starts = np.flatnonzero(encoded.word_starts)
    return [table.decode(ids) for ids in np.split(encoded.ids, starts)[1:]]


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("The (old) fox, it said:", "The| old| fox|,| it| said|:"),
        ("end,start 3.5, 1,000 U.S.A.", "end|,|start| 3.5|,| 1,000| U.S.A|."),
        ("well\u2014known so - 'tis don\u2019t", "well|\u2014|known| so| 'tis| don\u2019t"),
        ("\u201edie Gans\u201c \u2013 ja?!", "\u201c|die| Gans|\u201c| \u2014| ja|?|!"),
        ("你好，世界！", "你| 好|,|世| 界|!"),
        ("नमस्ते दुनिया।", "नमस्ते| दुनिया|."),
        ("10% of $5 @home #1", "10%| of| $5| @home| #1"),
        ("... \t  ", ".|.|."),
        ("-5 and -1.5, -x", "-5| and| -1.5|,| x"),
    ],
)
def test_words_and_marks_of_a_sentence(sentence, words):
    found = spoken_words.units(sentence, MARKS)
    shown = "|".join(" " * unit.spaced + unit.word for unit in found)
    assert shown == words


def test_chinese_words_are_those_that_are_found():
    found = spoken_words.units(
        "他用GPT-4写了一首诗，好。",
        MARKS,
        lambda text: iter(
            ["他", "用", "GPT", "-", "4", "写", "了", "一首", "诗", "，", "好", "。"]
        ),
    )
    shown = "|".join(" " * unit.spaced + unit.word for unit in found)
    assert shown == "他| 用| GPT-4| 写| 了| 一首| 诗|,|好|."


def test_joined_and_longer_words_are_divided():
    alone = {"in": "ˈɪn", "the": "ðə", "of": "ʌv", "many": "mˈɛni", "1999": "nˈaɪn tˈɛn"}
    cases = {
        ("in", "the"): ("ɪnðə", ["ɪn", "ðə"]),
        ("many", "of", "the"): ("mˈɛni ʌvðə", ["mˈɛni", "ʌv", "ðə"]),
        ("in", "1999", "the"): ("ɪn nˈaɪn tˈɛn ðə", ["ɪn", "nˈaɪn tˈɛn", "ðə"]),
        ("in", "many"): ("ɪn mˈɛni", ["ɪn", "mˈɛni"]),
        ("1999",): ("nˈaɪn tˈɛn", ["nˈaɪn tˈɛn"]),
        ("in", "many", "the"): ("", ["", "", ""]),
    }
    for words, (spoken, expected) in cases.items():
        assert spoken_words.align_phonemes(words, spoken, alone.__getitem__) == expected


def test_each_symbol_has_its_word_and_spaces_have_their_own_label():
    reader = phonemes.reader(PrepareOptions(phonemes="file"), TABLE)
    found = encode(
        reader, "The cat (sat).\tðə kˈæt (sˈæt).\nNew Cat\tnˈuː kˈæt", ["cat", "the", "."]
    )
    assert parts(found) == ["ðə ", "kˈæt ", "sˈæt", ". ", "nˈuː ", "kˈæt"]
    assert TABLE.decode(found.ids) == "ðə kˈæt sˈæt. nˈuː kˈæt"
    assert found.lengths.tolist() == [14, 9] and found.counts.tolist() == [2]
    words = {"ðə": 3, "kˈæt": 2, "sˈæt": 0, ".": 4, "nˈuː": 0}
    expected = [words[part.strip()] for part in parts(found) for _ in part.strip()]
    labels, spaces = np.asarray(found.labels), found.ids == TABLE.separator_id
    assert labels[~spaces].tolist() == expected and (labels[spaces] == 1).all()


def test_english_is_spoken_with_its_neighbors():
    found = encode(espeak(), "In 1999 one of the boys isn't home.", ["of"])
    words = parts(found)
    assert words[1].startswith("nˈaɪntiːn") and words[1].endswith("nˈaɪn ")
    assert [w.strip() for w in words[2:5]] == ["wˈʌn", "ʌv", "ðə"]
    labels = np.asarray(found.labels)
    assert TABLE.decode(found.ids[labels == 2]) == "ʌv"


@pytest.mark.parametrize(("voice", "text"), [("de", "Die Gans ist da."), ("hi", "नमस्ते दुनिया।")])
def test_other_languages(voice, text):
    found = encode(espeak(voice), text, [])
    assert len(parts(found)) == len(text.split()) + 1
    assert "(" not in TABLE.decode(found.ids)


def _prepare(path: Path, out: Path, **changed) -> dict:  # noqa: ANN003
    options = {"phonemes": "file", "sentences": "line", "min_characters": 1, "validation_share": 0.2,
               "part_bytes": 400, "reading": ReadOptions(format="lines")}  # fmt: skip
    return prepare([str(path)], TABLE, str(out), PrepareOptions(**(options | changed)))


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    letters = [f"{a}{b}" for a in "abdefgh" for b in "iouy"]
    lines = [line.replace("at", f"{x}a{'t' * i}") for i, x in enumerate(letters) for line in LINES]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_one_or_two_workers_and_killed_give_the_same_bytes(text, tmp_path, monkeypatch):
    manifest = _prepare(text, tmp_path / "1", workers=1)
    expected = digest(str(tmp_path / "1"))
    assert len(manifest["inputs"]["sources"]) > 3
    _prepare(text, tmp_path / "2", workers=2)
    assert digest(str(tmp_path / "2")) == expected
    write = Plan.write_record
    for step, number in (("words", 2), ("encode", 1)):

        def killed(plan, name, index, record, at=(step, number)):  # noqa: ANN001, ANN202
            if (name, index) == at:
                raise KeyboardInterrupt
            write(plan, name, index, record)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Plan, "write_record", killed)
            _prepare(text, tmp_path / step, workers=1)
        _prepare(text, tmp_path / step, workers=1)
        assert digest(str(tmp_path / step)) == expected


def test_words_are_counted_from_training_text_up_to_a_limit(text, tmp_path):
    _prepare(text, tmp_path / "all", workers=1)
    labels = (tmp_path / "all" / "labels.txt").read_text().split("\n")
    assert labels[:2] == ["<unk>", " "] and set(labels[2:6]) == {"!", ",", "a", "the"}
    _prepare(text, tmp_path / "few", workers=1, word_limit=4)
    assert (tmp_path / "few" / "labels.txt").read_text().split("\n")[:-1] == labels[:6]
    corpus = Corpus.open(str(tmp_path / "few"))
    assert corpus.columns.num_labels == 6 and corpus.columns.word_starts
    tokens = corpus.tokens(range(corpus.num_windows))
    assert set(np.unique(tokens.labels)) == set(range(6))


def test_rows_of_phonemes_are_shown_as_the_speech_preset_makes_them(text, tmp_path, capsys):
    _prepare(text, tmp_path / "d", workers=1)
    assert cli.main(["data", "show", str(tmp_path / "d"), "--rows", "1"]) == 0
    out, err = capsys.readouterr()
    assert "plbert-small, phase 0, train: rows of 128" in err and "(the default;" in err
    assert "[MASK|" in out or "[M|" in out


@pytest.mark.parametrize("words", ["masked", "all"])
def test_rows_hold_whole_words_with_their_labels(text, tmp_path, words):
    """All symbols of a masked word are treated alike, no space is masked, labels follow."""
    _prepare(text, tmp_path / "d", workers=1)
    corpus = Corpus.open(str(tmp_path / "d"))
    objective = ObjectiveConfig(
        sentence_order="none", mask_unit="word", mask_rate=0.4, word_prediction=words
    )
    phase = PhaseConfig(sequence_length=64, batch_size=64, packing=True, objective=objective)
    builder = BatchBuilder([corpus], corpus.vocabulary(), phase, seed=1, phase_index=0)
    batch = builder.batch(0, np.arange(64), columns=True)
    used, kinds = batch["mlm_weights"] > 0, set()
    assert (batch["mlm_labels"][used] != TABLE.separator_id).all()
    for row in range(64):
        places = batch["mlm_positions"][row][used[row]]
        segments = batch["segment_ids"][row]  # A sequence may begin inside a word.
        number = np.cumsum(batch["word_starts"][row] | (np.diff(segments, prepend=0) != 0))
        for word in np.unique(number[places]):
            of_word = places[number[places] == word]
            whole = np.flatnonzero((number == word) & (batch["labels"][row] > 1))
            assert set(whole[whole >= of_word[0]]) == set(of_word)
            hidden = batch["input_ids"][row][of_word] == TABLE.mask_id
            assert hidden.all() or not hidden.any()
            kinds.add(bool(hidden.all()))
    assert kinds == {True, False}
    weights, labels = batch["word_weights"], batch["word_labels"]
    if words == "all":
        assert ((labels >= 0) == (batch["segment_ids"] > 0)).all()
        assert (weights == (labels >= 0)).all() and (labels == batch["labels"]).all()
    else:
        assert (weights == batch["mlm_weights"]).all()
        rows = np.nonzero(used)[0]
        assert (labels[used] == batch["labels"][rows, batch["mlm_positions"][used]]).all()


def _refused(text: str, tmp_path: Path, message: str, **changed) -> None:  # noqa: ANN003
    (tmp_path / "t.txt").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        _prepare(tmp_path / "t.txt", tmp_path / str(len(text)), workers=1, **changed)


def test_words_and_phonemes_of_different_number(tmp_path):
    lines = ["a b\tɐ b", "the cat\tðə", "c d\tk d"]
    _refused("\n".join(lines), tmp_path, r"t\.txt, line 2: 2 words, but 1 phonemic words, in 'the")
    _refused("a b\nc d\n", tmp_path, "line [12]: 2 words, but 0 phonemic words")


def test_a_symbol_that_the_table_lacks_is_counted_and_named(tmp_path):
    lines = [f"a{'h' * i} tone\tɐ5{'h' * i} tˈoʊn3" for i in range(9)]
    _refused(
        "\n".join(lines), tmp_path,
        r"lacks \d+ of \d+ symbols, the first one '5' \(U\+0035\) in 'ah*', spoken 'ɐ5h*': .*"
        r"--tokenizer TABLE\+(53|35)",
    )  # fmt: skip
    assert not list(tmp_path.rglob("vocabulary"))  # Another table may be tried at the same place.


def test_a_few_odd_symbols_are_left_out_and_reported(text, tmp_path):
    text.write_text(text.read_text() + "odd tone\tˈɑd5 tˈoʊn\n", encoding="utf-8")
    lines: list[str] = []
    options = PrepareOptions(
        phonemes="file", sentences="line", min_characters=1, reading=ReadOptions(format="lines")
    )
    manifest = prepare([str(text)], TABLE, str(tmp_path / "d"), options, lines.append)
    assert manifest["lacking"] == {"5": 1}
    assert "left out: 1 symbols that the table lacks (5 1)" in lines


def test_a_mask_in_the_text_is_no_symbol(tmp_path):
    _refused(
        "\n".join(f"m{i}\tM{'a' * i}" for i in range(9)), tmp_path, "the first one 'M'.*M the mask"
    )


def test_an_unknown_language_gets_the_nearest_name(tmp_path, capsys):
    pytest.importorskip("phonemizer", reason="needs the extra speech")
    (tmp_path / "t.txt").write_text("A text.\n\nAnother text.\n")
    arguments = ["data", "prepare", "--text", str(tmp_path / "t.txt"), "--out", str(tmp_path / "d")]
    assert cli.main([*arguments, "--phonemes", "en-su"]) == 2
    assert "does not know this language; did you mean en-us?" in capsys.readouterr().err
    assert not files.names(str(tmp_path / "d"))


def test_a_missing_front_end_gets_the_pip_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "phonemizer.backend.espeak.wrapper", None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[speech\]'"):
        phonemes.reader(PrepareOptions(phonemes="fr-fr"), TABLE)


def test_options_that_do_not_go_together(capsys):
    arguments = ["data", "prepare", "--phonemes", "de", "--out", "x"]
    assert cli.main([*arguments, "--ids", "t"]) == 2
    assert "--phonemes takes --text, not --ids" in capsys.readouterr().err
    assert cli.main([*arguments, "--text", "t", "--labels", "l"]) == 2
    assert "--labels, --vocab-size and --special-ids belong to --ids" in capsys.readouterr().err
    arguments[3] = "file"
    for option in (["--words", "jieba"], ["--decontaminate", "f"]):
        assert cli.main([*arguments, "--text", "t", *option]) == 2
        assert "--phonemes file cannot be used with" in capsys.readouterr().err


def test_quotation_marks_around_a_word_are_not_part_of_its_label():
    words = ["'Hello'", "hello\u2019", "isn\u2019t", "'"]
    assert list(map(spoken_words.label_of, words)) == ["hello", "hello", "isn't", "'"]


def test_marks_of_other_scripts_are_written_as_the_table_has_them():
    reader = phonemes.reader(PrepareOptions(phonemes="file"), TABLE)
    found = encode(reader, "\u201e你 好\u3002\t\u201eni xau\u3002", ["."])
    assert TABLE.decode(found.ids) == "\u201cni xau." and found.labels[-1] == 2
