"""The report's page: what was measured, in words and rows for the templates, which hold all the HTML.

Documents, queries and names are text from anywhere: the templates escape every value, the page holds no script, and its content policy
forbids scripts and requests. It is well-formed XML as well, so that any parser can read figures back from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearfield._version import __version__
from nearfield.data.check import tally
from nearfield.data.dataset import Finding
from nearfield.errors import MissingExtraError
from nearfield.evaluate.report.charts import Chart, Line, chart
from nearfield.evaluate.report.maps import part_counts, pictures
from nearfield.evaluate.report.sizeplot import size_plot
from nearfield.evaluate.results import EvalReport, SystemResult, baseline_rows, change_text, interval_text, metric_label, p_text
from nearfield.evaluate.significance import Interval
from nearfield.evaluate.study.gather import MAP_MARKS
from nearfield.evaluate.study.results import Latency, Size, Slicing
from nearfield.evaluate.study.slices import FEW

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
# Changes that are shown at once, as many as the map marks; the others are folded away.
OPEN = MAP_MARKS
# What a manifest calls the embedding tables among the products that stayed in float32.
EMBEDDINGS = "embeddings"
# Examples of one kind of finding; the data check lists more.
EXAMPLES = 3

Rows = list[list[str]]


def render(
    report: EvalReport,
    *,
    findings: Sequence[Finding] | None = None,
    exports: Mapping[str, Any] | None = None,
    run: Mapping[str, Any] | None = None,
) -> str:
    """Returns the report as the text of an HTML file. Needs ``nearfield[report]``.

    Args:
        report: what was measured.
        findings: what the data check found; None takes what reading found, as ``report`` holds it.
        exports: the bundle's manifest, of which ``parity`` and ``graphs`` are shown; None where there is no bundle.
        run: how the figures came about: ``command``, ``base``, ``date``, ``machine``, ``versions``, ``config`` and what else ``run.json``
            holds; all optional.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    pages = open_templates()
    run = run or {}
    found = [Finding(**finding) for finding in report.findings] if findings is None else findings  # type: ignore[arg-type]
    return pages.get_template("page.html").render(
        report=report,
        title=_title(report, run),
        verdict=_verdict(report),
        summary=_summary(report),
        systems=_systems(report, run),
        guard=_guard(report),
        metrics=_metrics(report),
        baselines=_headed(baseline_rows(report)) if report.baselines else [],
        baseline_notes=_baseline_notes(report),
        slicings=[(slicing, _sliced(slicing, report.k)) for slicing in report.study.slicings] if report.study else [],
        sizes=_sizes(report.study.sizes) if report.study else [],
        size_plot=size_plot(report.study.sizes) if report.study else None,
        latencies=_latencies(report.study.latencies) if report.study else [],
        parts=part_counts(report.study.map) if report.study and report.study.map else [],
        pictures=pictures(report.study.map) if report.study and report.study.map else [],
        parity=_parity(exports or {}),
        parity_details=[[name, figure(value)] for name, value in _flat(_exported(exports or {}))],
        findings=tally(found),
        examples=EXAMPLES,
        command=run.get("command", ""),
        repeat=_repeat(report, run),
        settings=[[name, figure(value)] for name, value in _flat({k: v for k, v in run.items() if k not in ("history", "command")})],
        change_text=change_text,
        few=FEW,
        open=OPEN,
        metric=metric_label(f"ndcg@{report.k}"),
        version=__version__,
    )


def open_templates() -> Environment:
    """Returns the report's templates, which escape every value. Raises MissingExtraError where jinja2 is not installed."""
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError:
        raise MissingExtraError("the report", "report", "jinja2") from None
    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=clean
    )


def clean(value: object) -> object:
    """A text without the characters that XML forbids, which become U+FFFD; other values as they are.

    >>> clean("a\\x00b") == "a\\ufffdb"
    True
    """
    if type(value) is str:
        return re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]", "\ufffd", value)
    return value


