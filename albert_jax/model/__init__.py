"""The network, as pure functions of nested dicts of parameters.

`encode` is the encoder, and `mlm_logits`, `pooled` and `sop_logits` are the pretraining heads:

    params = init_params(config, seed=0)
    hidden = encode(params, config, batch)  # [B, S, H]
    logits = mlm_logits(params, config, hidden, batch["mlm_positions"])  # [B, P, V]

albert.py holds these functions, layers.py the parts that they are made of, sharing.py which layer
uses which parameters, attention.py the ways to compute attention, dropout.py its random keys.
"""

from albert_jax.model.albert import (
    abstract_params,
    apply_layer,
    embed,
    encode,
    encode_all_layers,
    mlm_logits,
    pooled,
    sop_logits,
)
from albert_jax.model.init import init_params

__all__ = [
    "abstract_params",
    "apply_layer",
    "embed",
    "encode",
    "encode_all_layers",
    "init_params",
    "mlm_logits",
    "pooled",
    "sop_logits",
]
