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
from nearfield.index.calibration import Calibration, calibrate
from nearfield.index.common import by_slot, check_search, make_hits
from nearfield.index.ids import IdMap
from nearfield.index.planner import MOST_SHARE, SearchPlan, plan_of, scans_together, step_of
from nearfield.kernels.choice import score_stored
from nearfield.types import AnyArray, BoolArray, FloatArray, Hits, Ids, IntArray, Metric, Storage

MAX_EF = 2**20
# What a search without ef and target_recall aims at where the index is calibrated.
UNGUARDED = nullcontext()
TARGET = 0.95
# Of an index too small for a calibration, a search with a target scans all rows: so wide a walk is more work for M >= 2.
WIDE = 8_192


class Width(NamedTuple):
    """Candidates of a walk, where the number comes from, and the recall aimed at."""

    ef: int
    source: str
    target: float | None


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
    _kind: str
    _calibration: Calibration | None
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
            ef: candidates kept during the walk, 1 to 1,048,576, raised to ``k`` where it is smaller (``1.5 k`` in a
                FrozenIndex that is not compact): more find more, and cost time in
                proportion. Default: what ``target_recall`` needs.
            target_recall: recall@k to reach on average over queries like the rows, above 0 and at most 1; not together with ``ef``. It sets
                ef by a calibration on 256 rows of the index (``docs/hnsw.md``): a FrozenIndex has it from ``freeze``; an HNSWIndex makes
                it in ``save`` and in a search that names a target, again when the index has doubled or halved since; below 2,000 rows all
                are scanned. Default: 0.95 where there is a calibration, and ``ef = max(64, 2 k)`` where there is none.
            filter: ids to search among (those not in the index match nothing), or a boolean mask aligned with ``index.ids``,
                ``(n,)`` or ``(nq, n)``.
            bias: float32 added to the scores, aligned with ``index.ids``, ``(n,)`` or ``(nq, n)``; finite. The search is then exact.
            threads: as for the constructor, for this call.

        Returns:
            Hits: ids, scores and counts.

        Raises:
            InputError: wrong shape, dtype, k or ef; a query with NaN, infinity or a norm beyond float32; ef and target_recall
                together.
        """
        rows, count = check_search(queries, k, self.dim)
        count_threads = check_threads(threads, self.threads)
        width = self._width(count, ef, target_recall, count_threads)
        with self._naming if filter is not None else UNGUARDED:
            graph, names = self._seen
            limit = graph.slots
            mask, weights = by_slot(filter, bias, names, graph, limit, len(rows))
        step = self._step(graph, width.ef, count, mask, len(rows))[0]
        slots, scores, counts = graph.search(rows, count, limit, width.ef, mask, weights, count_threads, step=step)
        return make_hits(names, slots, scores, counts)

    def explain(
        self,
        queries: npt.ArrayLike,
        k: int = 10,
        *,
        ef: int | None = None,
        target_recall: float | None = None,
        filter: Any = None,
        bias: npt.ArrayLike | None = None,
        threads: int | None = None,
    ) -> SearchPlan:
        """What ``search`` with the same arguments does, and why: the width of the walk, and for each query whether it walks or scans.

        A scan is exact over the rows that may be results. It is taken where it is no more work than the walk: rows^2 <= ef * step * all
        rows, where ``step`` is how many rows of a scan cost as much as one node of a walk, measured once per process for each kind of
        index, dim and M (on 20,000 rows and more; M stands in below), once for single queries and once for batches: from 16 queries with
        one filter or none on, a scan reads each row once for sixteen of them, and so pays for several times as many rows. A walk that
        meets too few rows, as where a filter's rows lie away from the query, ends in a scan as well.

        Args:
            queries, k, ef, target_recall, filter, bias, threads: as for ``search``.

        Returns:
            SearchPlan: ef and its source, step, and for each query matches, scans and a line of reasons.

        Raises:
            InputError: as ``search``.

        >>> from nearfield.index.hnsw import HNSWIndex
        >>> index = HNSWIndex(2, metric="ip")
        >>> index.add(np.array([[1, 0], [0, 1]], np.float32))
        >>> index.explain(np.array([2, 1], np.float32), 1).scans.tolist()
        [True]
        """
        rows, count = check_search(queries, k, self.dim)
        width = self._width(count, ef, target_recall, check_threads(threads, self.threads))
        with self._naming if filter is not None else UNGUARDED:
            graph, names = self._seen
            mask, weights = by_slot(filter, bias, names, graph, graph.slots, len(rows))
        return plan_of(
            graph,
            k=count,
            ef=width.ef,
            source=width.source,
            target_recall=width.target,
            step=self._step(graph, width.ef, count, mask, len(rows)),
            mask=mask,
            bias=weights is not None,
            queries=len(rows),
        )

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

    def _step(self, graph: _core.HnswView | _core.Frozen, ef: int, k: int, mask: BoolArray | None, queries: int) -> tuple[float, bool]:
        """The planner's step; not measured where it cannot matter."""
        if mask is None and graph.live > max(ef, k) * MOST_SHARE * self.M:
            return float(self.M), False
        return step_of(graph, self._kind, scans_together(queries, mask))

    def _width(self, k: int, ef: int | None, target: float | None, threads: int) -> Width:
        if ef is not None:
            if target is not None:
                raise InputError("ef and target_recall given: give one of them")
            return Width(check_whole(ef, "ef", 1, MAX_EF), "given", None)
        if target is not None:
            if isinstance(target, bool) or not isinstance(target, (int, float, np.integer, np.floating)) or not 0 < target <= 1:
                raise InputError(f"target_recall: {target!r} given, a number above 0 and at most 1 expected")
            self._calibrate(threads)
        made = self._valid_calibration()
        if made is not None:
            wanted = TARGET if target is None else float(target)
            return Width(min(MAX_EF, made.width(k, wanted)), "calibration", wanted)
        return Width(min(MAX_EF, max(64, 2 * k) if target is None else max(WIDE, k)), "default", None if target is None else float(target))

    def _valid_calibration(self) -> Calibration | None:
        """The calibration, unless the index has doubled or halved since."""
        made = self._calibration
        return made if made is not None and made.rows <= 2 * len(self) and len(self) <= 2 * made.rows else None

    def _calibrate(self, threads: int) -> None:
        """Makes a calibration where there is none that is valid. Two callers at once make the same one."""
        if self._valid_calibration() is None:
            self._calibration = calibrate(self._seen.graph, self.seed, threads)


