"""The cut rule finds what it should find, and nothing where there is nothing."""

import numpy as np

from albert_jax.evaluation.sentence_order import MIN_COUNT, CutRule, edges

CLS, SEP, MASK, PERIOD = 2, 3, 4, 5
VOCABULARY = 60
STARTS_WORD = np.arange(VOCABULARY) % 2 == 0


def batch_of(pairs: list[tuple[list[int], list[int], int]], width: int = 16) -> dict:
    """One pair a row."""
    count = len(pairs)
    made = {
        name: np.zeros((count, width), np.int32)
        for name in ("input_ids", "token_type_ids", "segment_ids")
    }
    for row, (a, b, _) in enumerate(pairs):
        ids = [CLS, *a, SEP, *b, SEP]
        made["input_ids"][row, : len(ids)] = ids
        made["token_type_ids"][row, len(a) + 2 : len(ids)] = 1
        made["segment_ids"][row, : len(ids)] = 1
    return made | {
        "mlm_positions": np.zeros((count, 1), np.int32),
        "mlm_labels": np.zeros((count, 1), np.int32),
        "mlm_weights": np.zeros((count, 1), np.float32),
        "cls_positions": np.zeros((count, 1), np.int32),
        "sop_labels": np.array([[label] for _, _, label in pairs], np.int32),
        "sop_weights": np.ones((count, 1), np.float32),
    }


def text(draw: np.random.Generator, last: int | None = None) -> list[int]:
    ids = draw.integers(6, VOCABULARY, draw.integers(2, 6)).tolist()
    return ids if last is None else [*ids, last]


def pairs(count: int, seed: int, *, cut: bool) -> list[tuple[list[int], list[int], int]]:
    """First segments end with a period; second ones in mid-sentence if `cut`."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        first, second = text(draw, PERIOD), text(draw, None if cut else PERIOD)
        swapped = int(draw.integers(2))
        made.append((second, first, 1) if swapped else (first, second, 0))
    return made


def test_edges_of_a_pair_are_found_behind_masks() -> None:
    batch = batch_of([([11, 12, 13], [21, 22], 1), ([31], [41], 0)])
    batch["input_ids"][0, 1] = MASK
    batch["mlm_positions"][0, 0], batch["mlm_labels"][0, 0] = 1, 11
    batch["mlm_weights"][0, 0] = 1
    tokens, labels = edges(batch)
    assert tokens.tolist() == [[11, 13, 21, 22], [31, 31, 41, 41]]
    assert labels.tolist() == [1, 0]


def test_packed_pairs_and_those_without_weight() -> None:
    one = batch_of([([11, 12], [21, 22], 1), ([31], [41, 42], 0)], width=7)
    packed = {
        name: np.concatenate([one[name][0], one[name][1]])[None]
        for name in ("input_ids", "token_type_ids", "segment_ids")
    }
    packed["segment_ids"][0, 7:] *= 2
    packed |= {
        "mlm_positions": np.zeros((1, 1), np.int32),
        "mlm_labels": np.zeros((1, 1), np.int32),
        "mlm_weights": np.zeros((1, 1), np.float32),
        "cls_positions": np.array([[0, 7, 0]], np.int32),
        "sop_labels": np.array([[1, 0, 0]], np.int32),
        "sop_weights": np.array([[1, 1, 0]], np.float32),
    }
    tokens, labels = edges(packed)
    assert tokens.tolist() == [[11, 12, 21, 22], [31, 31, 41, 42]]
    assert labels.tolist() == [1, 0]
    packed["sop_weights"][0, 0] = 0
    assert edges(packed)[1].tolist() == [0]


def test_unfinished_sentences_give_the_order_away() -> None:
    rule = CutRule.learn(batch_of(pairs(2000, 0, cut=True)), STARTS_WORD)
    assert rule.accuracy([batch_of(pairs(500, 1, cut=True))]) > 0.97


def test_finished_sentences_give_nothing_away() -> None:
    rule = CutRule.learn(batch_of(pairs(2000, 0, cut=False)), STARTS_WORD)
    assert 0.4 < rule.accuracy([batch_of(pairs(500, 1, cut=False))]) < 0.6


def test_rare_tokens_count_by_their_class() -> None:
    # Words that begin the swapped second segment are all different, but begin a word; the
    # others go on one.
    starts, goes_on = [9], [10]
    size = 3000
    train = [
        ([9, 9], [2 * i + (label == 0), 9], label) for i in range(50, 1000) for label in (0, 1)
    ]
    rule = CutRule.learn(batch_of(train), np.arange(size) % 2 == 0)
    new = [
        ([9, 9], [2 * i + (label == 0), 9], label) for i in range(1200, 1300) for label in (0, 1)
    ]
    assert MIN_COUNT > 1 and starts != goes_on
    assert rule.accuracy([batch_of(new)]) == 1.0


def test_no_pairs_no_number() -> None:
    rule = CutRule.learn(batch_of([]), STARTS_WORD)
    assert np.isnan(rule.accuracy([batch_of([])]))
