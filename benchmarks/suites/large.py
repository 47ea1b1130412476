"""FlatIndex over 1,000,000 synthetic rows beside their first 200,000: does time grow with the rows, and how many bytes does a row take?

Part of the score suite with ``--large``. Both sizes take turns. Memory is the growth of the resident set over one build of each storage.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

import numpy as np

import nearfield
from benchmarks.core import data
from benchmarks.core.ceilings import threads_text
from benchmarks.core.machine import settled_bytes
from benchmarks.core.peers import set_threads
from benchmarks.core.plan import Plan
from benchmarks.core.quality import exact_topk
from benchmarks.core.results import Row
from benchmarks.suites.exact import Contestant, Truth, Work, measure
from benchmarks.suites.scans import FLAT

SIZES = (200_000, 1_000_000)
QUICK_SIZES = (2_000, 10_000)
STORAGES = ("float32", "bfloat16", "int8")
K = 10
BATCH = 512
SINGLES = 10
# The oracle reads 1,000,000 x 384 doubles, whatever the number of queries below this.
CHECKED = 32
BUDGET_S = 10.0


def run(plan: Plan, *, sizes: tuple[int, int] | None = None) -> list[Row]:
    """Rows of memory and of time; ``sizes`` are the smaller and the larger number of rows (tests)."""
    few, many = sizes or (QUICK_SIZES if plan.quick else SIZES)
    plan.say(f"score: making {many:,} synthetic rows")
    vectors, queries, label = data.clustered(many, (plan.rounds + 1) * max(BATCH, SINGLES))
    rows = [_memory(plan, vectors, storage, label) for storage in STORAGES]
    indexes = {n: _built(vectors[:n], "float32") for n in (few, many)}
    truths = {n: Truth(*exact_topk(queries[:CHECKED], vectors[:n], K), vectors[:n]) for n in indexes}
    for threads in plan.one_and_all:
        set_threads(threads)
        contestants = [
            Contestant(FLAT, partial(index.search, k=K, threads=threads), shown=f"{n:,} rows", truth=truths[n])
            for n, index in indexes.items()
        ]
        for nq, calls in ((1, SINGLES), (BATCH, 1)):
            work = Work(
                suite="score",
                group=f"exact top-{K}, {few:,} and {many:,} x {vectors.shape[1]} synthetic, nq = {nq}, {threads_text(threads)}",
                label=label, threads=threads, n=many, dim=vectors.shape[1], k=K, nq=nq, calls=calls, budget_s=BUDGET_S, per_query=True,
            )  # fmt: skip
            small, big = measure(plan, work, contestants, queries)
            growth = big.value / small.value / (many / few)
            rows += [small, replace(big, params={**big.params, "growth": round(growth, 3)})]
    return rows


def _built(vectors: np.ndarray, storage: str) -> nearfield.FlatIndex:
    index = nearfield.FlatIndex(vectors.shape[1], metric="ip", storage=storage)
    index.add(vectors)
    return index


def _memory(plan: Plan, vectors: np.ndarray, storage: str, label: str) -> Row:
    plan.say(f"score: building FlatIndex, {storage}, {len(vectors):,} rows")
    n, dim = vectors.shape
    before, start = settled_bytes(), time.perf_counter()
    index = _built(vectors, storage)
    seconds = time.perf_counter() - start
    grown = max(1, settled_bytes() - before)
    del index
    return Row(
        suite="score",
        group=f"memory of {n:,} x {dim} synthetic",
        brief="",
        engine=FLAT.name,
        version=FLAT.version,
        ours=True,
        data=label,
        threads=max(plan.one_and_all),
        params={"n": n, "dim": dim, "storage": storage, "shown": storage},
        value=grown / n,
        unit="bytes / vector",
        memory_bytes=grown,
        rounds=[{"seconds": seconds, "calls": 1}],
    )
