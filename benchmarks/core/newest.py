"""Which results stand for a machine today: for each suite and target the newest run beside peers; quick and unfinished ones never."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.core import results
from benchmarks.core.results import Row


@dataclass(frozen=True)
class Run:
    """One suite of one result file.

    Attributes:
        suite: its name.
        machine: the CPU and its cores; with the target where everybody was held to one.
        document: the whole file, without its other suites' rows.
        rows: the suite's.
    """

    suite: str
    machine: str
    document: dict[str, Any]
    rows: list[Row]


def runs(folder: Path) -> list[Run]:
    """The runs that count, newest machine first, suites in the order of their names. A run with peers counts before one without."""
    found: dict[tuple[str, str], Run] = {}
    documents = sorted((results.read(path) for path in folder.glob("*.json")), key=lambda document: str(document["date"]))
    for document in documents:
        if document["quick"]:
            continue
        rows: dict[str, list[Row]] = {}
        for row in results.finished(document):
            rows.setdefault(row["suite"], []).append(Row(**row))
        for suite, members in rows.items():
            key = (machine_of(document), suite)
            if key not in found or not all(row.ours for row in members) or all(row.ours for row in found[key].rows):
                found[key] = Run(suite, key[0], document, members)
    latest = {run.machine: run.document["date"] for run in sorted(found.values(), key=lambda run: str(run.document["date"]))}
    by_suite = sorted(found.values(), key=lambda run: run.suite)
    return sorted(by_suite, key=lambda run: latest[run.machine], reverse=True)


def machine_of(document: dict[str, Any]) -> str:
    """``"AMD EPYC, 2 cores"``, with ``", held to avx2"``."""
    forced = document["nearfield"].get("forced")
    about = document["machine"]
    return f"{about['cpu']}, {about['cores']} cores" + (f", held to {forced}" if forced else "")
