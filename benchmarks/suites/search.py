"""Approximate search over graphs: time to build and memory, then recall against queries per second, and the latency of single calls.

All engines get 32 links on the bottom layer, 200 candidates while building, all threads for building, and the same queries. For each
target recall every engine runs at its own smallest setting that reaches it (``knobs.py``); the curves run everybody at the same widths.
There is no ceiling for a graph: which bytes it touches depends on the search itself.

Up to 200,000 rows all graphs are in memory and take turns. With ``--large`` 1,000,000 rows follow: there each graph is built, measured and
freed before the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.core import data, plots
from benchmarks.core.ceilings import threads_text
from benchmarks.core.machine import settled_bytes
from benchmarks.core.own import as_products
from benchmarks.core.peers import Engine, present, set_threads
from benchmarks.core.plan import Plan, usable_cores
from benchmarks.core.quality import exact_topk
from benchmarks.core.results import Row
from benchmarks.core.timing import Series, interleave
from benchmarks.suites import kept
from benchmarks.suites.graph_peers import EF_CONSTRUCTION, M, Shape
from benchmarks.suites.graphs import ENGINES, Graph, Setting, saved_bytes
from benchmarks.suites.kept import Figures
from benchmarks.suites.knobs import MAX_EF, Recalls

KS = (10, 100)
TARGETS = (0.90, 0.95, 0.99)
# Widths of the curve, by k.
CURVE = {10: (10, 20, 40, 80, 160, 320), 100: (100, 150, 200, 300, 400, 600)}
CURVE_ROUNDS = 3
# An engine that takes longer for a query at one width is not asked at wider ones: one peer's rest of a curve took eight minutes.
CURVE_MOST_S = 0.01
LATENCY_TARGET = 0.95
# The width at which the build's row says what recall that graph gives.
BUILD_EF = 100
ROWS, QUICK_ROWS = 200_000, 4_000
# Graphs of fewer rows are built in seconds and not kept.
KEPT_ROWS = 100_000
LARGE_ROWS, QUICK_LARGE_ROWS = 1_000_000, 20_000
# Queries per round: with 7 rounds and the warm-up 4,096.
BATCH, QUICK_BATCH = 512, 64
BUDGET_S = 3.0
# Queries of which recall is measured. At k = 10 all 4,096: 40,960 places, whose share is known to about 0.001 at 0.99. At k = 100 a quarter
# of them has more places.
CHECKED = {10: 4_096, 100: 1_024}
# Curves are drawn from this recall on.
PLOT_FROM = 0.80


@dataclass(frozen=True)
class Collection:
    """What is searched.

    Attributes:
        kind: ``"real"`` or ``"synthetic"``.
        vectors, queries, label: as ``core.data`` gives them.
        true_scores: float64 ``(nq, max(KS))`` of the true neighbours, descending.
        batch: queries in one call.
        alone: each engine is alone in memory with it, and its rows stay out of the README.
        metric: ``"ip"`` or ``"l2"``.
        products: float64 rows and queries whose inner products rank as the metric does; the rows and queries themselves under ``"ip"``.
    """

    kind: str
    vectors: np.ndarray
    queries: np.ndarray
    label: str
    true_scores: np.ndarray
    batch: int
    alone: bool
    metric: str
    products: tuple[np.ndarray, np.ndarray]

    @property
    def rows(self) -> str:
        return f"{len(self.vectors):,} {self.kind} rows"

    @cached_property
    def digest(self) -> str:
        """Of rows, metric and machine, see ``kept``."""
        return kept.digest(self.vectors, self.metric)


@dataclass
class Built:
    """One engine with its finished graph, its recalls by k, and the setting for each (k, target) that it reaches."""

    engine: Engine
    graph: Graph
    cost: Figures
    recalls: dict[int, Recalls]
    settings: dict[tuple[int, float], Setting] = field(default_factory=dict)

    def at(self, k: int, ef: int) -> Setting:
        """The setting of this width; what else there is to set as for the highest target that is reached."""
        reached = [setting for (count, _), setting in self.settings.items() if count == k]
        return Setting(ef, reached[-1].refine if reached else min(self.graph.refines))


def run(plan: Plan, *, rows: int | None = None) -> list[Row]:
    """All rows of the suite, and the plots. ``rows`` replaces the collections by one of that many synthetic rows (tests)."""
    out: list[Row] = []
    for load in _collections(plan, rows):
        found, fresh = load(), list[Row]()
        engines = present(ENGINES, plan)
        for group in [[engine] for engine in engines] if found.alone else [engines]:
            fresh += _measured(plan, group, found, out + fresh)
        draw(plan, found, fresh)
        out += fresh
    return out


def _collections(plan: Plan, rows: int | None) -> Iterator[Callable[[], Collection]]:
    if rows is not None:
        yield partial(_collection, plan, "synthetic", partial(data.clustered, rows))
        return
    yield partial(_collection, plan, "real", partial(data.real_with_metric, plan, QUICK_ROWS if plan.quick else ROWS))
    if plan.large:
        large = QUICK_LARGE_ROWS if plan.quick else LARGE_ROWS
        yield partial(_collection, plan, "synthetic", partial(data.clustered, large), alone=True)


def _collection(plan: Plan, kind: str, load: Callable[[int], tuple[Any, ...]], alone: bool = False) -> Collection:
    batch = QUICK_BATCH if plan.quick else BATCH
    vectors, queries, label, *metric = load((plan.rounds + 1) * batch)
    return collection(kind, vectors, queries, label, *metric, batch=batch, alone=alone)


def collection(
    kind: str, vectors: np.ndarray, queries: np.ndarray, label: str, metric: str = "ip", *, batch: int, alone: bool = False
) -> Collection:
    """A collection with its true neighbours."""
    products = (vectors, queries)
    if metric == "l2":
        products = (as_products(vectors, query=False), as_products(queries, query=True))
    return Collection(kind, vectors, queries, label, exact_topk(products[1], products[0], max(KS))[1], batch, alone, metric, products)


def _measured(plan: Plan, engines: Sequence[Engine], found: Collection, before: Sequence[Row]) -> list[Row]:
    """All rows of these engines; ``before`` are those of others, handed over with them."""
    set_threads(usable_cores())
    built = [item for engine in engines if (item := build(plan, engine, found)) is not None]
    for item in built:
        _settle(plan, item, found)
    out = [_build_row(item, found) for item in built]
    for k in KS:
        for threads in plan.one_and_all:
            set_threads(threads)
            for target in TARGETS:
                out += _target(plan, built, found, k, target, threads)
                plan.so_far([*before, *out])
            out += _curve(plan, built, found, k, threads)
            plan.so_far([*before, *out])
    set_threads(1)
    return out + _latency(plan, built, found, out)


# --- building ----------------------------------------------------------------------------------------------------------


def build(plan: Plan, engine: Engine, found: Collection) -> Built | None:
    """Builds one graph with all cores. A peer that fails is left out with a line, so that the others' hour is not lost."""
    threads = usable_cores()
    plan.say(f"search: building {engine.name}, {found.rows}, {threads_text(threads)}")
    for module in engine.needs:
        import_module(module)  # neither its time nor its memory is the graph's
    try:
        graph, cost = _restored(plan, engine, found) or _built(plan, engine, found)
    except Exception as error:
        if engine.ours:
            raise
        plan.skipped.append(f"skipped: {engine.name} ({found.rows}: {type(error).__name__}: {error})")
        plan.say(plan.skipped[-1])
        return None
    recalls = {k: recalls_of(graph, found, k) for k in KS}
    return Built(engine, graph, cost, recalls)


