"""Graphs after much of what they held has been deleted or replaced, beside graphs built afresh from the same rows.

Of the first rows 50 %, then 90 % go, in steps of one hundredth: every second one is replaced under its id, the others are deleted and as
many rows with new ids come. Recall is compared at equal width; ``to fresh`` is the difference, in points. hnswlib is told to reuse the
places of what was deleted, usearch takes a new row in place of one that was removed; faiss removes nothing from its graphs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks.core import data
from benchmarks.core.answers import Answers
from benchmarks.core.peers import Engine, present, set_threads
from benchmarks.core.plan import Plan, usable_cores
from benchmarks.core.quality import exact_topk, recall_at_k
from benchmarks.core.results import Row
from benchmarks.core.timing import interleave
from benchmarks.suites.graph_peers import Hnswlib, Shape, Usearch
from benchmarks.suites.graphs import HNSWLIB, OURS, USEARCH, Graph, OurGraph, Setting, saved_bytes

K = 10
LEVELS = (0.5, 0.9)
STEP = 0.01
EFS = (32, 128)
# Rows that the graph holds; as many again may come in. hnswlib replaces a few hundred rows a second.
ROWS, QUICK_ROWS = 50_000, 2_000
BATCH = 256
BUDGET_S = 3.0
SEED = 9


class OurChurn(OurGraph):
    """nearfield.HNSWIndex."""

    def replace(self, ids: np.ndarray, vectors: np.ndarray, threads: int) -> None:
        self.index.add(vectors, ids, threads=threads)

    def delete_and_add(self, gone: np.ndarray, ids: np.ndarray, vectors: np.ndarray, threads: int) -> None:
        self.index.delete(gone)
        self.index.add(vectors, ids, threads=threads)


class HnswlibChurn(Hnswlib):
    """hnswlib.Index: the places of deleted rows are used again."""

    def replace(self, ids: np.ndarray, vectors: np.ndarray, threads: int) -> None:
        self.index.add_items(vectors, ids, num_threads=threads)

    def delete_and_add(self, gone: np.ndarray, ids: np.ndarray, vectors: np.ndarray, threads: int) -> None:
        for id in gone:
            self.index.mark_deleted(id)
        self.index.add_items(vectors, ids, num_threads=threads, replace_deleted=True)


class UsearchChurn(Usearch):
    """usearch.index.Index; a key that exists must be removed before it is added again."""

    def replace(self, ids: np.ndarray, vectors: np.ndarray, threads: int) -> None:
        self.delete_and_add(ids, ids, vectors, threads)

    def delete_and_add(self, gone: np.ndarray, ids: np.ndarray, vectors: np.ndarray, threads: int) -> None:
        self.index.remove(gone)
        self.index.add(ids, self.stored(vectors), threads=threads)


ENGINES = tuple(
    Engine(plain.name, make, plain.distribution, plain.needs)
    for plain, make in ((OURS, OurChurn), (HNSWLIB, HnswlibChurn), (USEARCH, UsearchChurn))
)


@dataclass(frozen=True)
class Step:
    """Changes by id: ``replaced`` ids get the rows ``by``, ``gone`` leave, and ``new`` come, whose rows stand in ``Live.table``."""

    replaced: np.ndarray
    by: np.ndarray
    gone: np.ndarray
    new: np.ndarray


class Live:
    """The rows by id as they should be: what every graph of the suite holds, in order of the ids.

    Args:
        vectors: the first ``n`` rows are held at the start, under their row numbers; the others come in one after the other.
    """

    def __init__(self, vectors: np.ndarray, n: int) -> None:
        self.table = np.concatenate([vectors[:n], np.zeros_like(vectors[: n // 2 + 1])])
        self.alive = np.zeros(len(self.table), bool)
        self.alive[:n] = True
        self._incoming = vectors[n:]
        self._order = np.random.default_rng(SEED).permutation(n)
        self._n, self._changed, self._next = n, 0, n

    def steps(self, level: float) -> Iterator[Step]:
        """Changes until ``level`` of the first rows are gone; each is done here when it has been asked for."""
        size = max(2, round(STEP * self._n))
        while self._changed < round(level * self._n):
            some = self._order[self._changed : min(self._changed + size, round(level * self._n))]
            replaced, gone = some[::2], some[1::2]
            new = np.arange(self._next, self._next + len(gone))
            come, self._incoming = self._incoming[: len(some)], self._incoming[len(some) :]
            self._changed, self._next = self._changed + len(some), self._next + len(gone)
            self.table[replaced], self.table[new] = come[: len(replaced)], come[len(replaced) :]
            self.alive[gone], self.alive[new] = False, True
            yield Step(replaced, come[: len(replaced)], gone, new)

    @property
    def ids(self) -> np.ndarray:
        return np.flatnonzero(self.alive)


def run(plan: Plan, *, rows: int | None = None) -> list[Row]:
    """All rows of the suite. ``rows`` replaces the real vectors by synthetic ones, so many in the graph (tests)."""
    n = rows or (QUICK_ROWS if plan.quick else ROWS)
    wanted = (plan.rounds + 1) * BATCH
    vectors, queries, label = data.clustered(2 * n, wanted) if rows else data.real_vectors(plan, 2 * n, wanted)
    n = len(vectors) // 2
    out = []
    for engine in present(ENGINES, plan):
        out += _engine(plan, engine, vectors, n, queries, label)
    return out


def _engine(plan: Plan, engine: Engine, vectors: np.ndarray, n: int, queries: np.ndarray, label: str) -> list[Row]:
    threads, live = usable_cores(), Live(vectors, n)
    set_threads(threads)
    plan.say(f"churn: building {engine.name}, {n:,} rows")
    graph = engine.make(Shape(vectors.shape[1], n))
    graph.add(vectors[:n], threads)
    rows = []
    for level in LEVELS:
        plan.say(f"churn: {engine.name}, {100 * level:g} % of the rows")
        set_threads(threads)
        rate = _churn(graph, live, level, threads)
        held = live.table[live.ids]
        fresh: Graph = engine.make(Shape(vectors.shape[1], n))
        fresh.add(held, threads)
        set_threads(1)
        work = Work(level, held, queries, exact_topk(queries, held, K)[1], label)
        found = _searched(plan, engine, work, {"fresh": (fresh, np.arange(n)), "churned": (graph, _places(live))}, rate)
        if hasattr(graph.index, "consolidate"):
            graph.index.consolidate()
            found += _searched(plan, engine, work, {"consolidated": (graph, _places(live))}, rate)
        rows += beside_fresh(found)
    return rows


def _churn(graph: Any, live: Live, level: float, threads: int) -> float:
    """Changes the graph up to ``level``; returns rows replaced or added per second."""
    seconds, updates = 0.0, 0
    for step in live.steps(level):
        start = time.perf_counter()
        graph.replace(step.replaced, step.by, threads)
        graph.delete_and_add(step.gone, step.new, live.table[step.new], threads)
        seconds += time.perf_counter() - start
        updates += len(step.replaced) + len(step.new)
    return updates / seconds


def _places(live: Live) -> np.ndarray:
    """By id, the row's number among the live ones in order of their ids; -1 for a row that is gone, and at the end for id -1."""
    out = np.full(len(live.table) + 1, -1)
    out[live.ids] = np.arange(len(live.ids))
    return out


