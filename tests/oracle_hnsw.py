"""What the tests of HNSWIndex share: clustered rows, the float64 answer, recall, and the walk without its exact fallbacks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import nearfield as nf

METRICS = ["cosine", "ip", "l2"]
Floats = npt.NDArray[np.float32]


def clustered(rows: int, dim: int, seed: int, *, clusters: int = 50) -> Floats:
    """Rows around common centres (the same for every seed), as text embeddings are: neighbours differ less than strangers."""
    centres = np.random.default_rng(1234).normal(size=(clusters, dim))
    rng = np.random.default_rng(seed)
    return (centres[rng.integers(0, clusters, rows)] + 0.6 * rng.normal(size=(rows, dim))).astype(np.float32)


def oracle_scores(queries: Floats, rows: Floats, metric: str) -> npt.NDArray[np.float64]:
    """Scores in float64; cosine over float32 unit rows, which is what an index stores."""
    q, x = queries.astype(np.float64), rows.astype(np.float64)
    if metric == "l2":
        return -((q[:, None, :] - x[None, :, :]) ** 2).sum(axis=2)
    if metric == "cosine":
        norms = np.linalg.norm(x, axis=1, keepdims=True)
        x = np.divide(x, norms, out=np.zeros_like(x), where=norms > 0).astype(np.float32).astype(np.float64)
        norms = np.linalg.norm(q, axis=1, keepdims=True)
        q = np.divide(q, norms, out=np.zeros_like(q), where=norms > 0)
    return q @ x.T


def oracle_top(scores: npt.NDArray[np.float64], k: int) -> npt.NDArray[np.int64]:
    """The k best columns of each row, ties by column."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int64)


def recall(found: npt.NDArray[np.int64], exact: npt.NDArray[np.int64]) -> float:
    return float(np.mean([len(set(a) & set(b)) / exact.shape[1] for a, b in zip(found.tolist(), exact.tolist(), strict=True)]))


def made(rows: Floats, metric: str = "cosine", **options: int) -> nf.HNSWIndex:
    index = nf.HNSWIndex(rows.shape[1], metric, **options)
    index.add(rows, threads=1)
    return index


def walked(index: nf.HNSWIndex, queries: Floats, k: int, ef: int) -> npt.NDArray[np.int64]:
    """The ids that the graph alone finds, without the exact fallbacks."""
    graph, names = index._seen
    ids: npt.NDArray[np.int64] = names.names(graph.search(queries, k, graph.slots, ef, mode="walk", threads=1)[0])
    return ids
