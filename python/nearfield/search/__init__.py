"""Text in, documents out: an encoder and an index that belong together."""
