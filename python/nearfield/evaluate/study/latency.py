"""How long a query takes from text to ids on this machine, measured with the evaluation's own encoder and documents."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from nearfield.evaluate.study.results import Latency
from nearfield.search.encoders import TextEncoder
from nearfield.types import FloatArray

Call = Callable[[Sequence[str]], tuple[float, float]]

# Rows of a call: a person's question, and what a batch job sends at once.
ROWS = (1, 32)
# Enough calls for a 95th percentile, as long as they take less than a second for each number of rows.
CALLS, SECONDS, LEAST_CALLS = 200, 1.0, 3


def measure_latency(
    encoder: TextEncoder, query_texts: Sequence[str], documents: FloatArray, *, k: int, threads: int | None = None
) -> list[Latency]:
    """Times encoding and exact search of queries, one at a time and 32 at a time; about two seconds in all.

    Args:
        encoder: the model, as it was opened.
        query_texts: real ones, taken in turn.
        documents: float32 ``(documents, dim)``.
        k: results of a search.
        threads: of the search; None takes the library's default.
    """
    from nearfield.index.flat import FlatIndex

    index = FlatIndex(documents.shape[1], metric="cosine", threads=threads)
    index.add(documents)

    def call(texts: Sequence[str]) -> tuple[float, float]:
        start = time.perf_counter()
        queries = encoder.encode(texts, kind="query")
        encoded = time.perf_counter()
        index.search(queries, k, threads=threads)
        return encoded - start, time.perf_counter() - encoded

    return [_timed(rows, call, query_texts) for rows in ROWS]


def _timed(rows: int, call: Call, texts: Sequence[str]) -> Latency:
    def batch(number: int) -> list[str]:
        return [texts[(number * rows + row) % len(texts)] for row in range(rows)]

    call(batch(0))
    times: list[tuple[float, float]] = []
    start = time.perf_counter()
    while len(times) < LEAST_CALLS or (len(times) < CALLS and time.perf_counter() - start < SECONDS):
        times.append(call(batch(len(times))))
    table = 1000 * np.array(times)
    encode, search, total = (_spread(column) for column in (table[:, 0], table[:, 1], table.sum(axis=1)))
    return Latency(rows, len(times), encode, search, total)


def _spread(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    median, high = np.quantile(values, [0.5, 0.95])
    return float(median), float(high)
