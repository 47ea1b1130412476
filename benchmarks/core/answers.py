"""The answers of the very calls that are timed: what is fast and what is right is the same computation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.core.quality import IntArray
from nearfield import Hits

Answer = np.ndarray | Hits
Search = Callable[[Any], Answer]


class Answers:
    """A contestant that keeps what it answered, in the order of the calls.

    Args:
        search: ``(nq, d)`` queries, or whatever is asked, to ``(nq, k)`` ids, -1 in empty places, or to ``nearfield.Hits``. Called by
            itself it answers without being kept.
    """

    def __init__(self, search: Search) -> None:
        self.search = search
        self.kept: list[Any] = []

    def __call__(self, queries: Any) -> None:
        self.kept.append(self.search(queries))

    def ids(self, count: int) -> IntArray:
        """The ids of the first ``count`` queries that were asked, ``(count, k)`` int64."""
        rows: list[Any] = []
        for answer in self.kept:
            rows.extend(answer.ids if isinstance(answer, Hits) else answer)
            if len(rows) >= count:
                break
        return np.asarray(rows[:count], np.int64)

    def rescored(self) -> dict[str, float]:
        """Mean and maximum over all queries of ``Hits.rescored``; empty for an engine that does not say."""
        counts = [answer.rescored for answer in self.kept if isinstance(answer, Hits) and answer.rescored is not None]
        if not counts:
            return {}
        every = np.concatenate(counts)
        return {"rescored_mean": round(float(every.mean()), 2), "rescored_max": int(every.max())}