def _keeps(plan: Plan, engine: Engine, found: Collection) -> bool:
    """Whether a graph of this engine is kept between runs: of the peers', those that took minutes."""
    return not engine.ours and not plan.quick and len(found.vectors) >= KEPT_ROWS


def _made(engine: Engine, found: Collection) -> Any:
    return engine.make(Shape(found.vectors.shape[1], len(found.vectors), found.metric))


def _restored(plan: Plan, engine: Engine, found: Collection) -> tuple[Graph, Figures] | None:
    place = kept.folder(plan, engine, found.digest) if _keeps(plan, engine, found) else None
    if place is None or not place.is_dir():
        return None
    graph = _made(engine, found)
    try:
        return graph, kept.restore(place, graph, found.vectors)
    except Exception as error:
        plan.say(f"search: the kept graph of {engine.name} cannot be read, it is built again ({type(error).__name__}: {error})")
        return None


def _built(plan: Plan, engine: Engine, found: Collection) -> tuple[Graph, Figures]:
    before, start = settled_bytes(), time.perf_counter()
    graph = _made(engine, found)
    graph.add(found.vectors, usable_cores())
    seconds = time.perf_counter() - start
    memory = max(0, settled_bytes() - before)
    if _keeps(plan, engine, found):
        return graph, kept.keep(kept.folder(plan, engine, found.digest), graph, seconds, memory)
    return graph, Figures(seconds, memory, saved_bytes(graph))


