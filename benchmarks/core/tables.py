"""Tables for people: one line per configuration, with speed, tail, quality and share of the ceiling side by side."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.core.results import Row

# Where stdout is a file or a pipe, rich assumes 80 columns and would cut the engines' names.
PLAIN_WIDTH = 200


def console() -> Console:
    """A console on stdout."""
    return Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)


def number(value: float) -> str:
    """Three significant figures with thousands separators: 12,300, 87.1, 0.00512.

    >>> number(12345.6), number(87.123), number(0.005123)
    ('12,346', '87.1', '0.00512')
    """
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


def quality(row: Row) -> str:
    """Recall and agreement with four digits, cosines with five (0.9908 against 0.99990 matters)."""
    if row.quality is None:
        return "-"
    return f"{row.quality:.{5 if row.quality_name and 'cosine' in row.quality_name else 4}f}"


# Columns that only some suites fill: title, key of ``Row.params``, text of a value.
EXTRAS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("recall", "recall", lambda value: f"{value:.4f}"),
    ("MB read", "touched_bytes", lambda value: number(value / 1e6)),
    ("from", "touched_from", str),
    ("rescored, mean", "rescored_mean", lambda value: f"{value:,.1f}"),
    ("max", "rescored_max", lambda value: f"{value:,}"),
    ("file MiB", "file_bytes", lambda value: f"{value / 2**20:,.0f}"),
    ("batch / single", "batch_gain", lambda value: f"{value:.2f}"),
    ("kept", "kept", lambda value: f"{100 * value:g} %"),
    ("to fresh", "to_fresh", lambda value: f"{100 * value:+.2f} points"),
    ("updates / s", "updates_per_s", lambda value: f"{value:,.0f}"),
    ("growth", "growth", lambda value: f"{value:.2f}"),
    ("rise", "rise", lambda value: f"{100 * value:+.0f} %"),
    ("points lost", "points_lost", lambda value: f"{value:+.2f}"),
    ("95 % interval", "interval", lambda value: f"{value[0]:+.2f} to {value[1]:+.2f}"),
    ("beside others", "batch_difference", lambda value: f"{value:.0e}"),
    ("fused nodes", "fused", str),
    ("p99 / p50", "tail", lambda value: f"{value:.2f}"),
    ("of a bare loop", "bare_tail", lambda value: f"{value:.2f}"),
    ("idle CPU", "idle", lambda value: f"{100 * value:.1f} %"),
    ("min cosine", "min_cosine", lambda value: f"{value:.5f}"),
    ("refused", "refused", lambda value: f"{100 * value:.1f} %"),
    ("broken", "broken", lambda value: f"{value:,}"),
    ("rows / s", "rate", lambda value: f"{value:,.0f}"),
    ("modules", "modules", lambda value: f"{value:,}"),
    ("loads", "loads", str),
    ("wheel MB", "wheel_bytes", lambda value: f"{value / 1e6:.1f}"),
    ("valley", "valley", lambda value: "valley" if value else "-"),
)


def cells(row: Row) -> list[str]:
    """The cells of one line, in the order of the table's columns."""
    settings = f" ({row.params['shown']})" if "shown" in row.params else ""
    return [
        f"{row.engine} {row.version}{settings}",
        number(row.value),
        "-" if row.spread is None else f"{100 * row.spread:.0f} %",
        "-" if row.p50 is None else number(row.p50),
        "-" if row.p95 is None else number(row.p95),
        "-" if row.p99 is None else number(row.p99),
        quality(row),
        "-" if row.share is None else f"{100 * row.share:.1f} %",
        "-" if row.memory_bytes is None else f"{row.memory_bytes / 2**20:,.0f}",
        *(text(row.params[key]) if key in row.params else "-" for _, key, text in EXTRAS),
    ]


def filled(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """The titles and the lines of one group's table. Columns without any figure are left out."""
    first = rows[0]
    names = ["engine", first.unit, "spread", "p50 ms", "p95 ms", "p99 ms", first.quality_name or "quality", "of ceiling", "MiB"]
    names += [title for title, _, _ in EXTRAS]
    body = [cells(row) for row in rows]
    kept = [i for i in range(len(names)) if i < 2 or any(line[i] != "-" for line in body)]
    return [names[i] for i in kept], [[line[i] for i in kept] for line in body]


def table(rows: Sequence[Row]) -> Table:
    """The table of one group."""
    names, body = filled(rows)
    out = Table()
    for i, name in enumerate(names):
        out.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
    for row, line in zip(rows, body, strict=True):
        out.add_row(*line, style="bold" if row.ours else "")
    return out


def show(rows: Sequence[Row], out: Console) -> None:
    """Prints the rows, one table per group, in the order in which the groups came."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    for members in groups.values():
        out.print(f"{members[0].suite}: {members[0].group}", style="bold", soft_wrap=True, markup=False)
        out.print(f"data: {members[0].data}", soft_wrap=True, markup=False)
        out.print(table(members))
        for ceiling in dict.fromkeys(row.ceiling for row in members if row.ceiling):
            out.print(f"ceiling: {ceiling}", soft_wrap=True, markup=False)
        out.print()
