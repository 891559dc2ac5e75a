"""`albert-jax score`: pseudo-log-likelihood of sentences, and accuracy on minimal pairs."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tyro.conf import Positional

from albert_jax.commands.options import (
    DepthOptions,
    File,
    OptionalFile,
    sentence_records,
    sentences,
    write_json_lines,
)

if TYPE_CHECKING:
    from albert_jax.inference.scoring import MinimalPair
    from albert_jax.tasks.support.metrics import Interval


@dataclass(frozen=True, kw_only=True)
class Score(DepthOptions):
    """Pseudo-log-likelihood of sentences, without fine-tuning; accuracy on minimal pairs."""

    file: Positional[File]
    """Sentences: lines of a .txt or of stdin (-), or a table with a column sentence or text.
    Minimal pairs: a table with sentence_good and sentence_bad, and UID for the name of a set."""
    out: OptionalFile = None
    """File for the scores of all sentences, as JSON lines; the default is stdout (nothing for
    pairs). For pairs FILE.svg beside it shows the accuracies."""

    def run(self) -> None:
        """Prints scores, or a table of accuracies."""
        from albert_jax.inference import scoring

        model = self.load()
        records = sentence_records(self.file)
        if "sentence_good" not in records[0].fields:
            texts, where = sentences([r for r in records if any(map(str, r.fields.values()))])
            found = scoring.scored(model, texts, where, num_layers=self.num_layers)
            write_json_lines(found, self.out)
            return
        pairs = scoring.minimal_pairs(records)
        texts, where = scoring.pair_sentences(pairs)
        scores, _ = scoring.score_sentences(model, texts, where, num_layers=self.num_layers)
        good, bad = scores[::2], scores[1::2]
        if self.out is not None:
            lines = [
                {"sentence_good": pair.good, "sentence_bad": pair.bad, "set": pair.group,
                 "score_good": float(good_score), "score_bad": float(bad_score)}
                for pair, good_score, bad_score in zip(pairs, good, bad, strict=True)
            ]  # fmt: skip
            write_json_lines(lines, self.out)
        accuracies = scoring.pair_accuracy(pairs, good, bad)
        print(accuracy_table(pairs, accuracies))
        if self.out not in (None, "-"):
            from albert_jax import files
            from albert_jax.observe import bars

            picture = f"{self.out}.svg"
            title = f"Minimal pairs of {self.file}: {self.model}"
            counts = pair_counts(pairs, accuracies)
            files.write(picture, bars.accuracies(title, accuracies, counts))
            print(f"{picture} shows it", file=sys.stderr)


def accuracy_table(pairs: Sequence[MinimalPair], accuracies: Mapping[str, Interval]) -> str:
    """The accuracy of each set of pairs, and first of all sets, with its confidence interval."""
    counts = pair_counts(pairs, accuracies)
    width = max(map(len, accuracies))
    lines = [f"{'':{width}}  accuracy      95 % interval  pairs"]
    for name, (value, low, high) in accuracies.items():
        lines.append(f"{name:{width}}  {value:8.1%}  {low:7.1%} to {high:6.1%}  {counts[name]:5}")
    return "\n".join(lines)


def pair_counts(pairs: Sequence[MinimalPair], names: Iterable[str]) -> dict[str, int]:
    """Number of pairs of each set; a name that is none stands for all pairs."""
    counts = Counter(pair.group for pair in pairs)
    return {name: counts.get(name, len(pairs)) for name in names}
