"""Writing a model for other programs: Transformers, ONNX, StableHLO."""
