"""The peers of the graph suites, each at its own recommended way of calling it; packages are imported when an engine is made.

``load`` reads what ``save`` wrote into an engine of the same shape; it gets the rows too, for the scale of those that round them.

All get 32 links on the bottom layer, 200 candidates while building unless a suite asks for others, and inner products unless it asks for
l2 (squared distances), under the names they have for these. faiss takes its threads from OpenMP, which ``core.peers.set_threads`` has set;
the others get them with each call.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from benchmarks.core.machine import flags
from benchmarks.core.plan import usable_cores
from benchmarks.suites.scans import as_int8

if TYPE_CHECKING:
    from benchmarks.suites.graphs import Setting

M = 16
LINKS = 2 * M
EF_CONSTRUCTION = 200
# Candidates per result that faiss scores again: on 2,000 clustered rows SQ8 alone stops at recall 0.98, with 2 it does not.
REFINES = (1, 2, 4)


@dataclass(frozen=True)
class Shape:
    """What a graph is to be.

    Attributes:
        dim: columns of the rows.
        capacity: rows at most.
        metric: ``"ip"`` or ``"l2"``.
        ef_construction: candidates while building.
    """

    dim: int
    capacity: int
    metric: str = "ip"
    ef_construction: int = EF_CONSTRUCTION

    @property
    def ip(self) -> bool:
        return self.metric == "ip"


def without_avx2() -> str | None:
    """Why a package whose x86 build starts at AVX2 cannot run here, or None."""
    found = flags()
    return "its package needs AVX2" if "sse2" in found and "avx2" not in found else None


def padded(ids: Any, k: int) -> np.ndarray:
    """One row of ids, -1 behind the last."""
    out = np.full(k, -1, np.int64)
    out[: len(ids)] = ids
    return out


class Hnswlib:
    """hnswlib.Index; the PyPI source package compiles for the machine it is installed on."""

    refines: ClassVar = (1,)

    def __init__(self, shape: Shape) -> None:
        import hnswlib

        self.index = hnswlib.Index(space=shape.metric, dim=shape.dim)
        self.index.init_index(
            max_elements=shape.capacity, M=M, ef_construction=shape.ef_construction, random_seed=0, allow_replace_deleted=True
        )

    def add(self, vectors: np.ndarray, threads: int) -> None:
        self.index.add_items(vectors, num_threads=threads)

    def search(self, queries: np.ndarray, k: int, at: Setting, threads: int) -> np.ndarray:
        self.index.set_ef(at.ef)
        return self.index.knn_query(queries, k=k, num_threads=threads)[0].astype(np.int64)

    def save(self, path: Path) -> None:
        self.index.save_index(str(path))

    def load(self, path: Path, vectors: np.ndarray) -> None:
        import hnswlib

        self.index = hnswlib.Index(space=self.index.space, dim=self.index.dim)
        self.index.load_index(str(path), max_elements=len(vectors), allow_replace_deleted=True)


def _faiss_metric(shape: Shape) -> int:
    import faiss

    return faiss.METRIC_INNER_PRODUCT if shape.ip else faiss.METRIC_L2  # type: ignore[no-any-return]


class FaissFlat:
    """faiss.IndexHNSWFlat."""

    refines: ClassVar[tuple[int, ...]] = (1,)
    index: Any
    hnsw: Any

    def __init__(self, shape: Shape) -> None:
        import faiss

        self.index = faiss.IndexHNSWFlat(shape.dim, M, _faiss_metric(shape))
        self.hnsw = self.index.hnsw
        self.hnsw.efConstruction = shape.ef_construction

    def add(self, vectors: np.ndarray, threads: int) -> None:
        self.index.train(vectors)
        self.index.add(vectors)

    def search(self, queries: np.ndarray, k: int, at: Setting, threads: int) -> np.ndarray:
        self.hnsw.efSearch = at.ef
        return self.index.search(queries, k)[1]

    def save(self, path: Path) -> None:
        import faiss

        faiss.write_index(self.index, str(path))

    def load(self, path: Path, vectors: np.ndarray) -> None:
        import faiss

        self.index = faiss.read_index(str(path))
        self.hnsw = self.index.hnsw


class FaissSq8(FaissFlat):
    """faiss.IndexHNSWSQ, 8 bits a value, with its own copy of the float32 rows to score the candidates again."""

    refines: ClassVar = REFINES

    def __init__(self, shape: Shape) -> None:
        import faiss

        self.base = faiss.IndexHNSWSQ(shape.dim, faiss.ScalarQuantizer.QT_8bit, M, _faiss_metric(shape))
        self.index = faiss.IndexRefineFlat(self.base)  # it only points to the base
        self.hnsw = self.base.hnsw
        self.hnsw.efConstruction = shape.ef_construction

    def search(self, queries: np.ndarray, k: int, at: Setting, threads: int) -> np.ndarray:
        self.index.k_factor = float(at.refine)
        return super().search(queries, k, at, threads)

    def load(self, path: Path, vectors: np.ndarray) -> None:
        import faiss

        self.index = faiss.read_index(str(path))
        self.base = faiss.downcast_index(self.index.base_index)
        self.hnsw = self.base.hnsw


class Usearch:
    """usearch.index.Index over float32 rows."""

    refines: ClassVar = (1,)
    dtype: ClassVar = "f32"

    def __init__(self, shape: Shape) -> None:
        from usearch.index import Index

        self.shape = shape
        self.index = Index(
            ndim=shape.dim, metric="ip" if shape.ip else "l2sq", dtype=self.dtype, connectivity=M, expansion_add=shape.ef_construction
        )

    def stored(self, vectors: np.ndarray) -> np.ndarray:
        """Rows as the index keeps them."""
        return vectors

    def asked(self, queries: np.ndarray) -> np.ndarray:
        """Queries as the index takes them."""
        return queries

    def add(self, vectors: np.ndarray, threads: int) -> None:
        self.index.add(np.arange(len(vectors)), self.stored(vectors), threads=threads)

    def search(self, queries: np.ndarray, k: int, at: Setting, threads: int) -> np.ndarray:
        self.index.expansion_search = at.ef
        found = self.index.search(self.asked(queries), k, threads=threads)
        if len(queries) == 1:  # one query comes back as one line, as long as what was found
            return padded(found.keys, k)[None]
        ids = np.asarray(found.keys).astype(np.int64)
        return np.where(np.arange(k) < np.asarray(found.counts)[:, None], ids, -1)

    def save(self, path: Path) -> None:
        self.index.save(str(path))

    def load(self, path: Path, vectors: np.ndarray) -> None:
        self.stored(vectors)  # for its scale
        self.index.load(str(path))


class UsearchInt8(Usearch):
    """The same over rows and queries rounded to int8; nothing is refined. Distances need one scale for both, products do not."""

    dtype: ClassVar = "i8"
    largest: float

    def stored(self, vectors: np.ndarray) -> np.ndarray:
        self.largest = float(np.abs(vectors).max())
        return as_int8(vectors)

    def asked(self, queries: np.ndarray) -> np.ndarray:
        return as_int8(queries, axis=1) if self.shape.ip else as_int8(queries, largest=self.largest)


class Voyager:
    """voyager.Index over float32 rows."""

    refines: ClassVar = (1,)

    def __init__(self, shape: Shape) -> None:
        from voyager import Index, Space, StorageDataType

        self.index = Index(
            Space.InnerProduct if shape.ip else Space.Euclidean, num_dimensions=shape.dim, M=M, ef_construction=shape.ef_construction,
            random_seed=0, max_elements=shape.capacity, storage_data_type=StorageDataType.Float32,
        )  # fmt: skip

    def add(self, vectors: np.ndarray, threads: int) -> None:
        self.index.add_items(vectors, num_threads=threads)

    def search(self, queries: np.ndarray, k: int, at: Setting, threads: int) -> np.ndarray:
        return self.index.query(queries, k=k, num_threads=threads, query_ef=at.ef)[0].astype(np.int64)

    def save(self, path: Path) -> None:
        self.index.save(str(path))

    def load(self, path: Path, vectors: np.ndarray) -> None:
        from voyager import Index

        self.index = Index.load(str(path))


class Ngt:
    """ngtpy's ANNG over float32 rows; batches take their threads from OpenMP, as faiss does.

    It has no width: a walk goes on to nodes farther than the worst result by a factor of 1 + epsilon. ``ef`` stands for
    k + 1,000 epsilon, so that k is the narrowest walk for it as for the others. Candidates while building are its own affair.
    """

    refines: ClassVar = (1,)

    def __init__(self, shape: Shape) -> None:
        import ngtpy

        self.folder = tempfile.TemporaryDirectory()
        path = str(Path(self.folder.name) / "index")
        # Every new row links to M others, and they to it.
        ngtpy.create(path, shape.dim, edge_size_for_creation=M, distance_type="Normalized Cosine" if shape.ip else "L2")
        self.index = ngtpy.Index(path, log_disabled=True)

    def add(self, vectors: np.ndarray, threads: int) -> None:
        self.index.batch_insert(vectors, num_threads=threads)

    def search(self, queries: np.ndarray, k: int, at: Setting, threads: int) -> np.ndarray:
        from ngtpy import BatchResults

        epsilon = (at.ef - k) / 1_000
        if len(queries) == 1:
            return padded(self.index.search(queries[0], k, epsilon=epsilon, with_distance=False), k)[None]
        self.index.set(epsilon=epsilon)
        found = BatchResults()
        self.index.batch_search(queries, found, k, with_distance=False)
        ids = found.get_ids()
        if ids.size == len(queries) * k:
            return ids.reshape(len(queries), k).astype(np.int64)
        return np.stack([padded(found.get(i), k) for i in range(len(queries))])

    def save(self, path: Path) -> None:
        self.index.save()
        shutil.copytree(Path(self.folder.name) / "index", path)

    def load(self, path: Path, vectors: np.ndarray) -> None:
        import ngtpy

        mine = Path(self.folder.name) / "loaded"  # it may write beside what it reads
        shutil.copytree(path, mine)
        self.index = ngtpy.Index(str(mine), log_disabled=True)


class Symphony:
    """rabitqlib.SymqgIndex: one-bit codes of the neighbours beside the links, visited nodes scored by their float32 rows.

    It is given l2, under which unit rows rank as by their inner product: with ``metric="ip"`` recall at ef = 40 fell from 0.92 to 0.79
    on 2,000 clustered rows.
    """

    refines: ClassVar = (1,)
    bits: ClassVar = 0

    def __init__(self, shape: Shape) -> None:
        import rabitqlib

        self.ef_construction = shape.ef_construction
        self.index = rabitqlib.SymqgIndex(dim=shape.dim, max_degree=LINKS, metric="l2", quantization_bits=self.bits)

    def add(self, vectors: np.ndarray, threads: int) -> None:
        self.index.build(vectors, ef_construction=self.ef_construction, num_threads=threads)

    def search(self, queries: np.ndarray, k: int, at: Setting, threads: int) -> np.ndarray:
        return self.index.search_batch(queries, k, at.ef, threads)[0].astype(np.int64)

    def save(self, path: Path) -> None:
        self.index.save(str(path))

    def load(self, path: Path, vectors: np.ndarray) -> None:
        import rabitqlib

        self.index = rabitqlib.SymqgIndex.load(str(path))


class SymphonyInt8(Symphony):
    """The same with 8-bit codes in place of the float32 rows."""

    bits: ClassVar = 8


class Vsag:
    """pyvsag's HGraph: 8-bit codes for the walk, float32 rows for the order of what it found. It takes one query a call."""

    refines: ClassVar = (1,)
    index: Any

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def _empty(self, threads: int) -> Any:
        import pyvsag

        pyvsag.set_logger_off()
        graph = {
            "base_quantization_type": "sq8_uniform",
            "use_reorder": True,
            "precise_quantization_type": "fp32",
            "max_degree": LINKS,
            "ef_construction": self.shape.ef_construction,
            "build_thread_count": threads,
        }
        what = {"dtype": "float32", "metric_type": self.shape.metric, "dim": self.shape.dim, "index_param": graph}
        return pyvsag.Index("hgraph", json.dumps(what))

    def add(self, vectors: np.ndarray, threads: int) -> None:
        self.index = self._empty(threads)
        self.index.build(vectors.ravel(), np.arange(len(vectors)), len(vectors), self.shape.dim)
        self._first(vectors)

    def _first(self, vectors: np.ndarray) -> None:
        """One search by one thread: where two threads' first ones met, they waited for each other for good (pyvsag 0.18.5: one in the guard
        of a static, the other for the interpreter's lock)."""
        self.index.knn_search(vectors[0], 1, json.dumps({"hgraph": {"ef_search": 1}}))

    def search(self, queries: np.ndarray, k: int, at: Setting, threads: int) -> np.ndarray:
        how = json.dumps({"hgraph": {"ef_search": at.ef}})

        def some(part: np.ndarray) -> list[np.ndarray]:
            return [padded(self.index.knn_search(query, k, how)[0], k) for query in part]

        if threads == 1 or len(queries) < threads:
            return np.stack(some(queries))
        with ThreadPoolExecutor(threads) as pool:
            return np.concatenate(list(pool.map(some, np.array_split(queries, threads))))

    def save(self, path: Path) -> None:
        self.index.save(str(path))

    def load(self, path: Path, vectors: np.ndarray) -> None:
        self.index = self._empty(usable_cores())
        self.index.load(str(path))
        self._first(vectors)
