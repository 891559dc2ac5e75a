"""Pseudo-log-likelihood: which tokens are masked, the sums of sentences, and minimal pairs."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_models

from albert_jax import api, cli
from albert_jax.errors import DataError
from albert_jax.inference import scoring
from albert_jax.inference.scoring import MinimalPair


class Letters:
    """Letters are tokens; upper-case ones begin words."""

    pad_id, cls_id, sep_id, mask_id = 0, 2, 3, 4
    starts_word = np.array([True] * 31 + [False] * 29)

    def encode(self, texts):
        return [
            np.array([5 + ord(c) - 65 if c.isupper() else 31 + ord(c) - 97 for c in t], np.int32)
            for t in texts
        ]


def test_the_rest_of_a_word_is_masked_too() -> None:
    copies = scoring.mask_each_token(Letters(), ["AbcD", "E"], ["a", "b"], 8)
    assert [copy.ids.tolist() for copy in copies] == [
        [2, 4, 4, 4, 8, 3],
        [2, 5, 4, 4, 8, 3],
        [2, 5, 31 + 1, 4, 8, 3],
        [2, 5, 31 + 1, 31 + 2, 4, 3],
        [2, 4, 3],
    ]
    assert [(c.sentence, c.position, c.label) for c in copies] == [
        (0, 1, 5), (0, 2, 32), (0, 3, 33), (0, 4, 8), (1, 1, 9),
    ]  # fmt: skip


def test_log_probabilities_add_up_per_sentence_over_batches_of_several_lengths() -> None:
    texts = ["A" * 40, "Ab", "C" * 30, "D" * 100]
    copies = scoring.mask_each_token(Letters(), texts, texts, 128)
    shapes = set()

    def label_log_probs(batch):
        shapes.add(batch["input_ids"].shape)
        masked = np.take_along_axis(batch["input_ids"], batch["mlm_positions"], 1)
        assert set(masked.ravel()) <= {4, 0, 2}
        return -batch["mlm_labels"][:, 0].astype(np.float32)

    scores = scoring.log_likelihoods(copies, label_log_probs, 128, shards=3)
    assert scores.tolist() == [-5 * 40, -5 - 32, -7 * 30, -8 * 100]
    assert {length for _, length in shapes} == {32, 64, 128}
    assert all(size % 3 == 0 for size, _ in shapes)


def test_scores_are_those_of_each_sentence_alone() -> None:
    model = tiny_models.model()
    texts = ["the file is found", "the name"]
    scores, counts = scoring.score_sentences(model, texts, texts)
    ids = model.vocabulary.encode(texts)
    assert counts.tolist() == [len(sentence) for sentence in ids]
    expected = 0.0
    for copy in scoring.mask_each_token(model.vocabulary, texts[1:], texts[1:], 48):
        row = {
            "input_ids": copy.ids[None],
            "token_type_ids": np.zeros((1, len(copy.ids)), np.int32),
            "segment_ids": np.ones((1, len(copy.ids)), np.int32),
            "positions": np.arange(len(copy.ids), dtype=np.int32)[None],
        }
        hidden = api.encode(model.params, model.config, row)
        logits = np.asarray(
            api.mlm_logits(model.params, model.config, hidden, np.array([[copy.position]])),
            np.float64,
        )[0, 0]
        expected += logits[copy.label] - np.log(np.exp(logits).sum())
    assert scores[1] == pytest.approx(expected, rel=0.02)  # The run computes in bfloat16.


@pytest.mark.parametrize(("text", "count"), [("Abcdefg", 7), ("", 0)])
def test_sentences_that_cannot_be_scored(text: str, count: int) -> None:
    with pytest.raises(DataError, match=f"f:2: the sentence has {count} tokens, .* 1 to 6"):
        scoring.mask_each_token(Letters(), ["A", text], ["f:1", "f:2"], 8)


def test_pairs() -> None:
    pairs = [MinimalPair(f"f:{i}", "a", "b", "xy"[i % 2]) for i in range(4)]
    good, bad = np.array([-1, -1, -1, -2.0]), np.array([-2, -2, -1, -1.0])
    accuracies = scoring.pair_accuracy(pairs, good, bad)
    values = {name: interval.value for name, interval in accuracies.items()}
    assert values == {"all": 0.625, "x": 0.75, "y": 0.5}
    assert accuracies["all"].low <= 0.625 <= accuracies["all"].high


def test_sets_of_pairs_are_drawn_beside_their_scores(tmp_path, capsys) -> None:
    table, out = tmp_path / "pairs.tsv", tmp_path / "scores.jsonl"
    table.write_text("UID\tsentence_good\tsentence_bad\nnames\tthe file\tfile the\n")
    source = tiny_models.directory(tmp_path)
    assert cli.main(["score", source, str(table), "--out", str(out)]) == 0
    picture = tmp_path / "scores.jsonl.svg"
    assert str(picture) in capsys.readouterr().err
    assert ">names, pairs: 1<" in picture.read_text()
