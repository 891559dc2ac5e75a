"""The one definition of a run: frozen, typed dataclasses, validated before a device is touched.

Presets in ``configs/`` are TOML files with these fields (``configfile.py`` reads and writes
them), and the command line overrides single fields. Names are those of Hugging Face or optax
where they have one, and otherwise the paper's (Lan et al. 2019, arXiv 1909.11942). A config can
be built, checked and printed without jax.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from albert_jax.errors import ConfigError

LAYER_NORM_EPS = 1e-12
"""LayerNorm epsilon of the original (modeling.py, contrib default); it is part of the model."""


def bounded(default: Any, low: float, high: float = math.inf) -> Any:
    """A number field whose value must lie between `low` and `high`, both included."""
    return dataclasses.field(default=default, metadata={"bounds": (low, high)})


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network. The defaults are ALBERT-base (paper, Table 1)."""

    vocab_size: int = bounded(30000, 1)
    """V: number of tokens in the vocabulary."""
    embedding_size: int = bounded(128, 1)
    """E: size of the factorized embeddings (equal to hidden_size: no projection)."""
    hidden_size: int = bounded(768, 1)
    """H: width of the encoder."""
    num_hidden_layers: int = bounded(12, 1)
    """L: how many times the shared layer is applied."""
    num_hidden_groups: int = bounded(1, 1)
    """Number of layer groups; layers of one group share their parameters."""
    inner_group_num: int = bounded(1, 1)
    """Distinct blocks that run in order inside each layer."""
    num_attention_heads: int = bounded(12, 1)
    """N: attention heads; hidden_size must be divisible by it."""
    intermediate_size: int = bounded(3072, 1)
    """F: width of the feed-forward network."""
    hidden_act: Literal["gelu_new", "relu", "tanh", "linear"] = "gelu_new"
    """Activation of the feed-forward network and the MLM transform (gelu_new: tanh form)."""
    hidden_dropout_prob: float = bounded(0.0, 0.0, 0.999)
    """Dropout after embeddings, attention output and feed-forward output."""
    attention_probs_dropout_prob: float = bounded(0.0, 0.0, 0.999)
    """Dropout on attention probabilities (fused attention kernels have none)."""
    max_position_embeddings: int = bounded(512, 1)
    """Size of the position table: the longest sequence that the model can read."""
    type_vocab_size: int = bounded(2, 1)
    """Size of the token type table (sentence A, sentence B)."""
    initializer_range: float = bounded(0.02, 1e-6, 1.0)
    """Standard deviation of the truncated normal initializer; below a width of 768 use
    0.02 * sqrt(768 / H)."""
    sharing: Literal["all", "attention", "ffn", "none"] = "all"
    """Which sublayers share their parameters across depth (paper, Table 4)."""

    @property
    def head_size(self) -> int:
        """D: width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    def validate(self) -> None:
        """Raises ConfigError for sizes that contradict each other."""
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"model.hidden_size {self.hidden_size} is not divisible by "
                f"model.num_attention_heads {self.num_attention_heads}: change one of them"
            )
        if self.num_hidden_groups > self.num_hidden_layers:
            raise ConfigError(
                f"model.num_hidden_groups {self.num_hidden_groups} is larger than "
                f"model.num_hidden_layers {self.num_hidden_layers}: lower it"
            )


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """Masking and sentence-order settings, sampled when a row is built."""

    mask_unit: Literal["ngram", "word", "token", "span"] = "ngram"
    """What is masked: n-grams of whole words, single whole words, single tokens, or contiguous
    spans of tokens."""
    mask_rate: float = bounded(0.15, 0.0, 1.0)
    """Share of a row's tokens to predict (the highest, with uniform_mask_rate)."""
    uniform_mask_rate: bool = False
    """Draw each row's rate uniformly between 0 and mask_rate (masked diffusion)."""
    max_ngram: int = bounded(3, 1, 64)
    """Longest n-gram (in words) or span (in tokens)."""
    ngram_distribution: Literal["inverse", "uniform", "proportional"] = "inverse"
    """Probability of an n-gram's length n: proportional to 1/n (the paper), equal for all, or the
    weights 1/n in reverse order (an option of the original)."""
    sentence_order: Literal["sop", "nsp", "none"] = "sop"
    """Sentence-order prediction, next-sentence prediction, or neither."""


