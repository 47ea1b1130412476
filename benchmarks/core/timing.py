"""Timing that is fair to everybody: interleaved rounds, a warm-up that does not count, medians, and all raw rounds kept.

Contestants take turns (A B C, A B C, ...), so that a slow minute of a shared machine falls on all of them. Every round has its own
items (queries nobody has seen before), the same for each contestant.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import numpy as np

from benchmarks.core.answers import Answers

# OpenMP and BLAS workers busy-wait for some milliseconds after their last task; without a pause they would steal a core from
# the next contestant (libgomp spins a few ms by default, onnxruntime about one).
PAUSE_S = 0.02
# After a pause a core's clock and caches need that long to come back: 512 searches of a graph, one batch a turn, took a third longer than
# in the middle of a run (36 and 27 us a query), and by how much differs between engines.
SETTLE_S = 0.05
# A median of fewer than three rounds cannot leave out an outlier.
MIN_ROUNDS = 3


@dataclass
class Series:
    """The timings of one contestant: ``rounds[r]`` holds the seconds of each call of round ``r``."""

    rounds: list[list[float]] = field(default_factory=list)

    @property
    def totals(self) -> list[float]:
        """Seconds per round."""
        return [sum(calls) for calls in self.rounds]

    @property
    def median(self) -> float:
        """Median over the rounds of the seconds per round."""
        return statistics.median(self.totals)

    @property
    def spread(self) -> float:
        """(slowest - fastest) / median of the rounds: 0.1 means that the rounds lie within 10 % of the median."""
        totals = self.totals
        return (max(totals) - min(totals)) / statistics.median(totals)

    def percentile(self, q: float) -> float:
        """The ``q``-th percentile (0 to 100) in seconds of all calls of all rounds together."""
        return float(np.percentile([call for calls in self.rounds for call in calls], q))

    def raw(self) -> list[dict[str, float]]:
        """One dictionary per round for the JSON: seconds, calls, and p50, p99 and max in seconds where a round has several calls."""
        out = []
        for calls in self.rounds:
            entry: dict[str, float] = {"seconds": round(sum(calls), 9), "calls": len(calls)}
            if len(calls) > 1:
                p50, p99 = np.percentile(calls, [50, 99])
                entry |= {"p50": round(float(p50), 9), "p99": round(float(p99), 9), "max": round(max(calls), 9)}
            out.append(entry)
        return out


def interleave(
    contestants: Mapping[str, Callable[[Any], Any]],
    chunks: Sequence[Sequence[Any]],
    *,
    warmup: int = 1,
    budget_s: float = 60.0,
    pause_s: float = PAUSE_S,
    settle_s: float = SETTLE_S,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Series]:
    """Runs all contestants over the same chunks of items, round by round.

    Args:
        contestants: name -> function of one item.
        chunks: one list of items per round; the first ``warmup`` chunks are run and not counted. One item per chunk times a
            whole batch; many items per chunk time single calls.
        warmup: rounds that do not count (caches, lazy initialisation, page faults).
        budget_s: a contestant that has used this many timed seconds sits out the further rounds, once it has MIN_ROUNDS of them
            (or all there are): slow peers cannot make the suite endless.
        pause_s: idle seconds before each contestant, see PAUSE_S.
        settle_s: seconds of untimed work, of which no answer is kept, on the items of the round before, after the pause; see SETTLE_S.
            Not for contestants whose calls take longer than that anyway.
        clock, sleep: replaced in tests.

    Returns:
        name -> Series. Contestants run in the given order in every round.
    """
    if len(chunks) <= warmup:
        raise ValueError(f"{len(chunks)} chunks given, more than warmup = {warmup} expected")
    series = {name: Series() for name in contestants}
    last: dict[str, float] = {}  # seconds a call, of each contestant's last turn
    with _little_garbage():
        for number, items in enumerate(chunks):
            for name, work in contestants.items():
                mine = series[name]
                if len(mine.rounds) >= MIN_ROUNDS and sum(mine.totals) > budget_s:
                    continue
                sleep(pause_s)
                if number >= warmup and 0 < last.get(name, 0.0) < settle_s:
                    _settle(work.search if isinstance(work, Answers) else work, chunks[number - 1], settle_s, clock)
                calls = time_calls(work, items, clock)
                last[name] = sum(calls) / len(calls)
                if number >= warmup:
                    mine.rounds.append(calls)
    return series


@contextmanager
def _little_garbage() -> Iterator[None]:
    """Hides all objects of this moment from the collector: with torch loaded a collection before each round takes 0.1 s and more."""
    if gc.get_freeze_count():  # somebody has done so already
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _settle(work: Callable[[Any], Any], items: Sequence[Any], seconds: float, clock: Callable[[], float]) -> None:
    start = clock()
    for item in cycle(items):
        if clock() - start >= seconds:
            return
        work(item)


def time_calls(work: Callable[[Any], Any], items: Sequence[Any], clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Seconds of ``work(item)`` for each item. The garbage collector waits until the end, as one collection is as long as a query."""
    calls = []
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for item in items:
            start = clock()
            work(item)
            calls.append(clock() - start)
    finally:
        if was_on:
            gc.enable()
    return calls
