"""The Numba twin of the native scorer: the same answers from code that can be read in a few minutes. docs/numba.md says what it is for.

No bound and no codes: every row is scored in float64, in the native engine's order of summation, so ids and scores have its bits. What may
not enter is refused by the native door (csrc/score/door.h), so that there is one wording of each refusal.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from nearfield import _core
from nearfield.kernels import numba_exact as kernels
from nearfield.types import BoolArray, FloatArray, IntArray, Metric

METRICS = {"cosine": kernels.COSINE, "ip": kernels.IP, "l2": kernels.L2}
# Products below which a further thread costs more to start than it saves: as in csrc/score/scan.cpp.
PRODUCTS_PER_THREAD = 1 << 18


def score_matrix(queries: FloatArray, vectors: FloatArray, metric: str, threads: int = 0) -> FloatArray:
    """As ``_core.score_matrix``, in float64 and rounded once: within its bound, not of its bits."""
    _refuse_bad(queries, "queries", metric)
    _refuse_bad(vectors, "vectors", metric)
    rows = _unit(vectors) if metric == "cosine" else vectors
    out = np.empty((len(queries), len(rows)), np.float32)
    _in_parts(len(queries), threads, vectors.size, lambda a, b: kernels.all_pairs(queries[a:b], rows, METRICS[metric], out[a:b]))
    return out


def score_candidates(queries: FloatArray, vectors: FloatArray, positions: IntArray, metric: str, threads: int = 0) -> FloatArray:
    """As ``_core.score_candidates``."""
    _refuse_bad(queries, "queries", metric)
    out = np.empty(positions.shape, np.float32)
    good = bool((positions < len(vectors)).all()) and kernels.chosen_pairs(queries, vectors, positions, METRICS[metric], True, out)
    if not good:
        return _core.score_candidates(queries, vectors, positions, metric, threads)  # raises, naming row and place
    return out


def topk(queries: FloatArray, vectors: FloatArray, k: int, metric: str, threads: int = 0) -> tuple[IntArray, FloatArray, IntArray]:
    """As ``_core.topk``."""
    _refuse_bad(vectors, "vectors", metric)
    rows = _unit(vectors) if metric == "cosine" else vectors
    return _search(queries, rows, k, metric, None, None, threads)[:3]


class TwinRows:
    """A store's rows, searched and scored by the twin. They are copied out of the store for each call."""

    def __init__(self, store: _core.FlatStore | _core.Hnsw, metric: Metric) -> None:
        self._store, self._metric = store, metric

    def search(
        self,
        queries: FloatArray | _core.TextQueries,
        k: int,
        limit: int,
        mask: BoolArray | None = None,
        bias: FloatArray | None = None,
        guarantee: float = 1.0,
        threads: int = 0,
    ) -> tuple[IntArray, FloatArray, IntArray, IntArray]:
        """As ``_core.FlatStore.search``; every row allowed counts as rescored, and the answer is certain whatever the guarantee."""
        live = self._store.live_slots()
        live = live[live < limit]
        masked = None if mask is None else mask[:, live]
        biased = None if bias is None else bias[:, live]
        places, scores, counts, scored = _search(np.asarray(queries), self._store.get(live), k, self._metric, masked, biased, threads)
        found = places >= 0
        places[found] = live[places[found]]
        return places, scores, counts, scored

    def score(self, queries: FloatArray, slots: IntArray, threads: int = 0) -> FloatArray:
        """As ``_core.FlatStore.score``, on one thread."""
        _refuse_bad(queries, "queries", self._metric)
        named = np.unique(slots[slots >= 0])
        positions = np.where(slots < 0, -1, np.searchsorted(named, slots))
        out = np.empty(slots.shape, np.float32)
        kernels.chosen_pairs(queries, self._store.get(named), positions, METRICS[self._metric], False, out)
        return out


def _search(
    queries: FloatArray, rows: FloatArray, k: int, metric: str, mask: BoolArray | None, bias: FloatArray | None, threads: int
) -> tuple[IntArray, FloatArray, IntArray, IntArray]:
    """Positions in ``rows`` (for cosine unit rows), scores, counts, and how many rows were scored."""
    _refuse_bad(queries, "queries", metric)
    masks = np.empty((0, len(rows)), np.bool_) if mask is None else mask
    biases = np.empty((0, len(rows)), np.float32) if bias is None else bias
    width = min(k, len(rows))
    best, places = np.full((len(queries), width), np.nan), np.full((len(queries), width), -1, np.int64)
    counts, scored = np.zeros(len(queries), np.int64), np.zeros(len(queries), np.int64)

    def scan(a: int, b: int) -> None:
        own_masks, own_biases = (each if len(each) <= 1 else each[a:b] for each in (masks, biases))
        kernels.scan(queries[a:b], rows, METRICS[metric], own_masks, own_biases, best[a:b], places[a:b], counts[a:b], scored[a:b])

    if width:
        _in_parts(len(queries), threads, rows.size, scan)
    slots, scores = np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), np.nan, np.float32)
    with np.errstate(over="ignore"):  # beyond float32 a score is infinite
        slots[:, :width], scores[:, :width] = places, best
    return slots, scores, counts, scored


def _in_parts(queries: int, threads: int, products: int, work: Callable[[int, int], None]) -> None:
    """Runs ``work(begin, end)`` over the queries, each of so many products, in threads of its own: they leave nothing behind for a fork.

    Numba's own parallel loops are not used: their default layers abort the process when two threads enter them, or after a fork.
    """
    parts = min(_core.resolve_threads(threads), queries, 1 + queries * products // PRODUCTS_PER_THREAD)
    if parts <= 1:
        work(0, queries)
        return
    bounds = [queries * part // parts for part in range(parts + 1)]
    with ThreadPoolExecutor(parts) as pool:
        for _ in pool.map(work, *zip(*pairwise(bounds), strict=True)):
            pass


def _unit(vectors: FloatArray) -> FloatArray:
    out = np.empty_like(vectors)
    kernels.unit_rows(vectors, out)
    return out


def _refuse_bad(rows: FloatArray, what: str, metric: str) -> None:
    """Raises InputError "<what>: row ..." for rows that may not enter."""
    none = np.empty((0, rows.shape[1]), np.float32)
    queries, vectors = (rows, none) if what == "queries" else (none, rows)
    _core.topk(queries, vectors, 1, metric)
