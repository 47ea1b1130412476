"""Time per query for 1, 2, 4, ... 4,096 queries in one call: is there a valley between the regime of one query and that of many?

With every doubling a query should cost less or the same. Where it costs more than VALLEY above the step before, the row and a line at the
end say so. A plot of all engines is written beside the results.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from benchmarks.core import data, plots
from benchmarks.core.answers import Answer
from benchmarks.core.ceilings import threads_text
from benchmarks.core.peers import present, set_threads
from benchmarks.core.plan import Plan, usable_cores
from benchmarks.core.quality import exact_topk
from benchmarks.core.results import Row
from benchmarks.suites.exact import CHECKED, Contestant, Truth, Work, measure
from benchmarks.suites.scans import FAISS, FLAT, NUMPY, TORCH, Scan

K = 10
ROWS = 200_000
QUICK_ROWS = 4_000
LARGEST = 4_096
QUICK_LARGEST = 64
# A round asks at least so many queries, in calls of nq: enough to measure, and the calls of small nq are not alone with the timer.
PER_ROUND = 16
BUDGET_S = 8.0
ENGINES = (FLAT, NUMPY, TORCH, FAISS)
# A rise of the time per query that is more than noise.
VALLEY = 0.10


def run(plan: Plan, *, rows: int | None = None, largest: int | None = None) -> list[Row]:
    """All rows of the suite, and the plot; ``rows`` and ``largest`` make it small (tests)."""
    rows = rows or (QUICK_ROWS if plan.quick else ROWS)
    largest = largest or (QUICK_LARGEST if plan.quick else LARGEST)
    vectors, queries, label = data.clustered(rows, (plan.rounds + 1) * max(largest, PER_ROUND))
    set_threads(usable_cores())
    scans = [(engine, engine.make(vectors)) for engine in present(ENGINES, plan)]
    truth = Truth(*exact_topk(queries[:CHECKED], vectors, K), vectors)
    out = []
    for threads in plan.all_cores:
        set_threads(threads)
        found: list[Row] = []
        nq = 1
        while nq <= largest:
            work = Work(
                suite="score_sweep",
                group=f"top-{K}, {rows:,} x {vectors.shape[1]} synthetic, 1 to {largest:,} queries, {threads_text(threads)}",
                label=label, threads=threads, n=rows, dim=vectors.shape[1], k=K, nq=nq, calls=max(1, PER_ROUND // nq),
                budget_s=BUDGET_S, per_query=True,
            )  # fmt: skip
            contestants = [Contestant(e, partial(_search, scan, threads), shown=f"nq = {nq:,}") for e, scan in scans]
            found += measure(plan, work, contestants, queries, truth)
            nq *= 2
        found = valleys(plan, found)
        draw(plan, found)
        out += found
    return out


def _search(scan: Scan, threads: int, queries: np.ndarray) -> Answer:
    return scan(queries, K, threads)


def valleys(plan: Plan, rows: list[Row]) -> list[Row]:
    """The rows, engine by engine, each with its rise over half as many queries (``params["rise"]``) and valleys marked."""
    out = []
    for engine in dict.fromkeys(row.engine for row in rows):
        before: Row | None = None
        for row in (row for row in rows if row.engine == engine):
            params = dict(row.params)
            if before is not None:
                rise = row.value / before.value - 1
                params |= {"rise": round(rise, 4), "valley": rise > VALLEY}
                if rise > VALLEY:
                    plan.skipped.append(
                        f"valley: {engine}, {threads_text(row.threads)}: a query costs {100 * rise:.0f} % more at "
                        f"nq = {row.params['nq']:,} than at {before.params['nq']:,}"
                    )
            before = replace(row, params=params)
            out.append(before)
    return out


def draw(plan: Plan, rows: list[Row]) -> None:
    """Draws milliseconds per query over nq, both logarithmic."""
    lines = []
    for engine in dict.fromkeys(row.engine for row in rows):
        mine = [row for row in rows if row.engine == engine]
        label = f"{engine} {mine[0].version}"
        lines.append(plots.Line(label, [row.params["nq"] for row in mine], [row.value for row in mine], mine[0].ours))
    x, y = plots.Axis("queries in one call", 2), plots.Axis("ms per query", 10)
    plots.draw(plan, f"score_sweep-{rows[0].threads}t", rows[0].group, x, y, lines)
