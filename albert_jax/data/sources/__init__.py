"""Where documents come from: files, hub datasets, Python's documentation, token ids."""
