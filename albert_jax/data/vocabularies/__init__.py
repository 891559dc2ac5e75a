"""Vocabularies: SentencePiece, WordPiece, tables of symbols, and bare id ranges."""
