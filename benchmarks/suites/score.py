"""Exact top-10 by inner product over unit vectors: one query at a time, and 512 at once.

One query streams the whole collection, so its ceiling is the memory bandwidth for the bytes that the engine must touch (1 a value where it
scans int8 codes, 4 otherwise); 512 queries reuse every vector from the cache, so theirs is the peak rate of the engine's own multiply-adds.
Agreement is with a float64 oracle.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import nearfield
from benchmarks.core import data
from benchmarks.core.ceilings import threads_text
from benchmarks.core.peers import Engine, present, set_threads
from benchmarks.core.plan import Plan
from benchmarks.core.quality import exact_topk, same_lists
from benchmarks.core.results import Row
from benchmarks.core.timing import Series, interleave

K = 10
BATCH = 512
# Calls in one round of single queries: enough for a median of medians, and 7 rounds of them give a p99 of some hundred calls.
SINGLES = 50
# Queries whose ids are compared with the oracle: 64 x 200,000 x 384 in float64 takes about a second.
CHECKED = 64
# numpy and torch get their queries in blocks of this many: scores of 128 x 200,000 are 100 MB, and larger blocks were not faster.
QUERY_BLOCK = 128
BUDGET_S = 12.0

Search = Callable[[np.ndarray], np.ndarray]
Load = Callable[[], tuple[np.ndarray, np.ndarray, str]]


def _topk(vectors: np.ndarray, threads: int) -> Search:
    return lambda queries: nearfield.topk(queries, vectors, K, metric="ip").ids


def _flat(vectors: np.ndarray, threads: int) -> Search:
    index = nearfield.FlatIndex(vectors.shape[1], metric="ip", threads=threads)
    index.add(vectors)
    return lambda queries: index.search(queries, K).ids


def _numpy(vectors: np.ndarray, threads: int) -> Search:
    def block(queries: np.ndarray) -> np.ndarray:
        scores = queries @ vectors.T
        best = np.argpartition(scores, -K, axis=1)[:, -K:]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        return np.take_along_axis(best, order, axis=1)

    return lambda queries: np.concatenate([block(queries[i : i + QUERY_BLOCK]) for i in range(0, len(queries), QUERY_BLOCK)])


def _torch(vectors: np.ndarray, threads: int) -> Search:
    import torch

    table = torch.from_numpy(vectors)

    def search(queries: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            blocks = [torch.topk(part @ table.T, K, dim=1).indices for part in torch.from_numpy(queries).split(QUERY_BLOCK)]
            return torch.cat(blocks).numpy()

    return search


def _faiss(vectors: np.ndarray, threads: int) -> Search:
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return lambda queries: index.search(queries, K)[1]


def _hnswlib(vectors: np.ndarray, threads: int) -> Search:
    import hnswlib

    index = hnswlib.BFIndex(space="ip", dim=vectors.shape[1])
    index.init_index(max_elements=len(vectors))
    index.add_items(vectors)
    index.set_num_threads(threads)
    return lambda queries: index.knn_query(queries, k=K)[0].astype(np.int64)


ENGINES = (
    Engine("nearfield topk", _topk),
    Engine("nearfield FlatIndex", _flat, precision="int8"),
    Engine("numpy matmul + argpartition", _numpy, "numpy", ("threadpoolctl",)),
    Engine("torch matmul + topk", _torch, "torch", ("torch",)),
    Engine("faiss IndexFlatIP", _faiss, "faiss-cpu", ("faiss",)),
    Engine("hnswlib BFIndex", _hnswlib, "hnswlib", ("hnswlib",)),
)


def run(plan: Plan, *, sizes: tuple[int, ...] | None = None) -> list[Row]:
    """All rows of the suite. ``sizes`` replaces the collections by synthetic ones of these sizes (tests)."""
    wanted = (plan.rounds + 1) * max(BATCH, SINGLES)
    if sizes is not None:
        collections: list[Load] = [partial(data.clustered, n, wanted) for n in sizes]
    elif plan.quick:
        collections = [partial(data.real_vectors, plan, 4_000, wanted)]
    else:
        collections = [partial(data.real_vectors, plan, 30_000, wanted), partial(data.clustered, 200_000, wanted)]
    rows = []
    for load in collections:
        vectors, queries, label = load()
        for threads in plan.all_cores:
            rows += _collection(plan, vectors, queries, label, threads)
    return rows


def _collection(plan: Plan, vectors: np.ndarray, queries: np.ndarray, label: str, threads: int) -> list[Row]:
    set_threads(threads)
    engines = present(ENGINES, plan)
    searches = {engine.name: engine.make(vectors, threads) for engine in engines}
    truth = exact_topk(queries[:CHECKED], vectors, K)[0]
    rows = []
    for nq in (1, BATCH):
        if nq == 1:
            starts = np.arange((plan.rounds + 1) * SINGLES).reshape(plan.rounds + 1, SINGLES)
            chunks: list[list[Any]] = [[queries[i : i + 1] for i in line] for line in starts]
            same = {
                name: same_lists(np.concatenate([search(queries[i : i + 1]) for i in range(CHECKED)]), truth)
                for name, search in searches.items()
            }
        else:
            chunks = [[queries[i * BATCH : (i + 1) * BATCH]] for i in range(plan.rounds + 1)]
            same = {name: same_lists(search(queries[:BATCH])[:CHECKED], truth) for name, search in searches.items()}
        plan.say(f"score: {label}, nq = {nq}, {threads_text(threads)}: {len(engines)} engines x {plan.rounds} rounds")
        timed = interleave(searches, chunks, budget_s=BUDGET_S)
        rows += [_row(plan, engine, timed[engine.name], same[engine.name], vectors.shape, nq, threads, label) for engine in engines]
    return rows


def _row(plan: Plan, engine: Engine, timed: Series, same: float, shape: tuple[int, ...], nq: int, threads: int, label: str) -> Row:
    n, dim = shape
    calls = len(timed.rounds[0])
    seconds = timed.median / calls
    if nq == 1:
        ceiling, share = plan.ceilings.stream(threads, n * dim * (1 if engine.precision == "int8" else 4), seconds)
    else:
        ceiling, share = plan.ceilings.compute(engine.precision, threads, 2.0 * n * dim * nq, seconds)
    return Row(
        suite="score",
        group=f"exact top-{K}, {n:,} x {dim}, nq = {nq}, {threads_text(threads)}",
        brief=f"{n:,} rows, nq = {nq}",
        engine=engine.name,
        version=engine.version,
        ours=engine.ours,
        data=label,
        threads=threads,
        params={"n": n, "dim": dim, "nq": nq, "k": K},
        value=1000 * seconds if nq == 1 else nq / seconds,
        unit="ms / query" if nq == 1 else "queries / s",
        spread=timed.spread,
        p50=1000 * timed.percentile(50) if nq == 1 else None,
        p99=1000 * timed.percentile(99) if nq == 1 else None,
        quality_name="lists = float64",
        quality=same,
        ceiling=ceiling,
        share=share,
        rounds=timed.raw(),
    )
