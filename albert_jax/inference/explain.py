"""`albert-jax explain`: what a model does with one text, pass by pass, as numbers and drawn."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from albert_jax.config import ComputeConfig
from albert_jax.errors import DataError
from albert_jax.inference import attributions, depth
from albert_jax.inference.attributions import Attribution
from albert_jax.inference.fill_mask import MASK, Candidate, guesses, masked_pieces
from albert_jax.model_io.model import Model, Weights, load
from albert_jax.tasks.losses import Forward
from albert_jax.tasks.old_features import Tokens, sequence_rows
from albert_jax.tasks.sentence_tasks import probabilities

LONGEST = 128
"""Pieces that can be drawn."""


@dataclass(frozen=True)
class Explanation:
    """One text and what was found at each of L passes; S pieces, N heads."""

    source: str
    text: str
    pieces: tuple[str, ...]
    """The pieces as text, special ones included, [S]."""
    attention: np.ndarray
    """float32 [L, N, S, S]: pass, head, the piece that looks, the piece looked at."""
    cosines: np.ndarray
    """float64 [L]: mean cosine of a piece's state after the pass to that before."""
    masked: tuple[tuple[tuple[Candidate, ...], ...], ...]
    """[mask][pass][guess]; empty without [MASK] or without masked-language head."""
    labels: tuple[str, ...] = ()
    """Of a classifier."""
    classes: np.ndarray | None = None
    """float64 [L, C]: probability of each label, were the pass the last."""
    attribution: Attribution | None = None


def explain(
    path: str,
    text: str,
    out: str,
    *,
    num_layers: int | None = None,
    top: int = 3,
    step: int | Literal["best", "newest"] = "newest",
    weights: Weights = "trained",
) -> str:
    """Looks at a text (two with a tab between) and writes the folder `out`, which must not exist.

    The folder holds explain.html (all of it, drawn, in one file that needs no network),
    attention.png, and the numbers as explain.json and attention.npy. Returns a table as text.

    Raises CheckpointError for a model that cannot be read or a folder that exists, DataError for
    a text that is empty or too long, ConfigError for a depth that the model does not have.
    """
    from albert_jax.folders import appearing, json_bytes, put
    from albert_jax.inference import explain_page

    model = load(path, step=step, weights=weights)
    found = look(model, text, num_layers=num_layers, top=top)
    with appearing(out) as folder:
        picture = explain_page.attention_png(found)
        numbers = io.BytesIO()
        np.save(numbers, found.attention, allow_pickle=False)
        put(
            folder,
            {
                "attention.png": picture,
                "explain.html": explain_page.page(found, picture).encode(),
                "explain.json": json_bytes(_plain(found)),
                "attention.npy": numbers.getvalue(),
            },
        )
    return f"{table(found)}\n{out}/explain.html shows it"


def look(model: Model, text: str, *, num_layers: int | None = None, top: int = 3) -> Explanation:
    """The numbers of `explain`, in float32."""
    import jax
    import jax.numpy as jnp

    from albert_jax.model import albert
    from albert_jax.tasks import heads

    config, task, params = model.config, model.run_config.task, model.params
    if num_layers is not None:
        depth.check(config, num_layers)
    tokens = _tokens(model, text)
    batch = sequence_rows([tokens], len(tokens.ids))
    masks = np.flatnonzero(tokens.ids == model.vocabulary.mask_id)
    classifies = task is not None and task.name == "classification"
    guessing = "mlm_head" in params and masks.size > 0
    compute = ComputeConfig(dtype="float32")
    forward = Forward(config, compute, pooling=task.pooling if task else "cls")

    @jax.jit
    def run(params: Any, batch: Any) -> dict[str, Any]:
        first = albert.embed(params, config, batch, compute=compute)
        _, each = albert.encode_all_layers(
            params, config, batch, compute=compute, num_layers=num_layers
        )
        inputs = jnp.concatenate([first[None], each[:-1]])
        found: dict[str, Any] = {
            "attention": albert.attention_probabilities(
                params, config, inputs, batch["segment_ids"], num_layers=num_layers
            )[:, 0],
            "cosines": jnp.mean(depth.cosine(inputs, each), axis=(1, 2)),
        }
        if guessing:
            places = jnp.asarray(masks)[None]
            found["masked"] = jnp.stack(
                [albert.mlm_logits(params, config, x, places)[0] for x in each]
            )
        if classifies:
            found["classes"] = jnp.stack(
                [heads.classify(params["head"], forward.pool(params, x, batch))[0] for x in each]
            )
        return found

    found = jax.device_get(run(params, batch))
    masked = tuple(
        tuple(
            tuple(guesses(row.astype(np.float64), model.vocabulary, top))
            for row in found["masked"][:, i]
        )
        for i in range(masks.size if guessing else 0)
    )
    return Explanation(
        source=model.source,
        text=text,
        pieces=tuple(_written(model.vocabulary, int(id)) for id in tokens.ids),
        attention=np.asarray(found["attention"], np.float32),
        cosines=np.asarray(found["cosines"], np.float64),
        masked=masked,
        labels=task.labels if task is not None and classifies else (),
        classes=probabilities(found["classes"]) if classifies else None,
        attribution=attributions.attribute(model, batch, num_layers=num_layers)
        if classifies
        else None,
    )


