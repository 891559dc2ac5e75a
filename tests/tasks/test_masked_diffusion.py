"""Masked diffusion: what is masked while training, and how a target is written."""

from __future__ import annotations

import numpy as np
import pytest
from word_vocabulary import Words

from albert_jax.config import Config
from albert_jax.errors import ConfigError, DataError
from albert_jax.tasks import registry
from albert_jax.tasks.generation import GenerationConfig, SourceTarget
from albert_jax.tasks.masked_diffusion import SourceTargetFeature, decode, until_end
from albert_jax.tasks.task import Batch, BatchSpec

WORDS = Words("a b c d e f")
SEP, MASK = WORDS.sep_id, WORDS.mask_id
PAIR = SourceTarget("f:1", ("a b",), "c d")


def featurize(
    *examples: SourceTarget, length: int = 12, size: int = 5
) -> list[SourceTargetFeature]:
    config = GenerationConfig(max_target_length=size)
    return registry.get("generation").featurize(WORDS, examples or (PAIR,), length, config)


def collate(features, length: int, batch_size: int, *, seed: int = 0, **settings) -> Batch:
    config = GenerationConfig(**settings)
    spec = BatchSpec(WORDS, length, batch_size, seed)
    return registry.get("generation").collate(features, config, spec)


def test_target_holds_text_and_ends() -> None:
    (feature,) = featurize()
    assert feature.target.tolist() == [*WORDS.encode(["c d"])[0], SEP, SEP, SEP]
    assert feature.source.tolist() == [2, *WORDS.encode(["a b"])[0], SEP]
    (dialogue,) = featurize(SourceTarget("f:2", ("a b", "c d e f"), "a"))
    # There is room for five tokens: the ends of turns are kept, the oldest tokens are dropped.
    assert dialogue.source.tolist() == [2, SEP, *WORDS.encode(["c d e f"])[0], SEP]
    with pytest.raises(DataError, match="f:3: the target has 5 tokens"):
        featurize(SourceTarget("f:3", ("a",), "a b c d e"))
    with pytest.raises(ConfigError, match="task.max_target_length"):
        featurize(size=11)


def test_a_completely_masked_row_has_a_label_everywhere() -> None:
    batch = collate(featurize(), 12, 2, full_mask_prob=1.0, padding_weight=0.3)
    assert batch["input_ids"][0, 4:9].tolist() == [MASK] * 5
    assert batch["mlm_labels"][0].tolist() == featurize()[0].target.tolist()
    np.testing.assert_allclose(batch["mlm_weights"][0], [1, 1, 1, 0.3, 0.3])
    assert batch["mlm_positions"][0].tolist() == [4, 5, 6, 7, 8]
    assert batch["token_type_ids"][0].tolist() == [0] * 4 + [1] * 5 + [0] * 3
    assert not any(batch[name][1].any() for name in batch)


def test_mask_rates_are_uniform_and_labels_stand_where_masks_do() -> None:
    many = featurize(*[SourceTarget("f:1", (), "a b c d")] * 4000, length=42, size=40)
    batch = collate(many, 42, 4000, seed=1, full_mask_prob=0.25)
    shown = np.take_along_axis(batch["input_ids"], batch["mlm_positions"], 1)
    masked = shown == MASK
    assert ((batch["mlm_weights"] > 0) == masked).all()
    assert (np.where(masked, batch["mlm_labels"], shown) == many[0].target).all()
    rates = masked.mean(1)
    assert rates.min() >= 1 / 40
    assert (rates == 1).mean() == pytest.approx(0.25 + 0.75 / 80, abs=0.03)
    partly = rates[rates < 1]
    assert np.histogram(partly, 4, (0, 1))[0] / len(partly) == pytest.approx(0.25, abs=0.04)


def oracle(truth: np.ndarray, confidence: np.ndarray, calls: list):
    """A forward pass that knows the target, with more confidence at some positions."""

    def run(batch):
        calls.append(np.take_along_axis(batch["input_ids"], batch["mlm_positions"], 1))
        logits = np.zeros((len(batch["input_ids"]), len(truth), WORDS.size))
        logits[:, np.arange(len(truth)), truth] = confidence
        logits[..., MASK] = 99
        return logits

    return run


def write(feature, run, steps: int, batch_size: int = 1, seed: int = 0, **options):
    """(the written target, the target after each step)."""
    shown: list[np.ndarray] = []
    spec = BatchSpec(WORDS, 12, batch_size, seed)
    target = decode([feature], run, spec, steps, show=shown.append, **options)
    return target[0], shown


def test_decoding_fills_the_most_confident_positions_first() -> None:
    (feature,) = featurize()
    calls: list = []
    run = oracle(feature.target, np.array([1.0, 5.0, 4.0, 3.0, 2.0]), calls)
    target, shown = write(feature, run, steps=5, batch_size=2)
    assert until_end(target, SEP) == WORDS.encode(["c d"])[0].tolist()
    masked = [(state[0] == MASK).tolist() for state in shown]
    assert masked[0] == [True, False, True, True, True]
    assert masked[3] == [True, False, False, False, False]
    assert len(calls) == 5
    for steps in (1, 50):
        assert write(feature, run, steps)[0].tolist() == target.tolist()
    with pytest.raises(ConfigError, match="denoising_steps"):
        Config(task=GenerationConfig(denoising_steps=0)).validate()


def test_there_are_no_more_steps_than_positions() -> None:
    (feature,) = featurize(SourceTarget("f", ("a",)), size=4)
    calls: list = []
    _, shown = write(feature, oracle(feature.target, np.zeros(4), calls), steps=10**9)
    assert len(calls) == len(shown) == 4


def test_given_positions_stay_and_temperature_draws() -> None:
    (feature,) = featurize()
    flat = oracle(feature.target, np.zeros(5), [])
    given = np.array([[7, MASK, MASK, 8, MASK]], np.int32)
    assert write(feature, flat, 2, given=given)[0][[0, 3]].tolist() == [7, 8]
    draws = {tuple(write(feature, flat, 2, seed=s, temperature=1.0)[0]) for s in range(5)}
    assert len(draws) > 1
    assert not {0, 2, MASK} & {int(i) for draw in draws for i in draw}
