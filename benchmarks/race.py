"""The same minutes for ours and for Transformers: nats below the unigram loss over seconds.

    python benchmarks/race.py --config tiny --data DATA --out DIR [OPTIONS]

DATA is a prepared folder, so both sides have the same text, vocabulary and network, and the same
cores. Ours is `albert-jax pretrain` as the preset ships. Transformers is AlbertForMaskedLM with
its DataCollatorForLanguageModeling and its Trainer, twice: as its run_mlm example ships (rows as
long as the model has positions, 8 of them a step, AdamW at 5e-5 that decays to zero, initializer
0.02), and tuned (`--rates`, `--initializers` and `--lengths` are tried with `--trial-seconds`
each, as many tokens a step as ours; the best one runs for the whole time). Both of its runs take
the time that ours took. It has no
sentence-order path, so it predicts masked words only. Both sides are scored by the same PyTorch
code on the same held-out rows under the same masks (one text a row, 15% of n-grams). Time is that
of the training steps: compiling, checkpoints and scoring are left out on both sides. Needs torch,
transformers and accelerate.

Writes DIR/race.json and DIR/race.svg, and prints the seconds to 0.5, 1.0, 1.5 and 2.0 nats.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from leaderboard import processor, step_seconds

from albert_jax import configfile
from albert_jax.config import Config, ObjectiveConfig, PhaseConfig
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.evaluation import pretraining as evaluation
from albert_jax.export import huggingface
from albert_jax.model_io import model as models
from albert_jax.observe import style
from albert_jax.observe.metrics import read_rows

POINTS = 12
"""How often a run is scored."""
ROWS = 1024
MARKS = (0.5, 1.0, 1.5, 2.0)
IGNORED = -100
"""The label of tokens that are not predicted, in Transformers."""

Curve = list[tuple[float, float]]
"""(seconds of training, nats below the unigram loss)."""


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Masked rows as Transformers takes them, int64 [rows, S], and their loss by frequencies."""

    columns: dict[str, np.ndarray]
    unigram_loss: float

    @classmethod
    def of(cls, data: str, length: int) -> HeldOut:
        """The first rows of the held-out text, one pair of segments a row."""
        train = [Corpus.open(data, "train")]
        vocabulary = train[0].vocabulary()
        phase = PhaseConfig(
            sequence_length=length, batch_size=64, objective=ObjectiveConfig(), packing=False
        )
        batches = evaluation.held_out_batches(
            evaluation.held_out_corpora(train), phase, vocabulary, max_samples=ROWS, batch_size=64
        )
        merged = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
        real = merged["segment_ids"][:, 0] > 0
        merged = {name: column[real] for name, column in merged.items()}
        labels = np.full(merged["input_ids"].shape, IGNORED, np.int64)
        row, slot = np.nonzero(merged["mlm_weights"])
        labels[row, merged["mlm_positions"][row, slot]] = merged["mlm_labels"][row, slot]
        nats = evaluation.Reference.from_corpora(train, vocabulary).unigram_nats
        columns = {
            "input_ids": merged["input_ids"].astype(np.int64),
            "token_type_ids": merged["token_type_ids"].astype(np.int64),
            "attention_mask": (merged["segment_ids"] > 0).astype(np.int64),
            "labels": labels,
        }
        return cls(columns, float(nats[labels[labels != IGNORED]].mean()))

    def nats_below_unigram(self, model: Any) -> float:
        """How much better a Transformers model predicts the masked tokens than frequencies do."""
        import torch

        was_training, total = model.training, 0.0
        model.eval()
        with torch.no_grad():
            for begin in range(0, len(self.columns["labels"]), 64):
                batch = {
                    name: torch.from_numpy(column[begin : begin + 64])
                    for name, column in self.columns.items()
                }
                count = int((batch["labels"] != IGNORED).sum())
                total += float(model(**batch).loss) * count
        model.train(was_training)
        return self.unigram_loss - total / int((self.columns["labels"] != IGNORED).sum())


