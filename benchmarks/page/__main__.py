"""``python -m benchmarks.page``: writes ``benchmarks/results/results.html`` from the results that lie beside it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.core import newest
from benchmarks.core.plan import ROOT
from benchmarks.page.document import document

RESULTS = ROOT / "benchmarks" / "results"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 2 after one line on stderr when there is nothing to show."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description="Writes one offline page of the newest results.")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: results.html in the folder of the results")
    options = parser.parse_args(argv)
    try:
        runs = newest.runs(options.results)
        if not runs:
            raise ValueError(f"{options.results}: no results; run `python -m benchmarks` first (quick runs do not count)")
        out = options.out or options.results / "results.html"
        out.write_text(document(runs), encoding="utf-8")
    except (OSError, ValueError) as error:
        print(f"page: {error}", file=sys.stderr)
        return 2
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {len(runs)} suites")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
