"""`albert-jax tokenizer train` and `albert-jax data ...`: the verbs that take text."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import Positional

from albert_jax.errors import ConfigError

if TYPE_CHECKING:
    from albert_jax.data.batches.rows import RowMaker
    from albert_jax.data.sources.sources import ReadOptions
    from albert_jax.data.vocabularies.vocabulary import Vocabulary

Directory = Annotated[str, tyro.conf.arg(metavar="DIR")]
_Sources = Annotated[
    tuple[str, ...],
    tyro.conf.arg(
        metavar="FILE",
        help="Text files or quoted patterns (also .gz, .jsonl, .parquet, gs://), tfds:NAME, "
        "hf:NAME, or python-docs: for the documentation that Python carries with it.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class _Text:
    """The options of every verb that reads text."""

    text: _Sources
    format: Literal["paragraphs", "lines", "file"] = "paragraphs"
    """Where a document of a text file ends: at a blank line, at every line, with the file."""
    field: str = "text"
    """Field that holds the text in JSONL, Parquet, TFDS and Hugging Face sets."""
    on_bad_text: Literal["stop", "skip"] = "stop"
    """Bytes that are not UTF-8 and control characters: an error, or lines left out."""
    rule: Literal["split", "line"] = "split"
    """Sentences are found, or every line is one."""
    language: str = "en"
    """Language whose abbreviations the sentence rule knows."""

    def options(self) -> ReadOptions:
        """How files are understood."""
        from albert_jax.data.sources.sources import ReadOptions

        return ReadOptions(format=self.format, field=self.field, on_bad_text=self.on_bad_text)


@dataclass(frozen=True, kw_only=True)
class TokenizerTrain(_Text):
    """Learn a SentencePiece vocabulary from text."""

    vocab_size: int
    """Number of pieces, the special ones included."""
    out: Directory
    """Directory to make."""
    lower_case: bool = True
    """Upper and lower case are the same."""
    keep_accents: bool = False
    """Letters keep their accents."""
    sample_bytes: int = 4_000_000
    """How much of the text the trainer sees."""
    seed: int = 0
    """Decides which documents are sampled."""

    def run(self) -> None:
        """Writes the directory."""
        from albert_jax.data.vocabularies import training as tokenizer_training

        tokenizer_training.train(
            self.text,
            self.vocab_size,
            self.out,
            seed=self.seed,
            lower_case=self.lower_case,
            keep_accents=self.keep_accents,
            sample_bytes=self.sample_bytes,
            options=self.options(),
            rule=self.rule,
            language=self.language,
            say=_say,
        )


@dataclass(frozen=True, kw_only=True)
class DataPrepare(_Text):
    """Turn text into documents of token ids; some documents are held out for evaluation.

    Done already: says so. Interrupted: the same command goes on.
    """

    text: _Sources = ()
    tokenizer: Directory | None = None
    """Directory with the vocabulary."""
    ids: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FILE")] = ()
    """Instead of text: Parquet files with a column ids (and units, the lengths of sentences), or
    npy files of token ids with a document per row or NAME.bounds.npy beside them."""
    vocab_size: int | None = None
    """Number of different ids, with --ids."""
    special_ids: Annotated[tuple[int, ...], tyro.conf.arg(metavar="ID")] = ()
    """With --ids, the four ids of padding, start, separator and mask, and a fifth for unknown if
    there is one."""
    unit_tokens: int = 32
    """Length of the units, which stand for sentences, of ids that come without."""
    out: Directory
    """Directory to make."""
    validation_share: float | None = None
    """Share that is held out; none given: 5%, and at most 5 MB of text."""
    min_characters: int = 20
    """Shorter documents are left out and counted."""
    decontaminate: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FILE")] = ()
    """Evaluation files whose runs of words are counted in the text."""
    workers: int | None = None
    """Processes; none given: one per core and part."""
    shard: Annotated[str, tyro.conf.arg(metavar="I/N")] = "0/1"
    """This command is number I of N (from 0) that share --out."""
    beam: Annotated[tuple[str, ...], tyro.conf.arg(metavar="RUNNER [KEY=VALUE]")] = ()
    """Do the work on Apache Beam: DirectRunner, DataflowRunner, FlinkRunner, SparkRunner, and
    that runner's options, such as project=NAME region=NAME."""

    def run(self) -> None:
        """Writes the directory; progress goes to stderr."""
        import dataclasses

        from albert_jax.data.prepare.prepare import prepare

        prepare(
            self.text or [f"ids:{path}" for path in self.ids],
            self._vocabulary(),
            self.out,
            workers=self.workers,
            shard=_shard(self.shard),
            runner=self.beam,
            options=dataclasses.replace(self.options(), unit_tokens=self.unit_tokens),
            rule=self.rule,
            language=self.language,
            validation_share=self.validation_share,
            min_characters=self.min_characters,
            decontaminate=self.decontaminate,
            say=_say,
        )

    def _vocabulary(self) -> Vocabulary:
        from albert_jax.data.vocabularies import vocabulary

        if bool(self.text) == bool(self.ids):
            raise ConfigError("give either --text or --ids")
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
        from albert_jax.data.vocabularies.id_range import IdRange

        names = ("pad_id", "cls_id", "sep_id", "mask_id", "unk_id")
        return IdRange(self.vocab_size, **dict(zip(names, self.special_ids, strict=False)))


