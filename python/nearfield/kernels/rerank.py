"""Candidates ranked by the caller's own scoring function, compiled by Numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from nearfield.arrays import as_array, as_candidates, as_matrix, as_places
from nearfield.errors import InputError, MissingExtraError
from nearfield.types import Hits


def rerank(queries: npt.ArrayLike, vectors: npt.ArrayLike, candidates: npt.ArrayLike, *, score: Callable[..., Any]) -> Hits:
    """Ranks each query's candidates by a function of your own, without the GIL and without a Python call for each pair.

    Args:
        queries: ``(nq, d)`` or one row ``(d,)``, float; C-contiguous float32 is read without a copy.
        vectors: ``(n, e)``, likewise; ``e`` may differ from ``d`` where the function allows it. Only candidates are read, as they are:
            nothing is normalized or checked for NaN.
        candidates: whole numbers ``(nq, m)``: for each query positions in ``vectors``, in any order, -1 where one is missing; for one query
            also ``(m,)``. The positions of ``nf.topk`` fit as they are.
        score: made by ``@numba.njit``; takes a query ``(d,)`` and a vector ``(e,)``, both float32, gives one number, larger is better. It
            must not read beyond the ends of either: compiled code is not held back.

    Returns:
        Hits whose ids are the positions, best first; equal scores keep the order given. Scores are rounded once to float32.

    Raises:
        InputError: wrong shape or dtype; a candidate out of range; a function that is not compiled by numba, cannot take such arrays or
            gives no number; a score of NaN, named with its row and place.
        MissingExtraError: numba is not installed.

    >>> import numba
    >>> @numba.njit
    ... def late_interaction(query, vector):  # 2 query tokens and 2 vector tokens of 2 columns: each query token's best match, summed
    ...     total = 0.0
    ...     for q in range(0, len(query), 2):
    ...         best = -np.inf
    ...         for v in range(0, len(vector), 2):
    ...             best = max(best, query[q] * vector[v] + query[q + 1] * vector[v + 1])
    ...         total += best
    ...     return total
    >>> vectors = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [0, 0, 0, 1]], np.float32)
    >>> hits = rerank(np.array([1, 0, 0, 1], np.float32), vectors, [2, 0, 1, -1], score=late_interaction)
    >>> hits.ids.tolist(), hits.scores.tolist(), hits.counts.tolist()
    ([[1, 2, 0, -1]], [[2.0, 1.0, 1.0, nan]], [3])
    """
    try:
        from numba.extending import is_jitted

        from nearfield.kernels.numba_rerank import score_pairs
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "numba":
            raise
        raise MissingExtraError("nf.rerank", "numba", "numba") from None
    if not is_jitted(score):
        raise InputError(f"score: {score!r} given, a function made by @numba.njit expected")
    given, rows = as_matrix(queries, dim=None, what="queries"), as_matrix(vectors, dim=None, what="vectors")
    positions = as_places(as_candidates(as_array(candidates, "candidates"), len(given), "candidates"), "candidates")
    _check_below(positions, len(rows))
    scores = score_pairs(score, given, rows, positions)
    wrong = np.argwhere(np.isnan(scores) & (positions >= 0))
    if len(wrong):
        row, place = wrong[0].tolist()
        raise InputError(f"score: NaN for query {row} and its candidate {positions[row, place]} (place {place}), a number expected")
    return _ranked(positions, scores)


def _check_below(positions: npt.NDArray[np.int64], count: int) -> None:
    wrong = np.argwhere(positions >= count)
    if len(wrong):
        row, place = wrong[0].tolist()
        raise InputError(
            f"candidates: row {row}, place {place} is {positions[row, place]}, a position below {count}, or -1 for none, expected"
        )


def _ranked(positions: npt.NDArray[np.int64], scores: npt.NDArray[np.float64]) -> Hits:
    """Larger scores first, missing places (NaN) last, otherwise the order given."""
    order = np.argsort(-scores, axis=1, kind="stable")  # numpy sorts NaN last
    with np.errstate(over="ignore"):
        ranked = np.take_along_axis(scores, order, 1).astype(np.float32)
    return Hits(np.take_along_axis(positions, order, 1), ranked, (positions >= 0).sum(axis=1))
