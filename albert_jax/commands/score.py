"""`albert-jax score`: pseudo-log-likelihood of sentences, and accuracy on minimal pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tyro.conf import Positional

from albert_jax.commands.options import DepthOptions, File, write_json_lines
from albert_jax.errors import DataError

if TYPE_CHECKING:
    from albert_jax.inference.scoring import MinimalPair
    from albert_jax.tasks.support.metrics import Interval


@dataclass(frozen=True, kw_only=True)
class Score(DepthOptions):
    """Pseudo-log-likelihood of sentences, without fine-tuning; accuracy on minimal pairs."""

    file: Positional[File]
    """Sentences: lines of a .txt, or a table with a column sentence or text. Minimal pairs: a
    table with sentence_good and sentence_bad, and UID for the name of a set."""
    out: File | None = None
    """File for the scores of all sentences, as JSON lines; the default is stdout (nothing for
    pairs)."""

    def run(self) -> None:
        """Prints scores, or a table of accuracies."""
        from albert_jax.data.sources import tables
        from albert_jax.inference import scoring

        model = self.load()
        if self.file.endswith(".txt"):
            records = [
                tables.Record(f"{self.file}:{number}", {"sentence": line})
                for number, line in enumerate(tables.read_text(self.file).split("\n"), start=1)
                if line.strip()
            ]
        else:
            records = tables.read_records(self.file)
        if not records:
            raise DataError(f"{self.file}: no sentences: give a file with one per line")
        columns = records[0].fields
        if "sentence_good" in columns:
            pairs = scoring.minimal_pairs(records)
            texts, where = scoring.pair_sentences(pairs)
        else:
            column = "text" if "text" in columns and "sentence" not in columns else "sentence"
            texts = [tables.text_field(record, column) for record in records]
            where, pairs = [record.where for record in records], []
        scores, counts = scoring.score_sentences(model, texts, where, num_layers=self.num_layers)
        if not pairs:
            lines = [
                {"text": text, "score": float(score), "tokens": int(count)}
                for text, score, count in zip(texts, scores, counts, strict=True)
            ]
            write_json_lines(lines, self.out)
            return
        good, bad = scores[::2], scores[1::2]
        if self.out is not None:
            lines = [
                {"sentence_good": pair.good, "sentence_bad": pair.bad, "set": pair.group,
                 "score_good": float(good_score), "score_bad": float(bad_score)}
                for pair, good_score, bad_score in zip(pairs, good, bad, strict=True)
            ]  # fmt: skip
            write_json_lines(lines, self.out)
        print(accuracy_table(pairs, scoring.pair_accuracy(pairs, good, bad)))


def accuracy_table(pairs: Sequence[MinimalPair], accuracies: Mapping[str, Interval]) -> str:
    """The accuracy of each set of pairs, and first of all sets, with its confidence interval."""
    counts = Counter(pair.group for pair in pairs)
    width = max(map(len, accuracies))
    lines = [f"{'':{width}}  accuracy      95 % interval  pairs"]
    for name, (value, low, high) in accuracies.items():
        count = counts.get(name, len(pairs))
        lines.append(f"{name:{width}}  {value:8.1%}  {low:7.1%} to {high:6.1%}  {count:5}")
    return "\n".join(lines)