def ours(options: argparse.Namespace, held_out: HeldOut) -> Curve:
    """The product's own command, and its checkpoints scored in Transformers."""
    from transformers import AlbertForMaskedLM

    run = options.out / "ours"
    config = configfile.load(options.config)
    every = max(1, config.steps // POINTS)
    command = [sys.executable, "-m", "albert_jax", "pretrain", "--config", options.config]
    command += ["--data", options.data, "--out", str(run), "--run.save-steps", str(every)]
    command += ["--run.save-total-limit", str(2 * POINTS), "--run.eval-steps", "0"]
    subprocess.run([*command, "--run.logging-steps", str(math.gcd(every, 50))], check=True)
    curve, seconds = [], 0.0
    for row in read_rows(str(run)):
        if row["kind"] != "train":
            continue
        seconds += step_seconds(row)
        if row["step"] % every and row["step"] != config.steps:
            continue
        folder = options.out / f"exported-{row['step']}"
        if not folder.exists():
            huggingface.export(models.load(str(run), step=row["step"]), str(folder))
        theirs = AlbertForMaskedLM.from_pretrained(folder)
        curve.append((seconds, held_out.nats_below_unigram(theirs)))
    return curve


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How Transformers trains."""

    rate: float = 5e-5
    batch_size: int = 8
    length: int = 0
    initializer: float = 0.02
    warmup: float = 0.0


def theirs(
    recipe: Recipe, config: Config, data: str, held_out: HeldOut, seconds: float, points: int
) -> Curve:
    """Trains AlbertForMaskedLM for some seconds with its Trainer and collator."""
    import torch
    from transformers import (
        AlbertConfig,
        AlbertForMaskedLM,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        set_seed,
    )

    set_seed(0)
    model = AlbertForMaskedLM(albert_config(AlbertConfig, config, recipe.initializer))
    tokenizer = _tokenizer(config, data)
    rows = torch.from_numpy(_rows(data, recipe.length or config.model.max_position_embeddings))
    dataset = [{"input_ids": row} for row in rows]
    curve: Curve = []

    class Clock(TrainerCallback):
        """Counts the seconds between steps, scores at equal distances, and stops at the end."""

        def __init__(self, total: float, points: int) -> None:
            self.total, self.points, self.spent, self.began = total, points, 0.0, 0.0

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.began = self.began or time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            now = time.perf_counter()
            self.spent, self.began = self.spent + now - self.began, 0.0
            if self.points and self.spent >= self.total * (len(curve) + 1) / self.points:
                curve.append((self.spent, held_out.nats_below_unigram(kwargs["model"])))
                print(f"    {curve[-1][0]:7.1f} s  {curve[-1][1]:6.3f} nats", flush=True)
            control.should_training_stop = self.spent >= self.total

    def train(steps: int, clock: Clock) -> int:
        settings = TrainingArguments(
            output_dir=os.devnull, max_steps=steps, per_device_train_batch_size=recipe.batch_size,
            learning_rate=recipe.rate, warmup_steps=int(recipe.warmup * steps), save_strategy="no",
            report_to=[], logging_strategy="no", disable_tqdm=True, use_cpu=True,
            dataloader_drop_last=True,
        )  # fmt: skip
        trainer = Trainer(
            model=model, args=settings, train_dataset=dataset,
            data_collator=DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15),
            callbacks=[clock],
        )  # fmt: skip
        trainer.train()
        return int(trainer.state.global_step)

    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    # The rate decays over the steps that fit into the time, which a short trial measures.
    trial = Clock(min(20.0, seconds / 8), 0)
    steps = train(1_000_000, trial)
    model.load_state_dict(weights)
    train(max(points, int(steps * seconds / trial.spent)), Clock(seconds * 1.05, points))
    return curve


def albert_config(kind: Any, config: Config, initializer: float) -> Any:
    """The network of our config as Transformers describes it."""
    model = config.model
    return kind(
        vocab_size=model.vocab_size, embedding_size=model.embedding_size,
        hidden_size=model.hidden_size, num_hidden_layers=model.num_hidden_layers,
        num_attention_heads=model.num_attention_heads, inner_group_num=model.inner_group_num,
        intermediate_size=model.intermediate_size, num_hidden_groups=model.num_hidden_groups,
        max_position_embeddings=model.max_position_embeddings, initializer_range=initializer,
        hidden_act=model.hidden_act, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        classifier_dropout_prob=0.0,
    )  # fmt: skip


def _tokenizer(config: Config, data: str) -> Any:
    """A tokenizer that knows the special ids and the size, which is all that the collator asks."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    vocabulary = Corpus.open(data, "train").vocabulary()
    names = {id: f"<{id}>" for id in range(config.model.vocab_size)}
    names |= {
        vocabulary.pad_id: "<pad>", vocabulary.cls_id: "[CLS]",
        vocabulary.sep_id: "[SEP]", vocabulary.mask_id: "[MASK]",
    }  # fmt: skip
    words = WordLevel({name: id for id, name in names.items()}, unk_token="<pad>")
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), pad_token="<pad>", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip


