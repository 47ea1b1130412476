"""Exact search: every row is scored, and the answer is that of a float64 computation over the stored rows."""

from __future__ import annotations

import os
import threading
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from nearfield import _core
from nearfield.arrays import as_matrix, check_threads, check_whole
from nearfield.errors import InputError
from nearfield.index.common import (
    MAX_DIM,
    METRICS,
    STORAGES,
    Description,
    by_slot,
    check_choice,
    check_guarantee,
    check_search,
    make_hits,
    read_description,
)
from nearfield.index.ids import IdMap, read_ids
from nearfield.index.resident import Resident
from nearfield.kernels.choice import rows_of, score_stored
from nearfield.kernels.devices import cuda_number
from nearfield.types import AnyArray, FloatArray, Hits, Ids, IntArray, Metric, Storage

# Rows that were deleted or replaced keep their memory until there are this many, and as many as live ones.
COMPACT_FROM = 4096
NONE_DEAD: IntArray = np.empty(0, np.int64)


class FlatIndex:
    """Exact nearest neighbours by a full scan of int8 codes with a certified error bound, finished in float64 (docs/exact.md).

    The ids returned are those of a float64 oracle over the stored rows (cosine: the normalized rows); equal scores rank in order of
    insertion. Safe under threads: searches run at the same time without the GIL; add and delete take their turn.

    Args:
        dim: the number of columns, 1 to 65,536.
        metric: ``"cosine"`` (rows are normalized when they enter), ``"ip"`` (inner product) or ``"l2"`` (scores are ``-|q - x|^2``).
        storage: ``"float32"`` (4 bytes a value, and 1 for the int8 codes by which it is scanned); ``"bfloat16"`` (2 and 1) and ``"int8"``
            (the codes alone) round the rows when they enter, and search is exact over the rounded rows.
        threads: threads of a call that names none; None means all cores (``NEARFIELD_THREADS`` caps both).
        fingerprint: of the encoder that made the vectors; kept in the file, compared by ``Searcher``.

    Raises:
        InputError: an argument out of its range.

    >>> index = FlatIndex(2, metric="ip")
    >>> index.add(np.array([[1, 0], [0, 1], [1, 1]], np.float32), ids=["x", "y", "xy"])
    >>> hits = index.search(np.array([2, 1], np.float32), k=2)
    >>> hits.ids.tolist(), hits.scores.tolist()
    ([['xy', 'x']], [[3.0, 2.0]])
    """

    def __init__(
        self, dim: int, metric: Metric = "cosine", storage: Storage = "float32", threads: int | None = None, fingerprint: str | None = None
    ) -> None:
        check_threads(threads)
        self.dim = check_whole(dim, "dim", 1, MAX_DIM)
        self.metric: Metric = cast(Metric, check_choice(metric, METRICS, "metric"))
        self.storage: Storage = cast(Storage, check_choice(storage, STORAGES, "storage"))
        self.threads = threads
        self.fingerprint = fingerprint
        self._writing = threading.Lock()
        self._resident = Resident()
        # Replaced as one when rows are renumbered, so that a search never mixes old slots with new names.
        self._state = (_core.FlatStore(self.dim, self.metric, self.storage), IdMap())

    def __len__(self) -> int:
        return self._state[0].live

    def __contains__(self, id: int | str) -> bool:
        return id in self._state[1]

    def __repr__(self) -> str:
        return f"FlatIndex(dim={self.dim}, metric={self.metric!r}, storage={self.storage!r}, rows={len(self)})"

    @property
    def ids(self) -> AnyArray:
        """The live ids in order of insertion: int64, or object (str)."""
        store, names = self._state
        return names.names(store.live_slots())

    def add(self, vectors: npt.ArrayLike, ids: Ids | None = None, *, threads: int | None = None) -> None:
        """Adds rows; all of them or, on an error, none.

        Args:
            vectors: ``(n, dim)`` or one row ``(dim,)``, float; C-contiguous float32 is read without a copy.
            ids: ``n`` int64 >= 0 or ``n`` str, each once; default: numbers that follow the largest id (0 for an empty index). A row
                whose id exists replaces the old row and moves last in order.
            threads: as for the constructor, for this call.

        Raises:
            InputError: wrong shape, dtype or ids; a row with NaN, infinity or a norm beyond float32.
        """
        rows = as_matrix(vectors, dim=self.dim, what="vectors")
        count = check_threads(threads, self.threads)
        with self._writing:
            store, names = self._state
            change = names.plan(ids, len(rows))
            next_id = names.next_id
            names.append(change.names)  # before the rows: a search that sees a row can name it
            try:
                store.append(rows, change.replaced, count)
            except BaseException:
                names.withdraw(next_id)
                raise
            names.link()
            self._compact_when_due()

    def search(
        self,
        queries: npt.ArrayLike,
        k: int = 10,
        *,
        ef: int | None = None,
        target_recall: float | None = None,
        filter: Any = None,
        bias: npt.ArrayLike | None = None,
        guarantee: float | None = None,
        threads: int | None = None,
        device: str = "cpu",
    ) -> Hits:
        """Finds the ``k`` best rows of each query.

        Args:
            queries: ``(nq, dim)`` or one row ``(dim,)``, float.
            k: how many, >= 1; fewer rows give fewer (``Hits.counts``).
            ef: ignored, for callers that switch between indexes: this search is exact.
            target_recall: ignored, likewise.
            filter: ids to search among (those not in the index match nothing), or a boolean mask aligned with ``index.ids``,
                ``(n,)`` or ``(nq, n)``.
            bias: float32 added to the scores, aligned with ``index.ids``, ``(n,)`` or ``(nq, n)``; finite.
            guarantee: None or 1 returns the exact answer for certain (default). Below 1, each query's whole answer is the exact one with at
                least this probability, which is over a random rotation that knows nothing of rows and queries; 0.999 is a good choice. A
                first pass over one bit for each dimension (RaBitQ, Gao and Long, SIGMOD 2024) then leaves most rows out, which pays where
                the best rows stand out, as those of embeddings do. It goes with every metric, storage, filter and bias, takes
                ``dim / 8 + 12`` bytes more a row from the first such search on, which makes the codes, and does nothing when ``dim`` is
                below 8 or above 2,048: the answer is then certain.
            threads: as for the constructor, for this call.
            device: ``"cpu"`` (the native engine), ``"cuda"`` or ``"cuda:N"`` (needs ``nearfield[cuda]``): the same answer from a GPU, where
                filter and bias are refused. The first such search sends the live rows there; they stay until a search finds the index
                changed or asks for another device. Rows that do not fit into its memory are sent anew, in chunks, for every search.

        Returns:
            Hits: ids, scores, counts and rescored.

        Raises:
            InputError: wrong shape, dtype, k or guarantee; a query with NaN, infinity or a norm beyond float32; no such device.
            MissingExtraError: a CUDA device is asked for and torch is not installed.
        """
        rows, count = check_search(queries, k, self.dim)
        probability = check_guarantee(guarantee)
        store, names = self._state
        limit = store.slots
        threads_used = check_threads(threads, self.threads)
        if device != "cpu":
            if filter is not None or bias is not None:
                raise InputError(f"filter, bias: given with device={device!r}, which searches all rows without them: use device='cpu'")
            return make_hits(names, *self._search_on(device, store, np.asarray(rows), count, threads_used))
        mask, weights = by_slot(filter, bias, names, store, limit, len(rows))
        found = rows_of(store, self.metric).search(rows, count, limit, mask, weights, probability, threads_used)
        return make_hits(names, *found)

    def _search_on(
        self, device: str, store: _core.FlatStore, queries: FloatArray, k: int, threads: int
    ) -> tuple[IntArray, FloatArray, IntArray, IntArray]:
        """Slots, scores, counts and rescored as from ``store.search``, which answers what the device cannot prove."""
        cuda_number(device)
        limit = store.slots
        if not (len(queries) and store.live):
            return store.search(queries, k, limit, None, None, 1.0, threads)
        live, resident = self._resident.rows(store, self.metric, device)
        found = resident.search(queries, k)
        slots = np.where(found.positions < 0, -1, live[found.positions])
        scores, counts, rescored = found.scores, found.counts, found.rescored
        left = np.flatnonzero(found.open)
        if len(left):
            slots[left], scores[left], counts[left], more = store.search(queries[left], k, limit, None, None, 1.0, threads)
            rescored[left] += more
        return slots, scores, counts, rescored

    def score(self, queries: npt.ArrayLike, ids: Any, *, threads: int | None = None) -> FloatArray:
        """Scores given candidates, for reranking: the very scores that ``search`` reports for these rows.

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

        >>> index = FlatIndex(2, metric="ip")
        >>> index.add(np.array([[1, 0], [0, 1]], np.float32), ids=["x", "y"])
        >>> index.score(np.array([[2, 1]], np.float32), [["y", "x", None]]).tolist()
        [[1.0, 2.0, nan]]
        """
        rows = as_matrix(queries, dim=self.dim, what="queries")
        store, names = self._state
        return score_stored(store, self.metric, rows, names.candidates(ids, len(rows)), check_threads(threads, self.threads))

    def delete(self, ids: Ids) -> None:
        """Removes rows by id. Raises InputError for an id that is not in the index, and then removes none."""
        with self._writing:
            store, names = self._state
            slots = np.unique(names.require(ids))
            store.append(np.empty((0, self.dim), np.float32), slots, 1)
            names.forget(slots)
            self._compact_when_due()

    def get(self, ids: Ids) -> FloatArray:
        """The stored rows ``(n, dim)``, float32 (cosine: unit rows). Raises InputError for an id that is not in the index."""
        store, names = self._state
        return store.get(names.require(ids))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one file, atomically: a crash leaves the old file or the new one. Raises InputError when it cannot be written."""
        with self._writing:
            store, names = self._state
            live = store.live_slots()
            described = Description(self.dim, self.metric, self.storage, len(live), names.kind, self.fingerprint)
            store.save(os.fspath(path), [("meta", described.to_bytes()), *names.sections(live)])

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, mmap: bool = True, verify: bool = True, threads: int | None = None) -> FlatIndex:
        """Opens a saved index.

        Args:
            path: the file.
            mmap: True maps the file (pages are read when first used; the file must not be changed in place), False reads it whole.
            verify: True checks every section's checksum; False skips that (the header is always checked): memory-safe, but a
                damaged file may give wrong results.
            threads: as for the constructor.

        Raises:
            FormatError: not a nearfield file, another kind of index, a newer format, truncated, damaged.
        """
        where = os.fspath(path)
        file = _core.Container.open(where, "flat", mmap, verify)
        described, _ = read_description(file, where)
        index = cls(described.dim, cast(Metric, described.metric), cast(Storage, described.storage), threads, described.fingerprint)
        store = _core.FlatStore.from_container(file, described.dim, described.metric, described.storage, described.count)
        index._state = (store, read_ids(file, described.ids, described.count, where))
        return index

    def _compact_when_due(self) -> None:
        store, names = self._state
        live = store.live
        if store.slots - live >= max(COMPACT_FROM, live):
            kept = names.names(store.live_slots())
            fresh = IdMap(kept.tolist() if names.kind == "str" else kept)
            fresh.reserve(names.next_id)
            self._state = (store.compacted(), fresh)
