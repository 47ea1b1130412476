"""How long the suites take: from runs on this kind of machine that are kept beside the results, else as measured on two cores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks import suites
from benchmarks.core import machine, results


def measured(folder: Path, quick: bool, cpu: str) -> dict[str, float]:
    """Suite -> seconds in the newest whole run (all peers beside us, nobody held, nothing failed) on a CPU of this name."""
    out: dict[str, float] = {}
    for path in sorted(folder.glob("*.json")):
        document = results.read(path)
        if document["quick"] != quick or document["machine"].get("cpu") != cpu or document["nearfield"].get("forced"):
            continue
        if "--only" in document["command"].split():
            continue
        beside = {row["suite"] for row in results.finished(document) if not row["ours"]}
        out |= {name: taken for name, taken in document.get("seconds", {}).items() if name in beside}
    return out


def lines(names: Sequence[str], quick: bool, folder: Path) -> list[str]:
    """One line for each suite, and their sum."""
    here = measured(folder, quick, machine.describe()["cpu"])
    total, out = 0.0, []
    for name in names:
        suite = suites.SUITES[name]
        seconds = here.get(name, suite.quick_s if quick else 60 * suite.minutes)
        total += seconds
        out.append(f"{name:15s} {text(seconds):>7s}  {'measured here' if name in here else 'expected     '}  {suite.what}")
    return [*out, f"{'together':15s} {text(total):>7s}  with every peer, caches warm; --only and --no-peers shorten it"]


def text(seconds: float) -> str:
    """``"45 s"``, ``"12 min"``."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
