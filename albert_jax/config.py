"""The one definition of a run: frozen, typed dataclasses, validated before a device is touched.

Presets are TOML files with these fields, and the command line overrides single fields. Most
names are those of Hugging Face or optax, the others the paper's (arXiv 1909.11942).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from albert_jax.config_fields import bounded, check_bounds, check_within
from albert_jax.errors import ConfigError

MAX_LAYERS = 1000
"""The largest number of layers of any encoder; a shared layer can be applied that often."""
MAX_VOCABULARY = 1 << 20
"""The most tokens of a vocabulary."""
MAX_WIDTH = 1 << 16
"""The largest size of a vector or table of the network, vocabularies excepted."""
LAYER_NORM_EPS = 1e-12
"""LayerNorm epsilon of the original (modeling.py, contrib default); it is part of the model."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network. The defaults are ALBERT-base (paper, Table 1)."""

    vocab_size: int = bounded(30000, 1, MAX_VOCABULARY)
    """V: number of tokens in the vocabulary."""
    embedding_size: int = bounded(128, 1, MAX_WIDTH)
    """E: size of the embeddings; they are projected to hidden_size if it differs."""
    hidden_size: int = bounded(768, 1, MAX_WIDTH)
    """H: width of the encoder."""
    num_hidden_layers: int = bounded(12, 1, MAX_LAYERS)
    """L: how many times the shared layer is applied."""
    num_hidden_groups: int = bounded(1, 1, MAX_LAYERS)
    """Number of layer groups; layers of one group share their parameters."""
    inner_group_num: int = bounded(1, 1, MAX_LAYERS)
    """Distinct blocks that run in order inside each layer."""
    num_attention_heads: int = bounded(12, 1, MAX_WIDTH)
    """N: attention heads; hidden_size must be divisible by it."""
    intermediate_size: int = bounded(3072, 1, 4 * MAX_WIDTH)
    """F: width of the feed-forward network."""
    hidden_act: Literal["gelu_new", "relu", "tanh", "linear"] = "gelu_new"
    """Activation of the feed-forward network and the MLM transform (gelu_new: tanh form)."""
    hidden_dropout_prob: float = bounded(0.0, 0.0, 0.999)
    """Dropout after embeddings, attention output and feed-forward output."""
    attention_probs_dropout_prob: float = bounded(0.0, 0.0, 0.999)
    """Dropout on attention probabilities (fused attention kernels have none)."""
    max_position_embeddings: int = bounded(512, 1, 16 * MAX_WIDTH)
    """Size of the position table: the longest sequence that the model can read."""
    type_vocab_size: int = bounded(2, 1, MAX_WIDTH)
    """Size of the token type table (sentence A, sentence B)."""
    initializer_range: float = bounded(0.02, 1e-6, 1.0)
    """Standard deviation of initial weights; below a width of 768 use 0.02 * sqrt(768 / H)."""
    sharing: Literal["all", "attention", "ffn", "none"] = "all"
    """Sublayers that share their parameters across depth (paper, Table 4)."""
    word_vocab_size: int = bounded(0, 0, MAX_VOCABULARY)
    """W: words that the head of word prediction can tell apart; 0 leaves the head out."""

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
        if (blocks := self.num_hidden_layers * self.inner_group_num) > MAX_LAYERS:
            raise ConfigError(
                f"model.num_hidden_layers {self.num_hidden_layers} times model.inner_group_num "
                f"{self.inner_group_num} is {blocks} blocks: at most {MAX_LAYERS} can be applied"
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
    """Unit of masking: n-grams of whole words, whole words, tokens, or spans of tokens."""
    mask_rate: float = bounded(0.15, 0.0, 1.0)
    """Share of a row's tokens to predict (the highest, with uniform_mask_rate)."""
    uniform_mask_rate: bool = False
    """Draw each row's rate uniformly between 0 and mask_rate (masked diffusion)."""
    max_ngram: int = bounded(3, 1, 64)
    """Longest n-gram (in words) or span (in tokens)."""
    favor_shorter_ngram: bool = True
    """Draw an n-gram's length n with a probability of 1/n (the paper), or in reverse order."""
    sampled_softmax_size: int = bounded(0, 0, MAX_VOCABULARY)
    """Tokens in the softmax of a training step, half frequent and half drawn; 0 takes all."""
    sentence_order: Literal["sop", "nsp", "none"] = "sop"
    """Sentence-order prediction, next-sentence prediction, or neither, with one text a row."""
    word_prediction: Literal["none", "masked", "all"] = "none"
    """Symbols whose word is predicted (PL-BERT): none, the masked ones, or all. Needs labels."""

    def softmax_size(self, model: ModelConfig) -> int:
        """Tokens in the softmax of a training step; 0 for the whole vocabulary."""
        return self.sampled_softmax_size if self.sampled_softmax_size < model.vocab_size else 0


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
    """Numbers of layers, of which each step draws one; by default all layers are applied."""
    schedule: Literal["run", "warmup", "constant", "decay"] = "run"
    """Learning rate: the run's polynomial schedule, or a phase's own warm-up, peak or decay."""
    packing: bool = False
    """Let several short pairs share a row, each with its own attention, positions and [CLS]."""
    short_seq_prob: float = bounded(0.1, 0.0, 1.0)
    """Share of documents (with packing: of pairs) that get a random shorter target length."""
    mixture: tuple[float, ...] = ()
    """Weights of the folders in data.prepared, in their order; by default their sizes."""
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
        if self.sequence_length > (longest := model.max_position_embeddings):
            raise ConfigError(
                f"{where}.sequence_length is {self.sequence_length}, but the model has {longest} "
                "positions: lower it, or raise model.max_position_embeddings"
            )
        if self.batch_size % self.gradient_accumulation_steps:
            raise ConfigError(
                f"{where}.batch_size {self.batch_size} is not divisible by "
                f"gradient_accumulation_steps {self.gradient_accumulation_steps}: change either"
            )
        max_depth = model.num_hidden_layers if model.sharing != "all" else MAX_LAYERS
        for depth in self.depths:
            check_within(f"{where}.depths", depth, model.num_hidden_groups, max_depth)
        if any(not weight > 0 for weight in self.mixture):
            raise ConfigError(f"{where}.mixture {self.mixture}: weights must be above 0")
        predicted, where = self.objective.word_prediction, f"{where}.objective"
        if predicted != "none" and not model.word_vocab_size:
            raise ConfigError(f"{where}.word_prediction needs model.word_vocab_size: set it")
        if not self.max_predictions_per_seq and predicted != "all":
            if predicted == "masked" or self.objective.sentence_order == "none":
                raise ConfigError(f"{where}.mask_rate is 0, so nothing is predicted: raise it")
        if (ngram := self.objective.max_ngram) > self.sequence_length:
            raise ConfigError(f"{where}.max_ngram {ngram} is larger than sequence_length: lower it")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """LAMB or AdamW exactly as in the original (lamb_optimizer.py, optimization.py), or Muon."""

    name: Literal["lamb", "adamw", "muon"] = "lamb"
    """The optimizer; muon takes LAMB for embedding tables, biases, norms and classifiers."""
    learning_rate: float = bounded(0.00176, 1e-12, 10.0)
    """Peak learning rate."""
    warmup_steps: int = bounded(3125, 0)
    """Steps of linear warm-up in the run's schedule."""
    end_learning_rate: float = bounded(0.0, 0.0)
    """Learning rate at the end of a decay."""
    weight_decay: float = bounded(0.01, 0.0, 10.0)
    """Decoupled weight decay; biases and LayerNorm parameters have none."""
    b1: float = bounded(0.9, 0.0, 0.999999)
    """Decay of the first moment (0.95 for the matrices of muon)."""
    b2: float = bounded(0.999, 0.0, 0.999999)
    """Decay of the second moment."""
    eps: float = bounded(1e-6, 1e-20, 1.0)
    """Added to the denominator, outside the square root."""
    bias_correction: bool = False
    """Correct the bias of the moments, as optax.adamw does and the original does not."""
    max_grad_norm: float = bounded(1.0, 1e-6, 1e6)
    """Largest global norm of the gradient, after its reduction over all devices."""
    ema_decay: float = bounded(0.0, 0.0, 0.999999)
    """Decay of the averaged copy of the parameters; 0 keeps no copy."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Folders of prepared documents, and the way they are read."""

    prepared: tuple[str, ...] = ()
    """Folders made by `albert-jax data prepare`; several make a mixture."""
    workers: int = bounded(0, 0, 256)
    """Processes that build batches; 0 builds them in one background thread."""
    on_damage: Literal["stop", "skip"] = "stop"
    """Handling of damaged records: stop the run, or find them all at its start and skip them."""


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
    """Attention backend; auto takes the fastest that can run this config on these devices."""
    remat: Literal["none", "dots", "full"] = "none"
    """Activations that the backward pass recomputes: none, all but matrix products, or all."""
    unroll: Literal["auto", True, False] = "auto"
    """Unroll the layers instead of scanning them; auto unrolls a few layers on a CPU."""


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
    """Table of minimal pairs that each evaluation of a pretraining run scores too."""
    save_steps: int = bounded(5000, 1)
    """Steps between checkpoints; the last step is always saved."""
    save_total_limit: int = bounded(5, 1)
    """Newest checkpoints that are kept, besides the best one."""
    save_at_words: tuple[int, ...] = ()
    """Numbers of words after which a pretraining run saves a checkpoint that is always kept."""
    price_per_hour: float = bounded(0.0, 0.0)
    """Price of an hour of all devices, in your currency; above 0 the metrics show the cost."""
    watchdog_seconds: int = bounded(600, 0)
    """A step that takes longer ends the run with exit code 6; 0 disables this."""
    profile_steps: tuple[int, ...] = ()
    """First and last step (from 1) of a profiler trace in the run folder."""

    def validate(self) -> None:
        """Raises ConfigError for steps to profile that are not a range, and words below 1."""
        steps = list(self.profile_steps)
        if steps and not (len(steps) == 2 and 1 <= steps[0] <= steps[1]):
            raise ConfigError(f"run.profile_steps is {steps}: give the first and the last step")
        if any(words < 1 for words in self.save_at_words):
            raise ConfigError(f"run.save_at_words is {list(self.save_at_words)}: give numbers > 0")


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """The task of a fine-tuning run and its examples; each task has a subclass of its own."""

    name: str = ""
    """The task."""
    train: str = ""
    """Training examples: a file, or a hub dataset (tfds:NAME:SPLIT, hf:NAME:SPLIT)."""
    dev: str = ""
    """Examples for evaluation while training."""
    num_train_epochs: float = bounded(0.0, 0.0)
    """Times through the training examples; 0 takes as many steps as the phases have."""
    metrics: tuple[str, ...] = ()
    """Scores to report first, the first of which selects the best checkpoint."""

    def validate(self, where: str = "task") -> None:
        """Raises ConfigError for fields that contradict each other; `where` is their path."""


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
    """The task of a fine-tuning run; pretraining has none."""

    @property
    def steps(self) -> int:
        """Optimizer steps of all phases together."""
        return sum(phase.steps for phase in self.phases)

    def phase_at(self, step: int) -> tuple[int, int]:
        """Number of a step's phase and step within it, from 0; the last phase has no end."""
        number, last = 0, len(self.phases) - 1
        while number < last and step >= self.phases[number].steps:
            step -= self.phases[number].steps
            number += 1
        return number, step

    def validate(self) -> None:
        """Raises ConfigError (one line: field, value, rule) without touching a device."""
        check_bounds(self)
        self.model.validate()
        if not self.phases:
            raise ConfigError("phases is empty: a run needs at least one phase")
        for i, phase in enumerate(self.phases):
            phase.validate(f"phases.{i}", self.model)
            if phase.mixture and len(self.data.prepared) not in (0, len(phase.mixture)):
                raise ConfigError(
                    f"phases.{i}.mixture has {len(phase.mixture)} weights for "
                    f"{len(self.data.prepared)} folders in data.prepared: give one each"
                )
        last_rate, peak = self.optimizer.end_learning_rate, self.optimizer.learning_rate
        check_within("optimizer.end_learning_rate", last_rate, 0.0, peak)
        self.run.validate()
        if self.task is not None:
            self.task.validate()
            for name in ("minimal_pairs", "save_at_words"):
                if getattr(self.run, name):
                    raise ConfigError(f"run.{name} is set: only a pretraining run takes it")