def degrees_of(counts: list[int]) -> dict[str, Any]:
    """What ``stats`` tells of degrees, from the numbers of rows with 0, 1, ... neighbours.

    >>> degrees_of([1, 0, 3])
    {'mean': 1.5, 'least': 0, 'most': 2, 'capacity': 2, 'counts': [1, 0, 3]}
    """
    held = [degree for degree, count in enumerate(counts) if count]
    return {
        "mean": sum(degree * counts[degree] for degree in held) / max(1, sum(counts)),
        "least": min(held, default=0),
        "most": max(held, default=0),
        "capacity": len(counts) - 1,
        "counts": counts,
    }


def settle_names(names: IdMap, live: IntArray, slots: int, where: str) -> None:
    """Makes names stand for live slots alone, one for each; raises FormatError, naming the file, where one stands for two."""
    if len(live) < slots:
        names.forget(np.setdiff1d(np.arange(slots), live, assume_unique=True))
        names.restore(live)
    wanted = names.names(live)
    found, _ = names.find(wanted.tolist() if names.kind == "str" else wanted)
    if not np.array_equal(found, live):
        raise FormatError(f"{where}: an id stands for two rows: the file is damaged")


def read_calibration(fields: dict[str, Any], where: str) -> Calibration | None:
    """The calibration in a file's description, None where it has none; raises FormatError, naming the file, for what is not one."""
    try:
        return Calibration.from_json(fields.get("calibration"))
    except InputError as problem:
        raise FormatError(f"{where}: its calibration cannot be read ({problem}): the file is damaged") from problem
