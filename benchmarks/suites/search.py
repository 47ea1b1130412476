"""Approximate search over graphs: time to build, then recall@10 against queries per second, and the latency of single calls.

All engines get M = 16 (32 links on the bottom layer) and ef_construction = 200, all threads for building, and the same queries. For each
target recall every engine runs at its own smallest ef that reaches it; the curve runs everybody at the same ef. There is no ceiling
for a graph: which bytes it touches depends on the search itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from benchmarks.core import data
from benchmarks.core.ceilings import threads_text
from benchmarks.core.machine import settled_bytes
from benchmarks.core.peers import Engine, present, set_threads
from benchmarks.core.plan import Plan, usable_cores
from benchmarks.core.quality import exact_topk, recall_at_k
from benchmarks.core.results import Row
from benchmarks.core.timing import Series, interleave
from benchmarks.suites.graphs import FaissGraph, HnswlibGraph, OurGraph

K = 10
TARGETS = (0.90, 0.95, 0.99)
CURVE = (10, 20, 40, 80, 160, 320)
MAX_EF = 1024
LATENCY_TARGET = 0.95
# Queries per round; 7 rounds and the warm-up stay within data.MAX_QUERIES.
BATCH = 1_024
BUDGET_S = 4.0
# Builds are repeated up to this often while all engines together took less than BUILD_BUDGET_S.
BUILDS = 3
BUILD_BUDGET_S = 60.0

ENGINES = (
    Engine("nearfield HNSWIndex", OurGraph),
    Engine("hnswlib", HnswlibGraph, "hnswlib", ("hnswlib",)),
    Engine("faiss IndexHNSWFlat", FaissGraph, "faiss-cpu", ("faiss",)),
)


class Graph(Protocol):
    """What the suite needs of an engine."""

    def __init__(self, dim: int, capacity: int) -> None: ...

    def add(self, vectors: np.ndarray, threads: int) -> None:
        """Builds the whole graph."""

    def search(self, queries: np.ndarray, k: int, ef: int, threads: int) -> np.ndarray:
        """Row numbers ``(nq, k)``, -1 where nothing was found."""


@dataclass
class Built:
    """One engine with its finished graph."""

    engine: Engine
    graph: Graph
    seconds: list[float] = field(default_factory=list)
    memory: int = 0
    recalls: dict[int, float] = field(default_factory=dict)


def run(plan: Plan, *, rows: int | None = None) -> list[Row]:
    """All rows of the suite. ``rows`` replaces the real vectors by that many synthetic ones (tests)."""
    wanted = (plan.rounds + 1) * BATCH
    vectors, queries, label = data.clustered(rows, wanted) if rows else data.real_vectors(plan, 4_000 if plan.quick else 30_000, wanted)
    truth = exact_topk(queries, vectors, K)[1]
    built = build(plan, vectors)
    out = [_build_row(item, vectors, label, usable_cores()) for item in built]
    for item in built:
        item.recalls = _Recalls(item.graph, queries, vectors, truth)
    for threads in plan.one_and_all:
        set_threads(threads)
        out += _targets(plan, built, queries, label, len(vectors), threads)
        out += _curve(plan, built, queries, label, len(vectors), threads)
    set_threads(1)
    return out + _latency(plan, built, queries, label, len(vectors))


# --- building ----------------------------------------------------------------------------------------------------------


def build(plan: Plan, vectors: np.ndarray) -> list[Built]:
    """Builds each engine's graph with all cores, in turns; the last graph of each is kept, memory is that of its first."""
    threads = usable_cores()
    set_threads(threads)
    engines = present(ENGINES, plan)
    built: dict[str, Built] = {}
    start = time.perf_counter()
    for number in range(1 if plan.quick else BUILDS):
        if number and (time.perf_counter() - start) * (number + 1) / number > BUILD_BUDGET_S:
            break
        for engine in engines:
            plan.say(f"search: building {engine.name}, {len(vectors):,} rows, {threads_text(threads)}")
            before = settled_bytes()
            begin = time.perf_counter()
            graph: Graph = engine.make(vectors.shape[1], len(vectors))
            graph.add(vectors, threads)
            seconds = time.perf_counter() - begin
            if number == 0:
                built[engine.name] = Built(engine, graph, memory=max(0, settled_bytes() - before))
            built[engine.name].graph = graph
            built[engine.name].seconds.append(seconds)
    return list(built.values())


def _build_row(item: Built, vectors: np.ndarray, label: str, threads: int) -> Row:
    timed = Series([[seconds] for seconds in item.seconds])
    return Row(
        **_common(item, label, len(vectors), threads),
        group=f"build, {len(vectors):,} x {vectors.shape[1]}, M = 16, ef_construction = 200, {threads_text(threads)}",
        brief="build",
        params={"n": len(vectors), "M": 16, "ef_construction": 200},
        value=timed.median,
        unit="s",
        spread=timed.spread if len(item.seconds) > 1 else None,
        memory_bytes=item.memory or None,
        rounds=timed.raw(),
    )


# --- searching ---------------------------------------------------------------------------------------------------------


