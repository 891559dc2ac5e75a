"""Transformers' side of benchmarks/race.py: its model, collator and Trainer, and the scoring."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.config import Config, ObjectiveConfig, PhaseConfig
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.evaluation import pretraining as evaluation

ROWS = 1024
SLACK = 1.1
"""Transformers may take so many times the seconds until its rate has decayed to zero."""
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


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How Transformers trains."""

    rate: float = 5e-5
    batch_size: int = 8
    length: int = 0
    initializer: float = 0.02
    warmup: float = 0.0


def train(
    recipe: Recipe,
    *,
    config: Config,
    data: str,
    held_out: HeldOut,
    folder: Path,
    seconds: float,
    points: int,
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
        """Counts the seconds without those of scoring, scores at equal distances, and stops."""

        def __init__(self, total: float, points: int) -> None:
            self.total, self.points, self.spent, self.began = total, points, 0.0, 0.0

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.began = self.began or time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.spent = time.perf_counter() - self.began
            control.should_training_stop = self.spent >= self.total * SLACK
            last = control.should_training_stop or state.global_step == state.max_steps
            if self.points and (last or self.spent >= self.total * (len(curve) + 1) / self.points):
                curve.append((self.spent, held_out.nats_below_unigram(kwargs["model"])))
                print(f"    {curve[-1][0]:7.1f} s  {curve[-1][1]:6.3f} nats", flush=True)
                self.began = time.perf_counter() - self.spent

    def run(steps: int, clock: Clock) -> int:
        settings = TrainingArguments(
            output_dir=str(folder), max_steps=steps,
            per_device_train_batch_size=recipe.batch_size,
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
    trial = Clock(min(20.0, seconds / 5), 0)
    steps = run(1_000_000, trial)
    model.load_state_dict(weights)
    run(max(points, int(steps * seconds / trial.spent)), Clock(seconds, points))
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
