"""Which plots the rows of a suite allow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from benchmarks.core.ceilings import Ceilings, threads_text
from benchmarks.core.newest import Run
from benchmarks.core.results import Row
from benchmarks.page.charts import Axis, Chart, Line

# Graphs below this recall serve nobody.
RECALL_FROM = 0.80
BANDWIDTH_OF = 64 * 2**20


def charts(run: Run) -> list[Chart]:
    """The plots of one suite, in the order of its tables."""
    makers = {"search": _recall_and_rate, "score_sweep": _latency_and_batch, "encode": _encode, "score": _roofline}
    if run.suite not in makers:
        return []
    return [chart for chart in makers[run.suite](run) if sum(len(line.points) for line in chart.lines) > 1]


def _lines(rows: Iterable[Row], point: Any, order: Any = None) -> list[Line]:
    """One line for each engine in the order of the rows; ``point`` gives (x, y), ``order`` sorts."""
    by_engine: dict[str, list[Row]] = {}
    for row in rows:
        by_engine.setdefault(row.engine, []).append(row)
    return [Line(engine, [point(row) for row in sorted(mine, key=order or point)], mine[0].ours) for engine, mine in by_engine.items()]


def _grouped(rows: Sequence[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    out: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        out.setdefault((row.threads, *(row.params.get(name) for name in names)), []).append(row)
    return out


def _recall_and_rate(run: Run) -> Iterator[Chart]:
    points = [row for row in run.rows if row.unit == "queries / s" and row.quality is not None and row.quality >= RECALL_FROM]
    kinds: dict[str, list[Row]] = {}
    for row in points:
        kinds.setdefault(row.data, []).append(row)
    for data, mine in kinds.items():
        for (threads, k, n), rows in _grouped(mine, "k", "n").items():
            title = f"Recall against queries a second: k = {k}, {n:,} rows, {threads_text(threads)}"
            lines = _lines(rows, lambda row: (row.quality, row.value), lambda row: (row.quality, -row.value))
            yield Chart(title, Axis(f"recall@{k}", low=RECALL_FROM, high=1.0), Axis("queries / s", log=True), lines, note=data)


def _latency_and_batch(run: Run) -> Iterator[Chart]:
    for (threads, n, k), rows in _grouped(run.rows, "n", "k").items():
        title = f"Time a query against queries in a call: top-{k} of {n:,} rows, {threads_text(threads)}"
        lines = _lines(rows, lambda row: (row.params["nq"], row.value))
        yield Chart(title, Axis("queries in one call", log=True), Axis("ms / query", log=True), lines, note=rows[0].data)


def _encode(run: Run) -> Iterator[Chart]:
    rows = [row for row in run.rows if "texts_per_s" in row.params]
    for (threads, model, tokens), mine in _grouped(rows, "model", "tokens").items():
        if len({row.params["batch"] for row in mine}) > 1:
            title = f"Time of a call against its texts: {model}, {tokens} tokens, {threads_text(threads)}"
            lines = _lines(mine, lambda row: (row.params["batch"], 1000 * row.params["batch"] / row.params["texts_per_s"]))
            yield Chart(title, Axis("texts in one call", log=True), Axis("ms / call", log=True), lines)
    for (threads, model, batch), mine in _grouped(rows, "model", "batch").items():
        if len({row.params["tokens"] for row in mine}) > 1 and batch > 1:
            title = f"Texts a second against their length: {model}, {batch} texts in a call, {threads_text(threads)}"
            lines = _lines(mine, lambda row: (row.params["tokens"], row.params["texts_per_s"]))
            yield Chart(title, Axis("tokens in a text", log=True), Axis("texts / s", log=True), lines)


def _roofline(run: Run) -> Iterator[Chart]:
    """Operations a second over operations for each byte that must be read; a batch reads the rows once for all its queries."""
    found = Ceilings(**run.document["ceilings"])
    touched = {(row.engine, row.threads, row.data): row.params["touched_bytes"] for row in run.rows if "touched_bytes" in row.params}
    for (threads, n), rows in _grouped([row for row in run.rows if row.params.get("k") == 10], "n").items():
        for data in dict.fromkeys(row.data for row in rows):
            lines = []
            for line in _lines(
                [row for row in rows if row.data == data and (row.engine, threads, data) in touched], lambda row: row, _by_queries
            ):
                points = [_place(row, touched[row.engine, threads, data]) for row in line.points]  # type: ignore[arg-type]
                lines.append(Line(line.label, points, line.ours))
            if not lines:
                continue
            title = f"Roofline of exact search: {n:,} {'synthetic' if 'synthetic' in data else 'real'} rows, {threads_text(threads)}"
            across = [x for line in lines for x, _ in line.points]
            roofs = _roofs(found, threads, min(across), max(across))
            yield Chart(title, Axis("operations / byte read", log=True), Axis("G operations / s", log=True), lines, roofs, note=data)


def _by_queries(row: Row) -> int:
    return int(row.params["nq"])


def _place(row: Row, touched: float) -> tuple[float, float]:
    asked = row.params.get("asked", row.params["nq"])
    one = 2.0 * row.params["n"] * row.params["dim"]
    rate = row.value if row.unit == "queries / s" else 1000 / row.value
    return one * asked / touched, one * rate / 1e9


def _roofs(found: Ceilings, threads: int, low: float, high: float) -> list[Line]:
    bandwidth = found.bandwidth.get(str(threads), {}).get(str(BANDWIDTH_OF))
    if not bandwidth:
        return []
    out = []
    for kind in ("f32", "bf16", "int8"):
        rates = getattr(found, kind).get(str(threads))
        if not rates:
            continue
        peak, slope = max(rates.values()) / 1e9, bandwidth / 1e9
        bend = min(max(peak / slope, low), high)
        places = sorted({low, bend, high * 1.15})
        out.append(Line(f"{kind} peak {peak:,.0f}", [(x, min(peak, slope * x)) for x in places]))
    return out
