"""Checkpoints that are whole or refused: saving, digests, sorting of the folder, the lock."""
