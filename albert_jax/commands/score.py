"""`albert-jax score`: pseudo-log-likelihood of sentences, and accuracy on minimal pairs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import Positional

from albert_jax.commands.options import Step, Weights, step_number, write_json_lines
from albert_jax.errors import DataError

if TYPE_CHECKING:
    from albert_jax.model_io.model import Model


@dataclass(frozen=True, kw_only=True)
class Score:
    """Pseudo-log-likelihood of sentences, without fine-tuning; accuracy on minimal pairs."""

    model: Positional[Annotated[str, tyro.conf.arg(metavar="RUN|DIR")]]
    """Run folder or exported directory, with its masked-language head."""
    file: Positional[Annotated[str, tyro.conf.arg(metavar="FILE")]]
    """Sentences: lines of a .txt, or a table with a column sentence or text. Minimal pairs: a
    table with sentence_good and sentence_bad, and UID for the name of a set."""
    out: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """File for the scores of all sentences, as JSON lines; the default is stdout (nothing for
    pairs)."""
    num_layers: int | None = None
    """Depth; the default is the model's own."""
    step: Step = "newest"
    """Checkpoint of a run."""
    weights: Weights = "trained"
    """The parameters, or their running average."""

    def run(self) -> None:
        """Prints scores, or a table of accuracies."""
        from albert_jax.data.sources import tables
        from albert_jax.model.sharing import check_depth
        from albert_jax.model_io.model import load

        model = load(self.model, step=step_number(self.step), weights=self.weights)
        if self.num_layers is not None:
            check_depth(model.config, self.num_layers)
        if self.file.endswith(".txt"):
            records = [
                tables.Record(f"{self.file}:{number}", {"sentence": line})
                for number, line in enumerate(tables.read_text(self.file).split("\n"), start=1)
                if line.strip()
            ]
            if not records:
                raise DataError(f"{self.file}: no sentences: give a file with one per line")
        else:
            records = tables.read_records(self.file)
        if "sentence_good" in records[0].fields:
            scores, accuracies = score_pairs(model, records, self.num_layers)
            if self.out is not None:
                write_json_lines(scores, self.out)
            print(accuracies)
        else:
            write_json_lines(score_sentences(model, records, self.num_layers), self.out)


def score_sentences(
    model: Model, records: list[Any], num_layers: int | None
) -> list[dict[str, Any]]:
    """The score of each sentence and its number of tokens. Raises DataError."""
    from albert_jax.data.sources.tables import text_field
    from albert_jax.inference import scoring

    name = next((n for n in ("sentence", "text") if n in records[0].fields), "sentence")
    texts = [text_field(record, name) for record in records]
    scores, counts = scoring.score_sentences(
        model, texts, [record.where for record in records], num_layers=num_layers
    )
    return [
        {"text": text, "score": float(score), "tokens": int(count)}
        for text, score, count in zip(texts, scores, counts, strict=True)
    ]


def score_pairs(
    model: Model, records: list[Any], num_layers: int | None
) -> tuple[list[dict[str, Any]], str]:
    """(the two scores of each pair, a table of accuracies by set). Raises DataError."""
    from albert_jax.inference import scoring

    pairs = scoring.minimal_pairs(records)
    scores, _ = scoring.score_sentences(
        model, *scoring.pair_sentences(pairs), num_layers=num_layers
    )
    good, bad = scores[::2], scores[1::2]
    rows = [
        {"sentence_good": pair.good, "sentence_bad": pair.bad, "set": pair.group,
         "score_good": float(good_score), "score_bad": float(bad_score)}
        for pair, good_score, bad_score in zip(pairs, good, bad, strict=True)
    ]  # fmt: skip
    counts = Counter(pair.group for pair in pairs) | {scoring.ALL_PAIRS: len(pairs)}
    accuracies = scoring.pair_accuracy(pairs, good, bad)
    width = max(len(name) for name in accuracies)
    lines = [f"{'':{width}}  accuracy      95 % interval  pairs"]
    for name, (value, low, high) in accuracies.items():
        lines.append(f"{name:{width}}  {value:8.1%}  {low:7.1%} to {high:6.1%}  {counts[name]:5}")
    return rows, "\n".join(lines)
