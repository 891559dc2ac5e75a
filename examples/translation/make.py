"""Writes train.jsonl and dev.jsonl: English sentences of a toy grammar, and their German.

A person, a verb and a thing are put into one of six patterns. The German side has genders, cases,
endings of adjectives and the order of its words, so that a translation word by word is wrong.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

DEV, TRAIN = 60, 240
ARTICLES = {"m": ("der", "den"), "f": ("die", "die"), "n": ("das", "das")}
"""Gender -> nominative and accusative."""
PEOPLE = (
    ("man", "Mann", "m"),
    ("woman", "Frau", "f"),
    ("child", "Kind", "n"),
    ("girl", "Mädchen", "n"),
    ("doctor", "Arzt", "m"),
    ("sister", "Schwester", "f"),
    ("brother", "Bruder", "m"),
    ("queen", "Königin", "f"),
)
PEOPLE_ARE = (("old", "alt"), ("young", "jung"), ("tired", "müd"))
VERBS = (
    # Forms of both languages, what things they take, and what these things are like.
    (
        ("reads", "read", "liest", "lesen"),
        (("book", "Buch", "n"), ("letter", "Brief", "m"), ("newspaper", "Zeitung", "f")),
        (("new", "neu"), ("long", "lang")),
    ),
    (
        ("eats", "eat", "isst", "essen"),
        (("bread", "Brot", "n"), ("cake", "Kuchen", "m"), ("soup", "Suppe", "f")),
        (("good", "gut"), ("warm", "warm")),
    ),
    (
        ("sees", "see", "sieht", "sehen"),
        (("horse", "Pferd", "n"), ("dog", "Hund", "m"), ("cat", "Katze", "f")),
        (("small", "klein"), ("white", "weiß")),
    ),
    (
        ("buys", "buy", "kauft", "kaufen"),
        (("shirt", "Hemd", "n"), ("coat", "Mantel", "m"), ("lamp", "Lampe", "f")),
        (("new", "neu"), ("red", "rot")),
    ),
)
TIMES = (("Today", "Heute"), ("Now", "Jetzt"), ("Every day", "Jeden Tag"))


def sentences() -> list[tuple[str, str]]:
    """Everything that the grammar can say, as pairs of English and German."""
    pairs = []
    for person, mensch, gender in PEOPLE:
        subject, subjekt = f"the {person}", f"{ARTICLES[gender][0]} {mensch}"
        for (verb, stem, form, infinitive), things, qualities in VERBS:
            for thing, ding, kind in things:
                article = ARTICLES[kind][1]
                whom, wen = f"the {thing}", f"{article} {ding}"
                pairs += [
                    (f"{subject} {verb} {whom}.", f"{subjekt} {form} {wen}."),
                    (f"{subject} does not {stem} {whom}.", f"{subjekt} {form} {wen} nicht."),
                    (f"{subject} wants to {stem} {whom}.", f"{subjekt} will {wen} {infinitive}."),
                ]
                for time, zeit in TIMES:
                    pairs.append(
                        (f"{time} {subject} {verb} {whom}.", f"{zeit} {form} {subjekt} {wen}.")
                    )
                for quality, wie in qualities:
                    ending = "en" if kind == "m" else "e"
                    pairs.append(
                        (
                            f"{subject} {verb} the {quality} {thing}.",
                            f"{subjekt} {form} {article} {wie}{ending} {ding}.",
                        )
                    )
                for quality, wie in PEOPLE_ARE:
                    pairs.append(
                        (
                            f"the {quality} {person} {verb} {whom}.",
                            f"{ARTICLES[gender][0]} {wie}e {mensch} {form} {wen}.",
                        )
                    )
    return [(_capital(english), _capital(german)) for english, german in pairs]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def files() -> dict[str, str]:
    """The content of each file by its name; dev holds no sentence of train."""
    drawn = random.Random(1).sample(sentences(), DEV + TRAIN)
    lines = [
        json.dumps({"source": english, "target": german}, ensure_ascii=False) + "\n"
        for english, german in drawn
    ]
    return {"train.jsonl": "".join(lines[DEV:]), "dev.jsonl": "".join(lines[:DEV])}


if __name__ == "__main__":
    for name, text in files().items():
        (Path(__file__).parent / name).write_text(text, encoding="utf-8")
