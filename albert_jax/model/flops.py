"""Floating-point operations of training, by formula.

The compiler's own count (`cost_analysis`) counts the body of a scan once, so it cannot be used for
an encoder whose layers are a scan.
"""

from __future__ import annotations

from albert_jax.config import ModelConfig, PhaseConfig


def forward_per_token(
    model: ModelConfig,
    *,
    sequence_length: int,
    predictions: int,
    num_layers: int | None = None,
    word_prediction: str = "none",
    softmax_size: int = 0,
) -> float:
    """Matrix-product FLOPs of one forward pass, per position of a row of S = sequence_length:

        L (8 H^2 + 4 H F + 4 S H) + 2 E H + (P / S) 2 (H E + E V) + (2 H^2 + 4 H) / S

    L is the number of applied blocks (layers x inner_group_num) and P is `predictions`. The terms
    are the four projections of attention, the feed-forward network, the attention scores and
    their product with the values (every query sees every key), the projection of the factorized
    embedding (none if E = H), the MLM head at the masked positions, and the pooler with the SOP
    head. To these come 2 H W for each word that `word_prediction` asks for. V is `softmax_size`
    unless that is 0. A multiply-add counts as two operations.

    >>> round(forward_per_token(ModelConfig(), sequence_length=512, predictions=76) * 3 / 1e9, 3)
    0.57
    """
    hidden, embedding = model.hidden_size, model.embedding_size
    depth = (model.num_hidden_layers if num_layers is None else num_layers) * model.inner_group_num
    block = 8 * hidden**2 + 4 * hidden * model.intermediate_size + 4 * sequence_length * hidden
    projection = 2 * embedding * hidden if embedding != hidden else 0
    mlm_head = 2 * (hidden * embedding + embedding * (softmax_size or model.vocab_size))
    sop_head = 2 * hidden**2 + 4 * hidden
    num_words = {"none": 0, "masked": predictions, "all": sequence_length}[word_prediction]
    heads = predictions * mlm_head + sop_head + num_words * 2 * hidden * model.word_vocab_size
    return depth * block + projection + heads / sequence_length


def per_step(model: ModelConfig, phase: PhaseConfig, *, num_layers: int | None = None) -> float:
    """FLOPs of one optimizer step: three times the forward pass (the backward pass is two).

    Padding is counted, recomputation is not. If a phase draws its depth, the mean over its depths
    is taken, unless `num_layers` is given.
    """
    depths = (num_layers,) if num_layers is not None else phase.depths or (model.num_hidden_layers,)
    forward = [
        forward_per_token(
            model,
            sequence_length=phase.sequence_length,
            predictions=phase.max_predictions_per_seq,
            num_layers=depth,
            word_prediction=phase.objective.word_prediction,
            softmax_size=phase.objective.softmax_size(model),
        )
        for depth in depths
    ]
    return 3 * sum(forward) / len(forward) * phase.batch_size * phase.sequence_length
