"""The network: pure functions of nested dicts of parameters.

albert.py holds them: `encode` is the encoder, `mlm_logits` and `sop_logits` are the heads.
layers.py defines the parts they are made of, sharing.py which layer uses which parameters,
attention.py the ways to compute attention, init.py the initial parameters.
"""
