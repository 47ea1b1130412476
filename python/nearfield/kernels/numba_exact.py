"""The kernels of ``numba_cpu``: imported late, because importing it imports Numba. Every sum is csrc/score/door.h's, term by term.

Compiled at the first call with each kind of array, without fast-math, so that no sum is reordered and no multiply-add fused; kept on
disk where a folder for that can be written (``NUMBA_CACHE_DIR``, or beside this file, or in the user's cache).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import float32, float64, njit

COSINE, IP, L2 = 0, 1, 2
FLOAT32_MAX = float(np.finfo(np.float32).max)


def compiled(function: Any) -> Any:
    """``njit`` without the GIL, cached where it can be."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba finds no folder that it may write to
        return njit(nogil=True)(function)


@compiled
def term(a: Any, b: Any, squared_gaps: Any) -> Any:
    """a b or (a - b)^2 in float64."""
    x, y = float64(a), float64(b)
    return (x - y) * (x - y) if squared_gaps else x * y


@compiled
def summed(q: Any, r: Any, squared_gaps: Any) -> Any:
    """Inner product or squared distance: element i in lane i mod 8, the lanes added by a fixed tree."""
    a = b = c = d = e = f = g = h = 0.0
    whole, rest = len(q) - len(q) % 8, len(q) % 8
    for i in range(0, whole, 8):
        a += term(q[i], r[i], squared_gaps)
        b += term(q[i + 1], r[i + 1], squared_gaps)
        c += term(q[i + 2], r[i + 2], squared_gaps)
        d += term(q[i + 3], r[i + 3], squared_gaps)
        e += term(q[i + 4], r[i + 4], squared_gaps)
        f += term(q[i + 5], r[i + 5], squared_gaps)
        g += term(q[i + 6], r[i + 6], squared_gaps)
        h += term(q[i + 7], r[i + 7], squared_gaps)
    if rest > 0:
        a += term(q[whole], r[whole], squared_gaps)
    if rest > 1:
        b += term(q[whole + 1], r[whole + 1], squared_gaps)
    if rest > 2:
        c += term(q[whole + 2], r[whole + 2], squared_gaps)
    if rest > 3:
        d += term(q[whole + 3], r[whole + 3], squared_gaps)
    if rest > 4:
        e += term(q[whole + 4], r[whole + 4], squared_gaps)
    if rest > 5:
        f += term(q[whole + 5], r[whole + 5], squared_gaps)
    if rest > 6:
        g += term(q[whole + 6], r[whole + 6], squared_gaps)
    return ((a + e) + (b + f)) + ((c + g) + (d + h))


@compiled
def norm_of(row: Any) -> Any:
    """Euclidean norm in float64; squares of float32 values cannot overflow it."""
    return math.sqrt(summed(row, row, False))


@compiled
def normalize(row: Any, norm: Any, out: Any) -> None:
    """out = row / norm, rounded once to float32; a zero row stays zero."""
    for i in range(len(row)):
        out[i] = float32(float64(row[i]) / norm) if norm > 0.0 else float32(0.0)


@compiled
def unit_rows(rows: Any, out: Any) -> None:
    for i in range(len(rows)):
        normalize(rows[i], norm_of(rows[i]), out[i])


@compiled
def exact_score(query: Any, norm: Any, row: Any, metric: Any) -> Any:
    """Larger is better; ``norm`` is the query's. Cosine takes unit rows."""
    if metric == L2:
        return 0.0 - summed(query, row, True)  # not -0 for equal vectors
    product = summed(query, row, False)
    if metric == IP:
        return product
    return product / norm if norm > 0.0 else 0.0


@compiled
def all_pairs(queries: Any, rows: Any, metric: Any, out: Any) -> None:
    """out (nq, n) float32: every score, rounded once."""
    for i in range(len(queries)):
        norm = norm_of(queries[i])
        for j in range(len(rows)):
            out[i, j] = float32(exact_score(queries[i], norm, rows[j], metric))


@compiled
def chosen_pairs(queries: Any, rows: Any, positions: Any, metric: Any, borrowed: Any, out: Any) -> Any:
    """out (nq, m) float32: scores of positions (nq, m), NaN for -1. ``borrowed`` rows are looked at and, for cosine, normalized first.

    Returns False at a borrowed row whose norm is not within float32.
    """
    place = np.empty(queries.shape[1], np.float32)
    for i in range(len(queries)):
        norm = norm_of(queries[i])
        for j in range(positions.shape[1]):
            at = positions[i, j]
            if at < 0:
                out[i, j] = np.nan
                continue
            place[:] = rows[at]
            if borrowed:
                length = norm_of(rows[at])
                if not length <= FLOAT32_MAX:
                    return False
                if metric == COSINE:
                    normalize(rows[at], length, place)
            score = exact_score(queries[i], norm, place, metric)
            out[i, j] = float32(-np.inf if math.isnan(score) else score)
    return True


@compiled
def ranks_before(scores: Any, positions: Any, a: Any, b: Any) -> Any:
    """Larger score first; equal scores by position."""
    return scores[a] > scores[b] or (scores[a] == scores[b] and positions[a] < positions[b])


@compiled
def sift(scores: Any, positions: Any, root: Any, end: Any) -> None:
    """Mends a heap whose root should be what ranks last among the first ``end``, and may not be at ``root``."""
    while 2 * root + 1 < end:
        child = 2 * root + 1
        if child + 1 < end and ranks_before(scores, positions, child, child + 1):
            child += 1
        if not ranks_before(scores, positions, root, child):
            return
        scores[root], scores[child] = scores[child], scores[root]
        positions[root], positions[child] = positions[child], positions[root]
        root = child


@compiled
def heapify(scores: Any, positions: Any, end: Any) -> None:
    for root in range(end // 2 - 1, -1, -1):
        sift(scores, positions, root, end)


@compiled
def sort_heap(scores: Any, positions: Any, end: Any) -> None:
    """Best first: what ranks last goes to the end, again and again."""
    for last in range(end - 1, 0, -1):
        scores[0], scores[last] = scores[last], scores[0]
        positions[0], positions[last] = positions[last], positions[0]
        sift(scores, positions, 0, last)


@compiled
def scan(queries: Any, rows: Any, metric: Any, mask: Any, bias: Any, scores: Any, positions: Any, counts: Any, scored: Any) -> None:
    """The k best rows of each query, all of them scored.

    mask (m, n) bool and bias (m, n) float32, m = 0 (none), 1 or nq; scores (nq, k) float64, positions (nq, k), counts and scored (nq,)
    int64 are written.
    """
    k = scores.shape[1]
    for i in range(len(queries)):
        norm, kept, seen = norm_of(queries[i]), 0, 0
        best, places = scores[i], positions[i]
        for j in range(len(rows)):
            if len(mask) > 0 and not mask[min(i, len(mask) - 1), j]:
                continue
            score = exact_score(queries[i], norm, rows[j], metric)
            if len(bias) > 0:
                score += float64(bias[min(i, len(bias) - 1), j])
            if math.isnan(score):  # a damaged file, opened without verification
                score = -np.inf
            seen += 1
            if kept < k:
                best[kept], places[kept] = score, j
                kept += 1
                if kept == k:
                    heapify(best, places, k)
            elif score > best[0]:  # an equal one came earlier and stays
                best[0], places[0] = score, j
                sift(best, places, 0, k)
        if kept < k:
            heapify(best, places, kept)
        sort_heap(best, places, kept)
        counts[i], scored[i] = kept, seen
