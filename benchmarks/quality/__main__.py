"""The command line of the experiment runner."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.core import machine
from benchmarks.core.plan import ROOT
from benchmarks.quality.cells import Cell, Table, expected_seconds, grid
from benchmarks.quality.recipes import RECIPES, SETS, named
from benchmarks.quality.report import markdown, plots
from benchmarks.quality.run import Inputs, run_cell, warm_up


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(
        prog="python -m benchmarks.quality",
        description="Tunes and measures recipes x data x seeds; every finished cell is a line on disk, and what is there is not run again.",
        epilog="recipes: "
        + "; ".join(f"{recipe.name}: {recipe.about}" for recipe in RECIPES.values())
        + "; sets: "
        + "; ".join(f"{name}: {', '.join(recipes)}" for name, recipes in SETS.items()),
    )
    out.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="a BEIR folder, a file of pairs, or installed: the demo's documentation; may be repeated",
    )
    out.add_argument("--guard", type=Path, metavar="PATH", help="general questions; nDCG@10 on them is measured, and ours may not lose it")
    out.add_argument("--base", metavar="MODEL", help="folder or name of the base (default: the packaged all-MiniLM-L6-v2)")
    out.add_argument("--recipes", default="base,ours,theirs", metavar="NAME,...", help="default: %(default)s")
    out.add_argument("--seeds", default="0", metavar="N,...", help="default: %(default)s")
    out.add_argument("--pairs", default="all", metavar="N,...", help="numbers of training pairs, or all (default)")
    time_of = out.add_mutually_exclusive_group()
    time_of.add_argument("--seconds", type=float, metavar="S", help="budget of each training (default: none, one pass)")
    time_of.add_argument("--minutes", type=float, metavar="M", help="the same in minutes")
    out.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: the budget counts processor time, for a shared machine")
    out.add_argument("--epochs", type=int, metavar="N", help="passes at most (default: as many as the budget holds; one without a budget)")
    out.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    out.add_argument("--threads", type=int, metavar="N", help="threads of torch and of encoding (default: the physical cores)")
    out.add_argument("--table", type=Path, default=ROOT / "benchmarks" / "cache" / "quality" / "table.jsonl", metavar="FILE")
    out.add_argument("--only", metavar="TEXT", help="only cells whose key contains this")
    out.add_argument("--list", action="store_true", help="show the cells and which are finished, run none")
    out.add_argument("--plan", action="store_true", help="the same, with the minutes that each missing cell is expected to take")
    out.add_argument("--stop-after", type=float, metavar="S", help="begin no cell after this many seconds")
    out.add_argument("--isolate", action=argparse.BooleanOptionalAction, help="a process for each cell (default: on the CPU)")
    out.add_argument("--against", default="theirs", metavar="RECIPE", help="what the others are compared with (default: %(default)s)")
    out.add_argument(
        "--report", type=Path, metavar="FILE.md", help="write tables (and plots beside them) from the finished cells asked for"
    )
    out.add_argument("--cell", help=argparse.SUPPRESS)
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what is missing; returns 0, 1 when a cell failed, 2 after one line on stderr when something was asked that does not exist."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = parser().parse_args(arguments)
    try:
        return _run(options, arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace, arguments: list[str]) -> int:
    device = _device(options.device)
    inputs = Inputs(_data(options.data), options.guard, _base(options.base), options.epochs)
    cells = grid(
        [recipe.name for recipe in named(options.recipes)], list(inputs.data), _numbers("seeds", options.seeds),
        [None if part == "all" else part for part in _numbers("pairs", options.pairs)],
        seconds=60 * options.minutes if options.minutes else options.seconds, clock=options.clock, device=device,
    )  # fmt: skip
    cells = [cell for cell in cells if options.only is None or options.only in cell.key]
    table = Table(options.table)
    if options.cell:
        return _one(next(cell for cell in cells if cell.key == options.cell), inputs, table, options.threads)
    missing = table.missing(cells)
    if options.list or options.plan:
        _show(cells, missing, table.rows() if options.plan else None)
        return 0
    failed = _fill(missing, inputs, table, options, arguments, isolate=device == "cpu" if options.isolate is None else options.isolate)
    if options.report:
        wanted = {cell.key for cell in cells}
        rows = [row for row in table.rows() if row["key"] in wanted]
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(markdown(rows, options.against), encoding="utf-8")
        made = plots(rows, options.against, options.report.parent, options.report.stem)
        print(markdown(rows, options.against), end="")
        print(f"report: {options.report}; plots: {', '.join(map(str, made)) or 'none'}", file=sys.stderr)
    return 1 if failed else 0


def _show(cells: list[Cell], missing: list[Cell], rows: list[dict[str, Any]] | None) -> None:
    """Prints which cells are there; with ``rows`` also what the others are expected to take."""
    expected = {} if rows is None else {cell.key: expected_seconds(cell, rows) for cell in missing}
    for cell in cells:
        took = expected.get(cell.key, 0.0)
        minutes = "" if cell.key not in expected else "  unknown" if took is None else f"  {took / 60:.1f} min"
        print(f"{'missing' if cell in missing else 'done':8}{cell.key}{minutes}")
    if rows is not None:
        known = [took for took in expected.values() if took is not None]
        rest = len(expected) - len(known)
        print(
            f"{len(missing)} of {len(cells)} cells missing: about {sum(known) / 60:.0f} min"
            + f", and {rest} cells of unknown time" * bool(rest)
        )


def _fill(missing: list[Cell], inputs: Inputs, table: Table, options: argparse.Namespace, arguments: list[str], *, isolate: bool) -> int:
    began, failed = time.monotonic(), 0
    if missing and not isolate:
        _say("warming up")
        _threads(options.threads)
        warm_up(inputs, [name for name in dict.fromkeys(c.recipe for c in missing) if name != "base"], missing[0].data, missing[0].device)
    for number, cell in enumerate(missing, 1):
        if options.stop_after is not None and time.monotonic() - began > options.stop_after:
            _say(f"stopped after {time.monotonic() - began:.0f} s, {len(missing) - number + 1} cells left; the same command goes on")
            break
        _say(f"{number} of {len(missing)}: {cell.key}")
        if isolate:
            command = [sys.executable, "-m", "benchmarks.quality", *arguments, "--cell", cell.key]
            failed += subprocess.run(command, check=False).returncode != 0
        else:
            failed += _one(cell, inputs, table, options.threads) != 0
    return failed


def _one(cell: Cell, inputs: Inputs, table: Table, threads: int | None) -> int:
    """One cell in this process. A cell that fails is named and left missing; the others still run."""
    _threads(threads)
    try:
        result = run_cell(cell, inputs)
    except Exception as error:
        _say(f"failed: {cell.key}: {type(error).__name__}: {error}")
        return 1
    table.add(cell, {"machine": _machine(cell.device), "versions": machine.versions(), **result})
    guard = f", guard {result['guard']['ndcg']:.4f}" if "guard" in result else ""
    _say(
        f"  nDCG@10 {result['test']['ndcg']:.4f}{guard}, {result['pairs_per_second']:,.1f} pairs/s, {result['pairs_seen']:,} pairs, "
        f"{result['wall_seconds']:.1f} s wall, {result['cpu_seconds']:.1f} s processor, measured in {result['measuring_seconds']:.1f} s"
    )
    return 0


def _machine(device: str) -> dict[str, Any]:
    found = {name: value for name, value in machine.describe().items() if name in ("cpu", "cores", "memory_bytes", "load_at_start")}
    if device == "cuda":
        import torch

        found["gpu"] = torch.cuda.get_device_name()
    return found


def _threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        os.environ["NEARFIELD_THREADS"] = str(threads)
        torch.set_num_threads(threads)


def _device(wanted: str) -> str:
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: cuda given, but torch sees no GPU here; cpu or auto expected")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def _data(given: Sequence[str]) -> dict[str, Path]:
    found = dict(part.partition("=")[::2] for part in given)
    if not found or not all(found.values()):
        raise ValueError(f"data: {' '.join(given) or 'nothing'} given, --data NAME=PATH expected, for example --data nl2bash=data/nl2bash")
    found = {name: str(demo_documentation()) if path == "installed" else path for name, path in found.items()}
    for name, path in found.items():
        if not Path(path).exists():
            raise ValueError(f"data: {name}: {path} does not exist")
    return {name: Path(path) for name, path in found.items()}


def demo_documentation() -> Path:
    """The demo's documentation as a BEIR folder in the cache, harvested once: later cells read the same files."""
    folder = ROOT / "benchmarks" / "cache" / "quality" / "demo-documentation"
    if not folder.is_dir():
        from nearfield.data.harvest import harvest
        from nearfield.data.split import split
        from nearfield.data.write import write_beir

        part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
        write_beir(split(harvest()), part)
        part.rename(folder)
    return folder


def _base(given: str | None) -> Path:
    from nearfield.encode.models import resolve_model

    return Path(resolve_model(given))


def _numbers(name: str, text: str) -> list[Any]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    allowed = {"all"} if name == "pairs" else set()
    if not parts or not all(part.isdigit() or part in allowed for part in parts):
        raise ValueError(f"{name}: {text!r} given, whole numbers{' or all' * bool(allowed)} with commas between expected")
    return [part if part in allowed else int(part) for part in parts]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
