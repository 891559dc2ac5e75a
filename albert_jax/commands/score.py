"""`albert-jax score`: pseudo-log-likelihood of sentences, and accuracy on minimal pairs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
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
from albert_jax.errors import DataError

if TYPE_CHECKING:
    from albert_jax.data.sources.tables import Record
    from albert_jax.evaluation.minimal_pairs import Accuracies
    from albert_jax.model_io.model import Model


@dataclass(frozen=True, kw_only=True)
class Score(DepthOptions):
    """Pseudo-log-likelihood of sentences, without fine-tuning; accuracy on minimal pairs."""

    file: Positional[File]
    """Sentences: lines of a .txt or of stdin (-), or a table with a column sentence or text.
    Minimal pairs: a table with sentence_good and sentence_bad, and UID for the name of a set;
    linguistics_term and field are read too."""
    out: OptionalFile = None
    """File for the scores of all sentences, as JSON lines; the default is stdout (nothing for
    pairs). For pairs FILE.json and FILE.svg beside it hold and show the accuracies."""

    def run(self) -> None:
        """Prints scores, or a table of accuracies."""
        from albert_jax.evaluation import minimal_pairs

        records = sentence_records(self.file)
        if minimal_pairs.are_pairs(records):
            self._pairs(records)
            return
        from albert_jax.inference import scoring

        records = [r for r in records if any(map(str, r.fields.values()))]
        if not records:
            raise DataError(f"{self.file}: no sentences: give at least one")
        texts, where = sentences(records)
        found = scoring.score_texts(self.load(), texts, where, num_layers=self.num_layers)
        write_json_lines(found, self.out)

    def _pairs(self, records: Sequence[Record]) -> None:
        from albert_jax.evaluation import minimal_pairs
        from albert_jax.inference import scoring

        pairs = minimal_pairs.from_records(records)
        model = self.load()
        texts, where = minimal_pairs.sentences(pairs)
        scores, _ = scoring.score_sentences(model, texts, where, num_layers=self.num_layers)
        good, bad = scores[::2], scores[1::2]
        if self.out is not None:
            lines = [
                {"sentence_good": pair.good, "sentence_bad": pair.bad, "set": pair.group,
                 "score_good": float(good_score), "score_bad": float(bad_score)}
                for pair, good_score, bad_score in zip(pairs, good, bad, strict=True)
            ]  # fmt: skip
            write_json_lines(lines, self.out)
        found = minimal_pairs.accuracies(pairs, good, bad)
        told = [minimal_pairs.table(found), minimal_pairs.ties_line(pairs, found)]
        # The lines of --out - may be read by a program.
        stream = sys.stderr if self.out == "-" else sys.stdout
        print("\n".join(filter(None, told)), file=stream)
        if self.out not in (None, "-"):
            self._write(model, found)

    def _write(self, model: Model, found: Accuracies) -> None:
        """The accuracies as a file and as a picture."""
        from albert_jax import files
        from albert_jax.evaluation import minimal_pairs
        from albert_jax.observe import figures

        report = {
            "model": self.model, "step": model.step, "weights": model.weights, "file": self.file,
            "level": 0.95, **minimal_pairs.as_json(found),
        }  # fmt: skip
        text = json.dumps(report, indent=1, ensure_ascii=False)
        files.write(f"{self.out}.json", text.encode())
        rows = minimal_pairs.rows_to_draw(found)
        title = f"Minimal pairs of {self.file}: {self.model}"
        values = {name: row.accuracy for name, row in rows.items()}
        counts = {name: row.pairs for name, row in rows.items()}
        files.write(f"{self.out}.svg", figures.minimal_pair_accuracies(title, values, counts))
        print(f"{self.out}.json holds these numbers, {self.out}.svg shows them", file=sys.stderr)
