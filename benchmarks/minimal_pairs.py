"""Minimal pairs made by rules from the frequent words of a text, and how a run scores on them.

    python benchmarks/minimal_pairs.py --text books.txt --out pairs.jsonl [--each 100] [--seed 0]
                                       [--runs RUN ...] [--steps N ...]

Writes BLiMP's form (sentence_good, sentence_bad, UID), which `albert-jax score MODEL pairs.jsonl`
reads. The two sentences of a pair have as many words, and as often the singular is right as the
plural, so that word frequencies tell nothing. For each checkpoint that a run has kept, its
accuracy is printed beside that of a unigram model of the text; chance is 50%.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from albert_jax import files
from albert_jax.evaluation.minimal_pairs import ALL, MinimalPair, accuracies

LEAST = 40
"""How often a word must stand in the text."""

PEOPLE = """man men, woman women, boy boys, girl girls, child children, friend friends,
brother brothers, sister sisters, lady ladies, gentleman gentlemen, servant servants,
officer officers, soldier soldiers, king kings, doctor doctors, stranger strangers, lord lords,
captain captains, enemy enemies, visitor visitors, companion companions, guest guests, son sons,
daughter daughters, cousin cousins, sailor sailors"""
THINGS = """house houses, room rooms, door doors, window windows, tree trees, book books,
letter letters, ship ships, boat boats, street streets, chair chairs, table tables,
picture pictures, stone stones, wall walls, bed beds, carriage carriages, town towns, road roads,
garden gardens, hill hills, field fields, flower flowers, lamp lamps, card cards, church churches,
glass glasses, horse horses, dog dogs, rock rocks, box boxes, bird birds, knife knives"""
OF_PEOPLE = "old young poor happy strong tall dead rich kind good ill proud brave tired angry"
OF_THINGS = "old large small dark white black great beautiful new little strange red green"
NEAR = "near behind beside with before"
SAW = "saw knew loved followed met heard found called watched helped"
SELVES = "saw asked told loved found"
WITHIN = "in near behind beside before"
HE = "he she they we I"
MALE = ("man", "boy", "gentleman", "king", "lord", "soldier", "brother", "son")

VERBS = (("is", "are"), ("was", "were"), ("has been", "have been"))
ONE_MANY = (("this", "these"), ("that", "those"))
ONE, MANY = ("every", "each", "one", "another"), ("many", "several", "few", "two", "three")


class Noun(NamedTuple):
    """A noun in both numbers."""

    one: str
    many: str


class Words:
    """The words of the rules that are frequent in a text."""

    def __init__(self, counts: Mapping[str, int], least: int = LEAST) -> None:
        self.counts, self.least = counts, least
        self.people, self.things = self._nouns(PEOPLE), self._nouns(THINGS)
        self.men = [noun for noun in self.people if noun.one in MALE]
        self.of_people, self.of_things = self._words(OF_PEOPLE), self._words(OF_THINGS)
        self.near, self.within = self._words(NEAR), self._words(WITHIN)
        self.saw, self.selves, self.he = self._words(SAW), self._words(SELVES), self._words(HE)

    def has(self, phrase: str) -> bool:
        """Returns whether each word of the phrase is frequent."""
        return all(self.counts.get(word, 0) >= self.least for word in phrase.lower().split())

    def _words(self, listed: str) -> list[str]:
        return self._enough([word for word in listed.split() if self.has(word)], listed)

    def _nouns(self, listed: str) -> list[Noun]:
        pairs = [pair.strip() for pair in listed.split(",")]
        found = [Noun(*pair.split()) for pair in pairs if self.has(pair)]
        return self._enough(found, listed)

    def _enough(self, found: list, listed: str) -> list:
        if len(found) < 3:
            raise SystemExit(
                f"fewer than three of these words stand {self.least} times in the text: "
                f"{' '.join(listed.split())}: give a longer text, or a smaller --least"
            )
        return found


class Draw(random.Random):
    """Draws the parts of sentences; `many` is the number of the right noun, 0 or 1."""

    def __init__(self, words: Words, seed: str) -> None:
        super().__init__(seed)
        self.words = words

    def pair(self, forms: Sequence[tuple[str, str]]) -> tuple[str, str]:
        """A word in both numbers, if the text has them."""
        return self.choice([pair for pair in forms if all(map(self.words.has, pair))])

    def noun(self) -> tuple[Noun, str]:
        """A noun and an adjective that suits it."""
        if self.random() < 0.5:
            return self.choice(self.words.people), self.choice(self.words.of_people)
        return self.choice(self.words.things), self.choice(self.words.of_things)

    def person(self) -> tuple[Noun, str]:
        """A noun for people and an adjective that suits it."""
        return self.choice(self.words.people), self.choice(self.words.of_people)


Pair = tuple[str, str]
Rule = Callable[[Draw, int], Pair]


def agreement_adjacent(draw: Draw, many: int) -> Pair:
    """The man was old. / The man were old."""
    noun, adjective = draw.noun()
    verb = draw.pair(VERBS)
    return _both(f"the {noun[many]}", verb, many, adjective)


def agreement_prepositional(draw: Draw, many: int) -> Pair:
    """The man near the trees was old. / The man near the trees were old."""
    noun, adjective = draw.noun()
    other, _ = draw.noun()
    between = f"{draw.choice(draw.words.near)} the {other[1 - many]}"
    return _both(f"the {noun[many]} {between}", draw.pair(VERBS), many, adjective)


def agreement_relative(draw: Draw, many: int) -> Pair:
    """The man who saw the trees was old. / The man who saw the trees were old."""
    noun, adjective = draw.person()
    other, _ = draw.noun()
    between = f"who {draw.choice(draw.words.saw)} the {other[1 - many]}"
    return _both(f"the {noun[many]} {between}", draw.pair(VERBS), many, adjective)


def agreement_reflexive(draw: Draw, many: int) -> Pair:
    """The man near the trees saw himself. / The man near the trees saw themselves."""
    noun, (other, _) = draw.choice(draw.words.men), draw.noun()
    between = f"{draw.choice(draw.words.near)} the {other[1 - many]}"
    verb = draw.choice(draw.words.selves)
    start = f"the {noun[many]} {between} {verb}"
    return _both(start, ("himself", "themselves"), many, "")


def determiner_noun(draw: Draw, many: int) -> Pair:
    """They saw this house. / They saw this houses."""
    noun, _ = draw.noun()
    return _both(_subject_saw(draw) + draw.pair(ONE_MANY)[many], noun, many, "")


def determiner_adjective_noun(draw: Draw, many: int) -> Pair:
    """They saw these old houses. / They saw these old house."""
    noun, adjective = draw.noun()
    start = f"{_subject_saw(draw)}{draw.pair(ONE_MANY)[many]} {adjective}"
    return _both(start, noun, many, "")


def determiner_quantity(draw: Draw, many: int) -> Pair:
    """They saw many old houses. / They saw many old house."""
    noun, adjective = draw.noun()
    start = f"{_subject_saw(draw)}{draw.choice((ONE, MANY)[many])} {adjective}"
    return _both(start, noun, many, "")


def order_adjective(draw: Draw, many: int) -> Pair:
    """The old house was there. / The house old was there."""
    noun, adjective = draw.noun()
    end = f"{draw.pair(VERBS)[many]} {draw.choice(('here', 'there'))}"
    return f"the {adjective} {noun[many]} {end}", f"the {noun[many]} {adjective} {end}"


def order_determiner(draw: Draw, many: int) -> Pair:
    """They saw the old house. / They saw old the house."""
    noun, adjective = draw.noun()
    start = _subject_saw(draw)
    return f"{start}the {adjective} {noun[many]}", f"{start}{adjective} the {noun[many]}"


def order_negation(draw: Draw, many: int) -> Pair:
    """The man had not found the house. / The man not had found the house."""
    (noun, _), (other, _) = draw.person(), draw.noun()
    verb = draw.choice([word for word in ("found", "followed", "met", "heard", "loved")
                        if draw.words.has(word)])  # fmt: skip
    start, end = f"the {noun[many]}", f"{verb} the {other[draw.randrange(2)]}"
    return f"{start} had not {end}", f"{start} not had {end}"


def order_preposition(draw: Draw, many: int) -> Pair:
    """The man was in the house. / The man was the in house."""
    (noun, _), other = draw.person(), draw.choice(draw.words.things)
    start, where = f"the {noun[many]} {draw.pair(VERBS)[many]}", draw.choice(draw.words.within)
    place = other[draw.randrange(2)]
    return f"{start} {where} the {place}", f"{start} the {where} {place}"


def order_verb(draw: Draw, many: int) -> Pair:
    """The man saw the house. / The man the house saw."""
    (noun, _), (other, _) = draw.person(), draw.noun()
    verb, seen = draw.choice(draw.words.saw), f"the {other[draw.randrange(2)]}"
    return f"the {noun[many]} {verb} {seen}", f"the {noun[many]} {seen} {verb}"


RULES: tuple[Rule, ...] = (
    agreement_adjacent,
    agreement_prepositional,
    agreement_relative,
    agreement_reflexive,
    determiner_noun,
    determiner_adjective_noun,
    determiner_quantity,
    order_adjective,
    order_determiner,
    order_negation,
    order_preposition,
    order_verb,
)


def _both(start: str, forms: Sequence[str], many: int, end: str) -> Pair:
    good, bad = (f"{start} {forms[number]} {end}".strip() for number in (many, 1 - many))
    return good, bad


def _subject_saw(draw: Draw) -> str:
    return f"{draw.choice(draw.words.he)} {draw.choice(draw.words.saw)} "


def make(words: Words, each: int, seed: int) -> list[MinimalPair]:
    """`each` pairs of every rule, singular and plural in turn, no sentence twice."""
    found, seen = [], set()
    for rule in RULES:
        draw, made = Draw(words, f"{seed}:{rule.__name__}"), 0
        for _ in range(200 * each):
            good, bad = rule(draw, made % 2)
            if made == each or good in seen or bad in seen or not words.has(f"{good} {bad}"):
                continue
            seen |= {good, bad}
            sentences = (f"{text[0].upper()}{text[1:]}." for text in (good, bad))
            found.append(MinimalPair(f"{rule.__name__} {made}", *sentences, rule.__name__))
            made += 1
        if made < each:
            raise SystemExit(
                f"{rule.__name__}: {made} different pairs where {each} are asked for: give a "
                "longer text, or a smaller --each or --least"
            )
    return found


def count_words(text: str) -> Counter[str]:
    """How often each word stands in a text, in lower case."""
    return Counter(re.findall(r"[a-z]+", text.lower()))


def unigram_scores(counts: Mapping[str, int], sentences: Sequence[str]) -> list[float]:
    """Log-probabilities of sentences as bags of words (add-one smoothed)."""
    total = sum(counts.values()) + len(counts) + 1
    return [
        sum(
            math.log((counts.get(word, 0) + 1) / total)
            for word in sorted(re.findall(r"[a-z]+", sentence.lower()))
        )
        for sentence in sentences
    ]


def jsonl(pairs: Sequence[MinimalPair]) -> str:
    """The file that `albert-jax score` reads."""
    return "".join(
        json.dumps({"sentence_good": p.good, "sentence_bad": p.bad, "UID": p.group}) + "\n"
        for p in pairs
    )


def main() -> None:
    """Writes the pairs; prints a table of accuracies for each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--each", type=int, default=100, help="pairs of each of the twelve rules")
    parser.add_argument("--least", type=int, default=LEAST, help="how often a word must occur")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", nargs="*", default=[])
    parser.add_argument("--steps", nargs="*", type=int, help="of the checkpoints that are kept")
    options = parser.parse_args()
    counts = count_words(options.text.read_text(encoding="utf-8"))
    pairs = make(Words(counts, options.least), options.each, options.seed)
    files.write(options.out, jsonl(pairs).encode())
    print(f"{options.out}: {len(pairs):,} pairs of {len(RULES)} rules")
    import numpy as np

    columns = [ALL, *(rule.__name__ for rule in RULES)]

    def row(name: str, good: Sequence[float], bad: Sequence[float]) -> str:
        found = accuracies(pairs, np.asarray(good), np.asarray(bad))
        rows = found["whole"] | found["sets"]
        _, low, high = rows[ALL].accuracy
        values = " ".join(f"{rows[column].accuracy.value:6.1%}" for column in columns)
        return f"{name:>8} {values}   all: {low:.1%} to {high:.1%} (95%)"

    for number, column in enumerate(columns):
        print(f"{'':9}{'|      ' * number}{column}")
    good, bad = [p.good for p in pairs], [p.bad for p in pairs]
    print(row("unigram", unigram_scores(counts, good), unigram_scores(counts, bad)))
    for run in options.runs:
        from albert_jax.checkpoint.manager import Checkpoints
        from albert_jax.inference import scoring
        from albert_jax.model_io import model as models

        checkpoints = Checkpoints(run, read_only=True)
        steps = [s for s in checkpoints.steps() if not options.steps or s in options.steps]
        checkpoints.close()
        print(run)
        for step in steps:
            model = models.load(run, step=step)
            where = [p.where for p in pairs]
            scores = [scoring.score_sentences(model, texts, where)[0] for texts in (good, bad)]
            print(row(f"{step:,}", *scores), flush=True)


if __name__ == "__main__":
    main()
