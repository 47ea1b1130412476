"""Exact top-10 among a part of the rows: half of them, 5 % and 0.1 %, chosen at random or in blocks, one query and 64 at once.

Time should fall with the part that is kept: blocks of rows without an allowed one need not be read. The share of the ceiling counts the
kept rows alone. faiss takes the same mask as a bitmap.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

import nearfield
from benchmarks.core.answers import Answer
from benchmarks.core.ceilings import threads_text
from benchmarks.core.peers import Engine, present, set_threads
from benchmarks.core.plan import Plan
from benchmarks.core.quality import exact_topk
from benchmarks.core.results import Row
from benchmarks.suites.exact import CHECKED, Contestant, Truth, Work, measure
from benchmarks.suites.scans import FAISS, FLAT
from benchmarks.suites.score import collections

K = 10
BATCH = 64
SINGLES = 20
KEPT = (1.0, 0.5, 0.05, 0.001)
# Rows that a clustered mask keeps or drops together, as documents of one owner or one month would be.
BLOCK = 1_024
BUDGET_S = 3.0
SEED = 5

Masked = Callable[[np.ndarray, np.ndarray, int], Answer]


def _flat(vectors: np.ndarray) -> Masked:
    index = nearfield.FlatIndex(vectors.shape[1], metric="ip")
    index.add(vectors)
    return lambda queries, mask, threads: index.search(queries, K, filter=mask, threads=threads)


def _faiss(vectors: np.ndarray) -> Masked:
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)

    def search(queries: np.ndarray, mask: np.ndarray, threads: int) -> np.ndarray:
        chosen = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little")))
        return index.search(queries, K, params=chosen)[1]  # type: ignore[no-any-return]

    return search


ENGINES = (
    Engine(FLAT.name, _flat, precision=FLAT.precision, value_bytes=FLAT.value_bytes),
    Engine(FAISS.name, _faiss, FAISS.distribution, FAISS.needs),
)


def mask_of(n: int, kept: float, clustered: bool) -> np.ndarray:
    """A boolean mask of ``round(n * kept)`` rows: single rows, or runs of BLOCK rows that start at multiples of their length."""
    draw, count = np.random.default_rng(SEED), max(1, round(n * kept))
    out = np.zeros(n, bool)
    if not clustered:
        out[draw.choice(n, count, replace=False)] = True
        return out
    run = min(BLOCK, count)
    for start in draw.permutation(np.arange(0, n, run)):
        left = count - int(out.sum())
        out[start : start + min(run, left)] = True
    return out


def run(plan: Plan, *, sizes: tuple[int, ...] | None = None) -> list[Row]:
    """All rows of the suite. ``sizes`` replaces the collections by synthetic ones of these sizes (tests)."""
    rows = []
    for kind, load in collections(plan, (plan.rounds + 1) * max(BATCH, SINGLES), sizes):
        rows += _collection(plan, kind, *load())
    return rows


def _collection(plan: Plan, kind: str, vectors: np.ndarray, queries: np.ndarray, label: str) -> list[Row]:
    n, dim = vectors.shape
    engines = [(engine, engine.make(vectors)) for engine in present(ENGINES, plan)]
    rows = []
    for kept in KEPT:
        for clustered in (False, True) if kept < 1 else (False,):
            mask = mask_of(n, kept, clustered)
            shown = f"{100 * kept:g} %" + ("" if kept == 1 else ", blocks" if clustered else ", random")
            allowed = np.flatnonzero(mask)
            ids, scores = exact_topk(queries[:CHECKED], vectors[allowed], K)
            truth = Truth(allowed[ids], scores, vectors)
            for threads in plan.all_cores:
                set_threads(threads)
                for nq, calls in ((1, SINGLES), (BATCH, 1)):
                    work = Work(
                        suite="filter",
                        group=f"top-{K} of the kept part of {n:,} x {dim} {kind}, nq = {nq}, {threads_text(threads)}",
                        label=label, threads=threads, n=len(allowed), dim=dim, k=K, nq=nq, calls=calls, budget_s=BUDGET_S, per_query=True,
                    )  # fmt: skip
                    contestants = [
                        Contestant(engine, partial(_search, masked, mask, threads), shown, {"rows": n, "kept": kept, "blocks": clustered})
                        for engine, masked in engines
                    ]
                    rows += measure(plan, work, contestants, queries, truth)
    return rows


def _search(masked: Masked, mask: np.ndarray, threads: int, queries: np.ndarray) -> Answer:
    return masked(queries, mask, threads)
