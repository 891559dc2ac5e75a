"""The files of examples/: the tasks read them, and they are what examples/README.md says."""

from __future__ import annotations

import dataclasses
import json
import re
import runpy
from collections import Counter
from pathlib import Path

import pytest

from albert_jax import configfile
from albert_jax.data.vocabularies import training
from albert_jax.tasks import registry

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
README = (EXAMPLES / "README.md").read_text()
ROWS = re.findall(r"^\| `([\w-]+)` \| `([\w-]+)` \| (\d+) \| (\d+) \| (.*) \|$", README, re.M)
FOLDERS = [name for name, *_ in ROWS]
TASKS = {name: task for name, task, *_ in ROWS}
COUNTS = {name: {"train": int(train), "dev": int(dev)} for name, _, train, dev, _ in ROWS}
PARTS = ("train", "dev")
ROW_LENGTH = 128


def file(folder: str, part: str) -> Path:
    (path,) = EXAMPLES.joinpath(folder).glob(f"{part}.*")
    return path


def task(folder: str):
    return registry.create(registry.get(TASKS[folder]).config_class())


def read(folder: str, part: str) -> list:
    return task(folder).read_examples(str(file(folder, part)), labelled=True)


def texts(folder: str, part: str) -> set[str]:
    return {text for example in read(folder, part) for text in task(folder).texts(example)}


def labels(folder: str, part: str) -> Counter:
    return Counter(example.label for example in read(folder, part))


def test_the_table_has_every_folder_and_every_task() -> None:
    assert sorted(FOLDERS) == sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
    built_in = {
        name for name in registry.names() if registry.get(name).__module__.startswith("alb")
    }
    assert set(TASKS.values()) == built_in


@pytest.mark.parametrize("folder", FOLDERS)
def test_counts_are_those_of_the_table(folder: str) -> None:
    assert {part: len(read(folder, part)) for part in PARTS} == COUNTS[folder]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_command_names_both_files_and_the_task(folder: str) -> None:
    train, dev = (file(folder, part).relative_to(ROOT) for part in PARTS)
    command = rf"finetune --task {TASKS[folder]} --train {train} \\\n        --dev {dev} "
    assert re.search(command, README), command


@pytest.mark.parametrize("folder", FOLDERS)
def test_train_and_dev_share_no_text(folder: str) -> None:
    if TASKS[folder] == "multiple-choice":  # a choice such as "two" may return, a story may not
        train, dev = ({x.context for x in read(folder, part)} for part in PARTS)
    else:
        train, dev = (texts(folder, part) for part in PARTS)
    assert train and dev and not train & dev


@pytest.mark.parametrize("folder", FOLDERS)
def test_examples_fit_rows_of_the_default_length(folder: str) -> None:
    """Nothing is refused, and hardly a text but a page of questions is longer."""
    train, dev = (read(folder, part) for part in PARTS)
    own = task(folder).resolve(train, dev)
    if TASKS[folder] == "multiple-choice":
        own = own.with_config(max_qa_length=64)
    words = [text for example in train for text in own.texts(example)]
    vocabulary = training.from_texts(words, configfile.load("finetune/scratch").model.vocab_size)
    features = own.featurize(vocabulary, train + dev, ROW_LENGTH)
    assert len(features) >= len(train + dev)
    if not TASKS[folder].startswith("squad"):
        assert len(features) == len(train + dev)
        full = sum(own.feature_length(feature) == ROW_LENGTH for feature in features)
        assert full <= len(features) // 50, "so many texts are truncated"


@pytest.mark.parametrize("folder", ["reviews", "reviews-zh", "pairs"])
def test_labels_are_balanced_and_named_in_the_table(folder: str) -> None:
    (row,) = [text for name, *_, text in ROWS if name == folder]
    for part in PARTS:
        counts = labels(folder, part)
        assert len(counts) == 2 and len(set(counts.values())) == 1, counts
        assert all(f"`{label}`" in row for label in counts)


