"""Optimizers as chains of optax, and learning rates as plain functions of the step."""
