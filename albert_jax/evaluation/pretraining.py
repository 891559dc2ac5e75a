"""Held-out numbers of a pretrained model beside what simpler things would reach.

A loss means little alone. Beside the masked-language loss stands the cross-entropy of the same
masked pieces under the training corpus' unigram frequencies (a small ALBERT can stay at that
value for ever), and beside the accuracy of sentence order that of a rule which sees only where
the segments were cut (sentence_order.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from albert_jax.config import ComputeConfig, ModelConfig

if TYPE_CHECKING:
    import jax

Batch = Mapping[str, np.ndarray]
Score = Callable[[dict[str, np.ndarray]], Mapping[str, float]]
"""Sums over one batch, as train/step.py's evaluation step gives them: "mlm_sum", "sop_sum"
(weighted losses in nats) and "mlm_correct", "mlm_top5_correct", "sop_correct" (weighted right
answers). What is missing is not reported; what is more is passed over."""

TOP = 5
"""How many guesses count as one in mlm_top5_accuracy (the `top` of objectives/pretraining.py)."""

SEED = 1_000_003
"""Held-out rows and their masks are the same for every run, whatever its seed."""


@dataclass(frozen=True)
class Reference:
    """What the held-out rows are compared with; made once from the training corpus."""

    unigram_nats: np.ndarray
    """-ln frequency of each piece in the training corpus, float64 [V]."""
    token_bytes: np.ndarray
    """UTF-8 bytes of each piece, int [V]."""

    @classmethod
    def of(cls, counts: np.ndarray, token_bytes: np.ndarray) -> Reference:
        """From counts [V] in the training corpus; (count + 1) / (N + V), so that no held-out
        piece is impossible."""
        counts = counts.astype(np.float64)
        frequency = (counts + 1) / (counts.sum() + counts.size)
        return cls(-np.log(frequency), token_bytes)

    @property
    def entropy(self) -> float:
        """Expected loss in nats of word frequencies on text like the training corpus: the value
        at which a model that has learnt nothing else sits."""
        return float(np.sum(np.exp(-self.unigram_nats) * self.unigram_nats))


def measure(batches: Iterable[Batch], score: Score, reference: Reference) -> dict[str, float]:
    """Held-out numbers over all batches, each a mean over what was asked (weights above 0).

    mlm_loss (nats per masked piece), unigram_loss (the same pieces under the corpus'
    frequencies), nats_below_unigram, mlm_loss_per_byte, unigram_loss_per_byte, mlm_accuracy,
    mlm_top5_accuracy, sop_loss, sop_accuracy; masked_pieces and sop_pairs count them. Rows
    without anything asked give nothing, and a mean over nothing is left out.
    """
    sums: dict[str, float] = {}
    unigram = pieces = pairs = weight_bytes = 0.0
    for batch in batches:
        for name, value in score(dict(batch)).items():
            sums[name] = sums.get(name, 0.0) + float(value)
        weights = batch["mlm_weights"].astype(np.float64)
        unigram += float(np.sum(weights * reference.unigram_nats[batch["mlm_labels"]]))
        weight_bytes += float(np.sum(weights * reference.token_bytes[batch["mlm_labels"]]))
        pieces += float(weights.sum())
        pairs += float(batch["sop_weights"].sum(dtype=np.float64))
    found: dict[str, float] = {}
    if pieces:
        found["mlm_loss"] = sums["mlm_sum"] / pieces
        found["unigram_loss"] = unigram / pieces
        found["nats_below_unigram"] = found["unigram_loss"] - found["mlm_loss"]
        if weight_bytes:
            found["mlm_loss_per_byte"] = sums["mlm_sum"] / weight_bytes
            found["unigram_loss_per_byte"] = unigram / weight_bytes
        for name in ("mlm", f"mlm_top{TOP}"):
            if f"{name}_correct" in sums:
                found[f"{name}_accuracy"] = sums[f"{name}_correct"] / pieces
    if pairs:
        found["sop_loss"] = sums["sop_sum"] / pairs
        if "sop_correct" in sums:
            found["sop_accuracy"] = sums["sop_correct"] / pairs
    return found | {"masked_pieces": pieces, "sop_pairs": pairs}


def local_score(
    params: Mapping[str, Any],
    model: ModelConfig,
    compute: ComputeConfig,
    *,
    num_layers: int | None = None,
) -> Score:
    """A Score on this process' first device, for programs without a training loop.

    `passes` is the depth (None: the model's own); each depth compiles anew.
    """
    import jax

    from albert_jax.objectives.pretraining import pretraining_loss

    loss = pretraining_loss(model, compute, top=TOP)

    @jax.jit
    def sums(params: Any, batch: Any) -> dict[str, jax.Array]:
        terms = loss(params, batch, dropout=None, num_layers=num_layers)
        return {f"{name}_sum": term.total for name, term in terms.terms.items()} | terms.sums

    def score(batch: dict[str, np.ndarray]) -> dict[str, float]:
        return {name: float(value) for name, value in jax.device_get(sums(params, batch)).items()}

    return score


def table(results: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """Named results side by side as lines of text; what a result lacks stays empty."""
    names = list(dict.fromkeys(name for _, found in results for name in found))
    width = max([len(name) for name in names] + [4])
    columns = [max(10, len(title)) for title, _ in results]
    lines = [
        " " * width + "".join(f"  {t:>{c}}" for (t, _), c in zip(results, columns, strict=True))
    ]
    for name in names:
        cells = [_cell(name, found.get(name)) for _, found in results]
        row = "".join(f"  {cell:>{c}}" for cell, c in zip(cells, columns, strict=True))
        lines.append(f"{name:{width}}{row}")
    return "\n".join(lines)


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name.endswith("accuracy"):
        return f"{value:.1%}"
    if abs(value) >= 1000 or float(value).is_integer():
        return f"{value:.4g}" if abs(value) >= 1e7 else f"{value:,.0f}"
    return f"{value:.4f}"