def figure(value: object) -> str:
    """A number at the four digits one reads, a list as its items; anything else as it is.

    >>> figure(0.123456), figure(1e-7), figure("mean"), figure(True), figure(["a", 0.5])
    ('0.1235', '1e-07', 'mean', 'yes', 'a, 0.5')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) if isinstance(item, (list, tuple)) else figure(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _title(report: EvalReport, run: Mapping[str, Any]) -> str:
    if report.compare is None:
        return f"{report.data}: {report.model.name}"
    return f"{report.data}: {'base against tuned' if 'base' in run else 'before and after'}"


def _verdict(report: EvalReport) -> tuple[str, str] | None:
    """The answer and its reason; the advice on keywords has its own place."""
    if report.verdict is None:
        return None
    answer, _, reason = report.verdict.sentence.removesuffix(report.advice).strip().partition(": ")
    return answer, reason


def _summary(report: EvalReport) -> list[str]:
    left_out = f" ({report.without_relevant:,} more were left out: nothing is judged relevant to them)" if report.without_relevant else ""
    asked = f"{report.queries:,} held-out queries of the {report.split} split{left_out}"
    lines = [f"{asked} against all {report.documents:,} documents, by exact search."]
    if report.compare is not None:
        lines.append(f"nDCG@{report.k} rose for {report.better:,} queries, fell for {report.worse:,} and stayed for {report.same:,}.")
    new, old = _cut(report.model), "" if report.compare is None else _cut(report.compare)
    if new == old != "":
        lines.append(f"Both models cut {new} to their length; what stands after the cut cannot be found.")
    else:
        told = (("new", new), ("old", old))
        lines += [f"The {who} model cut {cut} to its length; what stands after the cut cannot be found." for who, cut in told if cut]
    return [*lines, *report.notes]


def _cut(system: SystemResult) -> str:
    counts = ((system.truncated_documents, "documents", "document"), (system.truncated_queries, "queries", "query"))
    return " and ".join(f"{count:,} {what if count > 1 else singular}" for count, what, singular in counts if count)


def _systems(report: EvalReport, run: Mapping[str, Any]) -> Chart:
    name = f"ndcg@{report.k}"
    if report.compare is None:
        lines = [_line(report.model.name, "after", report.model.metrics[name])]
    else:
        base = str(run.get("base") or report.compare.name)
        tuned = "tuned" if "base" in run else report.model.name
        lines = [
            _line("Before", "before", report.compare.metrics[name], base),
            _line("After", "after", report.model.metrics[name], tuned),
        ]
    how = {"BM25": "keywords alone", "BM25 + model": "both lists fused"}
    lines += [_line(b.name, "other", b.metrics[name], how.get(b.name, "")) for b in report.baselines]
    return chart(f"{metric_label(name)} on your held-out queries", lines)


def _guard(report: EvalReport) -> tuple[Chart, str] | None:
    guard = report.guard
    if guard is None:
        return None
    lines = [_line("After", "after", guard.model)]
    text = f"{guard.queries:,} queries of {guard.data} ({guard.split} split) against {guard.documents:,} documents."
    if guard.compare is not None and guard.change is not None:
        lines.insert(0, _line("Before", "before", guard.compare))
        text += f" Change {change_text(guard.change)}, p {p_text(guard.change.p)}."
    return chart(f"{metric_label(guard.metric)} on general questions (the guard)", lines), text


def _line(name: str, style: str, value: Interval, note: str = "") -> Line:
    return Line(name, interval_text(value), [(style, value)], note)


def _metrics(report: EvalReport) -> Rows:
    rows = [["Metric", "Mean"] if report.compare is None else ["Metric", "Before", "After", "Change", "p"]]
    for name, value in report.model.metrics.items():
        row = [metric_label(name)]
        if report.compare is None:
            row.append(interval_text(value))
        else:
            change = report.change[name]
            row += [interval_text(report.compare.metrics[name]), interval_text(value), change_text(change), p_text(change.p)]
        rows.append(row)
    return rows


def _headed(rows: Rows) -> Rows:
    """The same rows with the first one written as the page's other headings are."""
    return [[cell[:1].upper() + cell[1:] for cell in rows[0]], *rows[1:]]


def _baseline_notes(report: EvalReport) -> list[str]:
    lines = [f"{baseline.name}: {baseline.how}." for baseline in report.baselines]
    return lines + [
        f"{baseline.name} retrieved nothing for {baseline.unanswered:,} queries." for baseline in report.baselines if baseline.unanswered
    ]


def _sliced(slicing: Slicing, k: int) -> Chart:
    lines = []
    for part in slicing.slices:
        values = [("after", part.after)] if part.before is None else [("before", part.before), ("after", part.after)]
        text = interval_text(part.after) if part.change is None else f"{change_text(part.change)}: {part.word}"
        lines.append(Line(part.name, text, values, f"{part.queries:,} {'query' if part.queries == 1 else 'queries'}"))
    return chart(f"By {slicing.by}, {metric_label(f'ndcg@{k}')}", lines)


