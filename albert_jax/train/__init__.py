"""Training: the state, the one step, and the one loop."""