def recalls_of(graph: Graph, found: Collection, k: int) -> Recalls:
    """Recall@k by setting, of the queries that are checked."""
    rows, queries = found.products
    checked = slice(CHECKED[k])
    return Recalls(graph, found.queries[checked], rows, found.true_scores[checked, :k], products=queries[checked])


def _settle(plan: Plan, item: Built, found: Collection) -> None:
    """Finds the setting for each k and target; a target that is out of reach gets a line."""
    for k in KS:
        plan.say(f"search: settings of {item.engine.name}, k = {k}")
        for target in TARGETS:
            at = item.recalls[k].fastest(target)
            if at is not None:
                item.settings[k, target] = at
                continue
            best = max(item.recalls[k].values())
            plan.skipped.append(f"{item.engine.name}: recall@{k} {best:.3f} at most (ef to {MAX_EF:,}), below {target:.2f}, {found.rows}")


def _build_row(item: Built, found: Collection) -> Row:
    threads, n = usable_cores(), len(found.vectors)
    return Row(
        **_common(item, found, threads),
        group=f"build, {found.rows}, {2 * M} links, {EF_CONSTRUCTION} candidates, {threads_text(threads)}",
        brief="" if found.alone else "build",
        params={"n": n, "links": 2 * M, "ef_construction": EF_CONSTRUCTION, "file_bytes": item.cost.file_bytes, **_day(item)},
        value=item.cost.seconds,
        unit="s",
        quality_name=f"recall@{KS[0]} at ef = {BUILD_EF}",
        quality=item.recalls[KS[0]][item.at(KS[0], BUILD_EF)],
        memory_bytes=item.cost.memory or None,
        rounds=[{"seconds": round(item.cost.seconds, 6), "calls": 1}],
    )


def _day(item: Built) -> dict[str, str]:
    """Says so where the graph was built by an earlier run."""
    return {} if item.cost.day is None else {"shown": f"built {item.cost.day}"}


# --- searching ---------------------------------------------------------------------------------------------------------


def _chunks(found: Collection, rounds: int) -> list[list[np.ndarray]]:
    return [[found.queries[i * found.batch : (i + 1) * found.batch]] for i in range(rounds + 1)]


def _timed(settings: Sequence[tuple[Built, Setting]], found: Collection, k: int, threads: int, rounds: int) -> list[Series]:
    works: dict[str, Any] = {}
    for item, at in settings:
        works[item.engine.name] = lambda batch, item=item, at=at: item.graph.search(batch, k, at, threads)
    return list(interleave(works, _chunks(found, rounds), budget_s=BUDGET_S).values())


def _target(plan: Plan, built: Sequence[Built], found: Collection, k: int, target: float, threads: int) -> list[Row]:
    plan.say(f"search: recall@{k} >= {target:.2f}, {threads_text(threads)}")
    settings = [(item, item.settings[k, target]) for item in built if (k, target) in item.settings]
    group = f"recall@{k} >= {target:.2f}, {found.rows}, {threads_text(threads)}, batches of {found.batch}"
    headline = k == KS[0] and threads == min(plan.one_and_all) and not found.alone
    return [
        _search_row(item, found, k, at, timed, threads, group, f"recall ≥ {target:.2f}" if headline else "")
        for (item, at), timed in zip(settings, _timed(settings, found, k, threads, plan.rounds), strict=True)
    ]


def _curve(plan: Plan, built: Sequence[Built], found: Collection, k: int, threads: int) -> list[Row]:
    plan.say(f"search: curve, k = {k}, {threads_text(threads)}")
    group = f"curve, k = {k}, {found.rows}, {threads_text(threads)}, batches of {found.batch}"
    rows: list[Row] = []
    going = list(built)
    for ef in CURVE[k][::2] if plan.quick else CURVE[k]:
        settings = [(item, item.at(k, ef)) for item in going]
        timings = _timed(settings, found, k, threads, CURVE_ROUNDS)
        rows += [
            _search_row(item, found, k, at, timed, threads, group) for (item, at), timed in zip(settings, timings, strict=True)
        ]  # fmt: skip
        going = [item for item, timed in zip(going, timings, strict=True) if timed.median <= CURVE_MOST_S * found.batch]
        left = {item.engine.name for item in going}
        for item, _ in settings:
            if item.engine.name not in left:
                plan.say(f"search: {item.engine.name} ends at width {ef}, more than {1000 * CURVE_MOST_S:g} ms a query")
    return rows


