"""Rows and reports: what a suite hands back, and the dated JSON that the README's table is made from."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.core.plan import ROOT

# Suites that have another name in older files.
RENAMED = {"text_search": "end_to_end", "search_filter": "filter", "search_churn": "churn"}
# Raised when a key changes its meaning; readme_table refuses files of another version.
SCHEMA = 1


@dataclass
class Row:
    """One configuration of one engine: everything a reader needs stands in the row.

    Attributes:
        suite: its name, as in ``benchmarks.suites.SUITES``.
        group: rows of one group did the same work and are compared with each other.
        brief: the group as a column title of the README's table; empty for rows that stay in the JSON.
        engine: who did it, for example ``"faiss IndexFlatIP"``.
        version: of the engine's library.
        ours: True for nearfield.
        data: which vectors or texts, with their count.
        threads: for everybody in the group.
        params: what identifies the work and the engine's settings (n, dim, nq, k, ef, tokens ...).
        value, unit: the figure, a median over the rounds; a larger value is better unless ``unit`` is a time or a size.
        spread: (slowest - fastest) / median over the rounds; None for a single measurement.
        p50, p95, p99: milliseconds of single calls, where the row is about latency; files before p95 was kept have None there.
        quality_name, quality: recall, agreement or cosine of exactly this configuration.
        ceiling, share: which measured ceiling (``"f32 1 thread: 78 GFLOP/s"``) and the fraction of it that was reached.
        memory_bytes: growth of resident memory, where measured.
        rounds: the raw rounds: seconds, calls and the calls' percentiles.
    """

    suite: str
    group: str
    brief: str
    engine: str
    version: str
    ours: bool
    data: str
    threads: int
    params: dict[str, Any]
    value: float
    unit: str
    spread: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    quality_name: str | None = None
    quality: float | None = None
    ceiling: str | None = None
    share: float | None = None
    memory_bytes: int | None = None
    rounds: list[dict[str, float]] = field(default_factory=list)


def told(arguments: Sequence[str]) -> str:
    """The arguments as a shell takes them, for a result that others read.

    Of a path on this machine only what is below the repository is told, or else the last name.

    >>> told(["encode_quality", "--judged", "/home/me/data/medquad", "--out=/tmp/x", "--only", "a b"])
    "encode_quality --judged medquad --out=x --only 'a b'"
    """
    return shlex.join(_placeless(argument) for argument in arguments)


def _placeless(argument: str) -> str:
    option, sign, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    path = Path(value)
    if not path.is_absolute():
        return argument
    return f"{option}{sign}{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name}"


def report(rows: list[Row], *, head: dict[str, Any], command: str, quick: bool, skipped: list[str], now: datetime) -> dict[str, Any]:
    """The JSON document of one run; ``head`` holds machine, versions, nearfield (its targets) and ceilings."""
    return {
        "schema": SCHEMA,
        "date": now.isoformat(timespec="seconds"),
        "command": command,
        "quick": quick,
        **head,
        "skipped": skipped,
        "rows": [asdict(row) for row in rows],
    }


def finished(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the suites that reached their end: what others had measured before they broke or were stopped stands for nothing."""
    return [row for row in document["rows"] if row["suite"] not in document.get("failed", {})]


def dumps(document: dict[str, Any]) -> str:
    """One line of strict JSON: NaN and infinity are refused, as no reader would know what they mean."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, default=str)


def write(document: dict[str, Any], folder: Path) -> Path:
    """Writes ``folder/<date>[-quick].json``, one row per line so that two results can be compared with diff, and returns the path."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp = datetime.fromisoformat(document["date"]).strftime("%Y-%m-%d-%H%M%S")
    path = folder / f"{stamp}{'-quick' if document['quick'] else ''}.json"
    head = {key: value for key, value in document.items() if key != "rows"}
    body = ",\n".join("  " + dumps(row) for row in document["rows"])
    text = "{\n" + "".join(f"{json.dumps(k)}: {dumps(v)},\n" for k, v in head.items()) + f'"rows": [\n{body}\n]\n' + "}\n"
    path.write_text(text, encoding="utf-8")
    return path


def read(path: Path) -> dict[str, Any]:
    """Reads one result file and checks its schema; suites have the names of today.

    Raises:
        ValueError: not a result file, or of another schema version; the message names the file.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        for row in document["rows"]:
            row.setdefault("p95", None)
        validate(document)
        for row in document["rows"]:
            row["suite"] = RENAMED.get(row["suite"], row["suite"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a benchmark result of schema {SCHEMA}: {error}") from error
    return document  # type: ignore[no-any-return]


def validate(document: dict[str, Any]) -> None:
    """Raises ValueError with the first thing that a result document lacks or says wrongly."""
    if document.get("schema") != SCHEMA:
        raise ValueError(f"schema {document.get('schema')!r}, {SCHEMA} expected")
    wanted = {
        "date": str,
        "command": str,
        "quick": bool,
        "machine": dict,
        "versions": dict,
        "nearfield": dict,
        "ceilings": dict,
        "skipped": list,
        "rows": list,
    }
    for key, kind in wanted.items():
        if not isinstance(document.get(key), kind):
            raise ValueError(f"{key}: {type(document.get(key)).__name__} found, {kind.__name__} expected")
    datetime.fromisoformat(document["date"])
    names = set(Row.__dataclass_fields__)
    for number, row in enumerate(document["rows"]):
        if set(row) != names:
            raise ValueError(f"rows[{number}]: keys {sorted(set(row) ^ names)} missing or unknown")
        if not row["rounds"] or not row["value"] > 0:
            raise ValueError(f"rows[{number}] ({row['engine']}, {row['group']}): no rounds or no value")
