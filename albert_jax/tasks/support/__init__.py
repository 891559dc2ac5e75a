"""Parts that tasks share: tables, rows of tokens, heads, scores, and the readers of their files."""
