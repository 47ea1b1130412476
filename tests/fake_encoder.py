"""An encoder of a few lines for tests of what stands behind encoders: hashed bags of words, so that shared words mean similarity."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np


class BagEncoder:
    """Adds one fixed random direction for each word; ``blur`` mixes in noise that depends on the text and makes a worse model."""

    backend, precision, max_words = "bag", "fp32", 50

    def __init__(self, name: str = "bag", *, dim: int = 64, blur: float = 0.0) -> None:
        self.name, self.dim, self.blur = name, dim, blur
        self.fingerprint = hashlib.sha256(f"{dim} {blur}".encode()).hexdigest()
        self.truncated = 0
        self.calls: list[tuple[str, int]] = []
        self.closed = False

    def encode(self, texts: Sequence[str], *, kind: str = "document", progress: bool = False) -> np.ndarray:
        self.calls.append((kind, len(texts)))
        self.truncated = sum(len(text.split()) > self.max_words for text in texts)
        out = np.zeros((len(texts), self.dim), np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split()[: self.max_words]:
                out[row] += self._direction(word)
            out[row] += self.blur * self._direction(f"{kind}: {text}")
            out[row] /= max(float(np.linalg.norm(out[row])), 1e-9)
        return out

    def close(self) -> None:
        self.closed = True

    def _direction(self, word: str) -> np.ndarray:
        return _direction(word, self.dim)


@lru_cache(maxsize=10_000)
def _direction(word: str, dim: int) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(word.encode("utf-8", "surrogatepass")).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(dim).astype(np.float32)