@pytest.mark.parametrize("folder", ["reviews", "reviews-zh"])
def test_there_are_many_different_reviews(folder: str) -> None:
    sentences = [example.texts[0] for part in PARTS for example in read(folder, part)]
    assert len(set(sentences)) == len(sentences) >= 400
    if folder == "reviews":
        assert all(3 <= len(sentence.split()) <= 30 for sentence in sentences)
    else:  # Chinese, with its own punctuation
        assert all(re.fullmatch(r"[\u4e00-\u9fff，。、：；！？]+", s) for s in sentences)


def test_scores_reach_from_0_to_5() -> None:
    for part in PARTS:
        scores = [float(example.label) for example in read("similarity", part)]
        assert min(scores) == 0 and max(scores) == 5


def test_embedding_is_made_of_the_other_pairs() -> None:
    pairs = {x.texts for x in read("pairs", "train") if x.label == "paraphrase"}
    alike = {x.texts for x in read("similarity", "train") if float(x.label) >= 4}
    assert {x.texts for x in read("embedding", "train")} == pairs | alike
    dev = [file(folder, "dev").read_text() for folder in ("embedding", "similarity")]
    assert dev[0] == dev[1]


@pytest.mark.parametrize("folder", ["questions", "questions-v2"])
def test_answers_stand_where_they_say(folder: str) -> None:
    for part in PARTS:
        content = json.loads(file(folder, part).read_text())
        for paragraph in (p for article in content["data"] for p in article["paragraphs"]):
            context = paragraph["context"]
            counts = Counter(len(qa["answers"]) for qa in paragraph["qas"])
            assert counts == ({1: 8} if folder == "questions" else {1: 8, 0: 3})
            for answer in (a for qa in paragraph["qas"] for a in qa["answers"]):
                start, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
                assert context[start:end] == answer["text"]
                around = context[max(0, start - 1) : start] + context[end : end + 1]
                assert not re.search(r"\w", around), answer


def test_version_2_asks_all_questions_of_version_1() -> None:
    for part in PARTS:
        first, second = (
            {dataclasses.replace(x, where="", id="") for x in read(folder, part)}
            for folder in ("questions", "questions-v2")
        )
        assert first == {x for x in second if x.answers}


def test_tags_begin_and_continue_names() -> None:
    kinds = Counter()
    for part in PARTS:
        for example in read("tags", part):
            for before, tag in zip(("O", *example.tags), example.tags, strict=False):
                assert re.fullmatch("O|[BI]-(PER|ORG|LOC)", tag), example
                assert tag[0] != "I" or before[1:] == tag[1:], example
                kinds[tag] += 1
    assert len(kinds) == 7


def test_a_dialogue_continues_with_its_reply() -> None:
    for part in PARTS:
        examples = read("dialogues", part)
        assert [len(x.source) for x in examples] == [1, 3, 5] * (len(examples) // 3)
        for shorter, longer in zip(examples, examples[1:], strict=False):
            if len(longer.source) > 1:
                assert longer.source[:-1] == (*shorter.source, shorter.target)


def test_translations_are_those_of_the_grammar() -> None:
    made = runpy.run_path(str(EXAMPLES / "translation" / "make.py"))
    for name, content in made["files"]().items():
        assert (EXAMPLES / "translation" / name).read_text() == content
    words = {
        part: {word for text in texts("translation", part) for word in text.lower().split()}
        for part in PARTS
    }
    assert words["dev"] <= words["train"]
    translations = dict(made["sentences"]())
    assert len(translations) > 1000
    sentence = "The tired doctor eats the cake."
    assert translations[sentence] == "Der müde Arzt isst den Kuchen."


def test_choices_are_right_at_every_position() -> None:
    for part in PARTS:
        examples = read("choices", part)
        assert all(len(set(x.endings)) == 4 for x in examples)
        assert set(labels("choices", part).values()) == {len(examples) // 4}
