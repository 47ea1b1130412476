"""Which setting of an engine reaches a recall at the least time; everything here is untimed for the tables."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.core.plan import usable_cores
from benchmarks.core.quality import recall_at_k
from benchmarks.core.timing import time_calls
from benchmarks.suites.graphs import Graph, Setting

MAX_EF = 4_096
# An engine whose recall grows by less when ef doubles has reached what its codes allow (of 4,096 queries x 10 places: 20).
FLAT = 0.0005
# Share of ef at which the bisection stops: the rate follows ef, and rounds differ by more.
NEAR = 0.02
# Searches of one batch, of which the fastest counts, when several settings reach a recall.
TRIALS = 3


class Recalls(dict[Setting, float]):
    """Recall@k of a graph by setting, measured with all cores when first asked for.

    Args:
        graph: a finished graph.
        queries: ``(nq, d)``.
        vectors: ``(n, d)``, the rows of the graph, or ``(n, e)`` where ``products`` are given.
        true_scores: ``(nq, k)`` of the true neighbours, descending.
        products: ``(nq, e)`` whose inner products with ``vectors`` are the scores; the queries themselves where none are given.
    """

    def __init__(
        self, graph: Graph, queries: np.ndarray, vectors: np.ndarray, true_scores: np.ndarray, products: np.ndarray | None = None
    ) -> None:
        super().__init__()
        self.graph = graph
        self.k = true_scores.shape[1]
        self._measure: Callable[[np.ndarray], float] = lambda found: recall_at_k(
            found, queries if products is None else products, vectors, true_scores
        )
        self._queries = queries

    def __missing__(self, at: Setting) -> float:
        self[at] = self._measure(self.graph.search(self._queries, self.k, at, usable_cores()))
        return self[at]

    def fastest(self, target: float) -> Setting | None:
        """The setting that reaches ``target`` in the least time: the smallest ef for each value of refine, and the fastest of these."""
        found = []
        for refine in self.graph.refines:
            ef = smallest_ef(lambda ef, refine=refine: self[Setting(ef, refine)], self.k, target)
            if ef is not None:
                found.append(Setting(ef, refine))
        return min(found, key=self._seconds) if len(found) > 1 else found[0] if found else None

    def _seconds(self, at: Setting) -> float:
        return min(time_calls(lambda queries: self.graph.search(queries, self.k, at, usable_cores()), [self._queries] * TRIALS))


def smallest_ef(recall: Callable[[int], float], k: int, target: float) -> int | None:
    """The smallest ef from k to MAX_EF whose recall reaches ``target``, within NEAR: doubled until it does, then bisected.

    None when MAX_EF does not reach it, or when a doubling adds less than FLAT.
    """
    low = high = k
    before = -1.0
    while (found := recall(high)) < target:
        if high >= MAX_EF or found - before < FLAT:
            return None
        low, high, before = high, min(2 * high, MAX_EF), found
    while high - low > max(1, int(NEAR * high)):
        middle = (low + high) // 2
        low, high = (low, middle) if recall(middle) >= target else (middle, high)
    return high
