"""Models on disk: our own format, Transformers, and TensorFlow 1 checkpoints."""