@dataclass(frozen=True)
class Work:
    """What is searched after churn of ``level``: the ``held`` rows, and the float64 scores of the K best of them for each query."""

    level: float
    held: np.ndarray
    queries: np.ndarray
    true_scores: np.ndarray
    label: str


def _searched(plan: Plan, engine: Engine, work: Work, states: dict[str, tuple[Any, np.ndarray]], rate: float) -> list[Row]:
    """Rows for each width and state: its graph, and by id the number of the row among ``work.held``."""
    rows = []
    for ef in EFS:
        answers = {name: Answers(partial(graph.search, k=K, at=Setting(ef), threads=1)) for name, (graph, _) in states.items()}
        chunks = [[work.queries[i * BATCH : (i + 1) * BATCH]] for i in range(plan.rounds + 1)]
        timed = interleave(answers, chunks, budget_s=BUDGET_S)
        for name, (graph, places) in states.items():
            found = places[answers[name].ids(len(work.queries))]
            params = {"n": len(work.held), "k": K, "nq": BATCH, "ef": ef, "churn": work.level, "state": name, "shown": f"{name}, ef={ef}"}
            rows.append(
                Row(
                    suite="churn",
                    group=f"{100 * work.level:g} % of {len(work.held):,} rows churned, 1 thread, batches of {BATCH}",
                    brief="",
                    engine=engine.name,
                    version=engine.version,
                    ours=engine.ours,
                    data=work.label,
                    threads=1,
                    params=params | {"file_bytes": saved_bytes(graph)} | ({"updates_per_s": round(rate, 1)} if name == "churned" else {}),
                    value=BATCH / timed[name].median,
                    unit="queries / s",
                    spread=timed[name].spread,
                    quality_name=f"recall@{K}",
                    quality=recall_at_k(found, work.queries[: len(found)], work.held, work.true_scores[: len(found)]),
                    rounds=timed[name].raw(),
                )
            )
    return rows


def beside_fresh(rows: Sequence[Row]) -> list[Row]:
    """The rows, those that are not fresh with ``to_fresh``: their recall less that of the fresh graph at the same width."""
    fresh = {row.params["ef"]: row.quality or 0.0 for row in rows if row.params["state"] == "fresh"}
    return [
        row
        if row.params["state"] == "fresh"
        else replace(row, params=row.params | {"to_fresh": round((row.quality or 0.0) - fresh[row.params["ef"]], 5)})
        for row in rows
    ]
