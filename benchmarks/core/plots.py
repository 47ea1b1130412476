"""Plots beside the results: one SVG file for each, the same bytes for the same figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.core.plan import Plan

# Lines that matplotlib's default cycle tells apart; those after them are dashed.
COLOURS = 10


@dataclass(frozen=True)
class Line:
    """One engine's points; ours are drawn thicker."""

    label: str
    xs: Sequence[float]
    ys: Sequence[float]
    ours: bool


@dataclass(frozen=True)
class Axis:
    """What it shows, and its scale: the base of a logarithm, or None for a linear one."""

    label: str
    base: int | None = None


def draw(plan: Plan, name: str, title: str, x: Axis, y: Axis, lines: Sequence[Line]) -> Path | None:
    """Writes ``<name>[-quick].svg`` into the folder of the results and returns its path; without matplotlib there is a line instead."""
    if find_spec("matplotlib") is None:
        plan.skipped.append(f"skipped: plot {name} (matplotlib not installed: pip install 'nearfield[bench]')")
        return None
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams["svg.hashsalt"] = "nearfield"  # the same figures give the same file
    pyplot.rcParams["svg.fonttype"] = "none"  # letters as text: outlines are two thirds of the file
    figure, axes = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    for number, line in enumerate(lines):
        style = "-" if number < COLOURS else "--"
        axes.plot(line.xs, line.ys, marker="o", label=line.label, linestyle=style, linewidth=2.5 if line.ours else 1.2)
    for axis, scale, label in ((x, axes.set_xscale, axes.set_xlabel), (y, axes.set_yscale, axes.set_ylabel)):
        label(axis.label)
        if axis.base is not None:
            scale("log", base=axis.base)
    axes.set_title(title)
    axes.grid(True, which="both", alpha=0.3)
    axes.legend(fontsize="small")
    plan.out.mkdir(parents=True, exist_ok=True)
    path = plan.out / f"{name}{'-quick' if plan.quick else ''}.svg"
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    plan.say(f"plot in {path}")
    return path