def _sizes(sizes: Sequence[Size]) -> list[tuple[str, dict[str, Size]]]:
    """For each number of columns its sizes by storage."""
    return [(f"{dim:,}", {size.storage: size for size in sizes if size.dim == dim}) for dim in dict.fromkeys(size.dim for size in sizes)]


def _latencies(latencies: Sequence[Latency]) -> Rows:
    rows = [["Queries of a call", "Encode, ms", "Search, ms", "Both, ms", "Queries a second", "Calls timed"]]
    for found in latencies:
        steps = [f"{median:.2f} ({high:.2f})" for median, high in (found.encode, found.search, found.total)]
        rows.append([f"{found.rows:,}", *steps, f"{1000 * found.rows / found.total[0]:,.0f}", f"{found.calls:,}"])
    return rows


def _parity(manifest: Mapping[str, Any], tower: str = "model", prefix: str = "") -> list[str]:
    """A sentence for each exported graph, from whichever of the usual figures the manifest has; then those of a query side."""
    lines = []
    graphs = manifest.get("graphs") or {}
    for name, figures in (manifest.get("parity") or {}).items():
        if not isinstance(figures, Mapping):
            continue
        said = _method((graphs.get(f"{tower}.{name}.onnx") or {}).get("quantization"))
        if "max_abs_diff" in figures:
            said.append(f"within {_small(figures['max_abs_diff'])} of torch in every component")
        if "mean_cosine" in figures:
            said.append(f"cosine to fp32 {float(figures['mean_cosine']):.4f} on average")
        said += _loss(name, figures.get("retrieval"))
        if figures.get("note"):
            said.append(str(figures["note"]))
        lines.append(f"{prefix}{name}: {'; '.join(said)}." if said else f"{prefix}{name}: see the details.")
    query = manifest.get("query")
    if isinstance(query, Mapping):
        lines += _parity(query, "query", "queries, ")
        lines += ["queries: a matrix is applied to their vectors, in float32."] if query.get("map") else []
    return lines


def _method(quantization: object) -> list[str]:
    """How a graph was quantized, what was left in float32, and whether a vector depends on its batch."""
    if not isinstance(quantization, Mapping):
        return []
    said = [str(quantization["method"])] if "method" in quantization else []
    if isinstance(quantization.get("float32"), list) and quantization["float32"]:
        products = [name for name in quantization["float32"] if name != EMBEDDINGS]
        left = [f"{len(products)} of {quantization.get('products', '?')} products"] if products else []
        left += ["the embedding tables"] if len(products) < len(quantization["float32"]) else []
        said.append(f"{' and '.join(left)} left in float32")
    if "batch_invariant" in quantization:
        said.append(
            "the same vector in any batch" if quantization["batch_invariant"] else "one text at a time, as a batch would change its vectors"
        )
    return said


def _small(value: object) -> str:
    """A difference with two digits: more of them say nothing."""
    return f"{value:.1e}" if isinstance(value, float) else figure(value)


def _loss(name: str, loss: object) -> list[str]:
    if not isinstance(loss, Mapping) or not {"ndcg_fp32", "ndcg_int8", "loss", "queries", "documents"} <= loss.keys():
        return []
    low = f", 95 % interval from {loss['low']:+.3f}" if isinstance(loss.get("low"), float) else ""
    where = f"{loss['queries']:,} {loss.get('split', '')} queries against a sample of {loss['documents']:,} documents"
    said = [f"nDCG@10 {loss['ndcg_fp32']:.3f} in fp32 and {loss['ndcg_int8']:.3f} in {name} ({-loss['loss']:+.3f}{low}; {where})"]
    return [*said, "outside the limits"] if loss.get("passed") is False else said


def _exported(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {name: manifest[name] for name in ("parity", "graphs") if manifest.get(name)}


def _repeat(report: EvalReport, run: Mapping[str, Any]) -> Rows:
    rows = [["data", f"{report.data}, fingerprint {report.data_fingerprint}"]]
    for who, system in (("before", report.compare), ("after", report.model)):
        if system is not None:
            rows.append([who, f"{system.backend} {system.precision}, fingerprint {system.fingerprint}"])
    seed = f"{report.seed} (statistics, sample of the map)"
    rows.append(["seed", f"{run['seed']} (split, training), {seed}" if "seed" in run else seed])
    rows += [[name, str(run[name])] for name in ("date", "machine") if run.get(name)]
    versions = run.get("versions")
    if isinstance(versions, Mapping):
        rows.append(["versions", ", ".join(f"{name} {version}" for name, version in versions.items())])
    return rows


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}: ")
        else:
            yield prefix + str(name), value
