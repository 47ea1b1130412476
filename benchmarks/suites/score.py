"""Exact top-10 and top-100 by inner product over unit vectors: one query at a time, and 512 at once, with one thread and with all.

Two collections of 200,000 rows: real sentence embeddings and synthetic clusters. ``--large`` adds 1,000,000 rows (``large.py``).
Agreement is with a float64 oracle; engines that round say so by their recall.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.core import data
from benchmarks.core.answers import Answer
from benchmarks.core.ceilings import threads_text
from benchmarks.core.peers import Engine, present, set_threads
from benchmarks.core.plan import Plan, usable_cores
from benchmarks.core.quality import exact_topk
from benchmarks.core.results import Row
from benchmarks.suites import large
from benchmarks.suites.exact import CHECKED, Contestant, Truth, Work, measure
from benchmarks.suites.scans import EVERYBODY, LEADERS, Scan

# All engines run at the first k, the leaders at every k: the slow ones would double the time to say the same again.
KS = (10, 100)
ROWS = 200_000
QUICK_ROWS = 4_000
BATCH = 512
# What an engine that answers a batch query by query gets of it: the slowest would take a quarter of a minute for 512.
PART = 64
# Single queries in one round: four rounds of them answer the CHECKED queries, eight give a p99 of more than a hundred calls.
SINGLES = 20
# Seconds for one engine in one table; a peer that needs more than a third of it for a batch gets three rounds.
BUDGET_S = 2.0

Load = Callable[[], tuple[np.ndarray, np.ndarray, str]]


def run(plan: Plan, *, sizes: tuple[int, ...] | None = None) -> list[Row]:
    """All rows of the suite. ``sizes`` replaces the collections by synthetic ones of these sizes (tests)."""
    rows = []
    for kind, load in collections(plan, (plan.rounds + 1) * max(BATCH, SINGLES), sizes):
        rows += _collection(plan, kind, *load())
    return rows + (large.run(plan) if plan.large else [])


def collections(plan: Plan, queries: int, sizes: tuple[int, ...] | None = None) -> list[tuple[str, Load]]:
    """``("real", load)`` and ``("synthetic", load)`` of ROWS each; the real one alone, and small, in a quick run."""
    if sizes is not None:
        return [("synthetic", partial(data.clustered, n, queries)) for n in sizes]
    real = ("real", partial(data.real_vectors, plan, QUICK_ROWS if plan.quick else ROWS, queries))
    return [real] if plan.quick else [real, ("synthetic", partial(data.clustered, ROWS, queries))]


def _collection(plan: Plan, kind: str, vectors: np.ndarray, queries: np.ndarray, label: str) -> list[Row]:
    n, dim = vectors.shape
    set_threads(usable_cores())
    scans: dict[Engine, Scan] = {}
    for engine in present(EVERYBODY, plan):
        plan.say(f"score: preparing {engine.name}, {n:,} {kind} rows")
        scans[engine] = engine.make(vectors)
    truth = Truth(*exact_topk(queries[:CHECKED], vectors, max(KS)), vectors)
    rows = []
    for threads in plan.one_and_all:
        set_threads(threads)
        for k in KS:
            for nq, calls in ((1, SINGLES), (BATCH, 1)):
                headline = k == KS[0] and threads == max(plan.one_and_all)
                work = Work(
                    suite="score",
                    group=f"exact top-{k}, {n:,} x {dim} {kind}, nq = {nq}, {threads_text(threads)}",
                    brief=f"{n:,} {kind} rows, nq = {nq}" if headline else "",
                    label=label, threads=threads, n=n, dim=dim, k=k, nq=nq, calls=calls, budget_s=BUDGET_S,
                )  # fmt: skip
                contestants = [
                    Contestant(engine, partial(_search, scan, k, threads), asked=PART if nq > 1 and engine.linear else None)
                    for engine, scan in scans.items()
                    if k == KS[0] or engine in LEADERS
                ]
                rows += measure(plan, work, contestants, queries, truth)
    return rows


def _search(scan: Scan, k: int, threads: int, queries: np.ndarray) -> Answer:
    return scan(queries, k, threads)
