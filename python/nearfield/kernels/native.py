"""Batched similarity scores and exact top-k, by the engine chosen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nearfield import _core
from nearfield.arrays import as_array, as_candidates, as_matrix, as_places, check_k, check_places, check_threads
from nearfield.errors import InputError
from nearfield.kernels.choice import engine
from nearfield.kernels.devices import cuda_number, rows_on
from nearfield.types import FloatArray, Hits, Metric

METRICS = ("cosine", "ip", "l2")


def _pair(queries: npt.ArrayLike, vectors: npt.ArrayLike, metric: str) -> tuple[FloatArray, FloatArray]:
    if metric not in METRICS:
        raise InputError(f"metric: {metric!r} given, one of {', '.join(METRICS)} expected")
    rows = as_matrix(vectors, dim=None, what="vectors")
    if rows.shape == (0, 0):  # no rows, which fit any queries
        given = as_matrix(queries, dim=None, what="queries")
        return given, rows.reshape(0, given.shape[1])
    return as_matrix(queries, dim=rows.shape[1], what="queries"), rows


def score(
    queries: npt.ArrayLike,
    vectors: npt.ArrayLike,
    *,
    metric: Metric = "cosine",
    candidates: npt.ArrayLike | None = None,
    threads: int | None = None,
) -> FloatArray:
    """Scores every query with every vector, or with its own candidates among them; larger is better.

    All pairs are computed in float32; the error of a score is at most ``(d + 8) * 2^-24 * |q| |x|`` (in float64 where float32 would
    overflow). Scores of candidates are those that ``topk`` gives for these vectors: float64, rounded once.

    Args:
        queries: ``(nq, d)`` or one row ``(d,)``, float; C-contiguous float32 is read without a copy.
        vectors: ``(n, d)`` or one row, likewise.
        metric: ``"cosine"``, ``"ip"`` (inner product) or ``"l2"`` (``-|q - x|^2``).
        candidates: None, or whole numbers ``(nq, m)``: for each query positions in ``vectors``, in any order, -1 where one is missing; for
            one query also ``(m,)``. No other vector is then read.
        threads: of this call; None means all cores (``NEARFIELD_THREADS`` caps both).

    Returns:
        float32 ``(nq, n)``, or ``(nq, m)`` with NaN in missing places. A zero vector scores 0 under cosine.

    Raises:
        InputError: wrong shape, dtype or metric; a row that is read with NaN, infinity or a norm beyond float32; a candidate out of range.

    >>> score(np.array([[3.0, 4.0]]), np.array([[3.0, 4.0], [0.0, 0.0]]), metric="ip").tolist()
    [[25.0, 0.0]]
    >>> score(np.array([[3.0, 4.0]]), np.eye(2), metric="ip", candidates=[[1, -1, 0]]).tolist()
    [[4.0, nan, 3.0]]
    """
    given, rows = _pair(queries, vectors, metric)
    count = check_threads(threads)
    if candidates is None:
        return engine().score_matrix(given, rows, metric, count)
    positions = as_candidates(as_array(candidates, "candidates"), len(given), "candidates")
    return engine().score_candidates(given, rows, as_places(positions, "candidates"), metric, count)


def topk(queries: npt.ArrayLike, vectors: npt.ArrayLike, k: int, *, metric: Metric = "cosine", device: str = "cpu") -> Hits:
    """Finds the exact ``k`` best vectors of each query, as ``FlatIndex`` would, without building an index.

    Args:
        queries: ``(nq, d)`` or one row ``(d,)``, float; C-contiguous float32 is read without a copy.
        vectors: ``(n, d)`` or one row, likewise (cosine makes one normalized copy).
        k: how many, >= 1.
        metric: ``"cosine"``, ``"ip"`` or ``"l2"``.
        device: ``"cpu"`` (the native engine), ``"cuda"`` or ``"cuda:N"`` (needs ``nearfield[cuda]``): the same ids from a GPU. The vectors
            are sent there for this call, in chunks where they do not fit into its memory; ``FlatIndex`` keeps them there.

    Returns:
        Hits whose ids are positions in ``vectors``; equal scores rank by position. ``rescored`` is None on the CPU.

    Raises:
        InputError: wrong shape, dtype, k, metric or device; a row with NaN, infinity or a norm beyond float32.
        MissingExtraError: a CUDA device is asked for and torch is not installed.

    >>> topk(np.array([1.0, 0.0]), np.eye(2), 1).ids.tolist()
    [[0]]
    """
    given, rows = _pair(queries, vectors, metric)
    count = check_k(k)
    check_places(len(given), count)
    if device != "cpu":
        return device_topk(given, rows, count, metric, device)
    slots, scores, counts = engine().topk(given, rows, count, metric, 0)
    return Hits(np.asarray(slots), scores, counts)


def device_topk(queries: FloatArray, rows: FloatArray, k: int, metric: Metric, device: str) -> Hits:
    """``topk`` of checked arrays on a GPU; what the GPU cannot prove the native engine answers."""
    cuda_number(device)
    if not (len(queries) and rows.size):
        slots, scores, counts = _core.topk(queries, rows, k, metric, 0)
        return Hits(np.asarray(slots), scores, counts, np.zeros(len(queries), np.int64))
    found = rows_on(device, rows, metric).search(queries, k)
    left = np.flatnonzero(found.open)
    if len(left):
        found.positions[left], found.scores[left], found.counts[left] = _core.topk(queries[left], rows, k, metric, 0)
    return Hits(found.positions, found.scores, found.counts, found.rescored)
