"""`albert-jax data ...`: the commands that prepare text and look at the rows made from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import Positional

from albert_jax import configfile
from albert_jax.commands.options import Directory, OptionalFile, check_within, log
from albert_jax.errors import ConfigError

if TYPE_CHECKING:
    from albert_jax.config import Config
    from albert_jax.data.batches.batch import Batch
    from albert_jax.data.batches.builder import BatchBuilder
    from albert_jax.data.sources.sources import ReadOptions
    from albert_jax.data.vocabularies.vocabulary import Vocabulary

Sources = Annotated[
    tuple[str, ...],
    tyro.conf.arg(
        metavar="FILE",
        help="Text files or quoted patterns (also .gz, .jsonl, .parquet, gs://), "
        "tfds:NAME[/CONFIG][:SPLIT], hf:[OWNER/]NAME[/CONFIG][:SPLIT], or python-docs: for the "
        "documentation that Python carries with it.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """Options for finding and reading text."""

    text: Sources
    format: Literal["paragraphs", "lines", "file"] = "paragraphs"
    """End of each document in a text file: a blank line, every line, or the end of the file."""
    field: str = "text"
    """Field that holds the text in JSONL, Parquet, TFDS and Hugging Face datasets."""
    on_bad_text: Literal["stop", "skip"] = "stop"
    """Handling of lines that are not clean UTF-8: stop with an error, or skip them."""
    sentences: Literal["split", "line"] = "split"
    """Rule for finding sentences: split each line into sentences, or take each line as one."""
    language: str = "en"
    """Language whose abbreviations the sentence splitter knows."""

    def reading(self, unit_tokens: int = 32) -> ReadOptions:
        """The options of the reader of files."""
        from albert_jax.data.sources.sources import ReadOptions

        return ReadOptions(
            format=self.format,
            field=self.field,
            on_bad_text=self.on_bad_text,
            unit_tokens=unit_tokens,
        )


@dataclass(frozen=True, kw_only=True)
class DataPrepare(ReadingOptions):
    """Turn text into documents of token ids; some documents are held out for evaluation.

    A finished folder is left as it is, and an interrupted one is completed by the same command.
    """

    text: Sources = ()
    tokenizer: Annotated[str | None, tyro.conf.arg(metavar="DIR|FILE|plbert|kokoro")] = None
    """Vocabulary: a directory, a *.model or a vocab.txt. With --phonemes it is a table of symbols,
    by default plbert; +SYMBOLS behind its name adds some."""
    phonemes: Annotated[str, tyro.conf.arg(metavar="LANGUAGE|file")] = ""
    """Speak the text with espeak-ng (en-us, de, ...), or read lines of a sentence, a tab and its
    phonemes; docs/speech.md. Symbols and their words are trained on."""
    word_limit: int = 80_000
    """With --phonemes, the most words that are told apart."""
    ids: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FILE")] = ()
    """Token ids instead of text, in Parquet files (column ids) or npy files."""
    vocab_size: int | None = None
    """Number of different ids, with --ids."""
    special_ids: Annotated[tuple[int, ...], tyro.conf.arg(metavar="ID")] = ()
    """With --ids, the ids of [PAD], [CLS], [SEP], [MASK] and, if there is one, [UNK]."""
    words: Literal["none", "jieba", "spaces"] = "none"
    """Mark the words of Chinese text, which are then masked whole: those that jieba finds, or those
    between spaces."""
    labels: OptionalFile = None
    """With --ids, the words of the column labels, one a line."""
    unit_tokens: int = 32
    """Length of the sentences into which ids that come without sentences are cut."""
    out: Directory
    """Directory to make."""
    validation_share: float | None = None
    """Share that is held out. By default it is 5%, and at most 5 MB of text."""
    min_characters: int = 20
    """Shorter documents are left out and counted."""
    decontaminate: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FILE")] = ()
    """Evaluation files; documents that share a run of 13 words with them are left out."""
    workers: int | None = None
    """Number of processes. By default there is one for each core, at most one for each part."""
    shard: Annotated[str, tyro.conf.arg(metavar="I/N")] = "0/1"
    """This command is number I of N (from 0) that share --out."""
    beam: Annotated[tuple[str, ...], tyro.conf.arg(metavar="RUNNER [KEY=VALUE]")] = ()
    """Do the work on Apache Beam: a runner, such as DataflowRunner, and its options."""

    def run(self) -> None:
        """Writes the directory; progress goes to stderr."""
        from albert_jax.data.prepare.plan import PrepareOptions
        from albert_jax.data.prepare.prepare import prepare

        shard = _shard(self.shard)
        vocabulary = self._vocabulary()
        self._refuse_options_without_effect()
        options = PrepareOptions(
            reading=self.reading(self.unit_tokens),
            sentences=self.sentences,
            language=self._sentence_language(),
            words=self.words,
            phonemes=self.phonemes,
            word_limit=self.word_limit,
            labels=self.labels,
            validation_share=self.validation_share,
            min_characters=self.min_characters,
            decontaminate=self.decontaminate,
            workers=self.workers,
            shard=shard,
            beam=self.beam,
        )
        specs = self.text or [f"ids:{path}" for path in self.ids]
        prepare(specs, vocabulary, self.out, options, log)

    def _sentence_language(self) -> str:
        """The language of the sentence splitter, by default the one that is spoken."""
        if self.phonemes in ("", "file") or self.language != "en":
            return self.language
        code = self.phonemes.partition("-")[0]
        return {"cmn": "zh", "yue": "zh"}.get(code, code)

    def _vocabulary(self) -> Vocabulary:
        from albert_jax.data.vocabularies import symbols, vocabulary
        from albert_jax.data.vocabularies.id_range import NAMES, IdRange

        if bool(self.text) == bool(self.ids):
            raise ConfigError("give either --text or --ids")
        if self.ids and self.decontaminate:
            raise ConfigError("--decontaminate compares words: it cannot be used with --ids")
        check_within(1, unit_tokens=self.unit_tokens)
        if self.phonemes:
            self._check_phoneme_options()
            return symbols.from_spec(self.tokenizer or "plbert")
        if self.tokenizer is not None:
            if self.vocab_size is not None or self.special_ids:
                raise ConfigError(
                    "--vocab-size and --special-ids describe --ids without a --tokenizer: "
                    "leave them out"
                )
            found = vocabulary.load(self.tokenizer)
            if self.text and isinstance(found, symbols.Symbols):
                raise ConfigError(
                    f"--tokenizer {self.tokenizer} is a table of phonemes: give --phonemes LANGUAGE"
                )
            return found
        if self.text:
            raise ConfigError("--text needs --tokenizer: `albert-jax tokenizer train` makes one")
        if self.vocab_size is None or len(self.special_ids) not in (4, 5):
            raise ConfigError("--ids needs --vocab-size N and --special-ids PAD CLS SEP MASK [UNK]")
        return IdRange(self.vocab_size, **dict(zip(NAMES, self.special_ids, strict=False)))

    def _refuse_options_without_effect(self) -> None:
        """Raises ConfigError for an option that says nothing about this kind of input."""
        of_text = ("format", "field", "sentences", "language", "on_bad_text", "min_characters")
        idle: tuple[str, ...] = ("word_limit",) * (not self.phonemes)
        if self.ids:
            idle += of_text
        elif self.phonemes == "file":
            idle += ("sentences", "language", "unit_tokens")
        else:
            idle += ("unit_tokens",)
        defaults = {field.name: field.default for field in fields(self)}
        for name in idle:
            if getattr(self, name) != defaults[name]:
                kind = "--ids" if self.ids else f"--phonemes {self.phonemes}" * bool(self.phonemes)
                option = f"--{name.replace('_', '-')}"
                raise ConfigError(f"{option} has no effect with {kind or '--text'}: leave it out")

    def _check_phoneme_options(self) -> None:
        """Raises ConfigError for options that phonemes leave without effect."""
        if self.ids:
            raise ConfigError("--phonemes takes --text, not --ids")
        if self.labels or self.vocab_size is not None or self.special_ids:
            raise ConfigError("--labels, --vocab-size and --special-ids belong to --ids")
        if self.phonemes == "file" and (self.words != "none" or self.decontaminate):
            raise ConfigError("--phonemes file cannot be used with --words or --decontaminate")


def _shard(text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ConfigError(f"--shard {text}: write I/N with I from 0 to N - 1, such as 0/4")
    return int(index), int(count)


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """The options of the commands that make rows from prepared documents."""

    data: Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIR")]] = ()
    """Prepared folders. By default they are those of the config, as in a run folder."""
    config: OptionalFile = None
    """Preset, TOML file or run folder whose phase says how rows are made. By default it is tiny, or
    plbert-small for phonemes."""
    phase: int | None = None
    """Number of the phase, counted from 0; by default the first one."""
    split: Literal["train", "validation"] = "train"
    """Split of the documents."""
    seed: int | None = None
    """Seed of the order and the masks; by default the config's."""

    @cached_property
    def _config(self) -> str:
        """--config, or the preset that fits the first folder."""
        from albert_jax.data.corpus.corpus import Corpus

        if self.config is not None:
            return self.config
        if self.data and Corpus.open(self.data[0], self.split).vocabulary().cls_id < 0:
            return "plbert-small"
        return "tiny"

    def builder(self, config: Config, number: int) -> tuple[BatchBuilder, Vocabulary]:
        """Returns the BatchBuilder of a phase, and the vocabulary of its folders."""
        from albert_jax.data.batches.builder import BatchBuilder
        from albert_jax.data.corpus.corpus import Corpus

        if not 0 <= number < len(config.phases):
            raise ConfigError(
                f"--phase {number}: {self._config} has {len(config.phases)} phases, counted from 0"
            )
        phase, folders = config.phases[number], self.data or config.data.prepared
        if not folders:
            raise ConfigError(f"{self._config} names no prepared folders: give one")
        if phase.mixture and len(folders) != len(phase.mixture):
            raise ConfigError(
                f"phase {number} of {self._config} has {len(phase.mixture)} mixture weights for "
                f"{len(folders)} prepared folders: give one weight for each folder"
            )
        default = "" if self.config is not None else " (the default; --config takes a run)"
        log(f"{self._title(config, number)}{default}")
        corpora = [Corpus.open(folder, self.split) for folder in folders]
        if config.data.on_damage == "skip":
            for corpus in corpora:
                corpus.leave_out_damage()
        vocabulary = corpora[0].vocabulary()
        seed = config.seed if self.seed is None else self.seed
        steps_before = sum(phase.steps for phase in config.phases[:number])
        builder = BatchBuilder(
            corpora, vocabulary, phase, seed=seed, phase_index=number, first_step=steps_before
        )
        return builder, vocabulary

    def _title(self, config: Config, number: int) -> str:
        """Description of the rows in one line."""
        phase = config.phases[number]
        return (
            f"{self._config}, phase {number}, {self.split}: rows of {phase.sequence_length} "
            f"tokens, {phase.objective.mask_rate:.0%} masked"
        )


