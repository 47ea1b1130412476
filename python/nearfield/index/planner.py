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
# Below so many rows nothing is measured: M stands in, which is right within a factor of two or three.
LEAST_ROWS = 20_000
# A measurement disturbed by other work must not turn the choice upside down.
LEAST_SHARE, MOST_SHARE = 0.25, 16.0

_steps: dict[tuple[str, int, int, bool], float] = {}
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
        matches: ``(nq,)``, rows that may be results of each query.
        scans: ``(nq,)``, whether each query scans them all instead of walking.
        reasons: ``nq`` lines.
    """

    ef: int
    source: str
    target_recall: float | None
    step: float
    measured: bool
    matches: IntArray
    scans: BoolArray
    reasons: list[str]


def step_of(graph: _core.HnswView | _core.Frozen, kind: str) -> tuple[float, bool]:
    """Rows of a scan that cost as much as one node of a walk, and whether that was measured.

    Measured once per process for each kind of index, dim, M and metric's side of it, on the first index of ``LEAST_ROWS`` rows that asks.
    """
    params = graph.params()
    m = float(params["M"])
    key = (kind, int(params["dim"]), int(params["M"]), params["metric"] == "l2")
    if key in _steps:
        return _steps[key], True
    if graph.live < LEAST_ROWS:
        return m, False
    with _measuring:
        if key not in _steps:
            _steps[key] = float(np.clip(_measure(graph), LEAST_SHARE * m, MOST_SHARE * m))
    return _steps[key], True


def _measure(graph: _core.HnswView | _core.Frozen) -> float:
    slots = np.ascontiguousarray(graph.live_slots()[:: max(1, graph.live // QUERIES)][:QUERIES])
    queries, seconds = graph.get(slots), {"walk": np.inf, "scan": np.inf}
    for _ in range(ROUNDS):
        for mode in seconds:
            limit = graph.slots if mode == "walk" else min(ROWS, graph.slots)
            start = time.perf_counter()
            graph.search(queries, 10, limit, WIDTH, threads=1, mode=mode)
            seconds[mode] = min(seconds[mode], time.perf_counter() - start)
    return (seconds["walk"] / WIDTH) / (seconds["scan"] / ROWS)


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
    width, size = max(ef, k), graph.slots
    if mask is None:
        matches = np.full(queries, graph.live, np.int64)
    else:
        matches = np.broadcast_to(mask[:, graph.live_slots()].sum(axis=1, dtype=np.int64), queries).copy()
    scans = np.array([bias or _core.scan_pays(float(n), float(size), float(width), step[0]) for n in matches.tolist()], np.bool_)
    lines = [_reason(n, scan, bias, width, size, step) for n, scan in zip(matches.tolist(), scans.tolist(), strict=True)]
    return SearchPlan(ef, source, target_recall, *step, matches, scans, lines)


def _reason(matches: int, scan: bool, bias: bool, width: int, size: int, step: tuple[float, bool]) -> str:
    if bias:
        return f"scan of {matches:,} rows: a bias moves every score, so that a walk by distance would miss rows"
    nodes = width * size / matches if matches else 0.0
    cost = nodes * step[0]
    how = "measured" if step[1] else "M, not measured"
    verb = "no more than" if scan else "more than"
    walk = f"a walk of ef = {width:,} expands about {nodes:,.0f} nodes, as much work as {cost:,.0f} rows ({step[0]:.1f} each, {how})"
    return f"{'scan' if scan else 'walk'}: {matches:,} rows are {verb} its cost; {walk}"
