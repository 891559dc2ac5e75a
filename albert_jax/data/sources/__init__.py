"""Sources of documents: files, hub datasets, Python's documentation, token ids."""