@dataclass(frozen=True, kw_only=True)
class DataShow(_Rows):
    """Print rows as the model reads them: masks, labels, order of the two segments."""

    step: int | None = None
    """Step of the run as metrics.jsonl counts them, from 1 through all phases; by default the first
    one of the phase."""
    row: int = 0
    """Number of the first row to print, counted from 0."""
    rows: int = 4
    """Number of rows of the batch to print."""

    def run(self) -> None:
        """Prints to stdout."""
        import numpy as np

        from albert_jax.data.batches import show

        check_within(0, row=self.row)
        check_within(1, rows=self.rows)
        config = configfile.load(self._config)
        number, index = self.phase or 0, 0
        if self.step is not None:
            check_within(1, config.steps, step=self.step)
            number, index = config.phase_at(self.step - 1)
            if self.phase not in (None, number):
                raise ConfigError(f"--step {self.step} is in phase {number}: leave --phase out")
        builder, vocabulary = self.builder(config, number)
        size = builder.phase.batch_size
        if self.row >= size:
            raise ConfigError(f"--row {self.row}: the batch has {size} rows, counted from 0")
        rows = np.arange(self.row, min(self.row + self.rows, size))
        batch = builder.batch(index, rows, columns=True)
        labels = builder.orders[0].corpus.labels()
        print(show.show(batch, vocabulary, self.row, labels))


@dataclass(frozen=True, kw_only=True)
class DataStats(_Rows):
    """Print figures of many rows: lengths, masks, replacements, unknown tokens, order."""

    batches: int = 20
    """Number of batches of the phase to measure."""
    out: OptionalFile = None
    """Also draw the figures to this SVG file."""

    def run(self) -> None:
        """Prints to stdout."""
        import numpy as np

        from albert_jax import files
        from albert_jax.data.batches import show
        from albert_jax.observe import figures

        check_within(1, batches=self.batches)
        if self.out is not None and not self.out.endswith(".svg"):
            raise ConfigError(f"--out {self.out}: the picture is an SVG, so give a name with .svg")
        config, number = configfile.load(self._config), self.phase or 0
        builder, vocabulary = self.builder(config, number)
        rows = np.arange(builder.phase.batch_size)

        def batches() -> Iterator[Batch]:
            return (builder.batch(step, rows, columns=True) for step in range(self.batches))

        for name, figure in show.statistics(batches(), vocabulary).items():
            print(f"{name:<20}  {figure}")
        if self.out is not None:
            values, shares = show.distributions(batches(), vocabulary)
            files.write(
                self.out, figures.row_statistics(self._title(config, number), values, shares)
            )
