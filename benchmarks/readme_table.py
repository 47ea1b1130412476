"""``python -m benchmarks.readme_table``: writes the README's figures from the newest results; ``--check`` fails if they are out of date.

For each suite the newest file under ``benchmarks/results`` that holds it beside peers is taken; quick runs never are. All between the two
markers is replaced, nothing else is touched.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.core import results
from benchmarks.core.ceilings import threads_text
from benchmarks.core.plan import ROOT
from benchmarks.core.results import Row
from benchmarks.core.tables import number, quality

BEGIN, END = "<!-- figures:begin -->", "<!-- figures:end -->"
RESULTS = ROOT / "benchmarks" / "results"
ORDER = ("encode", "score", "search")
COMMAND = "python -m benchmarks.readme_table"
# Flags that every machine of the last ten years has say nothing in a headline.
PLAIN_FLAGS = ("sse4_2", "avx", "f16c", "fma", "asimd")


Column = tuple[str, str, int]


def newest(folder: Path) -> dict[str, dict[str, Any]]:
    """Suite -> the newest result document that has rows of it, of those with peers if there are any.

    Quick runs, runs held to an instruction set, and suites that did not reach their end are left out.

    Raises:
        ValueError: a file in the folder is not a result of this schema.
    """
    documents = [results.read(path) for path in sorted(folder.glob("*.json"))]
    alone: dict[str, dict[str, Any]] = {}
    beside: dict[str, dict[str, Any]] = {}
    for document in sorted((d for d in documents if not d["quick"] and not d["nearfield"]["forced"]), key=lambda d: str(d["date"])):
        for row in results.finished(document):
            (alone if row["ours"] else beside)[row["suite"]] = document
    return alone | beside


def markdown(folder: Path) -> str:
    """The text between the markers."""
    found = newest(folder)
    parts = [_suite(name, found[name]) for name in ORDER if name in found]
    if not parts:
        raise ValueError(f"{folder}: no results for publication; run `python -m benchmarks` first (quick runs do not count)")
    return "\n\n".join([*parts, f"Written by `{COMMAND}` from `benchmarks/results/`; what each column means: docs/benchmarks.md."])


def _suite(name: str, document: dict[str, Any]) -> str:
    machine, rows = document["machine"], [Row(**row) for row in document["rows"] if row["suite"] == name and row["brief"]]
    threads = sorted({row.threads for row in rows})
    columns = list(dict.fromkeys(_column(row) for row in rows))
    # One thread count stands in the headline; several stand in the titles.
    titles = [f"{brief}, {unit}" + (f", {threads_text(count)}" if len(threads) > 1 else "") for brief, unit, count in columns]
    table = [["engine", *titles]]
    table += [_line(members, columns) for members in _grouped(rows, "engine").values()]
    if any(row.quality is not None and "recall" not in (row.quality_name or "") for row in rows):
        # Recall stands in the column's title; agreement and cosine get a column of their own: the worst of the row, of the first
        # model, as those that are there for their shape make vectors without meaning.
        meant = rows[0].params.get("model")
        table[0].append(next(row.quality_name for row in rows if row.quality_name) or "")
        for line, members in zip(table[1:], _grouped(rows, "engine").values(), strict=True):
            line.append(min((quality(row) for row in members if row.quality is not None and row.params.get("model") == meant), default="-"))
    flags = " ".join(flag for flag in machine["flags"] if flag not in PLAIN_FLAGS) or machine["arch"]
    where = f"{machine['cpu']}, {machine['cores']} cores, {flags}" + (f", {threads_text(threads[0])}" if len(threads) == 1 else "")
    head = f"**{name}**: {document['date'][:10]}, {where}"
    rule = ["---", *("---:" for _ in table[0][1:])]
    notes = [f"{' and '.join(_grouped(members, 'brief'))}: {data}." for data, members in _grouped(rows, "data").items()]
    ceilings = list(dict.fromkeys(row.ceiling for row in rows if row.ceiling))
    notes += ["In parentheses, share of the measured ceiling: " + "; ".join(ceilings) + "."] if ceilings else []
    return "\n".join([head, "", *("| " + " | ".join(line) + " |" for line in [table[0], rule, *table[1:]]), "", *notes])


def _column(row: Row) -> Column:
    return row.brief, row.unit, row.threads


def _grouped(rows: list[Row], attribute: str) -> dict[str, list[Row]]:
    out: dict[str, list[Row]] = {}
    for row in rows:
        out.setdefault(getattr(row, attribute), []).append(row)
    return out


def _line(members: list[Row], columns: list[Column]) -> list[str]:
    first = members[0]
    name = f"{first.engine} {first.version}"
    by_column = {_column(row): _cell(row) for row in members}
    return [f"**{name}**" if first.ours else name, *(by_column.get(column, "-") for column in columns)]


def _cell(row: Row) -> str:
    text = number(row.value) if row.p50 is None or row.p99 is None else f"p50 {number(row.p50)}, p99 {number(row.p99)}"
    if row.memory_bytes is not None:
        text += f", {row.memory_bytes / 2**20:,.0f} MiB"
    return text if row.share is None else f"{text} ({100 * row.share:.0f} %)"


def replaced(readme: str, figures: str) -> str:
    """``readme`` with ``figures`` between the markers.

    Raises:
        ValueError: the markers are not there exactly once, in order.
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise ValueError(f"the README needs the lines {BEGIN} and {END} once each, in this order")
    head, _, rest = readme.partition(BEGIN)
    return f"{head}{BEGIN}\n{figures}\n{END}{rest.partition(END)[2]}"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; 1 when ``--check`` finds other figures in the README; 2 with one line on stderr when there is nothing to work with."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Writes the README's figures from the newest benchmark results.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the README is out of date")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", metavar="FILE")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER")
    options = parser.parse_args(argv)
    try:
        before = options.readme.read_text(encoding="utf-8")
        after = replaced(before, markdown(options.results))
    except (OSError, ValueError) as error:
        print(f"readme_table: {error}", file=sys.stderr)
        return 2
    if before == after:
        return 0
    if options.check:
        print(f"readme_table: the figures in {options.readme} are out of date: run `{COMMAND}`", file=sys.stderr)
        return 1
    options.readme.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
