"""The report as one HTML file that opens offline: no scripts, no fonts or styles from elsewhere, every text escaped.

It is well-formed XML as well, so that any parser can read figures back from it.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nearfield._version import __version__
from nearfield.data.dataset import Finding
from nearfield.evaluate.results import (
    EvalReport,
    QueryChange,
    SystemResult,
    baseline_rows,
    change_text,
    interval_text,
    metric_label,
    p_text,
)

# More findings than one reads are counted, not listed; the data check lists them all.
SHOWN_FINDINGS = 50

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882;
  --good: #1a7f37; --bad: #c62828; --mid: #9a6700; --old: #8a8a8a; --new: #1f6feb; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
.verdict { padding: .8rem 1rem; border-left: .4rem solid var(--mid); background: var(--soft); font-size: 1.1rem; }
.ship { border-color: var(--good); } .no { border-color: var(--bad); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line); }
.figures td { white-space: nowrap; } .small, figcaption { font-size: .875rem; opacity: .8; } svg { width: 100%; height: auto; }
figure { margin: 1rem 0; } pre { background: var(--soft); padding: .6rem; overflow-x: auto; white-space: pre-wrap; }
"""


def render(
    report: EvalReport,
    *,
    findings: Sequence[Finding] | None = None,
    parity: Mapping[str, Any] | None = None,
    run: Mapping[str, Any] | None = None,
) -> str:
    """Returns the report as the text of an HTML file.

    Args:
        report: what was measured.
        findings: what the data check found; None takes what reading found, as ``report`` holds it.
        parity: the bundle's figures on exports against torch, by variant.
        run: the run's config, base, seed and versions, as ``run.json`` holds them.
    """
    rows = report.findings if findings is None else [{"severity": f.severity, "where": f.where, "message": f.message} for f in findings]
    title = f"{report.data}: base against tuned" if report.compare else f"{report.data}: {report.model.name}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        _verdict(report),
        _summary(report),
        _figures(report),
        _chart(report),
        _baselines(report),
        _guard(report),
        _changes("Largest gains", report.wins, report),
        _changes("Largest losses", report.losses, report),
        _findings(rows),
        _parity(parity or {}),
        _repeat(report, run or {}),
        f'<p class="small">Made by nearfield {escape(__version__)}.</p>',
    ]
    head = f'<meta charset="utf-8"/><meta name="viewport" content="width=device-width, initial-scale=1"/><title>{escape(title)}</title>'
    body = "\n".join(part for part in parts if part)
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>{head}<style>{STYLE}</style></head>\n<body>\n{body}\n</body>\n</html>\n'


def escape(value: object) -> str:
    """Text that is safe in HTML; characters that XML forbids become U+FFFD.

    >>> escape('<b a="1">')
    '&lt;b a=&quot;1&quot;&gt;'
    """
    return html.escape(re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]", "\ufffd", str(value)))


def _verdict(report: EvalReport) -> str:
    if report.verdict is None:
        return ""
    style = {"ship": " ship", "do not ship": " no"}.get(report.verdict.answer, "")
    return f'<p class="verdict{style}">{escape(report.verdict.sentence)}</p>'


def _summary(report: EvalReport) -> str:
    left_out = f" ({report.without_relevant:,} more were left out: nothing is judged relevant to them)" if report.without_relevant else ""
    asked = f"{report.queries:,} held-out queries of the {report.split} split{left_out}"
    lines = [f"{asked} against all {report.documents:,} documents, by exact search."]
    if report.compare is not None:
        lines.append(f"nDCG@{report.k} rose for {report.better:,} queries, fell for {report.worse:,} and stayed for {report.same:,}.")
    for who, system in (("new", report.model), ("old", report.compare)):
        if system is not None and (system.truncated_documents or system.truncated_queries):
            cut = f"{system.truncated_documents:,} documents and {system.truncated_queries:,} queries"
            lines.append(f"The {who} model cut {cut} to its length; what stands after the cut cannot be found.")
    return "<p>" + " ".join(escape(line) for line in [*lines, *report.notes]) + "</p>"


def _figures(report: EvalReport) -> str:
    head = ["Metric", "Mean"] if report.compare is None else ["Metric", "Before", "After", "Change", "p"]
    rows = []
    for name, value in report.model.metrics.items():
        row = [metric_label(name)]
        if report.compare is None:
            row.append(interval_text(value))
        else:
            change = report.change[name]
            row += [interval_text(report.compare.metrics[name]), interval_text(value), change_text(change), p_text(change.p)]
        rows.append(row)
    how = (
        f"In brackets: 95 % bootstrap intervals over queries ({report.resamples:,} resamples, seed {report.seed}). "
        "Intervals of the change are paired and so much tighter than those of the two means; p is the two-sided randomization test."
    )
    return f'<h2>Figures</h2>{_table(head, rows, "figures")}<p class="small">{escape(how)}</p>'


