"""What happens to other languages: a vocabulary is trained on each file, and the file prepared.

    python benchmarks/languages.py FILE... [--vocab-size 4000] [--other spiece.model]

The language is the last part of a file's name (..-de.txt). Prints documents, sentences by rule and
by line, bytes per token, the rate of unknown pieces on the text that the vocabulary was trained
on, on a tenth of the documents that a second vocabulary has not seen, and with a vocabulary of
another language.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile

import numpy as np

from albert_jax.data.prepare.plan import PrepareOptions
from albert_jax.data.prepare.prepare import prepare
from albert_jax.data.sources import sources
from albert_jax.data.sources.sentences import sentences
from albert_jax.data.vocabularies import vocabulary
from albert_jax.data.vocabularies.training import TrainingOptions, train


def unknown_rate(vocab: vocabulary.Vocabulary, texts: list[str]) -> float:
    """Share of the pieces of some texts that are the unknown piece."""
    ids, _ = vocab.encode_flat(texts)
    return float(np.mean(ids == vocab.unk_id))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--vocab-size", type=int, default=4000)
    parser.add_argument("--other", help="vocabulary of another language")
    asked = parser.parse_args()
    print(f"{'':4} {'documents':>9} {'sentences':>9} {'by line':>8} {'bytes/token':>11} "
          f"{'unknown':>8} {'unseen text':>11} {'other vocabulary':>16}")  # fmt: skip
    for path in asked.files:
        language = os.path.splitext(path)[0].rsplit("-", 1)[-1]
        documents = list(sources.documents([path]))
        with tempfile.TemporaryDirectory() as folder:
            vocab = _trained([path], f"{folder}/v", asked.vocab_size, language)
            options = PrepareOptions(language=language)
            found = prepare([path], vocab, f"{folder}/p", options)["counts"]
            by_line = sum(len(sentences(d.text, "line")) for d in documents)
            seen, unseen = f"{folder}/seen.txt", documents[::10]
            with open(seen, "w", encoding="utf-8") as file:
                file.write("\n\n".join(d.text for i, d in enumerate(documents) if i % 10))
            other = _trained([seen], f"{folder}/w", asked.vocab_size, language)
            texts = [s for d in unseen for s in sentences(d.text, "split", language)]
            everything = [s for d in documents for s in sentences(d.text, "split", language)]
            foreign = "-"
            if asked.other:
                foreign = f"{unknown_rate(vocabulary.load(asked.other), everything):.2%}"
            tokens = found["train_tokens"] + found["validation_tokens"]
            count = found["train_sentences"] + found["validation_sentences"]
            print(f"{language:4} {len(documents):9,} {count:9,} {by_line:8,} "
                  f"{found['text_bytes'] / tokens:11.2f} {found['unknown'] / tokens:8.3%} "
                  f"{unknown_rate(other, texts):11.3%} {foreign:>16}")  # fmt: skip


def _trained(paths: list[str], out: str, size: int, language: str) -> vocabulary.Vocabulary:
    train(paths, out, TrainingOptions(vocab_size=size, keep_accents=True, language=language))
    found = vocabulary.load(out)
    if found.size < size:
        sys.exit(f"{paths[0]} supports {found.size} tokens: give at most so many --vocab-size")
    return found


if __name__ == "__main__":
    main()