class _Recalls(dict[int, float]):
    """Recall@10 over all queries by ef, measured when first asked for (untimed)."""

    def __init__(self, graph: Graph, queries: np.ndarray, vectors: np.ndarray, truth: np.ndarray) -> None:
        super().__init__()
        self.measure: Callable[[int], float] = lambda ef: recall_at_k(graph.search(queries, K, ef, usable_cores()), queries, vectors, truth)

    def __missing__(self, ef: int) -> float:
        self[ef] = self.measure(ef)
        return self[ef]


def smallest_ef(recalls: dict[int, float], target: float) -> int | None:
    """The smallest ef in [K, MAX_EF] whose recall reaches ``target``, by bisection; None when MAX_EF does not reach it."""
    low, high = K, MAX_EF
    if recalls[low] >= target:
        return low
    if recalls[high] < target:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if recalls[middle] >= target else (middle, high)
    return high


def _chunks(plan: Plan, queries: np.ndarray) -> list[list[np.ndarray]]:
    return [[queries[i * BATCH : (i + 1) * BATCH]] for i in range(plan.rounds + 1)]


def _timed(plan: Plan, settings: list[tuple[Built, int]], queries: np.ndarray, threads: int) -> list[Series]:
    works: dict[str, Any] = {}
    for item, ef in settings:
        works[item.engine.name] = lambda batch, item=item, ef=ef: item.graph.search(batch, K, ef, threads)
    return list(interleave(works, _chunks(plan, queries), budget_s=BUDGET_S).values())


def _targets(plan: Plan, built: list[Built], queries: np.ndarray, label: str, n: int, threads: int) -> list[Row]:
    rows = []
    for target in TARGETS:
        plan.say(f"search: recall@{K} >= {target:.2f}, {threads_text(threads)}")
        settings = [(item, ef) for item in built if (ef := smallest_ef(item.recalls, target)) is not None]
        for item in built:
            if all(item is not other for other, _ in settings):
                plan.skipped.append(f"{item.engine.name}: recall@{K} {item.recalls[MAX_EF]:.3f} at ef = {MAX_EF}, below {target:.2f}")
        group = f"recall@{K} >= {target:.2f}, {n:,} rows, {threads_text(threads)}, batches of {BATCH}"
        for (item, ef), timed in zip(settings, _timed(plan, settings, queries, threads), strict=True):
            rows.append(_search_row(item, ef, timed, label, n, threads, group, f"recall ≥ {target:.2f}"))
    return rows


def _curve(plan: Plan, built: list[Built], queries: np.ndarray, label: str, n: int, threads: int) -> list[Row]:
    rows = []
    for ef in CURVE[::2] if plan.quick else CURVE:
        settings = [(item, ef) for item in built]
        for (item, _), timed in zip(settings, _timed(plan, settings, queries, threads), strict=True):
            rows.append(_search_row(item, ef, timed, label, n, threads, f"curve, {n:,} rows, {threads_text(threads)}, batches of {BATCH}"))
    return rows


def _search_row(item: Built, ef: int, timed: Series, label: str, n: int, threads: int, group: str, brief: str = "") -> Row:
    return Row(
        **_common(item, label, n, threads),
        group=group,
        brief=brief,
        params={"n": n, "k": K, "ef": ef, "nq": BATCH},
        value=BATCH / timed.median,
        unit="queries / s",
        spread=timed.spread,
        quality_name=f"recall@{K}",
        quality=item.recalls[ef],
        rounds=timed.raw(),
    )


def _latency(plan: Plan, built: list[Built], queries: np.ndarray, label: str, n: int) -> list[Row]:
    settings = [(item, ef) for item in built if (ef := smallest_ef(item.recalls, LATENCY_TARGET)) is not None]
    works = {item.engine.name: lambda query, item=item, ef=ef: item.graph.search(query, K, ef, 1) for item, ef in settings}
    chunks = [[batch[i : i + 1] for i in range(len(batch))] for (batch,) in _chunks(plan, queries)]
    plan.say("search: single calls, 1 thread")
    timed = interleave(works, chunks, budget_s=BUDGET_S)
    return [
        Row(
            **_common(item, label, n, 1),
            group=f"single calls from Python at recall@{K} >= {LATENCY_TARGET:.2f}, {n:,} rows, 1 thread",
            brief=f"single call, recall ≥ {LATENCY_TARGET:.2f}",
            params={"n": n, "k": K, "ef": ef, "nq": 1},
            value=1000 * timed[item.engine.name].median / BATCH,
            unit="ms / query",
            spread=timed[item.engine.name].spread,
            p50=1000 * timed[item.engine.name].percentile(50),
            p99=1000 * timed[item.engine.name].percentile(99),
            quality_name=f"recall@{K}",
            quality=item.recalls[ef],
            rounds=timed[item.engine.name].raw(),
        )
        for item, ef in settings
    ]


def _common(item: Built, label: str, n: int, threads: int) -> dict[str, Any]:
    return {
        "suite": "search",
        "engine": item.engine.name,
        "version": item.engine.version,
        "ours": item.engine.ours,
        "data": label,
        "threads": threads,
    }
