"""The time to build a graph, at equal worth: every engine builds with the fewest candidates whose graph reaches a recall at a given width.

All have 32 links on the bottom layer. Which number of candidates is enough is found with all cores and not timed; then builds at that
number take turns, on one thread and on all. ``FrozenIndex`` is built from an ``HNSWIndex``, and both steps count.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from benchmarks.core import data
from benchmarks.core.ceilings import threads_text
from benchmarks.core.peers import Engine, set_threads
from benchmarks.core.plan import Plan, usable_cores
from benchmarks.core.results import Row
from benchmarks.core.timing import PAUSE_S, Series
from benchmarks.suites.graph_peers import LINKS, Shape
from benchmarks.suites.graphs import COMPACT, ENGINES, NGT, Graph, Setting, engines_wanted
from benchmarks.suites.search import Collection, collection, recalls_of

K = 10
# The recall that a graph must reach at this width: on 50,000 real rows 200 candidates, the usual choice, give 0.98 and more.
TARGET, EF = 0.97, 64
LADDER = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
ROWS, QUICK_ROWS = 50_000, 2_000
QUERIES = 1_024
ROUNDS, QUICK_ROUNDS = 3, 1


def run(plan: Plan, *, rows: int | None = None) -> list[Row]:
    """All rows of the suite. ``rows`` replaces the real vectors by that many synthetic ones (tests)."""
    wanted = QUICK_ROWS if plan.quick else ROWS
    loaded: tuple[Any, ...] = data.clustered(rows, QUERIES) if rows else data.real_with_metric(plan, wanted, QUERIES)
    vectors, queries, label, *metric = loaded
    found = collection("own" if plan.data else "real", vectors, queries, label, *metric, batch=1, alone=False)
    # The compact graph is that of FrozenIndex; NGT leaves nobody the number of candidates.
    chosen: dict[Engine, tuple[int, float]] = {}
    for engine in (engine for engine in engines_wanted(ENGINES, plan) if engine not in (COMPACT, NGT)):
        for module in engine.needs:
            import_module(module)
        plan.say(f"build: how many candidates {engine.name} needs")
        try:
            at = fewest(lambda ef, engine=engine: _recall(engine, found, ef))
        except Exception as error:  # a peer that fails is left out with a line, so that the others' time is not lost
            if engine.ours:
                raise
            plan.skipped.append(f"skipped: {engine.name} (build: {type(error).__name__}: {error})")
            plan.say(plan.skipped[-1])
            continue
        if at is None:
            plan.skipped.append(f"{engine.name}: recall@{K} below {TARGET} at width {EF} with up to {LADDER[-1]} candidates while building")
            plan.say(plan.skipped[-1])
        else:
            chosen[engine] = at
    out = []
    for threads in plan.one_and_all:
        out += _timed(plan, chosen, found, threads)
    return out


def fewest(recall: Callable[[int], float]) -> tuple[int, float] | None:
    """The first of LADDER whose graph reaches TARGET, and the recall there; None where the last does not. Recall must grow along it."""
    low, high = 0, len(LADDER) - 1
    reached = {high: recall(LADDER[high])}
    if reached[high] < TARGET:
        return None
    while low < high:
        middle = (low + high) // 2
        reached[middle] = recall(LADDER[middle])
        low, high = (low, middle) if reached[middle] >= TARGET else (middle + 1, high)
    return LADDER[high], reached[high]


def _built(engine: Engine, found: Collection, ef_construction: int, threads: int) -> Graph:
    graph: Graph = engine.make(Shape(found.vectors.shape[1], len(found.vectors), found.metric, ef_construction))
    graph.add(found.vectors, threads)
    return graph


def _recall(engine: Engine, found: Collection, ef_construction: int) -> float:
    set_threads(usable_cores())
    graph = _built(engine, found, ef_construction, usable_cores())
    return recalls_of(graph, found, K)[Setting(EF, max(graph.refines))]


def _timed(plan: Plan, chosen: dict[Engine, tuple[int, float]], found: Collection, threads: int) -> list[Row]:
    set_threads(threads)
    seconds: dict[Engine, list[list[float]]] = {engine: [] for engine in chosen}
    for number in range(QUICK_ROUNDS if plan.quick else ROUNDS):
        for engine, (ef_construction, _) in chosen.items():
            plan.say(f"build: {engine.name}, {threads_text(threads)}, round {number + 1}")
            time.sleep(PAUSE_S)
            start = time.perf_counter()
            _built(engine, found, ef_construction, threads)
            seconds[engine].append([time.perf_counter() - start])
    return [_row(engine, *at, Series(seconds[engine]), found, threads) for engine, at in chosen.items()]


def _row(engine: Engine, ef_construction: int, recall: float, timed: Series, found: Collection, threads: int) -> Row:
    n = len(found.vectors)
    return Row(
        suite="build", group=f"build to recall@{K} >= {TARGET:.2f} at width {EF}, {found.rows}, {LINKS} links, {threads_text(threads)}",
        brief=f"recall ≥ {TARGET:.2f} at width {EF}", engine=engine.name, version=engine.version, ours=engine.ours, data=found.label,
        threads=threads,
        params={
            "n": n, "links": LINKS, "ef_construction": ef_construction, "shown": f"{ef_construction} candidates", "rate": n / timed.median,
        },
        value=timed.median, unit="s", spread=timed.spread if len(timed.rounds) > 1 else None, quality_name=f"recall@{K}", quality=recall,
        rounds=timed.raw(),
    )  # fmt: skip
