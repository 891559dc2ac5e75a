"""Optimizers of the original, and learning rates as plain functions of the step."""
