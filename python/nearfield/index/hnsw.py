"""Approximate search in a graph: a walk from near to nearer instead of a scan, with exact answers where a scan is no more work."""

from __future__ import annotations

import os
import threading
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from nearfield import _core
from nearfield.arrays import as_matrix, check_threads, check_whole
from nearfield.errors import FormatError, InputError
from nearfield.index.common import (
    MAX_DIM,
    METRICS,
    STORAGES,
    Description,
    by_slot,
    check_choice,
    check_search,
    live_below,
    make_hits,
    read_description,
)
from nearfield.index.ids import Change, IdMap, read_ids
from nearfield.kernels.choice import score_stored
from nearfield.types import AnyArray, FloatArray, Hits, Ids, IntArray, Metric, Storage

MAX_M = 512
MAX_EF = 2**20
# Rows that one call of the engine links: at 1 ms a row, searches wait a second for it at most, and so does Ctrl-C. Four batches of
# the engine (csrc/graph/build.h), so that cutting an add into slices changes nothing in the graph.
SLICE = 1024
NONE_DEAD: IntArray = np.empty(0, np.int64)


class HNSWIndex:
    """Approximate nearest neighbours by a hierarchical navigable small world graph (Malkov and Yashunin 2018, arXiv 1603.09320).

    The graph is the same for the same sequence of adds, whatever the number of threads. Scores are those of the exact index, computed in
    float64 for the rows returned. ``k`` results come back whenever ``k`` exist: where a filter or deletes leave so few rows that scanning
    them is no more work than the walk (rows^2 <= ef * M * all rows), and where the walk finds fewer than ``k``, the answer is an exact
    scan; so it is with a bias. Safe under threads: searches run at the same time without the GIL; an add lets them in between its slices.

    Args:
        dim: the number of columns, 1 to 65,536.
        metric: ``"cosine"`` (rows are normalized when they enter), ``"ip"`` (inner product) or ``"l2"`` (scores are ``-|q - x|^2``).
        M: neighbours of a node above the lowest layer, twice as many on it, 2 to 512; 16 suits embeddings of some hundred dimensions
            (section 4.1 of the paper: 5 to 48), at about 140 bytes a row beside the vector.
        ef_construction: candidates looked at when a row is added, 1 to 1,048,576; more make a better graph, more slowly.
        storage: ``"float32"``, the only one yet.
        seed: of the layers, 0 to 2^64 - 1.
        threads: threads of a call that names none; None means all cores (``NEARFIELD_THREADS`` caps both).
        fingerprint: of the encoder that made the vectors; kept in the file, compared by ``Searcher``.

    Raises:
        InputError: an argument out of its range.

    >>> index = HNSWIndex(2, metric="ip")
    >>> index.add(np.array([[1, 0], [0, 1], [1, 1]], np.float32), ids=["x", "y", "xy"])
    >>> hits = index.search(np.array([2, 1], np.float32), k=2)
    >>> hits.ids.tolist(), hits.scores.tolist()
    ([['xy', 'x']], [[3.0, 2.0]])
    """

    def __init__(
        self,
        dim: int,
        metric: Metric = "cosine",
        M: int = 16,
        ef_construction: int = 200,
        storage: Storage = "float32",
        seed: int = 0,
        threads: int | None = None,
        fingerprint: str | None = None,
    ) -> None:
        check_threads(threads)
        self.dim = check_whole(dim, "dim", 1, MAX_DIM)
        self.metric: Metric = cast(Metric, check_choice(metric, METRICS, "metric"))
        self.M = check_whole(M, "M", 2, MAX_M)
        self.ef_construction = check_whole(ef_construction, "ef_construction", 1, MAX_EF)
        if check_choice(storage, STORAGES, "storage") != "float32":
            raise InputError(f"storage: {storage!r} given, HNSWIndex keeps 'float32' only: use FlatIndex for smaller rows")
        self.storage: Storage = storage
        self.seed = check_whole(seed, "seed", 0, 2**64 - 1)
        self.threads = threads
        self.fingerprint = fingerprint
        self._writing = threading.Lock()
        self._graph = _core.Hnsw(self.dim, self.metric, self.M, self.ef_construction, self.seed)
        self._names = IdMap()
        # Slots from here on belong to an add that is not finished: no search sees them.
        self._slots = 0
        self._live = 0

    def __len__(self) -> int:
        return self._live

    def __contains__(self, id: int | str) -> bool:
        return id in self._names

    def __repr__(self) -> str:
        return f"HNSWIndex(dim={self.dim}, metric={self.metric!r}, M={self.M}, ef_construction={self.ef_construction}, rows={len(self)})"

    @property
    def ids(self) -> AnyArray:
        """The live ids in order of insertion: int64, or object (str)."""
        return self._names.names(live_below(self._graph, self._slots))

    def add(self, vectors: npt.ArrayLike, ids: Ids | None = None, *, threads: int | None = None) -> None:
        """Adds rows; all of them or, on an error or Ctrl-C, none.

        Args:
            vectors: ``(n, dim)`` or one row ``(dim,)``, float; C-contiguous float32 is read without a copy.
            ids: ``n`` int64 >= 0 or ``n`` str, each once; default: numbers that follow the largest id (0 for an empty index). A row
                whose id exists replaces the old row and moves last in order; the old row's memory is kept, because the graph leads
                through it.
            threads: as for the constructor, for this call.

        Raises:
            InputError: wrong shape, dtype or ids; a row with NaN, infinity or a norm beyond float32.
        """
        rows = as_matrix(vectors, dim=self.dim, what="vectors")
        count = check_threads(threads, self.threads)
        self._graph.check(rows)
        with self._writing:
            change = self._names.plan(ids, len(rows))
            next_id = self._names.next_id
            self._names.append(change.names)  # before the rows: a search that sees a row can name it
            try:
                for begin in range(0, len(rows), SLICE):
                    last = begin + SLICE >= len(rows)
                    self._graph.append(rows[begin : begin + SLICE], change.replaced if last else NONE_DEAD, count)
            except BaseException:
                self._take_back(change, next_id)
                raise
            self._names.link()
            self._publish()

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
        limit = self._slots
        mask, weights = by_slot(filter, bias, self._names, self._graph, limit, len(rows))
        slots, scores, counts = self._graph.search(rows, count, limit, width, mask, weights, check_threads(threads, self.threads))
        return make_hits(self._names, slots, scores, counts)

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

        >>> index = HNSWIndex(2, metric="ip")
        >>> index.add(np.array([[1, 0], [0, 1]], np.float32), ids=["x", "y"])
        >>> index.score(np.array([[2, 1]], np.float32), [["y", "x", None]]).tolist()
        [[1.0, 2.0, nan]]
        """
        rows = as_matrix(queries, dim=self.dim, what="queries")
        candidates, count = self._names.candidates(ids, len(rows)), check_threads(threads, self.threads)
        return score_stored(self._graph, self.metric, rows, candidates, count)

    def delete(self, ids: Ids) -> None:
        """Removes rows by id; they stay in the graph as passages.

        Raises:
            InputError: an id that is not in the index; then none is removed.
        """
        with self._writing:
            slots = np.unique(self._names.require(ids))
            self._graph.append(np.empty((0, self.dim), np.float32), slots, 1)
            self._names.forget(slots)
            self._publish()

    def get(self, ids: Ids) -> FloatArray:
        """The stored rows ``(n, dim)``, float32 (cosine: unit rows). Raises InputError for an id that is not in the index."""
        return self._graph.get(self._names.require(ids))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one file, atomically: a crash leaves the old file or the new one. Raises InputError when it cannot be written."""
        with self._writing:
            described = Description(self.dim, self.metric, self.storage, self._slots, self._names.kind, self.fingerprint)
            names = self._names.sections(np.arange(self._slots))
            self._graph.save(os.fspath(path), [("meta", described.to_bytes()), *names])

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, mmap: bool = True, verify: bool = True, threads: int | None = None) -> HNSWIndex:
        """Opens a saved index. Every field of the graph is checked, in time proportional to the file, whatever the arguments.

        Args:
            path: the file.
            mmap: True maps the file while it is read, False reads it whole first. Rows and graph are copied either way.
            verify: True checks every section's checksum; False skips that (the header is always checked): memory-safe, but a
                damaged file may give wrong results.
            threads: as for the constructor.

        Raises:
            FormatError: not a nearfield file, another kind of index, a newer format, truncated, damaged.
        """
        where = os.fspath(path)
        file = _core.Container.open(where, "hnsw", mmap, verify)
        described, _ = read_description(file, where)
        graph = _core.Hnsw.from_container(file)
        made = graph.params()
        if (described.dim, described.metric, described.storage, described.count) != (made["dim"], made["metric"], "float32", graph.slots):
            raise FormatError(f"{where}: its description and its graph differ: the file is damaged")
        settings = {name: made[name] for name in ("dim", "metric", "M", "ef_construction", "seed")}
        index = cls(**settings, threads=threads, fingerprint=described.fingerprint)
        index._graph, index._names = graph, read_ids(file, described.ids, described.count, where)
        index._publish()
        index._settle_names(where)
        return index

    def _publish(self) -> None:
        self._slots, self._live = self._graph.slots, self._graph.live

    def _take_back(self, change: Change, next_id: int) -> None:
        """Undoes an add of which some slices may be in the graph: their slots stay, as tombstones whose names mean nothing."""
        self._names.withdraw(next_id)
        dead = np.arange(self._slots, self._graph.slots)
        if len(dead):
            self._names.append(change.names[: len(dead)])
            self._names.link()
            self._graph.append(np.empty((0, self.dim), np.float32), dead, 1)
            self._names.forget(dead)
            self._names.restore(change.replaced)
        self._publish()

    def _settle_names(self, where: str) -> None:
        """After a load: names stand for live slots alone, one for each."""
        live = live_below(self._graph, self._slots)
        if len(live) < self._slots:
            self._names.forget(np.setdiff1d(np.arange(self._slots), live, assume_unique=True))
            self._names.restore(live)
        names = self._names.names(live)
        found, _ = self._names.find(names.tolist() if self._names.kind == "str" else names)
        if not np.array_equal(found, live):
            raise FormatError(f"{where}: an id stands for two rows: the file is damaged")
