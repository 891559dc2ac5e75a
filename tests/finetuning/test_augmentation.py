"""Copies of training examples with words replaced: how many, which, from what, and how drawn."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from albert_jax import cli, configfile
from albert_jax.errors import CheckpointError
from albert_jax.finetuning import augmentation
from albert_jax.tasks.classification import RegressionConfig
from albert_jax.tasks.support.columns import TextExample
from tests import tiny_models

EXAMPLES = [
    TextExample(f"f:{i}", (text,) if i % 2 else (text, "the file"), str(i))
    for i, text in enumerate(tiny_models.SENTENCES)
]


@pytest.fixture(scope="module")
def model():
    """Random weights."""
    return tiny_models.model()


def augmented(model, examples=EXAMPLES, copies=2, share=0.3, seed=0):
    config = RegressionConfig(augment=copies, augment_share=share)
    return augmentation.augment(model, examples, config, seed)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_words_is_masked_as_complete_words(model, share):
    vocabulary = model.vocabulary

    def words(ids):
        begins = [0, *np.flatnonzero(vocabulary.starts_word[ids] | (ids == vocabulary.mask_id))]
        return [ids[a:b].tolist() for a, b in itertools.pairwise([*sorted({*begins}), len(ids)])]

    for number, text in enumerate(tiny_models.SENTENCES):
        ids = vocabulary.encode([text])[0]
        masked = augmentation._mask_words(model, text, ids, share, number)
        before, after = words(ids), words(masked.ids)
        assert len(before) == len(after)
        replaced = [i for i, word in enumerate(after) if word == [vocabulary.mask_id]]
        assert len(replaced) == max(1, round(share * len(before)))
        for i, (old, new) in enumerate(zip(before, after, strict=True)):
            assert i in replaced or old == new
        np.testing.assert_array_equal(
            np.flatnonzero(masked.ids == vocabulary.mask_id), masked.masks
        )


def test_copies_keep_labels_and_most_words(model):
    copies, changed = augmented(model), 0
    assert len(copies) == 2 * len(EXAMPLES)
    for copy, example in zip(copies, EXAMPLES * 2, strict=True):
        assert copy.label == example.label and copy.where.startswith(example.where + " (")
        assert len(copy.texts) == len(example.texts)
        for new, old in zip(copy.texts, example.texts, strict=True):
            assert new and "[MASK]" not in new
            changed += new != old
    kept = [
        sum(a == b for a, b in zip(copy.texts[0].split(), example.texts[0].split(), strict=False))
        for copy, example in zip(copies, EXAMPLES * 2, strict=True)
    ]
    assert sum(kept) > 0 and changed > len(EXAMPLES)
    assert copies[0].texts != copies[len(EXAMPLES)].texts  # the copies differ from one another


def test_a_copy_depends_on_seed_and_example_alone(model):
    found = augmented(model)
    assert augmented(model) == found
    assert augmented(model, seed=1) != found
    few = augmented(model, EXAMPLES[:3])
    assert few[:3] == found[:3] and few[3:] == found[8:11]


def test_words_come_from_the_model(model):
    """With all but one word start made impossible, that one fills every gap."""
    chosen = next(
        i for i in range(5, model.vocabulary.size)
        if model.vocabulary.starts_word[i] and model.vocabulary.decode([i]).strip()
    )  # fmt: skip
    bias = model.params["mlm_head"]["bias"] * 0
    bias[chosen] = 1e4
    params = model.params | {"mlm_head": model.params["mlm_head"] | {"bias": bias}}
    word = model.vocabulary.decode([chosen]).strip()
    found = augmented(dataclasses.replace(model, params=params), share=1.0, copies=1)
    for copy in found:
        for text in copy.texts:
            ids = model.vocabulary.encode([text])[0]
            assert {model.vocabulary.decode([int(i)]).strip() for i in ids} <= {word}, text


def test_characters_that_the_vocabulary_lacks_are_kept(model):
    example = TextExample("f:1", ("the file \N{SNOWMAN} is found",), "1")
    copies = augmented(model, [example] * 8, copies=4)
    kept = [copy for copy in copies if "\N{SNOWMAN}" in copy.texts[0]]
    assert len(kept) > len(copies) / 2
    assert not any("unk" in copy.texts[0] for copy in copies)


def test_a_model_without_its_head_is_refused(model):
    params = {name: part for name, part in model.params.items() if name != "mlm_head"}
    with pytest.raises(CheckpointError, match="task.augment_from"):
        augmented(dataclasses.replace(model, params=params))


@pytest.mark.thorough
def test_a_run_trains_on_the_copies_too(tmp_path, capsys):
    source = tiny_models.directory(tmp_path)
    table = tmp_path / "train.tsv"
    lines = [f"{text}\t{'not' if 'not' in text else 'yes'}" for text in tiny_models.SENTENCES]
    table.write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    common = ["finetune", "--train", str(table), "--dev", str(table), "--phases.0.batch-size", "4",
              "--phases.0.sequence-length", "32", "--task.num-train-epochs", "1"]  # fmt: skip

    def call(*arguments):
        code = cli.main([*common, *arguments])
        return code, capsys.readouterr().err

    out = str(tmp_path / "run")
    code, err = call("--out", out, "--init", source, "--task.augment", "2")
    assert code == 0, err
    assert configfile.load(out).steps == 6  # 8 examples and 16 copies, 4 a step
    assert configfile.load(out).task.augment_from == source
    # The same command continues, and needs no --init, because the run knows its source.
    code, err = call("--out", out, "--config", out, "--task.augment", "2")
    assert code == 0, err
    code, err = call("--out", str(tmp_path / "x"), "--task.augment", "1")
    assert code == 2 and "task.augment_from" in err.splitlines()[-1]
    code, err = call("--out", str(tmp_path / "x"), "--init", source, "--task.augment", "1",
                     "--task", "token-classification")  # fmt: skip
    assert code == 2 and "--task.augment" in err.splitlines()[-1]
    assert not (tmp_path / "x").exists()
