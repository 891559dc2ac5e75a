"""Weights and vocabularies that travel: the original's TF1 checkpoints, Hugging Face, our own."""