def _rows(data: str, length: int) -> np.ndarray:
    """The training text as run_mlm has it: [CLS] text [SEP], joined, cut into rows [n, length]."""
    corpus = Corpus.open(data, "train")
    vocabulary = corpus.vocabulary()
    pieces = []
    for window in range(corpus.num_windows):
        ids, (parts, sentences) = corpus.ids([window]), corpus.lengths([window])
        ends = np.cumsum(sentences)[np.cumsum(parts) - 1]
        for document in np.split(ids, ends[:-1]):
            pieces += [[vocabulary.cls_id], document, [vocabulary.sep_id]]
    joined = np.concatenate(pieces).astype(np.int64)
    return joined[: len(joined) // length * length].reshape(-1, length)


def tuned(options: argparse.Namespace, config: Config, held_out: HeldOut) -> Recipe:
    """The best recipe of the grid after `--trial-seconds` each."""
    tokens = config.phases[0].batch_size * config.phases[0].sequence_length
    results = []
    for rate, initializer, length in itertools.product(
        options.rates, options.initializers, options.lengths
    ):
        recipe = Recipe(rate, max(1, tokens // length), length, initializer, warmup=0.1)
        curve = theirs(recipe, config, options.data, held_out, options.trial_seconds, 1)
        results.append((curve[-1][1], recipe))
        print(f"  {results[-1][0]:.3f} nats after {curve[-1][0]:.0f} s: {recipe}", flush=True)
    return max(results, key=lambda result: result[0])[1]


def seconds_to(curve: Curve, nats: float) -> float | None:
    """Seconds to a value, between the two points around it; None if it is never reached."""
    before = (0.0, 0.0)
    for point in curve:
        if point[1] >= nats:
            share = (nats - before[1]) / max(point[1] - before[1], 1e-9)
            return before[0] + share * (point[0] - before[0])
        before = point
    return None


def draw(curves: dict[str, Curve], path: Path, title: str) -> None:
    """One picture of all curves."""
    with style.applied():
        figure = style.figure(7.0, 4.0, title, "")
        axes = figure.add_subplot(1, 1, 1)
        for name, curve in curves.items():
            seconds, nats = zip(*[(0.0, 0.0), *curve], strict=True)
            [line] = axes.plot(seconds, nats, marker="o", markersize=3, label=name)
            axes.annotate(f"{nats[-1]:.2f}", (seconds[-1], nats[-1]), color=line.get_color(),
                          xytext=(4, 0), textcoords="offset points", va="center")  # fmt: skip
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.set_xlabel("seconds of training on two cores")
        axes.set_ylabel("nats below the loss of word frequencies")
        axes.legend(loc="upper left")
        figure.savefig(path, format="svg")


def main() -> None:
    """Runs the race and writes what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="tiny")
    parser.add_argument("--data", required=True)
    parser.add_argument(
        "--seconds", type=float, help="of Transformers; the default is what ours took"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-4, 1e-3, 2e-3])
    parser.add_argument("--initializers", type=float, nargs="+", default=[0.02, 0.05])
    parser.add_argument("--lengths", type=int, nargs="+", default=[24, 48])
    parser.add_argument("--trial-seconds", type=float, default=60)
    options = parser.parse_args()
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    options.out.mkdir(parents=True, exist_ok=True)
    config = configfile.load(options.config)
    size = Corpus.open(options.data, "train").vocab_size  # As pretraining takes it.
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=size))
    held_out = HeldOut.of(options.data, config.phases[-1].sequence_length)
    curves = {"albert-jax": ours(options, held_out)}
    options.seconds = options.seconds or curves["albert-jax"][-1][0]
    best = tuned(options, config, held_out)
    curves["Transformers, tuned"] = theirs(
        best, config, options.data, held_out, options.seconds, POINTS
    )
    curves["Transformers, run_mlm as it ships"] = theirs(
        Recipe(), config, options.data, held_out, options.seconds, POINTS
    )
    report = {
        "processor": processor(),
        "config": options.config,
        "tuned": dataclasses.asdict(best),
        "curves": curves,
        "seconds_to": {
            name: {str(mark): seconds_to(curve, mark) for mark in MARKS}
            for name, curve in curves.items()
        },
    }
    (options.out / "race.json").write_text(json.dumps(report, indent=2) + "\n")
    draw(curves, options.out / "race.svg", f"The same text and network: {options.config}")
    for name, reached in report["seconds_to"].items():
        times = [f"{m} nats {'never' if s is None else f'{s:.0f} s'}" for m, s in reached.items()]
        print(f"{name}: {curves[name][-1][1]:.3f} nats in the end; {', '.join(times)}")


if __name__ == "__main__":
    main()