def _search_row(item: Built, found: Collection, k: int, at: Setting, timed: Series, threads: int, group: str, brief: str = "") -> Row:
    return Row(
        **_common(item, found, threads),
        group=group,
        brief=brief,
        params={"n": len(found.vectors), "k": k, "nq": found.batch, **at._asdict(), "shown": at.shown},
        value=found.batch / timed.median,
        unit="queries / s",
        spread=timed.spread,
        quality_name=f"recall@{k}",
        quality=item.recalls[k][at],
        rounds=timed.raw(),
    )


def _latency(plan: Plan, built: Sequence[Built], found: Collection, batches: Sequence[Row]) -> list[Row]:
    """Single calls at the setting of LATENCY_TARGET; ``batch_gain`` is the rate of the batches at it, on one thread, over theirs."""
    k = KS[0]
    settings = [(item, item.settings[k, LATENCY_TARGET]) for item in built if (k, LATENCY_TARGET) in item.settings]
    works = {item.engine.name: lambda query, item=item, at=at: item.graph.search(query, k, at, 1) for item, at in settings}
    chunks = [[batch[i : i + 1] for i in range(len(batch))] for (batch,) in _chunks(found, plan.rounds)]
    plan.say("search: single calls, 1 thread")
    timed = interleave(works, chunks, budget_s=BUDGET_S)
    group = f"single calls from Python at recall@{k} >= {LATENCY_TARGET:.2f}, {found.rows}, 1 thread"
    wanted = f"recall@{k} >= {LATENCY_TARGET:.2f}, {found.rows}, 1 thread, "
    rates = {row.engine: row.value for row in batches if row.group.startswith(wanted)}
    rows = []
    for item, at in settings:
        name, mine = item.engine.name, timed[item.engine.name]
        params = {"n": len(found.vectors), "k": k, "nq": 1, **at._asdict(), "shown": at.shown}
        if name in rates:
            params["batch_gain"] = round(rates[name] * mine.median / found.batch, 3)
        rows.append(
            Row(
                **_common(item, found, 1),
                group=group,
                brief="" if found.alone else f"single call, recall ≥ {LATENCY_TARGET:.2f}",
                params=params,
                value=1000 * mine.median / found.batch,
                unit="ms / query",
                spread=mine.spread,
                p50=1000 * mine.percentile(50),
                p95=1000 * mine.percentile(95),
                p99=1000 * mine.percentile(99),
                quality_name=f"recall@{k}",
                quality=item.recalls[k][at],
                rounds=mine.raw(),
            )
        )
    return rows


def _common(item: Built, found: Collection, threads: int) -> dict[str, Any]:
    return {
        "suite": "search",
        "engine": item.engine.name,
        "version": item.engine.version,
        "ours": item.engine.ours,
        "data": found.label,
        "threads": threads,
    }


# --- plots -------------------------------------------------------------------------------------------------------------


def draw(plan: Plan, found: Collection, rows: Sequence[Row]) -> None:
    """One plot for each k and thread count: queries per second over recall, of the curves and the targets together."""
    points = [row for row in rows if row.unit == "queries / s" and row.quality is not None and row.quality >= PLOT_FROM]
    for k, threads in dict.fromkeys((row.params["k"], row.threads) for row in points):
        mine = [row for row in points if (row.params["k"], row.threads) == (k, threads)]
        lines = []
        for engine in dict.fromkeys(row.engine for row in mine):
            own = sorted((row for row in mine if row.engine == engine), key=lambda row: (row.quality, -row.value))
            label = f"{engine} {own[0].version}"
            lines.append(plots.Line(label, [row.quality or 0.0 for row in own], [row.value for row in own], own[0].ours))
        title = f"{found.rows}, k = {k}, {threads_text(threads)}, batches of {found.batch}"
        x, y = plots.Axis(f"recall@{k}"), plots.Axis("queries per second", 10)
        plots.draw(plan, f"search-{found.kind}-k{k}-{threads}t", title, x, y, lines)
