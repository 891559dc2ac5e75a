"""From any text to batches: sources, vocabularies, preparation, rows. Never imports jax."""
