"""What a run would need on a slice: compiled for it ahead of time, without it."""
