"""Measuring a model: held-out losses beside references, and the official scores of tasks."""

EVALUATION_NAME = "evaluation.json"
"""The file in a run folder with the last result of `albert-jax evaluate`."""
