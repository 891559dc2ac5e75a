"""Generation by masked diffusion on a language pair made by rules: BLEU, and BLEU over steps.

    python benchmarks/generation.py --out DIR [--steps 9000] [--pairs 20000] [--seed 0]

The rules reorder (adverb to the front, adjectives behind their noun, verb last), agree over a
distance (the verb with its subject's number, past a second noun of its own number and the object;
adjectives with a gender that must be learnt noun by noun) and change the length (no articles,
nouns and adverbs of two words, negation in two parts). Sources of the test stand nowhere else.
Trains `generation` as `albert-jax finetune` does, from random weights and a vocabulary of the
words (the same command goes on where it was cut off), and prints the BLEU (sacrebleu) of the model
at several numbers of denoising steps, of a copy of the source and of a dictionary that translates
word for word.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import time
from collections.abc import Sequence
from typing import NamedTuple

from albert_jax import configfile, files
from albert_jax.config import Config, ModelConfig, PhaseConfig
from albert_jax.tasks.generation import GenerationConfig
from albert_jax.tasks.support import metrics

NOUNS, ADJECTIVES, VERBS, ADVERBS, PREPOSITIONS = 60, 24, 30, 12, 4
HELD_OUT = 500
"""Sentences for dev, and as many for the test."""
TARGET_LENGTH = 20
STEPS = (1, 2, 4, 8, TARGET_LENGTH)
ARTICLE, NOT, NOT_1, NOT_2 = "the", "not", "ne", "pa"


class Noun(NamedTuple):
    """A noun in both languages; numbers are 0 (one) and 1 (many)."""

    source: tuple[str, str]
    target: tuple[str, str]
    gender: int


class Phrase(NamedTuple):
    """A noun phrase: noun, number and adjectives (each as its place in the dictionary)."""

    noun: int
    number: int
    adjectives: tuple[int, ...]


class Sentence(NamedTuple):
    """What a sentence says; None where a part is absent."""

    subject: Phrase
    preposition: int | None
    beside: Phrase | None
    negated: bool
    verb: int
    object: Phrase
    adverb: int | None


class Language:
    """Invented words and their grammar; `seed` decides the words and genders."""

    def __init__(self, seed: int = 0) -> None:
        draw = random.Random(f"language:{seed}")
        taken = {ARTICLE, NOT, NOT_1, NOT_2}

        def word(*endings: str) -> tuple[str, ...]:
            """A new stem with each of the endings."""
            while True:
                stem = "".join(
                    draw.choice("bdfgklmnprstvz") + draw.choice("aeiou")
                    for _ in range(draw.choice((2, 2, 3)))
                )
                forms = tuple(stem + ending for ending in endings)
                if not taken & set(forms):
                    taken.update(forms)
                    return forms

        self.nouns = []
        for i in range(NOUNS):
            first = f"{word('r')[0]} " if i % 3 == 0 else ""  # A third has two words.
            one, many = word("", "k")
            self.nouns.append(Noun(word("", "s"), (first + one, first + many), draw.randrange(2)))  # type: ignore[arg-type]
        self.adjectives = [(word("")[0], word("l", "n", "lu", "nu")) for _ in range(ADJECTIVES)]
        self.verbs = [(word("")[0], word("t", "tem")) for _ in range(VERBS)]
        self.adverbs = [
            (word("")[0], f"{word('x')[0]} {word('')[0]}" if i % 3 == 0 else word("x")[0])
            for i in range(ADVERBS)
        ]
        self.prepositions = [(word("")[0], word("")[0]) for _ in range(PREPOSITIONS)]

    def draw(self, generator: random.Random) -> Sentence:
        """A sentence of random parts."""
        subject = self._phrase(generator, 2)
        beside = preposition = None
        if generator.random() < 0.5:
            # Its number is the other one, so that the nearest noun misleads the verb.
            beside = self._phrase(generator, 1)._replace(number=1 - subject.number)
            preposition = generator.randrange(PREPOSITIONS)
        return Sentence(
            subject,
            preposition,
            beside,
            generator.random() < 0.3,
            generator.randrange(VERBS),
            self._phrase(generator, 1),
            generator.randrange(ADVERBS) if generator.random() < 0.5 else None,
        )

    def source(self, said: Sentence) -> str:
        """The sentence in the first language."""
        parts = [self._source_phrase(said.subject)]
        if said.beside is not None and said.preposition is not None:
            parts += [self.prepositions[said.preposition][0], self._source_phrase(said.beside)]
        parts += [NOT] * said.negated
        parts += [self.verbs[said.verb][0], self._source_phrase(said.object)]
        if said.adverb is not None:
            parts.append(self.adverbs[said.adverb][0])
        return " ".join(parts)

    def target(self, said: Sentence) -> str:
        """The sentence in the second language."""
        parts = [] if said.adverb is None else [self.adverbs[said.adverb][1]]
        parts.append(self._target_phrase(said.subject))
        if said.beside is not None and said.preposition is not None:
            parts += [self.prepositions[said.preposition][1], self._target_phrase(said.beside)]
        parts += [NOT_1] * said.negated
        parts += [self._target_phrase(said.object), self.verbs[said.verb][1][said.subject.number]]
        parts += [NOT_2] * said.negated
        return " ".join(parts)

    def dictionary(self) -> dict[str, str]:
        """Each word of the first language with its translation, in the form it has alone."""
        found = {ARTICLE: "", NOT: NOT_1}
        for noun in self.nouns:
            found |= dict(zip(noun.source, noun.target, strict=True))
        for source, forms in (*self.adjectives, *self.verbs):
            found[source] = forms[0]
        return found | dict(self.adverbs) | dict(self.prepositions)

    def _phrase(self, generator: random.Random, most: int) -> Phrase:
        count = generator.randrange(most + 1)
        adjectives = tuple(generator.sample(range(ADJECTIVES), count))
        return Phrase(generator.randrange(NOUNS), generator.randrange(2), adjectives)

    def _source_phrase(self, said: Phrase) -> str:
        adjectives = [self.adjectives[i][0] for i in said.adjectives]
        return " ".join([ARTICLE, *adjectives, self.nouns[said.noun].source[said.number]])

    def _target_phrase(self, said: Phrase) -> str:
        noun = self.nouns[said.noun]
        form = noun.gender + 2 * said.number
        # Turned round, as everything behind its noun.
        adjectives = [self.adjectives[i][1][form] for i in reversed(said.adjectives)]
        return " ".join([noun.target[said.number], *adjectives])


Pair = tuple[str, str]


def make(pairs: int, seed: int) -> dict[str, list[Pair]]:
    """Training, dev and test pairs (source, target), no source twice."""
    language, generator = Language(seed), random.Random(f"sentences:{seed}")
    found: dict[str, str] = {}
    while len(found) < pairs + 2 * HELD_OUT:
        said = language.draw(generator)
        found[language.source(said)] = language.target(said)
    every = list(found.items())
    return {
        "train": every[2 * HELD_OUT :],
        "dev": every[:HELD_OUT],
        "test": every[HELD_OUT : 2 * HELD_OUT],
    }


def word_for_word(language: Language, sources: Sequence[str]) -> list[str]:
    """What a dictionary makes of the sources."""
    known = language.dictionary()
    return [" ".join(filter(None, (known[word] for word in source.split()))) for source in sources]


def start(options: argparse.Namespace, model: ModelConfig, texts: Sequence[str]) -> str:
    """A directory with random weights and a vocabulary in which each word is one piece."""
    from albert_jax import api
    from albert_jax.data.vocabularies.wordpiece import WordPiece

    folder = files.join(options.out, "start")
    if not files.is_folder(folder):
        words = sorted({word for text in texts for word in text.split()})
        pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
        vocabulary = WordPiece("\n".join(pieces).encode())
        sized = dataclasses.replace(model, vocab_size=vocabulary.size)
        config = Config(model=sized, phases=(PhaseConfig(sequence_length=2 * TARGET_LENGTH),))
        params = api.init(sized, options.seed)
        api.save(api.Model(config, params, vocabulary, "random"), folder)
    return folder


def run_config(options: argparse.Namespace, folder: str) -> Config:
    """The config of the run; the vocabulary and its size come with the start weights."""
    config = configfile.load("finetune/scratch")
    own = ModelConfig().vocab_size
    model = dataclasses.replace(config.model, num_hidden_layers=options.num_layers, vocab_size=own)
    optimizer = dataclasses.replace(
        config.optimizer,
        name=options.optimizer,
        learning_rate=options.rate,
        warmup_steps=options.steps // 20,
    )
    run = dataclasses.replace(
        config.run,
        logging_steps=max(1, options.steps // 90),
        eval_steps=max(1, options.steps // 9),
        save_steps=max(1, options.steps // 9),
        max_eval_samples=200,
    )
    task = GenerationConfig(
        train=files.join(folder, "train.jsonl"),
        dev=files.join(folder, "dev.jsonl"),
        metrics=("bleu",),
        max_target_length=TARGET_LENGTH,
        denoising_steps=1,
        full_mask_prob=0.3,
    )
    phase = PhaseConfig(
        steps=options.steps, sequence_length=2 * TARGET_LENGTH, batch_size=options.rows
    )
    return dataclasses.replace(
        config,
        seed=options.seed,
        model=model,
        phases=(phase,),
        optimizer=optimizer,
        run=run,
        task=task,
    )


def main() -> None:
    """Makes the pairs, trains, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=9_000)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--num-layers", type=int, default=2)
    parser.add_argument("--optimizer", choices=("lamb", "adamw"), default="lamb")
    parser.add_argument("--rate", type=float, default=5e-3)
    options = parser.parse_args()
    data = make(options.pairs, options.seed)
    for name, pairs in data.items():
        lines = [json.dumps({"source": source, "target": target}) for source, target in pairs]
        files.write(files.join(options.out, f"{name}.jsonl"), ("\n".join(lines) + "\n").encode())
    source, target = data["train"][0]
    print(f"{len(data['train']):,} training pairs, such as\n  {source}\n  {target}")

    from albert_jax.finetuning import finetune
    from albert_jax.inference import predict
    from albert_jax.model_io import model as loading

    run = files.join(options.out, "run")
    began = time.perf_counter()
    config = run_config(options, options.out)
    texts = [text for pair in data["train"] for text in pair]
    given = ("optimizer.learning_rate",)  # It is meant as it stands, whatever the width.
    finetune.run(config, run, init=start(options, config.model, texts), given=given)
    cores = len(os.sched_getaffinity(0))
    print(f"training: {time.perf_counter() - began:.0f} s on {cores} cores, {options.steps} steps")

    model = loading.load(run)
    assert model.run_config.task is not None
    sources, targets = (list(side) for side in zip(*data["test"], strict=True))
    task = predict.task_of(model)
    examples = task.read_examples(files.join(options.out, "test.jsonl"), labelled=True)

    def line(name: str, found: Sequence[str], seconds: float | None = None) -> None:
        score = metrics.bleu_chrf(found, targets)["bleu"]
        exact = sum(a == b for a, b in zip(found, targets, strict=True)) / len(targets)
        wall = "" if seconds is None else f"  {seconds:.2f} s for {len(targets)} sentences"
        print(f"{name:12} BLEU {score:5.1f}  exact {exact:6.1%}{wall}", flush=True)

    line("copy", sources)
    line("dictionary", word_for_word(Language(options.seed), sources))
    for steps in STEPS:
        writer = predict.with_denoising_steps(model, steps)
        predict.predict(writer, examples[:32])  # Compiles.
        began = time.perf_counter()
        found = [prediction["text"] for prediction in predict.predict(writer, examples)]
        line(f"{steps} steps", found, time.perf_counter() - began)


if __name__ == "__main__":
    main()
