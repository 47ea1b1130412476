"""One short table over all suites of a run: each piece of work, nearfield's best figure, the best peer's, and how they compare."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from benchmarks.core.results import Row
from benchmarks.core.tables import number, quality


def better(row: Row) -> float:
    """Larger is better, whatever the unit.

    >>> from types import SimpleNamespace
    >>> better(SimpleNamespace(value=4.0, unit="ms / text")), better(SimpleNamespace(value=4.0, unit="texts / s"))
    (0.25, 4.0)
    """
    return 1 / row.value if row.unit.startswith(("ms", "s /", "s", "MiB")) else row.value


def table(rows: Sequence[Row]) -> Table:
    """A line for each group that nearfield took part in."""
    out = Table()
    for title in ("suite", "work", "nearfield", "unit", "of ceiling", "quality", "best peer", "its figure", "times as fast"):
        out.add_column(title, justify="left" if title in ("suite", "work", "unit", "best peer") else "right", no_wrap=True)
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.suite, row.group), []).append(row)
    for members in groups.values():
        ours = max((row for row in members if row.ours), key=better, default=None)
        peer = max((row for row in members if not row.ours), key=better, default=None)
        if ours is None:
            continue
        share = "-" if ours.share is None else f"{100 * ours.share:.0f} %"
        line = [ours.suite, ours.brief or ours.group, number(ours.value), ours.unit, share, quality(ours)]
        out.add_row(*line, *((peer.engine, number(peer.value), f"{better(ours) / better(peer):.1f}") if peer else ("-", "-", "-")))
    return out