def _chart(report: EvalReport) -> str:
    """Dots with whiskers on a scale from 0 to 1, two for each metric."""
    left, right, step = 110.0, 690.0, 46
    names = list(report.model.metrics)
    height = step * len(names) + 34

    def x(value: float) -> float:
        return left + (right - left) * min(max(value, 0.0), 1.0)

    def mark(system: SystemResult, name: str, y: float, colour: str) -> str:
        value = system.metrics[name]
        low, high = (value.mean, value.mean) if math.isnan(value.low) else (value.low, value.high)
        bar = f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y}" y2="{y}" stroke="var({colour})" stroke-width="3"/>'
        hint = f"<title>{escape(interval_text(value))}</title>"
        return f'{bar}<circle cx="{x(value.mean):.1f}" cy="{y}" r="5" fill="var({colour})">{hint}</circle>'

    parts = []
    for tick in range(0, 11, 2):
        at = x(tick / 10)
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="6" y2="{height - 24}" stroke="var(--line)"/>')
        parts.append(f'<text x="{at:.1f}" y="{height - 6}" text-anchor="middle">{tick / 10:.1f}</text>')
    for row, name in enumerate(names):
        y = 28.0 + step * row
        parts.append(f'<text x="0" y="{y + 5}">{escape(metric_label(name))}</text>')
        if report.compare is not None:
            parts.append(mark(report.compare, name, y - 8, "--old"))
        parts.append(mark(report.model, name, y + (8 if report.compare is not None else 0), "--new"))
    legend = "Grey: before. Blue: after. Lines: 95 % intervals." if report.compare is not None else "Lines: 95 % intervals."
    opening = f'<svg viewBox="0 0 720 {height}" role="img" aria-label="Metrics with intervals" font-size="14" fill="currentColor">'
    svg = f"{opening}{''.join(parts)}</svg>"
    return f"<figure>{svg}<figcaption>{legend}</figcaption></figure>"


def _baselines(report: EvalReport) -> str:
    section = f"<h2>Keywords beside the model</h2><p>{escape(report.advice)}</p>"
    if not report.baselines:
        return section
    head, *rows = baseline_rows(report)
    lines = [f"{baseline.name}: {baseline.how}." for baseline in report.baselines]
    lines += [
        f"{baseline.name} retrieved nothing for {baseline.unanswered:,} queries." for baseline in report.baselines if baseline.unanswered
    ]
    return f'{section}{_table(head, rows, "figures")}<p class="small">{escape(" ".join(lines))}</p>'


def _guard(report: EvalReport) -> str:
    guard = report.guard
    if guard is None:
        return ""
    text = f"{guard.queries:,} queries of {guard.data} ({guard.split} split) against {guard.documents:,} documents."
    if guard.compare is None or guard.change is None:
        table = _table(["Metric", "Mean"], [[metric_label(guard.metric), interval_text(guard.model)]], "figures")
    else:
        cells = [interval_text(guard.compare), interval_text(guard.model), change_text(guard.change), p_text(guard.change.p)]
        table = _table(["Metric", "Before", "After", "Change", "p"], [[metric_label(guard.metric), *cells]], "figures")
    return f"<h2>General knowledge (guard)</h2><p>{escape(text)}</p>{table}"


def _changes(title: str, changes: Sequence[QueryChange], report: EvalReport) -> str:
    if not changes:
        return ""

    def rank(value: int | None) -> str:
        return f"below {report.depth}" if value is None else str(value)

    rows = [[c.query, c.document, rank(c.rank_before), rank(c.rank_after), f"{c.before:.2f} to {c.after:.2f}"] for c in changes]
    return f"<h2>{title}</h2>" + _table(["Query", "Relevant document", "Rank before", "Rank after", f"nDCG@{report.k}"], rows)


def _findings(findings: Sequence[Mapping[str, str]]) -> str:
    if not findings:
        return "<h2>Data check</h2><p>Nothing found.</p>"
    order = {"error": 0, "warning": 1}
    ranked = sorted(findings, key=lambda f: order.get(f["severity"], 2))
    rows = [[f["severity"], f["where"], f["message"]] for f in ranked[:SHOWN_FINDINGS]]
    rest = f"<p>{len(findings) - len(rows):,} more.</p>" if len(findings) > len(rows) else ""
    return "<h2>Data check</h2>" + _table(["Severity", "Where", "What"], rows) + rest


def _parity(parity: Mapping[str, Any]) -> str:
    if not parity:
        return ""
    rows = [[name, figure(value)] for name, value in _flat(parity)]
    return "<h2>Exports against the trained model</h2>" + _table(["Figure", "Value"], rows, "figures")


def _repeat(report: EvalReport, run: Mapping[str, Any]) -> str:
    lines = [f"data {report.data}, fingerprint {report.data_fingerprint}", f"seed {report.seed}"]
    for who, system in (("before", report.compare), ("after", report.model)):
        if system is not None:
            lines.append(f"{who}: {system.name}, {system.backend} {system.precision}, fingerprint {system.fingerprint}")
    settings = ""
    if run:
        lines.insert(0, f"nearfield tune DATA --base {run.get('base', 'MODEL')} --out BUNDLE --config run.json")
        shown = {name: value for name, value in run.items() if name != "history"}
        listed = _table(["Name", "Value"], [[name, figure(value)] for name, value in _flat(shown)])
        settings = f"<details><summary>Settings and versions</summary>{listed}</details>"
    return f"<h2>How to repeat</h2><pre>{escape(chr(10).join(lines))}</pre>{settings}"


def figure(value: object) -> str:
    """A number at the four digits one reads; anything else as it is.

    >>> figure(0.123456), figure(1e-7), figure("mean")
    ('0.1235', '1e-07', 'mean')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}: ")
        else:
            yield prefix + str(name), value


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], style: str = "") -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table class="{style}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
