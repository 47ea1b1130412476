"""What HNSWIndex and FrozenIndex have in common: names, searches and scores over a graph of the native engine."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nearfield import _core
from nearfield.arrays import as_matrix, check_threads, check_whole
from nearfield.errors import FormatError, InputError
from nearfield.index.common import by_slot, check_search, make_hits
from nearfield.index.ids import IdMap
from nearfield.kernels.choice import score_stored
from nearfield.types import AnyArray, FloatArray, Hits, Ids, IntArray, Metric, Storage

MAX_EF = 2**20


class Seen(NamedTuple):
    """What a search sees, in one attribute of its index, so that a search takes all of it at one moment."""

    graph: _core.HnswView | _core.Frozen
    names: IdMap


class GraphIndex:
    """Searches over a graph; made by its subclasses alone."""

    dim: int
    metric: Metric
    storage: Storage = "float32"
    M: int
    ef_construction: int
    seed: int
    threads: int | None
    fingerprint: str | None
    _seen: Seen
    # Held while names change and a change becomes visible, and while ids of a filter become slots: of one moment, these too.
    _naming: threading.Lock

    def __len__(self) -> int:
        return self._seen.graph.live

    def __contains__(self, id: int | str) -> bool:
        return id in self._seen.names

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}(dim={self.dim}, metric={self.metric!r}, M={self.M}, ef_construction={self.ef_construction}, rows={len(self)})"

    @property
    def ids(self) -> AnyArray:
        """The live ids in order of insertion: int64, or object (str)."""
        graph, names = self._seen
        return names.names(graph.live_slots())

    def search(
        self,
        queries: npt.ArrayLike,
        k: int = 10,
        *,
        ef: int | None = None,
        target_recall: float | None = None,
        filter: Any = None,
        bias: npt.ArrayLike | None = None,
        threads: int | None = None,
    ) -> Hits:
        """Finds ``k`` rows near each query.

        Args:
            queries: ``(nq, dim)`` or one row ``(dim,)``, float.
            k: how many, >= 1; fewer rows give fewer (``Hits.counts``).
            ef: candidates kept during the walk, 1 to 1,048,576, raised to ``k`` where it is smaller: more find more, and cost time in
                proportion. Default: max(64, 2 k); at 64, recall@10 was 0.94 on 20,000 clustered rows of 384 dimensions, at 128 it was 0.99.
            target_recall: refused; it needs a calibration that this index does not make yet.
            filter: ids to search among (those not in the index match nothing), or a boolean mask aligned with ``index.ids``,
                ``(n,)`` or ``(nq, n)``.
            bias: float32 added to the scores, aligned with ``index.ids``, ``(n,)`` or ``(nq, n)``; finite. The search is then exact.
            threads: as for the constructor, for this call.

        Returns:
            Hits: ids, scores and counts.

        Raises:
            InputError: wrong shape, dtype, k or ef; a query with NaN, infinity or a norm beyond float32; a target_recall.
        """
        rows, count = check_search(queries, k, self.dim)
        if target_recall is not None:
            raise InputError("target_recall: HNSWIndex cannot honour it without a calibration, which it does not make yet: give ef")
        width = max(64, 2 * count) if ef is None else check_whole(ef, "ef", 1, MAX_EF)
        with self._naming if filter is not None else nullcontext():
            graph, names = self._seen
            limit = graph.slots
            mask, weights = by_slot(filter, bias, names, graph, limit, len(rows))
        slots, scores, counts = graph.search(rows, count, limit, width, mask, weights, check_threads(threads, self.threads))
        return make_hits(names, slots, scores, counts)

    def score(self, queries: npt.ArrayLike, ids: Any, *, threads: int | None = None) -> FloatArray:
        """Scores given candidates, for reranking: the very scores that a search without a bias reports for these rows.

        Args:
            queries: ``(nq, dim)`` or one row ``(dim,)``, float.
            ids: ``(nq, m)``, the candidates of each query, in any order; for one query also ``(m,)``. -1 and None are missing places, as in
                ``Hits.ids``.
            threads: as for the constructor, for this call.

        Returns:
            float32 ``(nq, m)``, larger is better; NaN in missing places.

        Raises:
            InputError: wrong shape or dtype; an id that is not in the index, with its row and place; a query with NaN, infinity or a norm
                beyond float32.

        >>> from nearfield.index.hnsw import HNSWIndex
        >>> index = HNSWIndex(2, metric="ip")
        >>> index.add(np.array([[1, 0], [0, 1]], np.float32), ids=["x", "y"])
        >>> index.score(np.array([[2, 1]], np.float32), [["y", "x", None]]).tolist()
        [[1.0, 2.0, nan]]
        """
        rows = as_matrix(queries, dim=self.dim, what="queries")
        count = check_threads(threads, self.threads)
        with self._naming:
            graph, names = self._seen
            candidates = names.candidates(ids, len(rows))
        return score_stored(graph, self.metric, rows, candidates, count)

    def get(self, ids: Ids) -> FloatArray:
        """The stored rows ``(n, dim)``, float32 (cosine: unit rows). Raises InputError for an id that is not in the index."""
        with self._naming:
            graph, names = self._seen
            slots = names.require(ids)
        return graph.get(slots)


def settle_names(names: IdMap, live: IntArray, slots: int, where: str) -> None:
    """Makes names stand for live slots alone, one for each; raises FormatError, naming the file, where one stands for two."""
    if len(live) < slots:
        names.forget(np.setdiff1d(np.arange(slots), live, assume_unique=True))
        names.restore(live)
    wanted = names.names(live)
    found, _ = names.find(wanted.tolist() if names.kind == "str" else wanted)
    if not np.array_equal(found, live):
        raise FormatError(f"{where}: an id stands for two rows: the file is damaged")
