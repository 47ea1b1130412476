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
from nearfield.index.common import MAX_DIM, METRICS, STORAGES, Description, check_choice, read_description
from nearfield.index.frozen import FrozenIndex
from nearfield.index.graph import MAX_EF, GraphIndex, Seen, degrees_of, read_calibration, settle_names
from nearfield.index.ids import Change, IdMap, read_ids
from nearfield.types import Ids, IntArray, Metric, Storage

MAX_M, MAX_ALPHA = 512, 4
# Rows that one call of the engine links: at 0.2 ms a row, Ctrl-C waits a fifth of a second for it. Four batches of the engine
# (csrc/graph/build.h), so that cutting an add into slices changes nothing in the graph.
SLICE = 1024
# Deleted rows are dropped when there are as many as live ones, and at least so many: dropping costs about as much as copying what stays.
CONSOLIDATE_FROM = 1024
NONE_DEAD: IntArray = np.empty(0, np.int64)


class HNSWIndex(GraphIndex):
    """Approximate nearest neighbours by a hierarchical navigable small world graph (Malkov and Yashunin 2018, arXiv 1603.09320).

    The graph is the same for the same sequence of adds, whatever the number of threads and the CPU; every row can be reached in it when it
    is saved or frozen, and whenever it has doubled. Scores are those of the exact index, computed in
    float64 for the rows returned. ``k`` results come back whenever ``k`` exist: where a filter or deletes leave so few rows that scanning
    them is no more work than the walk (rows^2 <= ef * M * all rows), and where the walk finds fewer than ``k``, the answer is an exact
    scan; so it is with a bias. Safe under threads: one call changes the index at a time, and searches, without the GIL, see the rows of
    one moment between two changes and wait for none.

    Args:
        dim: the number of columns, 1 to 65,536.
        metric: ``"cosine"`` (rows are normalized when they enter), ``"ip"`` (inner product) or ``"l2"`` (scores are ``-|q - x|^2``).
        M: neighbours of a node above the lowest layer, twice as many on it, 2 to 512; 16 suits embeddings of some hundred dimensions
            (section 4.1 of the paper: 5 to 48), at about 140 bytes a row beside the vector.
        ef_construction: candidates looked at when a row is added, 1 to 1,048,576; more make a better graph, more slowly.
        storage: ``"float32"``, the only one yet.
        alpha: how many times nearer to a neighbour already chosen than to the row a candidate must be to be left out, 1 to 4 (DiskANN's
            alpha): more links that point the same way. Default 1, the paper's rule: on 100,000 sentence embeddings larger ones found
            less for each microsecond (docs/hnsw.md). Files keep it.
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
        alpha: float = 1.0,
    ) -> None:
        check_threads(threads)
        self.dim = check_whole(dim, "dim", 1, MAX_DIM)
        self.metric: Metric = cast(Metric, check_choice(metric, METRICS, "metric"))
        self.M = check_whole(M, "M", 2, MAX_M)
        self.ef_construction = check_whole(ef_construction, "ef_construction", 1, MAX_EF)
        self.alpha = _check_alpha(alpha)
        if check_choice(storage, STORAGES, "storage") != "float32":
            raise InputError(f"storage: {storage!r} given, HNSWIndex keeps 'float32' only: use FlatIndex for smaller rows")
        self.storage: Storage = storage
        self.seed = check_whole(seed, "seed", 0, 2**64 - 1)
        self.threads = threads
        self.fingerprint = fingerprint
        self._kind, self._calibration = "HNSWIndex", None
        self._writing = threading.Lock()
        self._naming = threading.Lock()
        self._graph: _core.Hnsw = _core.Hnsw(self.dim, self.metric, self.M, self.ef_construction, self.seed, self.alpha)
        self._names = IdMap()
        self._publish()

    def add(self, vectors: npt.ArrayLike, ids: Ids | None = None, *, threads: int | None = None) -> None:
        """Adds rows; all of them or, on an error or Ctrl-C, none.

        Args:
            vectors: ``(n, dim)`` or one row ``(dim,)``, float; C-contiguous float32 is read without a copy.
            ids: ``n`` int64 >= 0 or ``n`` str, each once; default: numbers that follow the largest id (0 for an empty index). A row
                whose id exists replaces the old row and moves last in order; the old row goes as by ``delete``.
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
            with self._naming:
                self._names.link()
                self._publish()
            self._consolidate_when_due(count)

    def delete(self, ids: Ids, *, threads: int | None = None) -> None:
        """Removes rows by id: no search that begins later finds them, and rows around them are linked to each other instead.

        Their memory is kept until ``consolidate``, which is done here when as many rows were deleted as live (1,024 at least).

        Args:
            ids: int64 or str, each in the index.
            threads: as for the constructor, for this call.

        Raises:
            InputError: an id that is not in the index; then none is removed.
        """
        count = check_threads(threads, self.threads)
        with self._writing:
            slots = np.unique(self._names.require(ids))
            self._graph.append(np.empty((0, self.dim), np.float32), slots, count)
            with self._naming:
                self._names.forget(slots)
                self._publish()
            self._consolidate_when_due(count)

    def consolidate(self, *, threads: int | None = None) -> None:
        """Drops deleted and replaced rows from memory, mends every list of links, and makes every row reachable.

        Searches go on meanwhile, in the old graph, so that both are in memory for a moment. ``add`` and ``delete`` do this themselves when
        as many rows are deleted as live.

        Args:
            threads: as for the constructor, for this call.
        """
        with self._writing:
            self._consolidate(check_threads(threads, self.threads))

    def stats(self) -> dict[str, Any]:
        """What the graph is like, looked at now: it walks all links, in time proportional to the index, and adds wait for it.

        Returns:
            dict: ``rows`` (live) and ``deleted`` (rows still in memory); ``degrees`` of layer 0: ``mean``, ``least``, ``most``,
            ``capacity``, ``counts`` (rows with 0, 1, ... neighbours); ``levels`` (rows whose highest layer is 0, 1, ...); ``to_deleted``
            (links that lead to deleted rows); ``unreached`` (rows that no way leads to; ``save``, ``freeze`` and ``consolidate`` mend
            them); ``memory`` in bytes: ``rows``, ``codes``, ``links``, ``other``, ``total``, without ids; ``target`` of the kernel that
            walks use; ``calibration``: recall by width (``{"rows", "points"}``) where there is one that holds for this size, else None.

        >>> index = HNSWIndex(2, metric="ip")
        >>> index.add(np.array([[1, 0], [0, 1], [1, 1]], np.float32))
        >>> index.delete([1])
        >>> stats = index.stats()
        >>> stats["rows"], stats["deleted"], stats["degrees"]["mean"], stats["unreached"]
        (2, 1, 1.0, 0)
        """
        found, made = self._graph.stats(), self._valid_calibration()
        memory = {name: found[f"{name}_bytes"] for name in ("rows", "codes", "links", "other")}
        return {
            "rows": found["live"],
            "deleted": found["slots"] - found["live"],
            "degrees": degrees_of(found["degrees"]),
            "levels": found["levels"],
            "to_deleted": found["to_deleted"],
            "unreached": found["unreached"],
            "memory": {**memory, "total": sum(memory.values())},
            "target": found["target"],
            "calibration": None if made is None else made.to_json(),
        }

    def freeze(self, *, compact: bool = False, threads: int | None = None) -> FrozenIndex:
        """The index as it is now, without deleted rows, immutable and laid out for search alone; this index stays as it is.

        Args:
            compact: False lays each row's neighbours beside it as one-bit codes, for the fastest search, in 1.5 times the memory of
                the vectors and links of a float32 index at 384 dimensions and M = 16. True keeps 8-bit rows and links alone, in a
                third of that memory, and searches about as fast as this index.
            threads: as for the constructor, for this call.

        >>> index = HNSWIndex(2, metric="ip")
        >>> index.add(np.array([[1, 0], [0, 1], [1, 1]], np.float32), ids=["x", "y", "xy"])
        >>> index.freeze().search(np.array([2, 1], np.float32), k=2).ids.tolist()
        [['xy', 'x']]
        """
        count = check_threads(threads, self.threads)
        with self._writing:
            graph = self._graph
            kept = self._names.names(graph.live_slots())
            if graph.live < graph.slots:
                graph = graph.consolidated(count)  # a walk that begins at a deleted row may end among such
            else:
                graph.connect()
            frozen = graph.freeze(bool(compact), count)
            copied = IdMap(kept.tolist() if self._names.kind == "str" else kept)
        index = FrozenIndex(frozen, copied, threads=self.threads, fingerprint=self.fingerprint)
        index._calibrate(count)
        return index

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one file, atomically: a crash leaves the old file or the new one. Raises InputError when it cannot be written."""
        with self._writing:
            described = Description(self.dim, self.metric, self.storage, self._graph.slots, self._names.kind, self.fingerprint)
            names = self._names.sections(np.arange(self._graph.slots))
            self._graph.connect()
            self._calibrate(check_threads(None, self.threads))
            made = self._valid_calibration()
            meta = described.to_bytes(**({} if made is None else {"calibration": made.to_json()}))
            self._graph.save(os.fspath(path), [("meta", meta), *names])

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
        described, fields = read_description(file, where)
        graph = _core.Hnsw.from_container(file)
        made = graph.params()
        if (described.dim, described.metric, described.storage, described.count) != (made["dim"], made["metric"], "float32", graph.slots):
            raise FormatError(f"{where}: its description and its graph differ: the file is damaged")
        settings = {name: made[name] for name in ("dim", "metric", "M", "ef_construction", "seed", "alpha")}
        index = cls(**settings, threads=threads, fingerprint=described.fingerprint)
        index._graph, index._names = graph, read_ids(file, described.ids, described.count, where)
        settle_names(index._names, graph.live_slots(), graph.slots, where)
        index._publish()
        index._calibration = read_calibration(fields, where)
        return index

    def _publish(self) -> None:
        """Lets searches see what the writer has made."""
        self._seen = Seen(self._graph.view(), self._names)

    def _consolidate_when_due(self, threads: int) -> None:
        dead = self._graph.slots - self._graph.live
        if dead >= max(CONSOLIDATE_FROM, self._graph.live):
            self._consolidate(threads)

    def _consolidate(self, threads: int) -> None:
        kept = self._names.names(self._graph.live_slots())
        graph, names = self._graph.consolidated(threads), IdMap(kept.tolist() if self._names.kind == "str" else kept)
        names.reserve(self._names.next_id)
        with self._naming:
            self._graph, self._names = graph, names
            self._publish()

    def _take_back(self, change: Change, next_id: int) -> None:
        """Undoes an add of which some slices may be in the graph: their slots stay, deleted, and their names mean nothing."""
        self._names.withdraw(next_id)
        dead = np.arange(self._seen.graph.slots, self._graph.slots)
        if len(dead):
            self._graph.append(np.empty((0, self.dim), np.float32), dead, 1)
            with self._naming:
                self._names.append(change.names[: len(dead)])
                self._names.link()
                self._names.forget(dead)
                self._names.restore(change.replaced)
                self._publish()


def _check_alpha(alpha: float) -> float:
    """alpha as the engine keeps it, in float32."""
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float, np.integer, np.floating)) or not 1 <= alpha <= MAX_ALPHA:
        raise InputError(f"alpha: {alpha!r} given, a number from 1 to {MAX_ALPHA} expected")
    return float(np.float32(alpha))
