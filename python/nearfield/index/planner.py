"""Scan or walk: what a search of a graph does, and why, in numbers measured on this machine."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np

from nearfield import _core
from nearfield.types import BoolArray, IntArray

# Queries and rows of the measurement: some ten milliseconds.
QUERIES, ROWS, WIDTH, ROUNDS = 16, 4_000, 64, 3
# From so many queries with one filter on, a scan reads each row once for sixteen of them (csrc/graph/skim.h).
TOGETHER = 16
# Below so many rows nothing is measured: M stands in, which is right within a factor of two or three.
LEAST_ROWS = 20_000
# A measurement disturbed by other work must not turn the choice upside down.
LEAST_SHARE, MOST_SHARE = 0.25, 16.0

_steps: dict[tuple[str, int, int, bool, bool], float] = {}
_measuring = threading.Lock()


@dataclass(frozen=True)
class SearchPlan:
    """What ``search`` with the same arguments does.

    Attributes:
        ef: candidates of a walk.
        source: where ef comes from: ``"given"``, ``"calibration"`` or ``"default"``.
        target_recall: what the calibration was asked for; None where ef was given or is the default.
        step: rows of a scan that cost as much as one node of a walk.
        measured: whether ``step`` was measured in this process, or M stands in.
        together: whether a scan takes the queries sixteen at a time, which makes its rows cheaper and ``step`` larger.
        matches: ``(nq,)``, rows that may be results of each query.
        scans: ``(nq,)``, whether each query scans them all instead of walking.
        hops: ``(nq,)``, whether it walks over these rows alone, two links at a time, instead of over all.
        reasons: ``nq`` lines.
    """

    ef: int
    source: str
    target_recall: float | None
    step: float
    measured: bool
    together: bool
    matches: IntArray
    scans: BoolArray
    hops: BoolArray
    reasons: list[str]


def scans_together(queries: int, mask: BoolArray | None) -> bool:
    """Whether a scan of so many queries takes sixteen at a time: they are enough, and have one filter or none.

    >>> scans_together(16, None), scans_together(1, None)
    (True, False)
    """
    return queries >= TOGETHER and (mask is None or len(mask) == 1)


def step_of(graph: _core.HnswView | _core.Frozen, kind: str, together: bool) -> tuple[float, bool]:
    """Rows of a scan that cost as much as one node of a walk, and whether that was measured.

    Measured once per process for each kind of index, dim, M, metric's side of it and way to scan, on the first index of ``LEAST_ROWS`` rows
    that asks.
    """
    params = graph.params()
    m = float(params["M"])
    key = (kind, int(params["dim"]), int(params["M"]), params["metric"] == "l2", together)
    if key in _steps:
        return _steps[key], True
    if graph.live < LEAST_ROWS:
        return m, False
    with _measuring:
        if key not in _steps:
            _steps[key] = float(np.clip(_measure(graph, together), LEAST_SHARE * m, MOST_SHARE * m))
    return _steps[key], True


def _measure(graph: _core.HnswView | _core.Frozen, together: bool) -> float:
    """Seconds of a walk's node over those of a scan's row: one query a call, or all in one call.

    Rows of a scan are told by a filter. Looking at that takes time which grows with the index and which a filtered walk takes as well, so
    a scan under a filter of nothing is taken off.
    """
    slots = np.ascontiguousarray(graph.live_slots()[:: max(1, graph.live // (ROUNDS * QUERIES))][: ROUNDS * QUERIES])
    queries, seconds = graph.get(slots), {"walk": np.inf, "scan": np.inf, "filter": np.inf}
    calls = 1 if together else QUERIES
    # Every call looks at rows of its own, far apart: those of the call before lie in the second-level cache, and a real filter's do not.
    apart = max(1, graph.slots // ROWS)
    mask = np.zeros((1, graph.slots), np.bool_)
    rows = int(mask[0, 0::apart].size)
    for turn in range(ROUNDS):
        took = dict.fromkeys(seconds, 0.0)
        for call in range(calls):
            ours = queries[turn * QUERIES + call : (turn + 1) * QUERIES : calls]
            mask[:] = False
            for what, allowed in (("walk", None), ("filter", mask), ("scan", mask)):
                if what == "scan":
                    mask[0, call % apart :: apart] = True
                start = time.perf_counter()
                graph.search(ours, 10, graph.slots, WIDTH, allowed, threads=1, mode="walk" if what == "walk" else "scan")
                took[what] += time.perf_counter() - start
        for what in seconds:
            seconds[what] = min(seconds[what], took[what])
    # A clock that stood still would make a row cost nothing.
    return (seconds["walk"] / WIDTH) / (max(seconds["scan"] - seconds["filter"], 1e-9) / rows)


def plan_of(
    graph: _core.HnswView | _core.Frozen,
    *,
    k: int,
    ef: int,
    source: str,
    target_recall: float | None,
    step: tuple[float, bool],
    mask: BoolArray | None,
    bias: bool,
    queries: int,
) -> SearchPlan:
    """The plan of a search; the mask is by slot, as the engine gets it."""
    width, size, hop = float(max(ef, k)), float(graph.slots), graph.hop_nodes
    if mask is None:
        matches = np.full(queries, graph.live, np.int64)
    else:
        matches = np.broadcast_to(mask[:, graph.live_slots()].sum(axis=1, dtype=np.int64), queries).copy()
    each = [float(n) for n in matches.tolist()]
    scans = np.array([bias or _core.scan_pays(n, size, width, step[0], hop) for n in each], np.bool_)
    hops = np.array([not scan and _core.hops_pay(n, size, hop) for n, scan in zip(each, scans, strict=True)], np.bool_)
    together = scans_together(queries, mask)
    nodes = [_core.walk_nodes(n, size, width, hop) for n in each]
    lines = [
        _reason(*of, bias, max(ef, k), step, together) for of in zip(matches.tolist(), nodes, scans.tolist(), hops.tolist(), strict=True)
    ]
    return SearchPlan(ef, source, target_recall, *step, together, matches, scans, hops, lines)


def _reason(matches: int, nodes: float, scan: bool, hops: bool, bias: bool, width: int, step: tuple[float, bool], together: bool) -> str:
    if bias:
        return f"scan of {matches:,} rows: a bias moves every score, so that a walk by distance would miss rows"
    how = ("measured" if step[1] else "M, not measured") + (", sixteen queries together" if together else "")
    verb = "no more than" if scan else "more than"
    over = " over these rows alone" if hops else ""
    rows = f"as much work as {nodes * step[0]:,.0f} rows ({step[0]:.1f} each, {how})"
    walk = f"a walk{over} of ef = {width:,} is about {nodes:,.0f} nodes, {rows}"
    return f"{'scan' if scan else 'walk'}: {matches:,} rows are {verb} its cost; {walk}"
