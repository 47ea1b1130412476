"""``python -m benchmarks.readme_table``: writes the README's figures from the newest results; ``--check`` fails if they are out of date.

For each suite the newest file under ``benchmarks/results`` that holds it is taken; quick runs never are. Everything between the two
markers is replaced, nothing else is touched.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.core import results
from benchmarks.core.plan import ROOT
from benchmarks.core.results import Row
from benchmarks.core.tables import number, quality

BEGIN, END = "<!-- figures:begin -->", "<!-- figures:end -->"
ORDER = ("encode", "score", "search")
COMMAND = "python -m benchmarks.readme_table"


def newest(folder: Path) -> dict[str, dict[str, Any]]:
    """Suite -> the newest result document that has rows of it; quick runs are left out.

    Raises:
        ValueError: a file in the folder is not a result of this schema.
    """
    documents = [results.read(path) for path in sorted(folder.glob("*.json"))]
    out: dict[str, dict[str, Any]] = {}
    for document in sorted((d for d in documents if not d["quick"]), key=lambda d: str(d["date"])):
        for suite in {row["suite"] for row in document["rows"]}:
            out[suite] = document
    return out


def markdown(folder: Path) -> str:
    """The text between the markers."""
    found = newest(folder)
    parts = [_suite(name, found[name]) for name in ORDER if name in found]
    if not parts:
        raise ValueError(f"{folder}: no results for publication; run `python -m benchmarks` first (quick runs do not count)")
    return "\n\n".join([*parts, f"Written by `{COMMAND}` from `benchmarks/results/`; what each column means: docs/benchmarks.md."])


def _suite(name: str, document: dict[str, Any]) -> str:
    machine, versions = document["machine"], document["versions"]
    rows = [Row(**row) for row in document["rows"] if row["suite"] == name]
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if not row.group.startswith("curve"):  # the whole curve is in the JSON; the targets say the same in three lines
            groups.setdefault(row.group, []).append(row)
    where = (
        f"{machine['cpu']}, {machine['cores']} cores, {' '.join(f for f in machine['flags'] if f not in ('sse4_2', 'avx', 'f16c', 'fma'))}"
    )
    lines = [f"**{name}** ({document['date'][:10]}, {where}, nearfield {versions['nearfield']})"]
    for group, members in groups.items():
        lines += ["", f"{group[0].upper()}{group[1:]}. Data: {members[0].data}.", "", *_table(members)]
    return "\n".join(lines)


def _table(rows: list[Row]) -> list[str]:
    names = ["engine", rows[0].unit, "spread", "p50 ms", "p99 ms", rows[0].quality_name or "quality", "of ceiling", "MiB"]
    body = [_cells(row) for row in rows]
    kept = [i for i in range(len(names)) if i < 2 or any(line[i] for line in body)]
    table = ["| " + " | ".join(names[i] for i in kept) + " |", "| " + " | ".join("---" if i == 0 else "---:" for i in kept) + " |"]
    table += ["| " + " | ".join(line[i] for i in kept) + " |" for line in body]
    if ceilings := sorted({row.ceiling for row in rows if row.ceiling}):
        table += ["", f"Ceiling: {'; '.join(ceilings)}."]
    return table


def _cells(row: Row) -> list[str]:
    name = f"{row.engine} {row.version}" + (f", ef {row.params['ef']}" if "ef" in row.params else "")
    return [
        f"**{name}**" if row.ours else name,
        number(row.value),
        "" if row.spread is None else f"{100 * row.spread:.0f} %",
        "" if row.p50 is None else number(row.p50),
        "" if row.p99 is None else number(row.p99),
        "" if row.quality is None else quality(row),
        "" if row.share is None else f"{100 * row.share:.1f} %",
        "" if row.memory_bytes is None else f"{row.memory_bytes / 2**20:,.0f}",
    ]


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
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", metavar="FOLDER")
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