def table(found: Explanation) -> str:
    """The passes as lines of text, and the shares of the pieces."""
    heading = ["pass  cosine to the pass before"]
    heading += [
        f"mask {number}" if len(found.masked) > 1 else MASK
        for number in range(1, len(found.masked) + 1)
    ]
    heading += ["label"] if found.classes is not None else []
    rows = [heading]
    for number, cosine in enumerate(found.cosines):
        cells = [f"{number + 1:4}  {cosine:.4f}"]
        cells += [
            "  ".join(f"{c.word} {c.probability:.1%}" for c in mask[number])
            for mask in found.masked
        ]
        if found.classes is not None:
            best = int(found.classes[number].argmax())
            cells.append(f"{found.labels[best]} {found.classes[number, best]:.1%}")
        rows.append(cells)
    widths = [max(len(row[i]) for row in rows) for i in range(len(heading))]
    lines = [
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    shares = found.attribution
    if shares is not None:
        lines.append(f"what speaks for {found.labels[shares.label]} (integrated gradients):")
        lines += [
            f"  {share:+8.4f}  {piece}"
            for share, piece in zip(shares.shares, found.pieces, strict=True)
        ]
        lines.append(str(shares))
    return "\n".join(lines)


def _tokens(model: Model, text: str) -> Tokens:
    """[CLS] text [SEP], or a pair; nothing is cut."""
    vocabulary = model.vocabulary
    parts = [part.strip() for part in text.split("\t")]
    if not all(parts) or len(parts) > 2:
        raise DataError("the text: give one, or two with a tab between, and none of them empty")
    ids, first = [np.array([vocabulary.cls_id])], 0
    for part in parts:
        ids += [masked_pieces(part, vocabulary), np.array([vocabulary.sep_id])]
        first = first or sum(map(len, ids))
    joined = np.concatenate(ids).astype(np.int32)
    limit = min(LONGEST, model.config.max_position_embeddings)
    if len(joined) > limit:
        raise DataError(f"the text has {len(joined)} pieces; at most {limit} are shown: shorten it")
    return Tokens(joined, first)


def _written(vocabulary: Any, id: int) -> str:
    return vocabulary.piece(id).replace("\u2581", " ").strip() or vocabulary.piece(id)


def _plain(found: Explanation) -> dict[str, Any]:
    """Plain JSON of everything but attention."""
    told: dict[str, Any] = {
        "model": found.source,
        "text": found.text,
        "pieces": list(found.pieces),
        "cosines": found.cosines.tolist(),
        "masked": [[[c._asdict() for c in row] for row in mask] for mask in found.masked],
    }
    if found.classes is not None:
        told |= {"labels": list(found.labels), "probabilities": found.classes.tolist()}
    if found.attribution is not None:
        shares = found.attribution
        told["attribution"] = shares._asdict() | {
            "label": found.labels[shares.label],
            "shares": shares.shares.tolist(),
            "error": shares.error,
            "complete": shares.complete,
        }
    return told
