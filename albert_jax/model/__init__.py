"""The network: definitions in NNX, a functional core over nested dicts of arrays."""
