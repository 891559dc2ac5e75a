"""Shows batches as text."""

from __future__ import annotations

import numpy as np

from albert_jax.data.batches.batch import Batch
from albert_jax.data.vocabularies.vocabulary import Vocabulary

_COLORS = {"masked": "31;1", "random": "35;1", "kept": "33;1", "special": "2", "b": "36"}
_ORDER = {0: "original", 1: "swapped or from another document"}


def show(batch: Batch, vocabulary: Vocabulary, *, numbers: np.ndarray, color: bool = False) -> str:
    """Text of the rows of a batch; ``numbers`` [B] are printed as their names.

    A masked position reads ``[MASK|label]``, one that holds a random token ``[token|label]``, and
    one that was left as it is ``[=label]``. Every sequence has a line for A and one for B.
    """
    lines = []
    for row, number in enumerate(np.asarray(numbers).tolist()):
        segments = batch["segment_ids"][row]
        used = batch["mlm_weights"][row] > 0
        positions = batch["mlm_positions"][row][used].tolist()
        labels = dict(zip(positions, batch["mlm_labels"][row][used].tolist(), strict=True))
        lines.append(
            f"row {number}: {int((segments > 0).sum())} of {len(segments)} tokens, "
            f"{len(labels)} masked, {int(segments.max())} pair(s)"
        )
        for sequence in range(1, int(segments.max()) + 1):
            positions = np.flatnonzero(segments == sequence)
            weight = float(batch["sop_weights"][row, sequence - 1])
            label = int(batch["sop_labels"][row, sequence - 1])
            order = _ORDER[label] if weight else "not asked"
            lines.append(f"  pair {sequence}: {len(positions)} tokens, order {order}")
            types = batch["token_type_ids"][row][positions]
            for segment in (0, 1):
                words = [
                    _shown_token(batch["input_ids"][row], position, labels, vocabulary, segment)
                    for position in positions[types == segment].tolist()
                ]
                if words:
                    text = " ".join(_colored(*word) if color else word[0] for word in words)
                    lines.append(f"    {'AB'[segment]} {text}")
    return "\n".join(lines)


def _shown_token(
    ids: np.ndarray, position: int, labels: dict[int, int], vocabulary: Vocabulary, segment: int
) -> tuple[str, str]:
    """The text of a position of a row, and the name of its color ("" for none)."""
    seen, label = int(ids[position]), labels.get(position)
    token = vocabulary.id_to_token(seen)
    if label is None:
        special = seen in (vocabulary.cls_id, vocabulary.sep_id)
        return token, "special" if special else ("b" if segment else "")
    if seen == vocabulary.mask_id:
        return f"[MASK|{vocabulary.id_to_token(label)}]", "masked"
    if seen == label:
        return f"[={token}]", "kept"
    return f"[{token}|{vocabulary.id_to_token(label)}]", "random"


def _colored(text: str, name: str) -> str:
    return f"\x1b[{_COLORS[name]}m{text}\x1b[0m" if name else text
