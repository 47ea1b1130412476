"""One table of a scan suite: all contestants timed in turns over the same queries, checked against float64, made into rows.

The floor of a scan is the larger of two times: the bytes that must be read at the measured bandwidth, and the multiply-adds that must be
done at the measured peak rate. A row's share of the ceiling is floor / time. A single query is bound by the bytes, a batch by the
multiply-adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks.core.answers import Answer, Answers, Search
from benchmarks.core.held import bound
from benchmarks.core.machine import home_of
from benchmarks.core.peers import Engine
from benchmarks.core.plan import Plan
from benchmarks.core.quality import recall_at_k, same_lists
from benchmarks.core.results import Row
from benchmarks.core.timing import Series, interleave

# Queries whose answers are compared with the oracle: 64 x 200,000 x 384 in float64 takes about a second.
CHECKED = 64


@dataclass(frozen=True)
class Work:
    """What every contestant of a table did.

    Attributes:
        suite, group, brief, label, threads: as in ``Row``; ``label`` is its ``data``.
        n, dim: the rows that must be scored (with a filter: those it keeps) and their columns.
        k, nq: best rows wanted, queries in one call.
        calls: calls in one round.
        budget_s: see ``timing.interleave``.
        per_query: milliseconds per query also where a call holds several; otherwise queries per second.
    """

    suite: str
    group: str
    label: str
    threads: int
    n: int
    dim: int
    k: int
    nq: int
    calls: int
    budget_s: float
    brief: str = ""
    per_query: bool = False


@dataclass(frozen=True)
class Truth:
    """The float64 oracle's answer to the first queries: ``ids`` and ``scores`` (checked, k or more), of ``vectors`` (rows, dim)."""

    ids: np.ndarray
    scores: np.ndarray
    vectors: np.ndarray


@dataclass(frozen=True)
class Contestant:
    """An engine with its search.

    Attributes:
        shown: stands behind its name.
        params: added to the row's.
        truth: where it is not the table's.
        asked: how many queries of each call it answers, where not all.
    """

    engine: Engine
    search: Search
    shown: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    truth: Truth | None = None
    asked: int | None = None


def chunks(queries: np.ndarray, work: Work, rounds: int) -> list[list[np.ndarray]]:
    """``rounds`` lists of ``work.calls`` blocks of ``work.nq`` queries, no query twice.

    Raises:
        ValueError: fewer queries than that.
    """
    wanted = rounds * work.calls * work.nq
    if wanted > len(queries):
        raise ValueError(f"{len(queries)} queries given, {wanted} expected ({rounds} rounds of {work.calls} calls of {work.nq})")
    blocks = queries[:wanted].reshape(rounds, work.calls, work.nq, -1)
    return [list(line) for line in blocks]


def measure(plan: Plan, work: Work, contestants: Sequence[Contestant], queries: np.ndarray, truth: Truth | None = None) -> list[Row]:
    """The rows of one table, in the order of the contestants.

    A contestant with its own truth scans the rows of that truth, all of them; the others scan ``work.n`` rows and need ``truth``.
    """
    plan.say(f"{work.suite}: {work.group}: {len(contestants)} engines, up to {plan.rounds} rounds")
    answers = {f"{c.engine.name} {c.shown}": Answers(partial(_part, c)) for c in contestants}
    timed = interleave(answers, chunks(queries, work, plan.rounds + 1), budget_s=work.budget_s)
    rows = []
    for contestant, (name, given) in zip(contestants, answers.items(), strict=True):
        own = contestant.truth or truth
        if own is None:
            raise ValueError(f"{name}: no truth given, one for the table or for the contestant expected")
        mine = work if contestant.truth is None else replace(work, n=len(own.vectors))
        found = _quality(mine, given, queries[: contestant.asked], own) | given.rescored()
        rows.append(_row(plan, mine, contestant, timed[name], found))
    return rows


def _part(contestant: Contestant, queries: np.ndarray) -> Answer:
    return contestant.search(queries[: contestant.asked])


def _quality(work: Work, given: Answers, queries: np.ndarray, truth: Truth) -> dict[str, float]:
    ids = given.ids(min(len(truth.ids), len(queries)))
    k, checked = min(work.k, truth.ids.shape[1]), len(ids)  # a filter may keep fewer rows than k
    return {
        "lists": same_lists(ids[:, :k], truth.ids[:checked, :k]) if np.all(ids[:, k:] < 0) else 0.0,
        "recall": recall_at_k(ids, queries[:checked], truth.vectors, truth.scores[:checked, :k]),
        "checked": checked,
    }


def _row(plan: Plan, work: Work, contestant: Contestant, timed: Series, found: dict[str, float]) -> Row:
    engine, single, nq = contestant.engine, work.nq == 1, contestant.asked or work.nq
    seconds = timed.median / work.calls  # of one call
    touched = work.n * work.dim * engine.value_bytes
    floors = [plan.ceilings.compute(engine.precision, work.threads, 2.0 * work.n * work.dim * nq, seconds, bound(plan, engine.ours))]
    if single or engine.precision is not None:  # a batch without multiply-adds has no floor that says anything
        floors.append(plan.ceilings.stream(work.threads, touched, seconds))
    ceiling, share = max(floors, key=lambda floor: floor[1] or 0.0)
    params = {"n": work.n, "dim": work.dim, "nq": work.nq, "k": work.k, **contestant.params}
    if contestant.shown:
        params["shown"] = contestant.shown
    if contestant.asked is not None:
        params |= {"asked": nq, "shown": f"{nq} of {work.nq}"}
    if single:
        params |= {"touched_bytes": int(touched), "touched_from": home_of(int(touched))}
    lists = found.pop("lists")
    times = single or work.per_query
    return Row(
        suite=work.suite,
        group=work.group,
        brief=work.brief,
        engine=engine.name,
        version=engine.version,
        ours=engine.ours,
        data=work.label,
        threads=work.threads,
        params=params | found,
        value=1000 * seconds / nq if times else nq / seconds,
        unit="ms / query" if times else "queries / s",
        spread=timed.spread,
        p50=1000 * timed.percentile(50) if single else None,
        p95=1000 * timed.percentile(95) if single else None,
        p99=1000 * timed.percentile(99) if single else None,
        quality_name="lists = float64",
        quality=lists,
        ceiling=ceiling,
        share=share,
        rounds=timed.raw(),
    )
