"""Batched similarity scores and exact top-k by the native engine."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nearfield import _core
from nearfield.arrays import as_matrix, check_k
from nearfield.errors import InputError
from nearfield.types import FloatArray, Hits, Metric

METRICS = ("cosine", "ip", "l2")


def _pair(queries: npt.ArrayLike, vectors: npt.ArrayLike, metric: str) -> tuple[FloatArray, FloatArray]:
    if metric not in METRICS:
        raise InputError(f"metric: {metric!r} given, one of {', '.join(METRICS)} expected")
    rows = as_matrix(vectors, dim=None, what="vectors")
    return as_matrix(queries, dim=rows.shape[1], what="queries"), rows


def score(queries: npt.ArrayLike, vectors: npt.ArrayLike, *, metric: Metric = "cosine") -> FloatArray:
    """Scores every query with every vector; larger is better.

    Computed in float32; the error of a score is at most ``(d + 8) * 2^-24 * |q| |x|`` (in float64 where float32 would overflow).

    Args:
        queries: ``(nq, d)`` or one row ``(d,)``, float; C-contiguous float32 is read without a copy.
        vectors: ``(n, d)`` or one row, likewise.
        metric: ``"cosine"``, ``"ip"`` (inner product) or ``"l2"`` (``-|q - x|^2``).

    Returns:
        float32 ``(nq, n)``. A zero vector scores 0 under cosine.

    Raises:
        InputError: wrong shape, dtype or metric; a row with NaN, infinity or a norm beyond float32.

    >>> score(np.array([[3.0, 4.0]]), np.array([[3.0, 4.0], [0.0, 0.0]]), metric="ip").tolist()
    [[25.0, 0.0]]
    """
    given, rows = _pair(queries, vectors, metric)
    return _core.score_matrix(given, rows, metric, 0)


def topk(queries: npt.ArrayLike, vectors: npt.ArrayLike, k: int, *, metric: Metric = "cosine", device: str = "cpu") -> Hits:
    """Finds the exact ``k`` best vectors of each query, as ``FlatIndex`` would, without building an index.

    Args:
        queries: ``(nq, d)`` or one row ``(d,)``, float; C-contiguous float32 is read without a copy.
        vectors: ``(n, d)`` or one row, likewise (cosine makes one normalized copy).
        k: how many, >= 1.
        metric: ``"cosine"``, ``"ip"`` or ``"l2"``.
        device: ``"cpu"``.

    Returns:
        Hits whose ids are positions in ``vectors``; equal scores rank by position.

    Raises:
        InputError: wrong shape, dtype, k, metric or device; a row with NaN, infinity or a norm beyond float32.

    >>> topk(np.array([1.0, 0.0]), np.eye(2), 1).ids.tolist()
    [[0]]
    """
    if device != "cpu":
        raise InputError(f"device: {device!r} given, this version computes on 'cpu' only")
    given, rows = _pair(queries, vectors, metric)
    count = check_k(k)
    slots, scores, counts = _core.topk(given, rows, count, metric, 0)
    return Hits(np.asarray(slots), scores, counts)
