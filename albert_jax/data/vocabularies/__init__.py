"""Vocabularies: SentencePiece, WordPiece, and bare id ranges."""
