"""Recall and agreement: every speed stands beside one of these figures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.int64]

# Rows per block of the float64 oracle: 16,384 x 384 doubles are 50 MB.
BLOCK = 16_384
# Queries per block: their scores against 200,000 rows are 400 MB of doubles.
QUERY_BLOCK = 256
# Two float64 inner products of 384-d unit vectors that were summed in different orders differ by less than 384 * 2^-52 = 8.5e-14; longer
# vectors by as many times more as their scores are larger.
TIE = 1e-12


def exact_topk(queries: FloatArray, vectors: FloatArray, k: int) -> tuple[IntArray, npt.NDArray[np.float64]]:
    """The float64 oracle: ids ``(nq, k)`` and inner products ``(nq, k)``, descending, ties by the smaller id.

    Args:
        queries: ``(nq, d)``, float32 or float64.
        vectors: ``(n, d)``.
        k: at most ``n`` places are returned.
    """
    k = min(k, len(vectors))
    parts = [_exact_block(np.asarray(queries[i : i + QUERY_BLOCK], np.float64), vectors, k) for i in range(0, len(queries), QUERY_BLOCK)]
    if not parts:
        return np.empty((0, k), np.int64), np.empty((0, k))
    return np.concatenate([ids for ids, _ in parts]), np.concatenate([scores for _, scores in parts])


def _exact_block(queries: npt.NDArray[np.float64], vectors: FloatArray, k: int) -> tuple[IntArray, npt.NDArray[np.float64]]:
    scores = np.empty((len(queries), len(vectors)))
    for start in range(0, len(vectors), BLOCK):
        block = np.asarray(vectors[start : start + BLOCK], np.float64)
        scores[:, start : start + len(block)] = queries @ block.T
    ids = np.empty((len(queries), k), np.int64)
    for row, line in enumerate(scores):
        # The k-th best score decides who may be listed; all that equal it are sorted before the cut, for the tie rule.
        candidates = np.flatnonzero(line >= np.partition(line, -k)[-k])
        ids[row] = candidates[np.lexsort((candidates, -line[candidates]))][:k]
    return ids, np.take_along_axis(scores, ids, axis=1)


def recall_at_k(found: IntArray, queries: FloatArray, vectors: FloatArray, true_scores: npt.NDArray[np.float64]) -> float:
    """Mean share of the k true neighbours that were found, between 0 and 1.

    A found row counts when its float64 score reaches the k-th true score, so that equal texts may stand for each other; an id
    counts once per query, ids below 0 are empty places.

    Args:
        found: ``(nq, k)`` row numbers as an engine returned them.
        true_scores: ``(nq, k)`` from :func:`exact_topk`.
    """
    nq, k = true_scores.shape
    hits = 0
    for row in range(nq):
        ids = np.unique(found[row])
        ids = ids[ids >= 0]
        scores = np.asarray(vectors[ids], np.float64) @ np.asarray(queries[row], np.float64)
        last = true_scores[row, -1]
        hits += min(int(np.count_nonzero(scores >= last - TIE * max(1.0, abs(last)))), k)
    return float(hits / (nq * k))


def same_lists(found: IntArray, true_ids: IntArray) -> float:
    """Share of the queries whose whole ranked list equals the oracle's, between 0 and 1."""
    return float(np.mean(np.all(np.asarray(found) == true_ids, axis=1)))


def mean_cosine(a: FloatArray, b: FloatArray) -> float:
    """Mean over the rows of the cosine between ``a[i]`` and ``b[i]``, in float64."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.mean(np.sum(x * y, axis=1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))))
