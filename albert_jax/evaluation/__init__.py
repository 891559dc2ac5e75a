"""Measuring a model: held-out losses beside references, and the official scores of tasks."""
