"""`albert-jax evaluate`: a run measured on its held-out text, at one depth or several."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from albert_jax import configfile, files
from albert_jax.config import Config
from albert_jax.errors import CheckpointError, ConfigError
from albert_jax.evaluation.pretraining import SEED, Batch, Reference, local_score, measure, table
from albert_jax.evaluation.sentence_order import CutRule
from albert_jax.inference import depth as depths
from albert_jax.model_io.model import Weights, is_run, load
from albert_jax.observe import curves, flops
from albert_jax.observe.metrics import read_rows

if TYPE_CHECKING:
    from albert_jax.data.corpus.corpus import Corpus
    from albert_jax.data.vocabularies.vocabulary import Vocabulary

CUT_ROWS = 4096
"""Training rows from which the cut rule learns."""


def evaluate(
    run_dir: str,
    *,
    step: int | Literal["best", "newest"] = "newest",
    weights: Weights = "trained",
    num_layers: Sequence[int] = (),
    rows: int | None = None,
    examples: str | None = None,
    changes: bool = False,
) -> str:
    """Measures a run on its held-out text in the shape of its last phase.

    Writes RUN/evaluation.json and RUN/curves.png and returns the table of numbers as text, one
    column per depth. `passes` are depths to measure (none: the model's own), `step` and
    `weights` choose the parameters (loading.py), `rows` is how many held-out rows are read at
    most (None: run.max_eval_samples). Beside the numbers of `measure` stand sop_cut_accuracy, what
    the cut alone tells of the order, and forward_flops_per_token; with `changes` also what each
    pass changes (depth.py).

    A fine-tuned run is measured on `examples` (None: its task.dev) instead, see finetuned.py.

    Raises CheckpointError if the run has no whole checkpoint, DataError if its prepared text is
    gone or another, ConfigError for a depth that the model does not have.
    """
    from albert_jax.data.batches import pipeline
    from albert_jax.data.corpus.corpus import Corpus

    if not is_run(run_dir):
        raise CheckpointError(
            f"{run_dir} is no run folder: name the --out of albert-jax pretrain or finetune"
        )
    config = configfile.load(files.join(run_dir, "config.toml"))
    for depth in num_layers:
        depths.check(config.model, depth)
    if config.task is not None:
        from albert_jax.evaluation import finetuned

        return finetuned.evaluate(
            run_dir,
            step=step,
            weights=weights,
            num_layers=num_layers,
            most=rows,
            place=examples,
            changes=changes,
        )
    if examples is not None:
        raise ConfigError("--input is for fine-tuned runs: this one has its held-out documents")
    phase = config.phases[-1]
    train = [Corpus.open(folder, "train") for folder in config.data.prepared]
    held_out = Corpus.open(config.data.prepared[0], "validation")
    model = load(run_dir, step=step, weights=weights)
    batches = pipeline.held_out(
        held_out,
        phase,
        model.vocabulary,
        rows=rows or config.run.max_eval_samples,
        batch_rows=min(phase.batch_size, 64),
        seed=SEED,
    )
    reference = Reference.of(
        np.sum([corpus.unigram for corpus in train], axis=0), model.vocabulary.token_bytes
    )
    shared = _cut_accuracy(config, train, model.vocabulary, batches)
    results: dict[str, dict[str, float]] = {}
    for depth in num_layers or (config.model.num_hidden_layers,):
        score = local_score(model.params, config.model, config.compute, num_layers=depth)
        found = measure(batches, score, reference) | shared
        found["forward_flops_per_token"] = flops.forward_per_token(
            config.model,
            sequence_length=phase.sequence_length,
            predictions=phase.max_predictions_per_seq,
            num_layers=depth,
        )
        if changes:
            found |= depths.changes(
                model.params, config.model, config.compute, batches, num_layers=depth
            )
        results[f"{depth} passes"] = found
    report = {
        "step": model.step,
        "weights": weights,
        "sequence_length": phase.sequence_length,
        "results": results,
    }
    files.write(files.join(run_dir, "evaluation.json"), json.dumps(report, indent=1).encode())
    lines = [
        f"{run_dir}: step {model.step}, held-out rows of {phase.sequence_length} places",
        table(list(results.items())),
    ]
    if read_rows(run_dir):
        lines.append(f"curves: {curves.draw(run_dir)}")
    return "\n".join(lines)


def _cut_accuracy(
    config: Config, train: list[Corpus], vocabulary: Vocabulary, batches: Sequence[Batch]
) -> dict[str, float]:
    """{"sop_cut_accuracy": ...}, or nothing where no order is asked."""
    from albert_jax.data.batches.rows import RowMaker

    if config.phases[-1].objective.sentence_order == "none":
        return {}
    phase = dataclasses.replace(config.phases[-1], batch_size=CUT_ROWS)
    maker = RowMaker(train, vocabulary, phase, seed=SEED, phase_index=0)
    rule = CutRule.learn([maker.batch(0, np.arange(CUT_ROWS))], vocabulary.starts_word)
    accuracy = rule.accuracy(batches)
    return {"sop_cut_accuracy": accuracy} if np.isfinite(accuracy) else {}