@dataclass(frozen=True, kw_only=True)
class PhaseConfig:
    """One stretch of a run with constant shapes. A run is a list of phases."""

    steps: int = bounded(125_000, 1)
    """Optimizer steps of this phase."""
    sequence_length: int = bounded(512, 8)
    """S: tokens per row."""
    batch_size: int = bounded(4096, 1)
    """B: rows per optimizer step over all devices and hosts."""
    gradient_accumulation_steps: int = bounded(1, 1)
    """Parts of each device's rows whose gradients are accumulated inside the step."""
    depths: tuple[int, ...] = ()
    """Numbers of layers to draw from, one per step; empty: always num_hidden_layers."""
    schedule: Literal["run", "warmup", "constant", "decay"] = "run"
    """Learning-rate schedule of this phase: its part of the run's polynomial schedule, or within
    this phase a linear warm-up to the peak, the peak itself, or a linear decay to the end."""
    packing: bool = False
    """Let several short pairs share a row, each with its own attention, positions and [CLS]."""
    short_seq_prob: float = bounded(0.1, 0.0, 1.0)
    """Share of documents (with packing: of pairs) that get a random shorter target length."""
    mixture: tuple[float, ...] = ()
    """Weights of the folders in data.prepared, in their order; empty: by their size."""
    freeze: Literal["nothing", "encoder"] = "nothing"
    """Parameters that are not trained; "encoder" trains embeddings and heads only."""
    objective: ObjectiveConfig = ObjectiveConfig()
    """Masking and sentence order."""

    @property
    def max_predictions_per_seq(self) -> int:
        """P: masked positions that a row has room for."""
        rate = self.objective.mask_rate
        return max(1, round(rate * self.sequence_length)) if rate > 0 else 0

    def validate(self, where: str, model: ModelConfig) -> None:
        """Raises ConfigError; `where` is the path of this section in messages."""
        _within(f"{where}.sequence_length", self.sequence_length, 8, model.max_position_embeddings)
        if self.batch_size % self.gradient_accumulation_steps:
            raise ConfigError(
                f"{where}.batch_size {self.batch_size} is not divisible by "
                f"{where}.gradient_accumulation_steps {self.gradient_accumulation_steps}: change "
                "one of them"
            )
        max_depth = model.num_hidden_layers if model.sharing != "all" else 1_000
        for depth in self.depths:
            _within(f"{where}.depths", depth, model.num_hidden_groups, max_depth)
        if any(not weight > 0 for weight in self.mixture):
            raise ConfigError(f"{where}.mixture {self.mixture}: weights must be above 0")
        if self.objective.max_ngram > self.sequence_length:
            raise ConfigError(
                f"{where}.objective.max_ngram {self.objective.max_ngram} is larger than "
                f"{where}.sequence_length {self.sequence_length}: lower it"
            )


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """LAMB or AdamW exactly as in the original (lamb_optimizer.py, optimization.py)."""

    name: Literal["lamb", "adamw"] = "lamb"
    """The optimizer."""
    learning_rate: float = bounded(0.00176, 1e-12, 10.0)
    """Peak learning rate."""
    warmup_steps: int = bounded(3125, 0)
    """Steps of linear warm-up in the run's schedule."""
    end_learning_rate: float = bounded(0.0, 0.0)
    """Learning rate at the end of a decay."""
    weight_decay: float = bounded(0.01, 0.0, 10.0)
    """Decoupled weight decay; biases and LayerNorm parameters have none."""
    b1: float = bounded(0.9, 0.0, 0.999999)
    """Decay of the first moment."""
    b2: float = bounded(0.999, 0.0, 0.999999)
    """Decay of the second moment."""
    eps: float = bounded(1e-6, 1e-20, 1.0)
    """Added to the denominator, outside the square root."""
    max_grad_norm: float = bounded(1.0, 1e-6, 1e6)
    """Largest global norm of the gradient, after its reduction over all devices."""
    ema_decay: float = bounded(0.0, 0.0, 0.999999)
    """Decay of the averaged copy of the parameters; 0 keeps no copy."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where prepared documents are read."""

    prepared: tuple[str, ...] = ()
    """Folders made by `albert-jax data prepare`; several make a mixture."""
    workers: int = bounded(0, 0, 256)
    """Processes that build batches beside the trainer; 0 uses threads of the trainer."""


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """Sizes of the mesh axes; their product is the number of devices."""

    slice: int = bounded(1, 1)
    """Slices of a multi-slice job (data parallel over the data-center network)."""
    data: int = bounded(0, 0)
    """Replicas (data parallel); 0 takes all devices that the other axes leave."""
    fsdp: int = bounded(1, 1)
    """Shards of parameters and optimizer state (rows are split over this axis too)."""
    tensor: int = bounded(1, 1)
    """Shards of each layer's width."""


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Numerics and speed; the mathematics stays the same."""

    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of activations and matrix products; parameters, losses and norms stay float32."""
    attention: Literal["auto", "xla", "cudnn", "splash"] = "auto"
    """Attention backend; auto takes the fastest on this platform that can do what is asked."""
    remat: Literal["none", "dots", "full"] = "none"
    """What the backward pass recomputes: nothing, all but matrix products, or everything."""
    unroll: bool = False
    """Unroll the layers instead of scanning them (faster, but more to compile)."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Logging, evaluation and checkpoints."""

    logging_steps: int = bounded(100, 1)
    """Steps between rows of metrics.jsonl."""
    eval_steps: int = bounded(5000, 0)
    """Steps between evaluations on held-out rows; 0 evaluates only at the end."""
    max_eval_samples: int = bounded(4096, 1)
    """Most held-out rows (fine-tuning: examples) of an evaluation."""
    minimal_pairs: str = ""
    """Minimal pairs (a table as for albert-jax score) that each evaluation of a pretraining run
    scores too; empty: none."""
    save_steps: int = bounded(5000, 1)
    """Steps between checkpoints; the last step is always saved."""
    save_total_limit: int = bounded(5, 1)
    """Newest checkpoints that are kept, beside the best one."""
    price_per_hour: float = bounded(0.0, 0.0)
    """Price of an hour of all devices, in your currency; above 0 the metrics show the cost."""
    watchdog_seconds: int = bounded(600, 0)
    """A step that takes longer ends the run with exit code 6; 0 disables this."""
    profile_steps: tuple[int, ...] = ()
    """First and last step (from 1) of a profiler trace in the run folder; empty: none."""

    def validate(self) -> None:
        """Raises ConfigError for steps to profile that are not a range."""
        steps = self.profile_steps
        if steps and not (len(steps) == 2 and 1 <= steps[0] <= steps[1]):
            raise ConfigError(
                f"run.profile_steps is {list(steps)}: give the first and the last step, from 1"
            )


