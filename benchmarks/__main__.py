"""``python -m benchmarks``: machine and ceilings first, then the suites, then a dated JSON file."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import nearfield
from benchmarks import suites
from benchmarks.core import apart, brief, ceilings, durations, held, machine, results, tables
from benchmarks.core.own import BadData
from benchmarks.core.plan import ROOT, Plan, usable_cores


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measures nearfield and its peers on this machine, next to the machine's own ceilings."
    )
    out.add_argument("suites", nargs="*", metavar="SUITE", help=suites.HELP)
    out.add_argument("--quick", action="store_true", help="small data and few rounds, to see that everything works; not for publication")
    out.add_argument(
        "--peers", action=argparse.BooleanOptionalAction, default=True, help="run the peers that are installed (default) or only nearfield"
    )
    out.add_argument("--only", type=_names, metavar="TEXT[,TEXT]", help="of the peers run only those whose name contains one of these")
    out.add_argument(
        "--threads",
        type=_threads,
        metavar="N[,N]",
        help="thread counts for everybody (default: all cores; score, search and approximate also 1)",
    )
    out.add_argument(
        "--target", type=_target, metavar="NAME", help="hold nearfield to one instruction set; with avx2 numpy, torch and faiss as well"
    )
    out.add_argument(
        "--large",
        action="store_true",
        help="score and search: also 1,000,000 rows (score: nearfield alone, 5 GB of memory; search: 10 GB, an hour and more)",
    )
    out.add_argument(
        "--full", action="store_true", help="encode: every model, length, batch and thread count (more than an hour with all peers)"
    )
    out.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="documents (JSONL, CSV, TSV, Parquet, BEIR) to embed in place of the texts found here, or vectors (.npy, ann-benchmarks HDF5)",
    )
    out.add_argument(
        "--judged", type=Path, action="append", default=[], metavar="PATH",
        help="int8: data with judgements in a dev split to measure the loss on, a BEIR folder or a file; may be given several times",
    )  # fmt: skip
    out.add_argument("--plan", action="store_true", help="say how long each of these suites takes, and run nothing")
    out.add_argument("--brief", action="store_true", help="end with one short table: nearfield and its best peer for each piece of work")
    out.add_argument("--json", metavar="FILE", help="write the results to FILE as well; - makes one JSON document the last line of stdout")
    out.add_argument(
        "--out",
        type=Path,
        default=ROOT / "benchmarks" / "results",
        metavar="FOLDER",
        help="folder of the dated JSON (default: benchmarks/results)",
    )
    out.add_argument(
        "--cache",
        type=Path,
        default=ROOT / "benchmarks" / "cache",
        metavar="FOLDER",
        help="folder of vectors, texts and the bundle (default: benchmarks/cache)",
    )
    return out


def _names(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def _threads(text: str) -> tuple[int, ...]:
    counts = tuple(int(part) for part in text.split(","))
    if min(counts) < 1 or max(counts) > usable_cores():
        raise argparse.ArgumentTypeError(f"{text!r}: from 1 to {usable_cores()} threads, as this machine has so many cores")
    return counts


def _target(text: str) -> str:
    here = machine.targets().get("targets_here", [])
    if text not in here:
        raise argparse.ArgumentTypeError(f"{text!r}: one of {', '.join(here)} expected, which this machine can run")
    return text


def installed_elsewhere(module: Path) -> str | None:
    """A line where the nearfield that is measured is not this checkout's, as a build installed from another one would be."""
    if module.resolve().is_relative_to(ROOT.resolve()):
        return None
    return "benchmarks: the nearfield that is measured is an installed one, not this checkout's"


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM (a limit of time, a service manager) does what Ctrl-C does, so that what has been measured is written down."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the suites; returns 0, 1 when one of them failed, or 2 after one line on stderr when something was asked that does not exist."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = parser().parse_args(arguments)
    names = list(suites.SUITES) if options.suites == ["all"] else options.suites or list(suites.DEFAULT)
    unknown = [name for name in names if name not in suites.SUITES]
    if unknown:
        print(f"benchmarks: unknown suite {unknown[0]!r}, one of {', '.join(suites.SUITES)} expected, or all", file=sys.stderr)
        return 2
    for name, file in [("--data", options.data), *(("--judged", folder) for folder in options.judged)]:
        if file is not None and not file.exists():
            print(f"benchmarks: {name} {file}: no such file", file=sys.stderr)
            return 2
    if options.plan:
        for line in durations.lines(names, options.quick, ROOT / "benchmarks" / "results"):
            print(line)
        return 0
    if not held.in_force(options.target):
        held.rerun(options.target, arguments)
    if (line := installed_elsewhere(Path(nearfield.__file__))) is not None:
        print(line, file=sys.stderr)
    plan = Plan(
        quick=options.quick,
        peers=options.peers,
        only=options.only,
        threads=options.threads,
        target=options.target,
        full=options.full,
        large=options.large,
        data=options.data,
        judged=tuple(options.judged),
        out=options.out,
        cache=options.cache,
    )
    try:
        with terminated_as_interrupted():
            document = run(names, plan, "python -m benchmarks " + results.told(arguments))
    except BadData as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    path = results.write(document, options.out)
    tables.console().print(f"results: {path}", soft_wrap=True)
    if options.brief and document["rows"]:
        tables.console().print(brief.table([results.Row(**row) for row in document["rows"]]))
    if options.json == "-":
        print(results.dumps(document))
    elif options.json:
        Path(options.json).write_text(results.dumps(document) + "\n", encoding="utf-8")
    return int(bool(document["failed"]))


