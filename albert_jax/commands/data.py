"""`albert-jax data ...`: the verbs that prepare text and look at the rows made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import Positional

from albert_jax.commands.text_options import Directory, Sources, TextOptions, log
from albert_jax.errors import ConfigError

if TYPE_CHECKING:
    from albert_jax.data.batches.builder import BatchBuilder
    from albert_jax.data.vocabularies.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class DataPrepare(TextOptions):
    """Turn text into documents of token ids; some documents are held out for evaluation.

    A finished folder is left as it is, and an interrupted one is completed by the same command.
    """

    text: Sources = ()
    tokenizer: Directory | None = None
    """Directory with the vocabulary."""
    ids: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FILE")] = ()
    """Token ids instead of text: Parquet files with a column ids (and units, the lengths of
    sentences), or npy files with a document per row, or with NAME.bounds.npy beside them."""
    vocab_size: int | None = None
    """Number of different ids, with --ids."""
    special_ids: Annotated[tuple[int, ...], tyro.conf.arg(metavar="ID")] = ()
    """With --ids, the four ids of padding, start, separator and mask, and a fifth for unknown if
    there is one."""
    unit_tokens: int = 32
    """Length of the sentences into which ids that come without sentences are cut."""
    out: Directory
    """Directory to make."""
    validation_share: float | None = None
    """Share that is held out. By default it is 5%, and at most 5 MB of text."""
    min_characters: int = 20
    """Shorter documents are left out and counted."""
    decontaminate: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FILE")] = ()
    """Evaluation files. Documents that share a run of 13 words with them are left out and
    counted."""
    workers: int | None = None
    """Number of processes. By default there is one for each core, at most one for each part."""
    shard: Annotated[str, tyro.conf.arg(metavar="I/N")] = "0/1"
    """This command is number I of N (from 0) that share --out."""
    beam: Annotated[tuple[str, ...], tyro.conf.arg(metavar="RUNNER [KEY=VALUE]")] = ()
    """Do the work on Apache Beam: DirectRunner, DataflowRunner, FlinkRunner or SparkRunner, and
    that runner's options, such as project=NAME region=NAME."""

    def run(self) -> None:
        """Writes the directory; progress goes to stderr."""
        from albert_jax.data.prepare.plan import PrepareOptions
        from albert_jax.data.prepare.prepare import prepare

        vocabulary = self._vocabulary()
        options = PrepareOptions(
            reading=self.reading(self.unit_tokens),
            rule=self.rule,
            language=self.language,
            validation_share=self.validation_share,
            min_characters=self.min_characters,
            decontaminate=self.decontaminate,
            workers=self.workers,
            shard=_shard(self.shard),
            beam=self.beam,
        )
        specs = self.text or [f"ids:{path}" for path in self.ids]
        prepare(specs, vocabulary, self.out, options, log)

    def _vocabulary(self) -> Vocabulary:
        from albert_jax.data.vocabularies import vocabulary
        from albert_jax.data.vocabularies.id_range import NAMES, IdRange

        if bool(self.text) == bool(self.ids):
            raise ConfigError("give either --text or --ids")
        if self.ids and self.decontaminate:
            raise ConfigError("--decontaminate compares words: it cannot be used with --ids")
        if self.unit_tokens < 1:
            raise ConfigError(f"--unit-tokens {self.unit_tokens}: it must be at least 1")
        if self.tokenizer is not None:
            if self.vocab_size is not None or self.special_ids:
                raise ConfigError("--vocab-size and --special-ids take the place of --tokenizer")
            return vocabulary.load(self.tokenizer)
        if self.text:
            raise ConfigError("--text needs --tokenizer: `albert-jax tokenizer train` makes one")
        if self.vocab_size is None or len(self.special_ids) not in (4, 5):
            raise ConfigError(
                "--ids needs --vocab-size N and --special-ids PAD START SEPARATOR MASK [UNKNOWN]"
            )
        return IdRange(self.vocab_size, **dict(zip(NAMES, self.special_ids, strict=False)))


def _shard(text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ConfigError(f"--shard {text}: write I/N with I from 0 to N - 1, such as 0/4")
    return int(index), int(count)


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """The options of the verbs that make rows from prepared documents."""

    data: Positional[Directory]
    """Prepared folder."""
    config: Annotated[str, tyro.conf.arg(metavar="FILE")] = "tiny"
    """Preset, TOML file or run folder whose phase says how rows are made."""
    phase: int = 0
    """Number of the phase, counted from 0."""
    split: Literal["train", "validation"] = "train"
    """Which split of the documents."""
    seed: int = 0
    """Decides the order and the masks."""

    def builder(self) -> tuple[BatchBuilder, Vocabulary, int]:
        """Returns the BatchBuilder of the phase, its vocabulary and its batch size."""
        from albert_jax import configfile
        from albert_jax.data.batches.builder import BatchBuilder
        from albert_jax.data.corpus.corpus import Corpus

        phases = configfile.load(self.config).phases
        if not 0 <= self.phase < len(phases):
            raise ConfigError(
                f"--phase {self.phase}: {self.config} has {len(phases)} phases, counted from 0"
            )
        corpus = Corpus.open(self.data, self.split)
        vocabulary = corpus.vocabulary()
        phase = phases[self.phase]
        builder = BatchBuilder([corpus], vocabulary, phase, seed=self.seed, phase_index=self.phase)
        return builder, vocabulary, phase.batch_size


@dataclass(frozen=True, kw_only=True)
class DataShow(_Rows):
    """Print rows as the model reads them: masks, labels, order of the two segments."""

    step: int = 0
    """Number of the batch within the phase, counted from 0."""
    rows: int = 4
    """How many rows of the batch to print."""

    def run(self) -> None:
        """Prints to stdout."""
        import numpy as np

        from albert_jax.data.batches import show

        builder, vocabulary, size = self.builder()
        if self.step < 0 or self.rows < 1:
            raise ConfigError("--step must be at least 0 and --rows at least 1")
        batch = builder.batch(self.step, np.arange(min(self.rows, size)))
        print(show.show(batch, vocabulary))


@dataclass(frozen=True, kw_only=True)
class DataStats(_Rows):
    """Print figures of many rows: lengths, masks, replacements, unknown tokens, order."""

    batches: int = 20
    """How many batches of the phase to measure."""

    def run(self) -> None:
        """Prints to stdout."""
        import numpy as np

        from albert_jax.data.batches import show

        builder, vocabulary, size = self.builder()
        if self.batches < 1:
            raise ConfigError(f"--batches {self.batches}: give at least 1")
        numbers = np.arange(size)
        batches = (builder.batch(step, numbers) for step in range(self.batches))
        for name, figure in show.statistics(batches, vocabulary).items():
            print(f"{name:<20}  {figure}")
