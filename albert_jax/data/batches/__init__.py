"""From prepared documents to masked batches."""
