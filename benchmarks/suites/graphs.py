"""The graph engines behind one interface: M = 16, ef_construction = 200, inner product over unit vectors."""

from __future__ import annotations

import numpy as np

import nearfield

M = 16
EF_CONSTRUCTION = 200


class OurGraph:
    """nearfield.HNSWIndex."""

    def __init__(self, dim: int, capacity: int) -> None:
        self.index = nearfield.HNSWIndex(dim, metric="ip", M=M, ef_construction=EF_CONSTRUCTION)

    def add(self, vectors: np.ndarray, threads: int) -> None:
        self.index.add(vectors, threads=threads)

    def search(self, queries: np.ndarray, k: int, ef: int, threads: int) -> np.ndarray:
        return self.index.search(queries, k, ef=ef, threads=threads).ids


class HnswlibGraph:
    """hnswlib.Index; the PyPI source package compiles for the machine it is installed on."""

    def __init__(self, dim: int, capacity: int) -> None:
        import hnswlib

        self.index = hnswlib.Index(space="ip", dim=dim)
        self.index.init_index(max_elements=capacity, M=M, ef_construction=EF_CONSTRUCTION, random_seed=0)

    def add(self, vectors: np.ndarray, threads: int) -> None:
        self.index.add_items(vectors, num_threads=threads)

    def search(self, queries: np.ndarray, k: int, ef: int, threads: int) -> np.ndarray:
        self.index.set_ef(ef)
        return self.index.knn_query(queries, k=k, num_threads=threads)[0].astype(np.int64)


class FaissGraph:
    """faiss.IndexHNSWFlat; it takes its threads from OpenMP, which core.peers.set_threads has set."""

    def __init__(self, dim: int, capacity: int) -> None:
        import faiss

        self.index = faiss.IndexHNSWFlat(dim, M, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = EF_CONSTRUCTION

    def add(self, vectors: np.ndarray, threads: int) -> None:
        self.index.add(vectors)

    def search(self, queries: np.ndarray, k: int, ef: int, threads: int) -> np.ndarray:
        self.index.hnsw.efSearch = ef
        return self.index.search(queries, k)[1]
