"""Scans that may miss a neighbour, at equal recall: one-bit codes with the candidates' float32 rows scored again.

Recall@10 is that of the timed queries. faiss gets the smallest number of candidates per result that reaches the recall of FlatIndex with
``guarantee=0.999`` on the same queries; where none of FACTORS does, it is left out with a line. The exact FlatIndex runs beside them: an
approximate scan that is slower has no use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks.core.answers import Answer
from benchmarks.core.ceilings import threads_text
from benchmarks.core.peers import Engine, present, set_threads
from benchmarks.core.plan import Plan, usable_cores
from benchmarks.core.quality import exact_topk, recall_at_k
from benchmarks.core.results import Row
from benchmarks.suites.exact import Contestant, Truth, Work, measure
from benchmarks.suites.scans import FLAT, GUARANTEED, RABITQ, SQ8, Scan, rabitq_index, sq8_index
from benchmarks.suites.score import collections

K = 10
BATCH = 512
SINGLES = 40
# 256 queries x 10 places: one miss is 0.0004, so that 0.999 means something.
CHECKED = 256
# Candidates per result that are tried.
FACTORS = (1, 2, 4, 8, 16, 32, 64, 128)
BUDGET_S = 4.0

# Candidates per result, queries and k to ids.
Refined = Callable[[int, np.ndarray, int], np.ndarray]


def _refined(vectors: np.ndarray, base: Any) -> Refined:
    import faiss

    index = faiss.IndexRefineFlat(base, faiss.swig_ptr(vectors))

    def search(factor: int, queries: np.ndarray, k: int, alive: object = (base, vectors)) -> np.ndarray:
        # ``alive``: faiss only points to the base and to the rows.
        return index.search(queries, k, params=faiss.IndexRefineSearchParameters(k_factor=factor))[1]  # type: ignore[no-any-return]

    return search


REFINED = (
    (replace(RABITQ, name="faiss RaBitQFastScan + refine"), rabitq_index),
    (replace(SQ8, name="faiss SQ8 + refine"), sq8_index),
)


def run(plan: Plan, *, sizes: tuple[int, ...] | None = None) -> list[Row]:
    """All rows of the suite. ``sizes`` replaces the collections by synthetic ones of these sizes (tests)."""
    rows = []
    for kind, load in collections(plan, (plan.rounds + 1) * max(BATCH, SINGLES), sizes):
        rows += _collection(plan, kind, *load())
    return rows


def smallest_factor(recall: Callable[[int], float], target: float) -> int | None:
    """The first of FACTORS whose recall reaches ``target``; None when none does."""
    return next((factor for factor in FACTORS if recall(factor) >= target), None)


def _collection(plan: Plan, kind: str, vectors: np.ndarray, queries: np.ndarray, label: str) -> list[Row]:
    n, dim = vectors.shape
    set_threads(usable_cores())
    checked = queries[:CHECKED]
    truth = Truth(*exact_topk(checked, vectors, K), vectors)

    def recall(found: np.ndarray) -> float:
        return recall_at_k(found, checked, vectors, truth.scores)

    plain: list[tuple[Engine, Scan]] = [(engine, engine.make(vectors)) for engine in present((FLAT, GUARANTEED, RABITQ), plan)]
    target = recall(dict(plain)[GUARANTEED](checked, K, usable_cores()).ids)
    refined: list[tuple[Engine, Refined, int]] = []
    bases = dict(REFINED)
    for engine in present(list(bases), plan):
        plan.say(f"approximate: {engine.name}, candidates for recall {target:.4f}, {n:,} {kind} rows")
        search = _refined(vectors, bases[engine](vectors))
        factor = smallest_factor(lambda factor, search=search: recall(search(factor, checked, K)), target)
        if factor is None:
            plan.skipped.append(f"{engine.name}: recall@{K} below {target:.4f} with {FACTORS[-1]} candidates per result, {n:,} {kind} rows")
        else:
            refined.append((engine, search, factor))
    rows = []
    for threads in plan.one_and_all:
        set_threads(threads)
        contestants = [Contestant(engine, partial(_search, scan, threads)) for engine, scan in plain]
        contestants += [
            Contestant(engine, partial(_again, search, factor), f"x{factor}", {"factor": factor}) for engine, search, factor in refined
        ]
        for nq, calls in ((1, SINGLES), (BATCH, 1)):
            work = Work(
                suite="approximate",
                group=f"top-{K} at recall >= {target:.4f}, {n:,} x {dim} {kind}, nq = {nq}, {threads_text(threads)}",
                label=label, threads=threads, n=n, dim=dim, k=K, nq=nq, calls=calls, budget_s=BUDGET_S,
            )  # fmt: skip
            rows += measure(plan, work, contestants, queries, truth)
    return rows


def _search(scan: Scan, threads: int, queries: np.ndarray) -> Answer:
    return scan(queries, K, threads)


def _again(search: Refined, factor: int, queries: np.ndarray) -> Answer:
    return search(factor, queries, K)
