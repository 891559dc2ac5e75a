"""Generation: what is read, which target positions are masked, and how a text is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from albert_jax.errors import ConfigError, DataError
from albert_jax.tasks.generation import Generation, GenerationConfig, SourceTarget
from albert_jax.tasks.support.prediction import Sampling
from albert_jax.tasks.support.rows import BatchSpec
from tests.tasks.word_vocabulary import Words

WORDS = Words("a b c d e f")
SEP, MASK = WORDS.sep_id, WORDS.mask_id
PAIR = SourceTarget("f:1", ("a b",), "c d")
CONFIG = GenerationConfig(max_target_length=5, denoising_steps=5)
TASK = Generation(CONFIG)


def features(*examples: SourceTarget, length: int = 12, **changes):
    task = TASK.with_config(**changes)
    return task.featurize(WORDS, examples or (PAIR,), length)  # type: ignore[arg-type]


def spec(length: int = 12, batch_size: int = 1, seed: int = 0) -> BatchSpec:
    return BatchSpec(WORDS, length, batch_size, seed)  # type: ignore[arg-type]


def ids(text: str) -> list[int]:
    return WORDS.encode([text])[0].tolist()


def test_sources_turns_and_targets_are_read(tmp_path: Path) -> None:
    def read(labelled: bool = True, **fields):
        path = tmp_path / "a.jsonl"
        path.write_text(json.dumps(fields) + "\n")
        (example,) = TASK.read_examples(str(path), labelled=labelled)
        return example.source, example.target

    assert read(source=["Hi.", "Hello."], target="Bye.") == (("Hi.", "Hello."), "Bye.")
    assert read(target=" Bye.") == ((), "Bye.")
    assert read(source="Hi.", target="Bye.", labelled=False) == (("Hi.",), None)
    for fields, message in (
        ({"source": "Hi."}, "no column 'target'"),
        ({"text": "Hi."}, "neither 'source' nor 'target' among text"),
        ({"source": "Hi.", "target": " "}, "target is empty"),
    ):
        with pytest.raises(DataError, match=f"a.jsonl:1: {message}") as caught:
            read(**fields)
        assert "\n" not in str(caught.value)
    assert TASK.parse_line("a b\tc", "line 1").source == ("a b", "c")


def test_targets_are_compared_as_the_vocabulary_writes_them() -> None:
    from albert_jax.data.vocabularies.training import from_texts

    example = SourceTarget("f:1", ("A",), "Das Mädchen")
    vocabulary = from_texts(["das madchen sieht den hund"] * 40, 40)
    found = TASK.with_config(max_target_length=32).featurize(vocabulary, [example], 48)
    predictions = TASK.predict([example], found, ["das madchen"])
    assert predictions == [{"text": "das madchen", "target": "das madchen"}]
    assert TASK.score([example], predictions)["exact"] == 1.0
    unknown = SourceTarget("f:1", ("A",))
    found = TASK.with_config(max_target_length=32).featurize(vocabulary, [unknown], 48)
    assert TASK.predict([unknown], found, ["x"]) == [{"text": "x"}]


def test_dialogues_are_told_from_single_sources() -> None:
    single = [SourceTarget("f:1", ("a",), "b"), SourceTarget("f:2", (), "c")]
    dialogue = SourceTarget("f:3", ("a", "b", "c"), "d")
    assert TASK.resolve(single, [dialogue]).config.max_turns == 1
    assert TASK.resolve([*single, dialogue], single).config.max_turns == 3


def test_the_target_is_filled_up_with_end_tokens() -> None:
    (feature,) = features()
    assert feature.source.tolist() == [2, *ids("a b"), SEP]
    assert feature.target.tolist() == [*ids("c d"), SEP, SEP, SEP]
    assert features(SourceTarget("f", ("a",)))[0].target.tolist() == [SEP] * 5
    # There is room for five tokens of the turns: the oldest ones are dropped.
    (dialogue,) = features(SourceTarget("f:2", ("a b", "c d e f"), "a"))
    assert dialogue.source.tolist() == [2, SEP, *ids("c d e f"), SEP]
    (bare,) = features(PAIR, length=7)
    assert bare.source.tolist() == [2, SEP]
    with pytest.raises(DataError, match="f:3: the target has 5 tokens"):
        features(SourceTarget("f:3", ("a",), "a b c d e"))
    with pytest.raises(ConfigError, match="task.max_target_length 11"):
        features(max_target_length=11)


def test_a_completely_masked_row_has_a_label_everywhere() -> None:
    task = TASK.with_config(full_mask_prob=1.0, padding_weight=0.3)
    batch = task.collate(features(), spec(batch_size=2))
    assert batch["input_ids"][0, 4:9].tolist() == [MASK] * 5
    assert batch["mlm_labels"][0].tolist() == features()[0].target.tolist()
    np.testing.assert_allclose(batch["mlm_weights"][0], [1, 1, 1, 0.3, 0.3])
    assert batch["mlm_positions"][0].tolist() == [4, 5, 6, 7, 8]
    assert batch["token_type_ids"][0].tolist() == [0] * 4 + [1] * 5 + [0] * 3
    assert not any(batch[name][1].any() for name in batch)


def test_mask_rates_are_uniform_and_labels_stand_where_masks_do() -> None:
    examples = [SourceTarget("f:1", (), "a b c d")] * 4000
    many = features(*examples, length=42, max_target_length=40)
    task = TASK.with_config(full_mask_prob=0.25)
    batch = task.collate(many, spec(42, 4000, seed=1))
    shown = np.take_along_axis(batch["input_ids"], batch["mlm_positions"], 1)
    masked = shown == MASK
    assert ((batch["mlm_weights"] > 0) == masked).all()
    assert (np.where(masked, batch["mlm_labels"], shown) == many[0].target).all()
    rate = masked.mean(1)
    assert rate.min() >= 1 / 40
    assert (rate == 1).mean() == pytest.approx(0.25 + 0.75 / 80, abs=0.03)
    partly = rate[rate < 1]
    assert np.histogram(partly, 4, (0, 1))[0] / len(partly) == pytest.approx(0.25, abs=0.04)


def oracle(target: np.ndarray, confidence: list[float], shown: list[np.ndarray]):
    """Logits that know the target, more surely at some positions; they would write [MASK] too."""

    def logits(batch):
        shown.append(np.take_along_axis(batch["input_ids"], batch["mlm_positions"], 1))
        scores = np.zeros((len(batch["input_ids"]), len(target), WORDS.size))
        scores[:, np.arange(len(target)), target] = confidence
        scores[..., MASK] = 99
        return scores

    return logits


def written(steps: int, confidence: list[float], sampling: Sampling | None = None):
    """The texts, and what the forward passes were shown."""
    (feature,), shown = features(), []
    texts = TASK.with_config(denoising_steps=steps).forward(
        [feature],
        oracle(feature.target, confidence, shown),
        spec(batch_size=2, seed=sampling.seed if sampling else 0),
        sampling or Sampling(),
    )
    return texts, shown


def test_the_most_confident_tokens_are_written_first() -> None:
    shown_texts: list[str] = []
    sampling = Sampling(show_step=shown_texts.append)
    texts, shown = written(5, [1.0, 5.0, 4.0, 3.0, 2.0], sampling)
    assert texts == ["c d"]
    masked = [(target[0] == MASK).tolist() for target in shown]
    assert masked[1] == [True, False, True, True, True]
    assert masked[4] == [True, False, False, False, False]
    assert len(shown) == len(shown_texts) == 5
    assert [text.count("[MASK]") for text in shown_texts] == [4, 3, 2, 1, 0]


@pytest.mark.parametrize(("steps", "passes"), [(1, 1), (2, 2), (10**9, 5)])
def test_the_number_of_steps(steps: int, passes: int) -> None:
    texts, shown = written(steps, [1.0] * 5)
    assert texts == ["c d"] and len(shown) == passes


def test_temperature_draws_by_the_seed_and_never_special_tokens() -> None:
    draws = []
    for seed in (0, 1, 2, 0):
        sampling = Sampling(temperature=1.0, seed=seed)
        draws += written(5, [0.0] * 5, sampling)[0]
    assert draws[0] == draws[3] and len(set(draws)) > 1
    assert not any(name in text for text in draws for name in ("[MASK]", "[CLS]", "<pad>"))


def test_what_is_drawn_for_a_source_does_not_depend_on_its_neighbors() -> None:
    other = SourceTarget("f:2", ("e f a",), "b")

    def drawn(*examples: SourceTarget) -> list[str]:
        made = features(*examples)
        logits = oracle(made[0].target, [0.0] * 5, [])
        return TASK.forward(made, logits, spec(batch_size=2), Sampling(temperature=1.0))

    (alone,) = drawn(PAIR)
    assert drawn(PAIR, other)[0] == drawn(other, PAIR)[1] == alone != drawn(other)[0]


def test_sources_are_read_from_named_columns(tmp_path: Path) -> None:
    path = tmp_path / "sources.tsv"
    path.write_text("a b\nc d\n")
    trained = TASK.with_config(columns=("source", "target"))
    found = trained.read_for_prediction(str(path), ("source",))
    assert [example.source for example in found] == [("a b",), ("c d",)]


def test_scores_are_sacrebleus_and_exact_texts() -> None:
    pytest.importorskip("sacrebleu")
    examples = [SourceTarget("f", (), "the cat sat on the mat today")]
    scores = TASK.score(examples, [{"text": "the  cat sat on the mat today"}])
    assert scores["bleu"] == pytest.approx(100) and scores["exact"] == 1
    scores = TASK.score(examples, [{"text": "nothing alike whatsoever"}])
    assert scores["bleu"] < 5 and scores["exact"] == 0
