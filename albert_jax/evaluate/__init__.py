"""How good a model is: held-out losses beside honest references, and words behind masks."""
