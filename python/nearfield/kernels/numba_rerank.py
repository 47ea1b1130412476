"""The loop of ``rerank``: imported late, because importing it imports Numba."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import float64, njit
from numba.core.errors import NumbaError

from nearfield.errors import InputError
from nearfield.types import FloatArray, IntArray


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _loop(score: Any, queries: Any, rows: Any, positions: Any, out: Any) -> None:
    # Compiled anew for every function, in each process: Numba keeps no code on disk that takes a function.
    for i in range(len(queries)):
        for j in range(positions.shape[1]):
            at = positions[i, j]
            out[i, j] = float64(score(queries[i], rows[at])) if at >= 0 else np.nan


def score_pairs(score: Any, queries: FloatArray, rows: FloatArray, positions: IntArray) -> npt.NDArray[np.float64]:
    """float64 (nq, m): the function's scores, NaN for -1. Raises InputError where Numba cannot compile the call."""
    out = np.empty(positions.shape, np.float64)
    try:
        _loop(score, queries, rows, positions, out)
    except NumbaError as problem:
        # The cause stands in one of many lines, most of which speak of this file.
        told = [
            line.strip() for line in str(problem).splitlines() if line.strip() and not line.lstrip().startswith(("File ", "<source", "^"))
        ]
        reason = next((line for line in reversed(told) if line.startswith(("No ", "Cannot ", "Unknown ", "Invalid ", "too "))), told[0])
        raise InputError(
            f"score: numba cannot call {score.py_func.__name__}(query, vector) with two float32 rows and get a number ({reason})"
        ) from None
    return out
