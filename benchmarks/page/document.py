"""The page around plots and tables."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from benchmarks import behind, suites
from benchmarks.core import tables
from benchmarks.core.newest import Run
from benchmarks.core.results import Row
from benchmarks.core.tables import number
from benchmarks.page.charts import Chart, legend, svg
from benchmarks.page.plots import charts

HERE = Path(__file__).parent


def document(runs: Sequence[Run]) -> str:
    """The whole page: nothing is loaded from elsewhere, and without JavaScript everything is shown."""
    machines = list(dict.fromkeys(run.machine for run in runs))
    names = [name for name in suites.SUITES if any(run.suite == name for run in runs)]
    names += [name for name in dict.fromkeys(run.suite for run in runs) if name not in names]
    body = [
        "<header><h1>nearfield benchmarks</h1>",
        "<p>nearfield and its peers on one machine, in turns, with equal threads. Each speed stands beside its recall or accuracy "
        "and, where there is one, its share of the ceiling that was measured on the machine. docs/benchmarks.md says what each means.</p>",
        _filters(machines, names),
        "</header><main>",
        *(_machine(number, machine, names, runs) for number, machine in enumerate(machines)),
        "</main>",
    ]
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>nearfield benchmarks</title><link rel="icon" href="data:,"><style>{style}</style></head><body>'
    )
    return head + "".join(body) + f"<script>{script}</script></body></html>\n"


def _filters(machines: Sequence[str], names: Sequence[str]) -> str:
    options = "".join(f'<option value="m{number}">{escape(machine)}</option>' for number, machine in enumerate(machines))
    buttons = "".join(f'<label><input type="checkbox" value="{name}" checked>{name}</label>' for name in names)
    return (
        f'<form class="filters"><label class="machine">Machine <select>{options}<option value="">all</option></select></label>'
        '<div class="suites"><button type="button" value="all">all</button><button type="button" value="none">none</button>'
        f"{buttons}</div></form>"
    )


def _machine(place: int, machine: str, names: Sequence[str], runs: Sequence[Run]) -> str:
    mine = {run.suite: run for run in runs if run.machine == machine}
    parts = [f'<section class="machine" data-machine="m{place}"><h2>{escape(machine)}</h2>', _behind(list(mine.values()))]
    parts += [_suite(mine[name]) for name in names if name in mine]
    return "".join([*parts, "</section>"])


def _behind(runs: Sequence[Run]) -> str:
    """The figures where a peer is ahead, folded."""
    found = behind.leads(runs)
    rows = "".join(
        f"<tr><td>{escape(lead.suite)}</td><td>{escape(lead.group)}</td><td>{escape(lead.figure)}</td>"
        f"<td>{escape(lead.peer)}</td><td class=n>{number(lead.peer_value)}</td>"
        f"<td>{escape(lead.ours)}</td><td class=n>{number(lead.our_value)}</td><td class=n>{lead.times:.2f}x</td>"
        f"<td>{escape(lead.note)}</td></tr>"
        for lead in found
    )
    head = "".join(f"<th>{name}</th>" for name in ("suite", "work", "figure", "peer", "", "ours", "", "ahead", "at other quality"))
    table = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>' if found else ""
    return f'<details class="behind"><summary>Where a peer is ahead of us: {len(found)} figures</summary>{table}</details>'


def _suite(run: Run) -> str:
    what = suites.SUITES[run.suite].what if run.suite in suites.SUITES else ""
    groups: dict[str, list[Row]] = {}
    for row in run.rows:
        groups.setdefault(row.group, []).append(row)
    about = run.document
    versions = about["versions"]
    source = f"{about['date'][:10]}, commit {versions.get('commit', '?')}, Python {versions.get('python', '?')}, {about['command']}"
    plots = "".join(_chart(chart) for chart in charts(run))
    return (
        f'<section class="suite" data-suite="{run.suite}"><h3>{run.suite}<small>{escape(what)}</small></h3>'
        f'<p class="source">{escape(source)}</p>'
        + (f'<div class="charts">{plots}</div>' if plots else "")
        + "".join(_table(group, rows) for group, rows in groups.items() if not group.startswith("curve"))
        + _curves([rows for group, rows in groups.items() if group.startswith("curve")])
        + _skipped(about["skipped"])
        + "</section>"
    )


def _chart(chart: Chart) -> str:
    note = f'<p class="source">{escape(chart.note)}</p>' if chart.note else ""
    return f"<figure><figcaption>{escape(chart.title)}</figcaption>{svg(chart)}{legend(chart)}{note}</figure>"


def _curves(groups: Sequence[Sequence[Row]]) -> str:
    if not groups:
        return ""
    inner = "".join(_table(rows[0].group, rows) for rows in groups)
    return f"<details><summary>The points of the curves: {len(groups)} tables</summary>{inner}</details>"


def _table(group: str, rows: Sequence[Row]) -> str:
    names, body = tables.filled(rows)
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = []
    for row, line in zip(rows, body, strict=True):
        cells = f"<th>{escape(line[0])}</th>" + "".join(f"<td class=n>{escape(cell)}</td>" for cell in line[1:])
        lines.append(f'<tr class="{"ours" if row.ours else ""}">{cells}</tr>')
    ceilings = "; ".join(dict.fromkeys(row.ceiling for row in rows if row.ceiling))
    notes = "; ".join(filter(None, ["; ".join(dict.fromkeys(row.data for row in rows)), f"ceilings: {ceilings}" if ceilings else ""]))
    return (
        f"<h4>{escape(group)}</h4>"
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
        f'<p class="source">{escape(notes)}</p>'
    )


def _skipped(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<details><summary>Skipped or not reached: {len(lines)}</summary><ul>{items}</ul></details>"
