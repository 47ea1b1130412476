"""The slow, obvious answers that everything fast is compared with: float64, no cleverness."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]


def dot_matrix(queries: npt.ArrayLike, rows: npt.ArrayLike) -> Matrix:
    """Inner products of every query with every row, each a float64 sum of exact products."""
    q, r = np.asarray(queries, np.float64), np.asarray(rows, np.float64)
    out = np.zeros((len(q), len(r)))
    for i in range(len(q)):
        for j in range(len(r)):
            out[i, j] = np.sum(q[i] * r[j])
    return out


def l2sqr_matrix(queries: npt.ArrayLike, rows: npt.ArrayLike) -> Matrix:
    """Squared Euclidean distances of every query to every row."""
    q, r = np.asarray(queries, np.float64), np.asarray(rows, np.float64)
    out = np.zeros((len(q), len(r)))
    for i in range(len(q)):
        for j in range(len(r)):
            out[i, j] = np.sum((q[i] - r[j]) ** 2)
    return out


def int_dot_matrix(queries: npt.ArrayLike, rows: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Exact integer inner products."""
    return np.asarray(queries, np.int64) @ np.asarray(rows, np.int64).T


def table_sums(tables: npt.ArrayLike, patterns: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """For tables (nq, groups * 16) and patterns (n, groups) of 0 to 15: the sums of the entries chosen, (nq, n)."""
    t, r = np.asarray(tables, np.int64), np.asarray(patterns, np.int64)
    entries = t.reshape(len(t), r.shape[1], 16)
    return np.array([[sum(int(entries[i, g, row[g]]) for g in range(len(row))) for row in r] for i in range(len(t))], np.int64)


def sphere_tail(dims: int, reach: float) -> float:
    """The probability that one coordinate of a uniformly random unit vector lies above ``reach``, by the midpoint rule."""

    def area(start: float) -> float:
        width = (1 - start) / 200_000
        middles = start + width * (np.arange(200_000) + 0.5)
        return float(np.sum((1 - middles**2) ** ((dims - 3) / 2))) * width

    return area(reach) / area(-1.0)


def unit_rows(rows: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Rows divided by their norm in float64, rounded once to float32; zero rows stay zero."""
    values = np.asarray(rows, np.float64)
    norms = np.sqrt(np.sum(values**2, axis=1, keepdims=True))
    return np.divide(values, norms, out=np.zeros_like(values), where=norms > 0).astype(np.float32)


def scores(queries: npt.ArrayLike, stored: npt.ArrayLike, metric: str) -> Matrix:
    """The float64 scores of queries with rows as they are stored (cosine: unit rows); larger is better."""
    q = np.asarray(queries, np.float64)
    if metric == "l2":
        return -l2sqr_matrix(q, stored)
    dots = dot_matrix(q, stored)
    if metric == "ip":
        return dots
    norms = np.sqrt(np.sum(q**2, axis=1, keepdims=True))
    return np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)


def rank(row: npt.NDArray[np.float64], k: int, allowed: npt.NDArray[np.bool_] | None = None) -> list[int]:
    """Positions of the k largest scores among those allowed; equal scores in rising position."""
    order = sorted((j for j in range(len(row)) if allowed is None or allowed[j]), key=lambda j: (-row[j], j))
    return order[:k]


def swap_tolerance(queries: npt.ArrayLike, stored: npt.ArrayLike, metric: str) -> float:
    """How close two scores must be to be allowed to swap: d * 2^-52 * |q| |x| for the largest norms (cosine: |q| = 1)."""
    q, r = np.asarray(queries, np.float64), np.asarray(stored, np.float64)
    if q.size == 0 or r.size == 0:
        return 0.0
    q_norm = 1.0 if metric == "cosine" else float(np.max(np.linalg.norm(q, axis=1)))
    r_norm = float(np.max(np.linalg.norm(r, axis=1)))
    product = (q_norm + r_norm) ** 2 if metric == "l2" else q_norm * r_norm
    return q.shape[1] * 2.0**-52 * product


def assert_ranked(found: npt.NDArray[np.int64], row: npt.NDArray[np.float64], wanted: list[int], tolerance: float) -> None:
    """Asserts that ``found`` is the wanted ranking, up to swaps of scores within the tolerance."""
    assert len(found) == len(wanted)
    assert len(set(found.tolist())) == len(found)
    for place, (got, want) in enumerate(zip(found.tolist(), wanted, strict=True)):
        assert got == want or abs(row[got] - row[want]) <= tolerance, (place, got, want, row[got], row[want])