def _shard(text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ConfigError(f"--shard {text}: write I/N with I from 0 to N - 1, such as 0/4")
    return int(index), int(count)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """The options of the verbs that make rows from prepared documents."""

    data: Positional[Directory]
    """Prepared folder."""
    config: Annotated[str, tyro.conf.arg(metavar="FILE")] = "tiny"
    """Preset, TOML file or run folder whose phase says how rows are made."""
    phase: int = 0
    """Number of the phase."""
    split: Literal["train", "validation"] = "train"
    """Which documents."""
    seed: int = 0
    """Decides order and masks."""

    def maker(self) -> tuple[RowMaker, Vocabulary, int]:
        """(RowMaker of the phase, its vocabulary, rows per batch)."""
        from albert_jax import configfile
        from albert_jax.data.batches.rows import RowMaker
        from albert_jax.data.corpus.corpus import Corpus

        phases = configfile.load(self.config).phases
        if not 0 <= self.phase < len(phases):
            raise ConfigError(
                f"--phase {self.phase}: {self.config} has {len(phases)} phases, counted from 0"
            )
        corpus = Corpus.open(self.data, self.split)
        vocabulary = corpus.vocabulary()
        phase = phases[self.phase]
        made = RowMaker([corpus], vocabulary, phase, seed=self.seed, phase_index=self.phase)
        return made, vocabulary, phase.batch_size


@dataclass(frozen=True, kw_only=True)
class DataShow(_Rows):
    """Print rows as the model reads them: masks, labels, order of the two segments."""

    step: int = 0
    """Batch of the phase."""
    rows: int = 4
    """How many rows of the batch."""

    def run(self) -> None:
        """Prints to stdout."""
        import numpy as np

        from albert_jax.data.batches import show as inspect

        maker, vocabulary, size = self.maker()
        if self.step < 0 or self.rows < 1:
            raise ConfigError("--step must be at least 0 and --rows at least 1")
        numbers = np.arange(min(self.rows, size))
        batch = maker.batch(self.step, numbers)
        print(inspect.show(batch, vocabulary, numbers=numbers, colour=sys.stdout.isatty()))


@dataclass(frozen=True, kw_only=True)
class DataStats(_Rows):
    """Print figures of many rows: lengths, masks, replacements, unknown pieces, order."""

    batches: int = 20
    """How many batches of the phase are looked at."""
    png: str | None = None
    """Draw the figures to this file too."""

    def run(self) -> None:
        """Prints to stdout."""
        import numpy as np

        from albert_jax.data.batches import show as inspect

        maker, vocabulary, size = self.maker()
        if self.batches < 1:
            raise ConfigError(f"--batches {self.batches}: give at least 1")
        numbers = np.arange(size)
        made = (maker.batch(step, numbers) for step in range(self.batches))
        figures = inspect.measure(made, vocabulary)
        print(inspect.table(figures))
        if self.png:
            inspect.draw(figures, self.png)
