"""What the model is asked: losses as sums with the names of their weights."""
