"""``python -m benchmarks.behind``: every figure in the newest results where a peer is ahead of us, the largest lead first.

Rows that did the same work are compared: the best of ours with each peer, then ours of the same precision, in their figure, in p99 and in
memory. A peer that is ahead at another recall, accuracy or agreement is listed and says so.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.core import newest
from benchmarks.core.plan import ROOT
from benchmarks.core.results import Row
from benchmarks.core.tables import number, quality

# Smaller is better for these units.
SMALLER = ("s", "ms", "ms / query", "ms / text", "MB", "bytes / vector")
# What tells works of one group apart; the settings by which an engine does it (ef, candidates) are its own affair.
WORK = ("model", "tokens", "batch", "n", "rows", "k", "nq", "kept", "blocks", "region", "churn", "state", "storage", "pairs", "method")
# Curves run everybody at the same widths, which compares nothing; recall there differs.
LEFT_OUT = ("curve",)
# Two medians nearer than this are no lead on machines whose rounds differ by more.
LEAD = 1.02
# Recall, agreement and cosines that differ by less are the same.
SAME_QUALITY = 0.005


@dataclass(frozen=True)
class Lead:
    """One figure: ``times`` says how far the peer is ahead, ``note`` what else differs."""

    machine: str
    suite: str
    group: str
    figure: str
    ours: str
    our_value: float
    peer: str
    peer_value: float
    times: float
    note: str


def leads(runs: Iterable[newest.Run]) -> list[Lead]:
    """All leads of peers, largest first."""
    out: dict[tuple[str, ...], Lead] = {}
    for run in runs:
        for members in grouped(run.rows).values():
            precisions = dict.fromkeys(row.params["precision"] for row in members if "precision" in row.params)
            for chosen in (None, *precisions):  # the best of ours, then those of the peer's own precision
                some = [row for row in members if chosen is None or row.params.get("precision") == chosen]
                for lead in _ahead(run, some):
                    out.setdefault((run.machine, run.suite, lead.group, lead.figure, lead.ours, lead.peer), lead)
    return sorted(out.values(), key=lambda lead: -lead.times)


def _ahead(run: newest.Run, members: Sequence[Row]) -> Iterator[Lead]:
    for figure, read, smaller in figures(members[0].unit):
        have = [(value, row) for row in members if row.ours and (value := read(row)) is not None]
        if not have:
            continue
        best, mine = (min if smaller else max)(have, key=lambda item: item[0])
        for row in members:
            value = None if row.ours else read(row)
            if value is None or value <= 0:
                continue
            times = best / value if smaller else value / best
            if times >= LEAD:
                note = _note(mine, row)
                yield Lead(run.machine, run.suite, _what(row), figure, mine.engine, best, row.engine, value, times, note)


def figures(unit: str) -> list[tuple[str, Callable[[Row], float | None], bool]]:
    """(name, how to read it from a row, smaller is better) of what is compared."""
    return [(unit, lambda row: row.value, unit in SMALLER), ("p99 ms", lambda row: row.p99, True), ("memory", _memory, True)]


def _memory(row: Row) -> float | None:
    return None if row.memory_bytes is None else row.memory_bytes / 2**20


def grouped(rows: Iterable[Row]) -> dict[tuple[object, ...], list[Row]]:
    """Rows that did the same work."""
    out: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if not row.group.startswith(LEFT_OUT):
            out.setdefault((row.group, row.data, *(str(row.params.get(name)) for name in WORK)), []).append(row)
    return out


def _what(row: Row) -> str:
    parts = [f"{100 * row.params['kept']:g} % kept{', in blocks' if row.params.get('blocks') else ''}"] if "kept" in row.params else []
    return ", ".join([row.group, *parts])


def _note(mine: Row, peer: Row) -> str:
    if mine.quality is None or peer.quality is None or abs(mine.quality - peer.quality) < SAME_QUALITY:
        return ""
    return f"{peer.quality_name} {quality(peer)}, ours {quality(mine)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the list; returns 0, or 2 with one line when there are no results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.behind", description="Lists every figure where a peer is ahead of us.")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", metavar="FOLDER")
    parser.add_argument("--machine", metavar="TEXT", help="only machines whose line contains this")
    parser.add_argument("--json", action="store_true", help="one JSON document in place of lines")
    options = parser.parse_args(argv)
    try:
        runs = [run for run in newest.runs(options.results) if not options.machine or options.machine.lower() in run.machine.lower()]
    except (OSError, ValueError) as error:
        print(f"behind: {error}", file=sys.stderr)
        return 2
    if not runs:
        print(f"behind: {options.results}: no results; run `python -m benchmarks` first (quick runs do not count)", file=sys.stderr)
        return 2
    found = leads(runs)
    if options.json:
        print(json.dumps([asdict(lead) for lead in found], ensure_ascii=False))
        return 0
    for machine in dict.fromkeys(run.machine for run in runs):
        mine = [lead for lead in found if lead.machine == machine]
        print(f"{machine}: {len(mine)} figures where a peer is ahead")
        for lead in mine:
            print(
                f"  {lead.times:6.2f}x  {lead.suite}: {lead.group}: {lead.figure}: {lead.peer} {number(lead.peer_value)}, "
                f"{lead.ours} {number(lead.our_value)}" + (f" ({lead.note})" if lead.note else "")
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
