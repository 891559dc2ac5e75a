"""Metrics, console output, time, FLOPs and curves of a run."""
