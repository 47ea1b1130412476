"""Tables and plots from the finished cells: means over seeds, and paired differences on the same queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.core.plan import Plan
from benchmarks.core.plots import Axis, Line, draw
from nearfield.evaluate.significance import Paired, paired_columns

Row = dict[str, Any]
COLUMNS = (
    "recipe", "seeds", "test nDCG@10", "against the base", "guard against the base", "pairs/s", "pairs seen", "seconds, wall / processor",
    "peak MiB",
)  # fmt: skip
# Cells that differ in none of these are compared with each other.
SAME = ("data", "pairs", "seconds", "clock", "device")


@dataclass(frozen=True)
class Difference:
    """One recipe minus another on one set of data, in points of nDCG@10.

    Attributes:
        where: data, pairs and budget in words.
        recipe, against: their names.
        seeds: those that both have.
        each: seed by seed.
        all: of the means over seeds, query by query.
        guard: the same on the guard; None where it was not measured.
    """

    where: str
    recipe: str
    against: str
    seeds: list[int]
    each: list[Paired]
    all: Paired
    guard: Paired | None


def differences(rows: Sequence[Row], against: str) -> list[Difference]:
    """Compares every recipe with ``against`` wherever both have the same data, budget and seeds.

    Raises:
        ValueError: two cells were measured on different queries.
    """
    found = []
    for group in _groups(rows):
        others = {row["seed"]: row for row in group if row["recipe"] == against}
        for recipe in dict.fromkeys(row["recipe"] for row in group if row["recipe"] not in (against, "base")):
            own = {row["seed"]: row for row in group if row["recipe"] == recipe and (row["seed"] in others)}
            if own:
                seeds = sorted(own)
                couples = [(own[seed], others[seed]) for seed in seeds]
                each = [paired_columns(_minus(a, b, "test")[:, None])[0] for a, b in couples]
                found.append(
                    Difference(_words(group[0]), recipe, against, seeds, each, _mean(couples, "test"), _mean_or_none(couples, "guard"))
                )
    return found


def markdown(rows: Sequence[Row], against: str) -> str:
    """The report: a table of means for each set of data and budget, then the differences."""
    base = {row["data"]: row for row in rows if row["recipe"] == "base"}
    lines = []
    for group in _groups(rows):
        lines += [f"### {_words(group[0])}", "", f"| {' | '.join(COLUMNS)} |"]
        lines.append("| --- " * len(COLUMNS) + "|")
        reference = base.get(group[0]["data"])
        if reference is not None:
            guard = f"{reference['guard']['ndcg']:.4f} itself" if "guard" in reference else "-"
            lines.append(f"| base | - | {reference['test']['ndcg']:.4f} | - | {guard} | - | - | - | - |")
        for recipe in dict.fromkeys(row["recipe"] for row in group if row["recipe"] != "base"):
            own = [row for row in group if row["recipe"] == recipe]
            lines.append(_line(recipe, own, reference))
        lines.append("")
    found = differences(rows, against)
    if found:
        lines += [f"### Differences to {against}, points of nDCG@10 [95 % interval], paired by query", ""]
        lines += ["| where | recipe | mean over seeds | p | guard | seed by seed |", "| --- | --- | --- | --- | --- | --- |"]
        for d in found:
            guard = "-" if d.guard is None else _points(d.guard)
            seeds = "; ".join(f"{seed}: {_points(each)}" for seed, each in zip(d.seeds, d.each, strict=True))
            lines.append(f"| {d.where} | {d.recipe} | {_points(d.all)} | {d.all.p:.4f} | {guard} | {seeds} |")
        lines.append("")
    hows = dict.fromkeys(f"{row['recipe']}: {row['how']}" for row in rows if row["recipe"] != "base")
    lines += [f"- {how}" for how in hows]
    return "\n".join(lines) + "\n"


def plots(rows: Sequence[Row], against: str, folder: Path, name: str) -> list[Path]:
    """Writes the differences as points with intervals, and nDCG@10 over the number of pairs where there are several."""
    made = [path for path in (_plot_differences(differences(rows, against), against, folder, name),) if path]
    for data in dict.fromkeys(row["data"] for row in rows):
        own = [row for row in rows if row["data"] == data and row["recipe"] != "base"]
        if len({row["train_pairs"] for row in own}) > 1:
            lines = [_curve(recipe, own) for recipe in dict.fromkeys(row["recipe"] for row in own)]
            path = draw(
                Plan(out=folder), f"{name}-curve-{data}", f"{data}: test nDCG@10 by training pairs", Axis("training pairs", 10),
                Axis("nDCG@10"), lines,
            )  # fmt: skip
            made += [path] if path else []
    return made


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["recipe"] != "base":
            groups.setdefault(tuple(row[name] for name in SAME), []).append(row)
    return list(groups.values())


def _words(row: Row) -> str:
    budget = "no budget" if row["seconds"] is None else f"{row['seconds']:g} s of {'processor' if row['clock'] == 'cpu' else 'wall'} time"
    return f"{row['data']}, {row['train_pairs']:,} pairs, {budget}, {row['device']}"


def _line(recipe: str, rows: Sequence[Row], base: Row | None) -> str:
    def mean(name: str) -> float:
        return float(np.mean([row[name] for row in rows]))

    gains = "-" if base is None else f"{100 * np.mean([row['test']['ndcg'] - base['test']['ndcg'] for row in rows]):+.2f}"
    guard = "-"
    if base is not None and "guard" in base and all("guard" in row for row in rows):
        drops = [100 * (row["guard"]["ndcg"] - base["guard"]["ndcg"]) for row in rows]
        guard = f"{np.mean(drops):+.2f} (worst {min(drops):+.2f})"
    return (
        f"| {recipe} | {len(rows)} | {np.mean([row['test']['ndcg'] for row in rows]):.4f} | {gains} | {guard} | "
        f"{mean('pairs_per_second'):,.1f} | {mean('pairs_seen'):,.0f} | {mean('wall_seconds'):,.1f} / {mean('cpu_seconds'):,.1f} | "
        f"{mean('peak_bytes') / 2**20:,.0f} |"
    )


def _minus(a: Row, b: Row, what: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    if a[what]["queries"] != b[what]["queries"]:
        raise ValueError(f"{a['key']} and {b['key']} were measured on different queries of {what}: measure one of them again")
    return np.asarray(a[what]["values"], np.float64) - np.asarray(b[what]["values"], np.float64)


def _mean(couples: Sequence[tuple[Row, Row]], what: str) -> Paired:
    return paired_columns(np.mean([_minus(a, b, what) for a, b in couples], axis=0)[:, None])[0]


def _mean_or_none(couples: Sequence[tuple[Row, Row]], what: str) -> Paired | None:
    return _mean(couples, what) if all(what in row for couple in couples for row in couple) else None


def _points(value: Paired) -> str:
    return f"{100 * value.mean:+.2f} [{100 * value.low:+.2f}, {100 * value.high:+.2f}]"


def _curve(recipe: str, rows: Sequence[Row]) -> Line:
    points: dict[int, list[float]] = {}
    for row in rows:
        if row["recipe"] == recipe:
            points.setdefault(row["train_pairs"], []).append(row["test"]["ndcg"])
    xs = sorted(points)
    return Line(recipe, xs, [float(np.mean(points[x])) for x in xs], ours=recipe.startswith("ours"))


def _plot_differences(found: Sequence[Difference], against: str, folder: Path, name: str) -> Path | None:
    if not found or find_spec("matplotlib") is None:
        return None
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams["svg.hashsalt"] = "nearfield"
    pyplot.rcParams["svg.fonttype"] = "none"
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.5 * len(found)), layout="constrained")
    for place, d in enumerate(found):
        mean, low, high = 100 * d.all.mean, 100 * d.all.low, 100 * d.all.high
        axes.errorbar([mean], [place], xerr=[[mean - low], [high - mean]], fmt="o", color="tab:blue", capsize=4)
        axes.plot([100 * each.mean for each in d.each], [place] * len(d.each), "|", color="tab:grey", markersize=12)
    axes.set_yticks(range(len(found)), [f"{d.recipe}: {d.where}" for d in found])
    axes.axvline(0, color="black", linewidth=1)
    axes.set_xlabel(f"points of nDCG@10 above {against}, 95 % interval; strokes: single seeds")
    axes.invert_yaxis()
    axes.grid(True, axis="x", alpha=0.3)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-differences.svg"
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path
