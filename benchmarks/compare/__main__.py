"""``python -m benchmarks.compare BASE``: what the working tree is beside a commit, figure by figure."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.compare import instructions, tree
from benchmarks.compare.paired import Ratio, Worker, calls_of, ratio, take_turns
from benchmarks.compare.worker import WORKLOADS
from benchmarks.core.plan import ROOT, usable_cores

WORKER = Path(__file__).with_name("worker.py")
PAIRS = 24
# Fewer pairs cannot show anything with 99 %: 2 / 2^7 is more than one in a hundred.
LEAST_PAIRS = 8
# Processes of each commit that share the pairs: where a process has its memory can make it a fifth slower for all its life.
PROCESSES = 3
# Instruction counts differ by a little from run to run: addresses decide some branches of the allocator.
SAME_COUNT = 0.002


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; 1 when ``--fail`` is given and a figure is slower; 2 with one line on stderr when BASE cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description="Compares the working tree with a commit, in turns.")
    parser.add_argument("base", metavar="BASE", help="a commit, tag or branch")
    parser.add_argument("--only", default="", metavar="TEXT", help=f"workloads whose name contains this: {'; '.join(WORKLOADS)}")
    parser.add_argument("--pairs", type=int, default=PAIRS, metavar="N", help=f"pairs of turns for each figure (default: {PAIRS})")
    parser.add_argument("--threads", type=int, default=usable_cores(), metavar="N", help="threads of the calls (default: all cores)")
    parser.add_argument(
        "--instructions", action=argparse.BooleanOptionalAction, default=True, help="also count instructions with callgrind"
    )
    parser.add_argument("--fail", action="store_true", help="exit 1 when a figure is slower")
    parser.add_argument("--json", action="store_true", help="one JSON document in place of lines")
    parser.add_argument("--cache", type=Path, default=ROOT / "benchmarks" / "cache", metavar="FOLDER")
    options = parser.parse_args(argv)
    if options.pairs < LEAST_PAIRS:
        print(f"compare: --pairs {options.pairs}: at least {LEAST_PAIRS} expected, fewer show nothing", file=sys.stderr)
        return 2
    try:
        commit = tree.resolve(options.base)
    except ValueError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    print(f"building {commit[:12]} and the working tree", file=sys.stderr)
    folders = [tree.built(commit, options.cache), ROOT]
    tree.build(ROOT)
    out: dict[str, dict[str, Any]] = {}
    for name in (name for name in WORKLOADS if options.only in name):
        print(f"compare: {name}", file=sys.stderr, flush=True)
        out[name] = timed(name, folders, options.pairs, options.threads)
        if options.instructions and WORKLOADS[name][1] is not None:
            out[name] |= counted(name, folders)
        if not options.json:
            print(line(name, out[name]), flush=True)
    if options.json:
        print(json.dumps({"base": commit, "threads": options.threads, "pairs": options.pairs, "figures": out}))
    return int(options.fail and any(found.get("verdict") == "slower" for found in out.values()))


def timed(name: str, folders: Sequence[Path], pairs: int, threads: int) -> dict[str, Any]:
    """The ratio and its verdict, or what one of the two commits cannot do."""
    taken: tuple[list[float], list[float]] = ([], [])
    qualities: list[str] = []
    for place in range(PROCESSES):
        order = (0, 1) if place % 2 == 0 else (1, 0)
        started = {at: _worker(name, folders[at], threads) for at in order}
        workers = [started[0], started[1]]
        try:
            if error := next(
                (f"{folder.name}: {said}" for folder, one in zip(folders, workers, strict=True) if (said := one.ready())), None
            ):
                return {"skipped": error}
            qualities = [one.quality for one in workers]
            calls = calls_of(max(one.ask(3) for one in workers))
            share = pairs // PROCESSES + (place < pairs % PROCESSES)
            for mine, fresh in zip(taken, take_turns([one.ask for one in workers], share, calls), strict=True):
                mine += fresh
        finally:
            for one in workers:
                one.close()
    found: Ratio = ratio(*taken)
    return {**asdict(found), "verdict": found.verdict, **({"quality": qualities} if any(qualities) else {})}


def _worker(name: str, folder: Path, threads: int) -> Worker:
    return Worker([sys.executable, str(WORKER), "turns", name, str(threads)], tree.environment(folder))


def counted(name: str, folders: Sequence[Path]) -> dict[str, Any]:
    """Instructions of one call on AVX2 under both commits, or why they were not counted."""
    if reason := instructions.missing():
        return {"not_counted": reason}
    try:
        base, new = (instructions.per_call(name, tree.environment(folder)) for folder in folders)
    except RuntimeError as error:
        return {"not_counted": str(error)}
    return {"base_instructions": base, "new_instructions": new}


def line(name: str, found: dict[str, Any]) -> str:
    """One figure for people."""
    if "skipped" in found:
        return f"{name:28s} skipped ({found['skipped']})"
    text = (
        f"{name:28s} {found['verdict']:20s} {found['median']:.3f}x [{found['low']:.3f}, {found['high']:.3f}]  "
        f"{1000 * found['base_s']:.3f} -> {1000 * found['new_s']:.3f} ms"
    )
    if "quality" in found:
        text += f"  {' -> '.join(found['quality'])}"
    if "not_counted" in found:
        return f"{text}  instructions not counted ({found['not_counted']})"
    if "base_instructions" not in found:
        return text
    base, new = found["base_instructions"], found["new_instructions"]
    change = new / base - 1
    said = "the same" if abs(change) < SAME_COUNT else f"{100 * change:+.2f} %"
    return f"{text}  instructions on AVX2 {base / 1e6:,.2f} -> {new / 1e6:,.2f} M ({said})"


if __name__ == "__main__":
    raise SystemExit(main())
