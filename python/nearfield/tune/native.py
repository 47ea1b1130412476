"""Scores on the way by the native engine: where the CPU multiplies bfloat16 it encodes several times as fast as torch without gradients.

A run asks dev some times and the guard some times more; what that takes is taken from training, or from the size of both. The weights of
the moment are packed in memory for each score, which takes 0.06 s for 22 M of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from nearfield.encode.native_backend import is_fast
from nearfield.encode.native_model import EncodeIds, ids_encoder
from nearfield.encode.shape import UnsupportedModelError
from nearfield.encode.spec import read_spec
from nearfield.tune.checkpoints import Tensors
from nearfield.types import FloatArray


class NativeVectors:
    """Vectors of token ids under weights that are in memory, in bfloat16.

    Args:
        base: the model folder whose shape, pooling and normalization the weights have.
        threads: of one call.

    Raises:
        UnsupportedModelError: the engine does not compute this model.
    """

    def __init__(self, base: Path, threads: int) -> None:
        self._names, self._pack = ids_encoder(base, read_spec(base), "bf16", threads)

    def packed(self, weights: Tensors) -> EncodeIds:
        """What encodes under these weights, named as transformers names a BERT's; others among them take no part.

        It gives normalized float32 rows ``(texts, dim)`` for token ids with special tokens.
        """
        encode = self._pack({name: weights[name].detach().float().cpu().contiguous().numpy() for name in self._names})

        def normalized(ids: Sequence[Sequence[int]]) -> FloatArray:
            rows = encode(ids)
            out: FloatArray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
            return out

        return normalized


def native_vectors(base: Path, device: str, dtype: str) -> NativeVectors | None:
    """What scores a run that trains on ``device`` in ``dtype``, or None where torch does.

    That is on a GPU, in float32, without fast instructions, and for a model that the engine does not compute.
    """
    if device != "cpu" or dtype != "bfloat16" or not is_fast("bf16"):
        return None
    try:
        return NativeVectors(base, torch.get_num_threads())
    except UnsupportedModelError:
        return None
