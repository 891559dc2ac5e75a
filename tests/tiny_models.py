"""A vocabulary of 64 pieces, text for it, and a model of that size, made in a second."""

from __future__ import annotations

import dataclasses
import functools
import io
from pathlib import Path

import sentencepiece

from albert_jax import api
from albert_jax.config import Config, ModelConfig, PhaseConfig
from albert_jax.data.prepare.plan import PrepareOptions
from albert_jax.data.prepare.prepare import prepare
from albert_jax.data.vocabularies.sentencepiece import SPECIAL, SentencePiece
from albert_jax.tasks import registry
from albert_jax.tasks.classification import ClassificationConfig
from albert_jax.tasks.support.encoder import init_head

SENTENCES = (
    "the file is found in the folder",
    "the name of the file is not found",
    "it returns the value of the name",
    "the value is read from the file",
    "a folder holds the file and the name",
    "if the value is not found, it returns nothing",
    "every thread waits until another one has written its own line",
    "changes are kept when a program ends with an error",
)

MODEL = ModelConfig(
    vocab_size=64,
    embedding_size=8,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=48,
    initializer_range=0.3,
)

RECIPE = Config(model=MODEL, phases=(PhaseConfig(steps=4, sequence_length=16, batch_size=8),))


@functools.cache
def vocabulary() -> SentencePiece:
    """Lower case, 64 pieces, the five special ones first."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*SENTENCES, *"abcdefghijklmnopqrstuvwxyz", ". , ( ) 1"] * 20),
        model_writer=model,
        vocab_size=64,
        pad_id=0,
        unk_id=1,
        bos_id=-1,
        eos_id=-1,
        pad_piece=SPECIAL[0],
        unk_piece=SPECIAL[1],
        control_symbols=list(SPECIAL[2:]),
        minloglevel=2,
    )
    return SentencePiece(model.getvalue())


def model(seed: int = 0, **changes: object) -> api.Model:
    """Random parameters, large enough that outputs differ; `changes` are fields of MODEL."""
    config = dataclasses.replace(MODEL, **changes)  # type: ignore[arg-type]
    run_config = dataclasses.replace(RECIPE, model=config)
    return api.Model(run_config, api.init(config, seed), vocabulary(), "memory")


def classifier(num_layers: int = 5, trained: tuple[int, ...] = (), **changes: object) -> api.Model:
    """The same with a random head that is sure of some texts early and of others late; `trained`
    are the depths of its phase."""
    found = model(num_hidden_layers=num_layers, **changes)
    task = ClassificationConfig(labels=("a", "b", "c"), metrics=("accuracy",), pooling="cls")
    head = init_head(registry.create(task).head_shapes(MODEL.hidden_size), 3, 0.8)
    phases = (PhaseConfig(sequence_length=48, batch_size=8, depths=trained),)
    run_config = dataclasses.replace(
        found.run_config, compute=api.FLOAT32, task=task, phases=phases
    )
    return dataclasses.replace(found, run_config=run_config, params=found.params | {"head": head})


def directory(folder: Path, **changes: object) -> str:
    """A native directory with that model."""
    path = str(folder / "model")
    api.save(model(**changes), path)
    return path


def prepared(folder: Path, validation_share: float = 0.2) -> str:
    """A prepared folder of 60 short documents."""
    texts = []
    for i in range(60):
        lines = [SENTENCES[(i * k) % len(SENTENCES)] for k in range(1, 6)]
        texts.append("\n".join([*lines, f"this is the file number {i}."]))
    text = folder / "text.txt"
    text.write_text("\n\n".join(texts))
    path = str(folder / "prepared")
    prepare([str(text)], vocabulary(), path, PrepareOptions(validation_share=validation_share))
    return path
