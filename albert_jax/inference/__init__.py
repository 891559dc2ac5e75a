"""Applying a model: fill-mask, prediction, sentence scores, explanations, early exit."""
