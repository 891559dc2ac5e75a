"""Checkpoints that are complete or refused: saving, digests, recovery, and the run lock."""
