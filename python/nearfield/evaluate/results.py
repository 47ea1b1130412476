"""What an evaluation found: plain values that print as a table and save as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

from nearfield.evaluate.significance import Interval, Paired
from nearfield.evaluate.study.results import Study
from nearfield.evaluate.verdict import Verdict


@dataclass(frozen=True, slots=True)
class SystemResult:
    """One model on one set of queries.

    Attributes:
        name: the path or name it was given by.
        fingerprint, backend, precision: which vectors these are and what computed them.
        metrics: metric name (``"ndcg@10"``) -> mean with its 95 % interval over queries.
        truncated_documents, truncated_queries: texts that were cut to the model's length, so that their ends could not be found.
        seconds: step -> seconds.
        cached: whether the documents' vectors came from the cache.
    """

    name: str
    fingerprint: str
    backend: str
    precision: str
    metrics: dict[str, Interval]
    truncated_documents: int
    truncated_queries: int
    seconds: dict[str, float]
    cached: bool


@dataclass(frozen=True, slots=True)
class BaselineResult:
    """A ranking that needs no tuned model, on the model's queries.

    Attributes:
        name: ``"BM25"``, or ``"BM25 + model"`` for the two fused by reciprocal rank.
        how: variant, parameters and version.
        metrics: metric name -> mean with its 95 % interval over queries.
        change: metric name -> paired difference, baseline minus model, with interval and p-value: above 0 where the baseline is better.
        unanswered: scored queries for which nothing was retrieved (no word of theirs is in the corpus); they count as 0 everywhere.
        seconds: step -> seconds.
    """

    name: str
    how: str
    metrics: dict[str, Interval]
    change: dict[str, Paired]
    unanswered: int
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class QueryChange:
    """A query that the new model answers better or worse.

    Attributes:
        query_id, query: the query.
        document_id, document: its relevant document that the better of the two models placed best; the text is cut to 240 characters.
        rank_before, rank_after: that document's rank from 1, None below the depth of the run.
        before, after: the query's nDCG@k.
        instead_id, instead: what the worse of the two models placed first instead, cut likewise; empty where that is relevant as well.
    """

    query_id: str
    query: str
    document_id: str
    document: str
    rank_before: int | None
    rank_after: int | None
    before: float
    after: float
    instead_id: str
    instead: str


@dataclass(frozen=True, slots=True)
class GuardResult:
    """The check on general knowledge: the same two models on another dataset.

    Attributes:
        data, split, queries, documents: what it ran on.
        metric: the metric that decides, ``"ndcg@k"``.
        model, compare: its mean and interval; ``compare`` and ``change`` are None where no second model was given.
        change: the paired difference, model minus compare.
    """

    data: str
    split: str
    queries: int
    documents: int
    metric: str
    model: Interval
    compare: Interval | None
    change: Paired | None


@dataclass(frozen=True)
class EvalReport:
    """The result of `nearfield.evaluate`.

    Attributes:
        data, data_fingerprint, split: what was evaluated on.
        k, depth: the cut-off of nDCG and MRR; how many documents each ranked list held.
        documents, queries: counts; ``queries`` are those with at least one relevant document, the only ones that are scored.
        without_relevant: queries left out because nothing is judged relevant to them.
        model, compare: the results; ``compare`` is None where no second model was given.
        change: metric name -> paired difference, model minus compare, with interval and p-value; empty without ``compare``.
        better, worse, same: queries whose nDCG@k rose, fell, stayed.
        wins, losses: the ten largest changes each way.
        baselines: BM25, and BM25 fused with the model; empty where bm25s is not installed.
        advice: what the baselines say of the model, in words; where there are none, how to get them.
        guard: the check on a second dataset, or None.
        verdict: the answer, or None without ``compare``. Its sentence ends with the advice.
        study: slices, sizes, latency and the map, where they were asked for; None otherwise.
        notes: what a reader must know, for example that the split was made here.
        findings: what reading the data found.
        resamples, seed: of the statistics.
        seconds: of the whole call.
    """

    data: str
    data_fingerprint: str
    split: str
    k: int
    depth: int
    documents: int
    queries: int
    without_relevant: int
    model: SystemResult
    compare: SystemResult | None
    change: dict[str, Paired]
    better: int
    worse: int
    same: int
    wins: list[QueryChange]
    losses: list[QueryChange]
    baselines: list[BaselineResult]
    advice: str
    guard: GuardResult | None
    verdict: Verdict | None
    study: Study | None
    notes: list[str]
    findings: list[dict[str, str]]
    resamples: int
    seed: int
    seconds: float = field(compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Returns nested plain values; a bound that does not exist is None, so that the JSON is standard.

        The points of the study's map are left out: 3,000 places are for eyes, and would be most of the JSON.
        """
        values = dict(_plain(asdict(self)))
        if self.study is not None and self.study.map is not None:
            drawn = values["study"]["map"]
            del drawn["part"], drawn["marks"]
            for side in (drawn["before"], drawn["after"]):
                if side is not None:
                    del side["points"]
        return values

    def to_json(self, *, indent: int | None = 2) -> str:
        """Returns `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    def __str__(self) -> str:
        return table(self)


def metric_label(name: str) -> str:
    """The usual way to write a metric's name.

    >>> metric_label("ndcg@10"), metric_label("map@100"), metric_label("recall@1")
    ('nDCG@10', 'MAP@100', 'recall@1')
    """
    stem, _, cut = name.partition("@")
    return {"ndcg": "nDCG", "mrr": "MRR", "map": "MAP"}.get(stem, stem) + (f"@{cut}" if cut else "")


def interval_text(value: Interval) -> str:
    """A mean with its interval, for example ``0.712 [0.700, 0.724]``.

    >>> interval_text(Interval(0.5, float("nan"), float("nan")))
    '0.500'
    """
    return f"{value.mean:.3f}" + ("" if math.isnan(value.low) else f" [{value.low:.3f}, {value.high:.3f}]")


def change_text(value: Paired) -> str:
    """A difference with its sign and interval, for example ``+0.021 [+0.010, +0.032]``."""
    return f"{value.mean:+.3f}" + ("" if math.isnan(value.low) else f" [{value.low:+.3f}, {value.high:+.3f}]")


def p_text(p: float) -> str:
    """A p-value to three places.

    >>> p_text(0.0001), p_text(0.25)
    ('< 0.001', '0.250')
    """
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def table(report: EvalReport) -> str:
    """The whole report as text of at most 120 columns (long names and texts aside)."""
    left_out = f", {report.without_relevant:,} more without a relevant document left out" if report.without_relevant else ""
    lines = [f"{report.data}, {report.split} split: {report.queries:,} queries{left_out}; {report.documents:,} documents", ""]
    lines += _columns(report)
    if report.compare is not None:
        counts = f"rose for {report.better:,} queries, fell for {report.worse:,}, stayed for {report.same:,}"
        lines += ["", f"{metric_label(f'ndcg@{report.k}')} {counts}."]
    if report.baselines:
        lines += ["", *_aligned(baseline_rows(report))]
    if report.guard is not None:
        lines += ["", _guard_line(report.guard)]
    for who, system in (("model", report.model), ("compare", report.compare)):
        if system is not None and (system.truncated_documents or system.truncated_queries):
            cut = f"{system.truncated_documents:,} documents and {system.truncated_queries:,} queries"
            lines.append(f"{who}: {cut} were cut to the model's length.")
    lines += [f"Note: {note}" for note in report.notes]
    lines += ["", report.advice if report.verdict is None else report.verdict.sentence]
    return "\n".join(lines)


def baseline_rows(report: EvalReport) -> list[list[str]]:
    """The baselines as a table's cells, the head first: for each one its means, and how far it is above (+) or below the model."""
    rows = [["metric"]]
    for baseline in report.baselines:
        rows[0] += [baseline.name, "against model"]
    for name in report.model.metrics:
        cells = ((interval_text(baseline.metrics[name]), change_text(baseline.change[name])) for baseline in report.baselines)
        rows.append([metric_label(name), *(cell for pair in cells for cell in pair)])
    return rows


def _columns(report: EvalReport) -> list[str]:
    rows = [["metric", "model"] if report.compare is None else ["metric", "before", "after", "change", "p"]]
    for name, value in report.model.metrics.items():
        if report.compare is None:
            rows.append([metric_label(name), interval_text(value)])
        else:
            change = report.change[name]
            before = interval_text(report.compare.metrics[name])
            rows.append([metric_label(name), before, interval_text(value), change_text(change), p_text(change.p)])
    return _aligned(rows)


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _guard_line(guard: GuardResult) -> str:
    start = f"guard {guard.data}, {guard.split} split, {guard.queries:,} queries: {metric_label(guard.metric)} "
    if guard.compare is None or guard.change is None:
        return start + interval_text(guard.model)
    return f"{start}{interval_text(guard.compare)} -> {interval_text(guard.model)}, {change_text(guard.change)}, p {p_text(guard.change.p)}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
