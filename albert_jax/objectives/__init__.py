"""Pretraining objectives: each returns sums and the names of their weights."""
