"""Prepared folders: shards of token ids, and the corpus that reads them."""
