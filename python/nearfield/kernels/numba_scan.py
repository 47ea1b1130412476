"""The CUDA kernel of ``numba_cuda``: imported late, because importing it imports Numba."""

from __future__ import annotations

import math
from typing import Any

from numba import cuda, float64, int32

# Most threads of a block: the scores of a strip of rows, one each, are shared.
MAX_THREADS = 64
COSINE, IP, L2 = 0, 1, 2


@cuda.jit(device=True)  # type: ignore[untyped-decorator]
def summed(query: Any, row: Any, squared_gaps: Any) -> Any:
    """Inner product or squared distance in float64, summed in the order of csrc/score/door.h: element i in lane i mod 8."""
    lanes = cuda.local.array(8, float64)
    for j in range(8):
        lanes[j] = 0.0
    for i in range(query.shape[0]):
        a, b = float64(query[i]), float64(row[i])
        lanes[i % 8] += (a - b) * (a - b) if squared_gaps else a * b
    return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]))


@cuda.jit(device=True)  # type: ignore[untyped-decorator]
def insert(scores: Any, positions: Any, score: Any, position: Any) -> None:
    """Puts a row into a descending list, behind equal scores: rows come in rising position."""
    place = scores.shape[0] - 1
    if score <= scores[place]:
        return
    while place > 0 and scores[place - 1] < score:
        scores[place] = scores[place - 1]
        positions[place] = positions[place - 1]
        place -= 1
    scores[place] = score
    positions[place] = position


@cuda.jit  # type: ignore[untyped-decorator]
def scan(rows: Any, queries: Any, metric: Any, scores: Any, positions: Any) -> None:
    """One block for each query. rows: (n, dim), queries: (nq, dim) float32; scores: (nq, k) float64, -inf at first; positions: int64."""
    strip = cuda.shared.array(MAX_THREADS, float64)
    better = cuda.shared.array(1, int32)
    mine, thread, threads = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x
    query, count, k = queries[mine], rows.shape[0], scores.shape[1]
    norm = math.sqrt(summed(query, query, False)) if metric == COSINE else 1.0
    for start in range(0, count, threads):
        if thread == 0:
            better[0] = 0
        cuda.syncthreads()
        if start + thread < count:
            score = summed(query, rows[start + thread], metric == L2)
            if metric == L2:
                score = -score
            elif norm > 0.0:
                score = score / norm
            strip[thread] = score  # a zero query's products are zero: nothing to divide
            if score > scores[mine, k - 1]:
                better[0] = 1
        cuda.syncthreads()
        if thread == 0 and better[0] == 1:
            for j in range(min(threads, count - start)):
                insert(scores[mine], positions[mine], strip[j], start + j)
        cuda.syncthreads()