def run(names: Sequence[str], plan: Plan, command: str) -> dict[str, Any]:
    """Measures machine and ceilings, runs the suites in turn (each in its own process), prints as it goes and returns the document.

    Ctrl-C, or SIGTERM, ends the suite that is running; what it has handed over and all before it are kept.
    """
    out = tables.console()
    start = time.monotonic()
    about, found, ours = machine.describe(), machine.versions(), machine.targets()
    for line in machine.lines(about, found, ours):
        out.print(line, soft_wrap=True, markup=False)
    if not all(name.startswith("cuda") for name in names):  # these measure the GPU's
        plan.ceilings = ceilings.measure([1, *plan.one_and_all, *plan.all_cores], quick=plan.quick, say=plan.say)
        for line in ceilings.lines(plan.ceilings):
            out.print(line, soft_wrap=True, markup=False)
    out.print()
    rows, seconds, failed = [], {}, {}
    for name in names:
        began = time.monotonic()
        done = apart.run(name, plan)
        seconds[name] = round(time.monotonic() - began, 1)
        plan.skipped += [line for line in done.skipped if line not in plan.skipped]
        if done.error is not None:
            failed[name] = done.error
            plan.say(f"benchmarks: {name} failed: {done.error}")
        tables.show(done.rows, out)
        rows += done.rows
        if done.stopped:
            break
    for line in [*plan.skipped, *(f"failed: {name} ({error})" for name, error in failed.items())]:
        out.print(line, soft_wrap=True, markup=False)
    if len(seconds) > 1:
        out.print("suites     " + ", ".join(f"{name} {taken:,.0f} s" for name, taken in seconds.items()), soft_wrap=True, markup=False)
    out.print(f"{len(rows)} rows in {time.monotonic() - start:.0f} s{' (quick: not for publication)' if plan.quick else ''}")
    head = {
        "machine": about,
        "versions": found,
        "nearfield": ours,
        "ceilings": plan.ceilings.to_dict(),
        "seconds": seconds,
        "failed": failed,
    }
    return results.report(rows, head=head, command=command.strip(), quick=plan.quick, skipped=plan.skipped, now=datetime.now().astimezone())


if __name__ == "__main__":
    raise SystemExit(main())
