"""Masked diffusion: what is masked, and how a canvas fills."""

from __future__ import annotations

import numpy as np
import pytest
from word_vocabulary import Words

from albert_jax.errors import ConfigError, DataError
from albert_jax.tasks import masked_diffusion as canvas
from albert_jax.tasks.examples import SourceTarget

WORDS = Words("a b c d e f")
SEP, MASK = WORDS.sep_id, WORDS.mask_id
PAIR = SourceTarget("f:1", ("a b",), "c d")


def features(*examples: SourceTarget, length: int = 12, size: int = 5):
    return canvas.canvas_features(WORDS, examples or (PAIR,), length, size)


def test_canvas_holds_target_and_ends() -> None:
    (feature,) = features()
    assert feature.canvas.tolist() == [*WORDS.encode(["c d"])[0], SEP, SEP, SEP]
    assert feature.source.tolist() == [2, *WORDS.encode(["a b"])[0], SEP]
    (talk,) = features(SourceTarget("f:2", ("a b", "c d e f"), "a"))
    # Room for five tokens: the turns' ends are kept, the oldest tokens go.
    assert talk.source.tolist() == [2, SEP, *WORDS.encode(["c d e f"])[0], SEP]
    with pytest.raises(DataError, match="f:3: the target has 5 tokens"):
        features(SourceTarget("f:3", ("a",), "a b c d e"))
    with pytest.raises(ConfigError, match="task.canvas"):
        features(size=11)


def test_a_wholly_masked_row_has_a_label_everywhere() -> None:
    batch = canvas.canvas_batch(
        WORDS, features(), 12, 2, np.random.default_rng(0), full_share=1.0, end_weight=0.3
    )
    assert batch["input_ids"][0, 4:9].tolist() == [MASK] * 5
    assert batch["mlm_labels"][0].tolist() == features()[0].canvas.tolist()
    np.testing.assert_allclose(batch["mlm_weights"][0], [1, 1, 1, 0.3, 0.3])
    assert batch["mlm_positions"][0].tolist() == [4, 5, 6, 7, 8]
    assert batch["token_type_ids"][0].tolist() == [0] * 4 + [1] * 5 + [0] * 3
    assert not any(batch[name][1].any() for name in batch)


def test_rates_are_uniform_and_labels_stand_where_masks_do() -> None:
    many = features(*[SourceTarget("f:1", (), "a b c d")] * 4000, length=42, size=40)
    batch = canvas.canvas_batch(WORDS, many, 42, 4000, np.random.default_rng(1), full_share=0.25)
    shown = np.take_along_axis(batch["input_ids"], batch["mlm_positions"], 1)
    masked = shown == MASK
    assert ((batch["mlm_weights"] > 0) == masked).all()
    assert (np.where(masked, batch["mlm_labels"], shown) == many[0].canvas).all()
    share = masked.mean(1)
    assert share.min() >= 1 / 40
    assert (share == 1).mean() == pytest.approx(0.25 + 0.75 / 80, abs=0.03)
    partly = share[share < 1]
    assert np.histogram(partly, 4, (0, 1))[0] / len(partly) == pytest.approx(0.25, abs=0.04)


def oracle(truth: np.ndarray, sureness: np.ndarray, calls: list | None = None):
    """Logits that know the target, more surely at some places."""

    def logits(batch):
        if calls is not None:
            calls.append(np.take_along_axis(batch["input_ids"], batch["mlm_positions"], 1))
        scores = np.zeros((len(batch["input_ids"]), len(truth), WORDS.size))
        scores[:, np.arange(len(truth)), truth] = sureness
        scores[..., MASK] = 99
        return scores

    return logits


def test_decoding_fills_the_surest_places_first() -> None:
    (feature,) = features()
    truth = feature.canvas
    calls: list = []
    forward = oracle(truth, np.array([1.0, 5.0, 4.0, 3.0, 2.0]), calls)
    found = canvas.decode(WORDS, [feature], forward, 12, 2, rounds=5)
    assert found.ids[0].tolist() == WORDS.encode(["c d"])[0].tolist()
    open_places = [(shown[0] == MASK).tolist() for shown in found.rounds]
    assert open_places[0] == [True, False, True, True, True]
    assert open_places[3] == [True, False, False, False, False]
    assert len(calls) == 5
    once = canvas.decode(WORDS, [feature], forward, 12, 1, rounds=1)
    assert once.ids[0].tolist() == found.ids[0].tolist()
    more = canvas.decode(WORDS, [feature], forward, 12, 1, rounds=50)
    assert more.ids[0].tolist() == found.ids[0].tolist()
    with pytest.raises(ConfigError, match="rounds"):
        canvas.decode(WORDS, [feature], forward, 12, 1, rounds=0)


def test_more_rounds_than_places_are_not_made() -> None:
    (feature,) = features(SourceTarget("f", ("a",)), size=4)
    asked = []

    def logits(batch):
        asked.append(1)
        return np.zeros((1, 4, WORDS.size))

    decoded = canvas.decode(WORDS, [feature], logits, 12, 1, rounds=10**9)
    assert len(asked) == len(decoded.rounds) == 4


def test_given_places_stay_and_temperature_draws() -> None:
    (feature,) = features()
    flat = oracle(feature.canvas, np.zeros(5))
    given = np.array([[7, MASK, MASK, 8, MASK]], np.int32)
    found = canvas.decode(WORDS, [feature], flat, 12, 1, rounds=2, given=given)
    assert found.rounds[-1][0][[0, 3]].tolist() == [7, 8]
    draws = {
        tuple(canvas.decode(WORDS, [feature], flat, 12, 1, temperature=1.0, seed=s).rounds[-1][0])
        for s in range(5)
    }
    assert len(draws) > 1
    assert not {0, 2, MASK} & {int(i) for draw in draws for i in draw}
