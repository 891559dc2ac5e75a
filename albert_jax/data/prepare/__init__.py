"""From documents to a prepared folder: deduplication, sentences, tokenization."""
