"""Texts to unit vectors: what a model folder is, tokenization, batching, the backends and the public ``Encoder``."""