TaskName = Literal[
    "classification",
    "regression",
    "choice",
    "squad-v1",
    "squad-v2",
    "tagging",
    "embedding",
    "generation",
]
"""The task families (albert_jax/tasks)."""


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """What a fine-tuning run learns from which examples; defaults are the original's (run_*.py)."""

    name: TaskName = "classification"
    """Task family."""
    train: str = ""
    """Training examples: a file, tfds:NAME:SPLIT or hf:NAME:SPLIT."""
    dev: str = ""
    """Examples for evaluation while training."""
    epochs: float = 0.0
    """Times through the training examples; 0: as many steps as the phases say."""
    columns: tuple[str, ...] = ()
    """Names of a table's columns, in order if it has no header ("-": a column to ignore)."""
    text_columns: tuple[str, ...] = ()
    """The one or two columns with texts; empty: by their usual names."""
    label_column: str = ""
    """The column with label or score; empty: by its usual name."""
    labels: tuple[str, ...] = ()
    """All labels or tags; empty: those of the training examples."""
    metrics: tuple[str, ...] = ()
    """Numbers to report first, the first of them marking the best checkpoint; empty: usual."""
    pooling: Literal["cls", "mean"] = "cls"
    """What a sentence is judged by: the pooled [CLS], or the mean of its tokens."""
    head_dropout: float = 0.1
    """Dropout in front of the head while training."""
    choices: int = 4
    """Most choices of a question."""
    qa_length: int = 128
    """Last tokens that are kept of question and option."""
    stride: int = 128
    """Tokens from one window of a long context to the next."""
    query_length: int = 64
    """First tokens that are kept of a question about a context."""
    answer_length: int = 30
    """Most tokens of an answer."""
    best_answers: int = 20
    """Answers per question that are ranked and written."""
    beam: tuple[int, int] = (5, 5)
    """Starts, and ends for each, that the search of SQuAD 2.0 keeps."""
    word_column: int = 0
    """Column of the words in CoNLL's form, from 0."""
    tag_column: int = -1
    """Column of the tags (-1: the last)."""
    group: int = 8
    """Pairs of a row, among which each text must find its partner."""
    temperature: float = 0.05
    """Divides the cosines of sentence embeddings while training."""
    canvas: int = 32
    """Places that generated text may fill, its end included."""
    full_share: float = 0.25
    """Share of training rows whose canvas is masked as a whole."""
    end_weight: float = 0.3
    """Weight of the end-of-text ids behind the first."""
    rounds: int = 8
    """Forward passes that fill a canvas."""
    augment: int = 0
    """Copies of each training example with words replaced by a masked-language model."""
    augment_share: float = 0.15
    """Share of a copy's words that are replaced; at least one."""
    augment_from: str = ""
    """Run or directory whose model replaces them; empty: that of --init."""
    teacher: str = ""
    """Run fine-tuned to the same classification, from which this one learns too."""
    teacher_share: float = 0.5
    """Share of the teacher's labels in the loss; the rest is the examples' own."""
    teacher_temperature: float = 2.0
    """Divides both logits where they are compared."""
    teacher_states: float = 1.0
    """Weight of the loss between states of teacher and student; 0: none."""

    def validate(self, where: str = "task") -> None:
        """Raises ConfigError (field, value, rule)."""
        least = {
            "choices": 2, "qa_length": 1, "stride": 1, "query_length": 1, "answer_length": 1,
            "best_answers": 1, "word_column": 0, "group": 2, "canvas": 2, "rounds": 1,
            "epochs": 0, "end_weight": 0, "augment": 0, "teacher_states": 0,
        }  # fmt: skip
        for name, low in least.items():
            _at_least(f"{where}.{name}", getattr(self, name), low)
        _within(f"{where}.head_dropout", self.head_dropout, 0.0, 0.999)
        _within(f"{where}.full_share", self.full_share, 0.0, 1.0)
        _within(f"{where}.temperature", self.temperature, 1e-4, 1e4)
        _within(f"{where}.augment_share", self.augment_share, 0.0, 1.0)
        _within(f"{where}.teacher_share", self.teacher_share, 0.0, 1.0)
        _within(f"{where}.teacher_temperature", self.teacher_temperature, 1e-2, 1e2)
        if self.augment and self.name not in ("classification", "regression"):
            raise ConfigError(
                f"{where}.augment is for classification and regression, not for {self.name}: "
                "set it to 0"
            )
        if self.teacher and self.name != "classification":
            raise ConfigError(
                f"{where}.teacher is for classification, not for {self.name}: leave it out"
            )
        if len(self.beam) != 2 or min(self.beam) < 1:
            raise ConfigError(f"{where}.beam is {self.beam}: give two numbers of at least 1")
        if len(set(self.labels)) != len(self.labels):
            raise ConfigError(f"{where}.labels names a label twice: {', '.join(self.labels)}")
        if len(self.text_columns) > 2:
            raise ConfigError(
                f"{where}.text_columns names {len(self.text_columns)} columns: at most two"
            )


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run: pretraining, or fine-tuning where there is a task."""

    seed: int = bounded(0, 0, 2**31 - 1)
    """Decides weights, data order, masks and dropout."""
    model: ModelConfig = ModelConfig()
    """The network."""
    data: DataConfig = DataConfig()
    """Prepared documents."""
    phases: tuple[PhaseConfig, ...] = (PhaseConfig(),)
    """Stretches of the run, in order."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimizer and learning-rate schedule."""
    parallel: ParallelConfig = ParallelConfig()
    """The device mesh."""
    compute: ComputeConfig = ComputeConfig()
    """Numerics and speed."""
    run: RunConfig = RunConfig()
    """Logging, evaluation and checkpoints."""
    task: TaskConfig | None = None
    """What to fine-tune on; none for pretraining."""

    @property
    def steps(self) -> int:
        """Optimizer steps of all phases together."""
        return sum(phase.steps for phase in self.phases)

    def phase_at(self, step: int) -> tuple[int, int]:
        """Number of the phase and step within it, both from 0, of a step of the run.

        Steps beyond the end belong to the last phase.
        """
        last = len(self.phases) - 1
        for number, phase in enumerate(self.phases):
            if step < phase.steps or number == last:
                return number, step
            step -= phase.steps
        raise ConfigError("phases is empty: a run needs at least one phase")

    def validate(self) -> None:
        """Raises ConfigError (one line: field, value, rule) without touching a device."""
        _check_bounds(self)
        self.model.validate()
        if not self.phases:
            raise ConfigError("phases is empty: a run needs at least one phase")
        for i, phase in enumerate(self.phases):
            phase.validate(f"phases.{i}", self.model)
            if phase.mixture and len(phase.mixture) != len(self.data.prepared):
                raise ConfigError(
                    f"phases.{i}.mixture has {len(phase.mixture)} weights for "
                    f"{len(self.data.prepared)} folders in data.prepared: give one each"
                )
        _within(
            "optimizer.end_learning_rate",
            self.optimizer.end_learning_rate,
            0.0,
            self.optimizer.learning_rate,
        )
        self.run.validate()
        if self.task is not None:
            self.task.validate()
            shortest = min(phase.sequence_length for phase in self.phases)
            if self.task.name == "squad-v2" and max(self.task.beam) > shortest:
                raise ConfigError(
                    f"task.beam is {self.task.beam}: at most {shortest}, the places of a row"
                )
            if self.run.minimal_pairs:
                raise ConfigError(
                    f"run.minimal_pairs is {self.run.minimal_pairs!r}: only pretraining scores "
                    "pairs; leave it out"
                )
        fused = self.compute.attention in ("cudnn", "splash")
        if fused and self.model.attention_probs_dropout_prob:
            raise ConfigError(
                f"compute.attention {self.compute.attention!r} has no attention dropout, but "
                f"model.attention_probs_dropout_prob is {self.model.attention_probs_dropout_prob}: "
                "use 'xla' or set it to 0"
            )


def leaves(config: object) -> list[tuple[str, object]]:
    """All (dotted path, value) pairs of a config in the order of its fields, except None."""
    return [(path, value) for path, value, _ in _fields(config, "") if value is not None]


def _fields(config: object, prefix: str) -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
    """Path, value and dataclass field of every leaf of a config."""
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        path = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from _fields(value, path + ".")
        elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
            for i, item in enumerate(value):
                yield from _fields(item, f"{path}.{i}.")
        else:
            yield path, value, field


def _check_bounds(config: Config) -> None:
    """Raises ConfigError for a number that is not finite or outside the bounds of its field."""
    for path, value, field in _fields(config, ""):
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{path} is {value}: give a finite number")
        if "bounds" in field.metadata:
            _within(path, value, *field.metadata["bounds"])


def _at_least(path: str, value: float, low: float) -> None:
    _within(path, value, low, math.inf)


def _within(path: str, value: float, low: float, high: float) -> None:
    if low <= value <= high:
        return
    rule = f"be at least {low}" if high == math.inf else f"lie between {low} and {high}"
    raise ConfigError(f"{path} is {value}: it must {rule}")
