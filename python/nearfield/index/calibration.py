"""How wide a walk must be for a recall: measured on rows of the index itself, each taken out while it is searched for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nearfield import _core
from nearfield.errors import InputError
from nearfield.types import FloatArray

# The k that are measured; between them widths are interpolated.
KS = (10, 100)
# Widths tried, in multiples of k, until a recall of ENOUGH.
WIDTHS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0)
ENOUGH = 0.998
# Rows searched for: at recall 0.95 the mean of 256 is known to about 0.005, which is taken off (Point.recall).
SAMPLE = 256
# Smaller indexes are scanned, or nearly so.
LEAST_ROWS = 2_000
# Rows that are evenly spread in d dimensions have growth 2 / d; beyond this a line's.
MOST_GROWTH = 2.0
# Squared norms that differ by no more than this share are one: half a percent in length.
ALIKE = 0.01


@dataclass(frozen=True)
class Point:
    """A width and the recall it gives: the sample's mean less its standard error."""

    ef: int
    recall: float


class Growth(NamedTuple):
    """How distances from a row grow with rank r.

    Attributes:
        rate: ``|q - x_r|^2 ~ r ** rate``.
        near: a quarter of the usual distance at rank 10; by inner products, half of its square.
        square: by inner products, the squared norm of every row; 1 for cosine.
    """

    rate: float
    near: float
    square: float


@dataclass(frozen=True)
class Calibration:
    """Recall by width of the walk.

    Attributes:
        rows: live rows when it was made.
        points: for each k measured, rising in both values.
        growth: a frozen graph's walks end by distance with it; None where they end when their room is full.
    """

    rows: int
    points: dict[int, tuple[Point, ...]]
    growth: Growth | None = None

    def width(self, k: int, target: float) -> int:
        """The smallest ef that meets ``target`` at ``k``; where none measured does, the largest that was.

        Between the k measured it is interpolated, both on a logarithmic scale; below them it is that of the least k, which needs no less;
        above them it grows with k.

        >>> points = {10: (Point(10, 0.8), Point(20, 0.9), Point(40, 0.98)), 100: (Point(100, 0.9), Point(200, 0.99))}
        >>> made = Calibration(5_000, points)
        >>> made.width(10, 0.9), made.width(10, 0.94), made.width(3, 0.9), made.width(100, 0.9), made.width(200, 0.9), made.width(10, 1.0)
        (20, 30, 20, 100, 200, 40)
        >>> made.width(32, 0.9)
        46
        """
        ks = sorted(self.points)
        efs = [_reach(self.points[each], target) for each in ks]
        if k > ks[-1]:
            return math.ceil(efs[-1] * k / ks[-1])
        return math.ceil(math.exp(np.interp(math.log(k), np.log(ks), np.log(efs))) - 1e-9)

    def to_json(self) -> dict[str, Any]:
        """For the file's description."""
        made: dict[str, Any] = {
            "rows": self.rows,
            "points": {str(k): [[p.ef, p.recall] for p in points] for k, points in self.points.items()},
        }
        return made if self.growth is None else {**made, "growth": list(self.growth)}

    @classmethod
    def from_json(cls, given: Any) -> Calibration | None:
        """What ``to_json`` made, checked; None for None. Raises InputError for anything else.

        >>> made = Calibration(5_000, {10: (Point(10, 0.5), Point(20, 0.75))})
        >>> Calibration.from_json(made.to_json()) == made
        True
        """
        if given is None:
            return None
        try:
            points = {int(k): tuple(Point(int(ef), float(recall)) for ef, recall in each) for k, each in given["points"].items()}
            rows = int(given["rows"])
            growth = None if given.get("growth") is None else _growth_of(*given["growth"])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as problem:
            raise InputError(f"calibration: {problem}") from problem
        whole = all(1 <= p.ef <= 2**20 and 0 <= p.recall <= 1 for each in points.values() for p in each)
        if not whole or not points or not all(points.values()) or not all(1 <= k <= 2**20 for k in points) or rows < 0:
            raise InputError("calibration: a width or a recall out of range")
        return cls(rows, points, growth)


def _growth_of(rate: Any, near: Any, square: Any) -> Growth:
    """A growth from a file. Raises ValueError for numbers out of range."""
    found = Growth(float(rate), float(near), float(square))
    if not (0 < found.rate <= MOST_GROWTH and 0 <= found.near < math.inf and 0 <= found.square < math.inf):
        raise ValueError(f"growth {list(found)} out of range")
    return found


def _reach(points: Sequence[Point], target: float) -> float:
    """The ef at ``target``, between the first point that reaches it and the one before."""
    for i, point in enumerate(points):
        if point.recall < target:
            continue
        if i == 0 or point.recall == points[i - 1].recall:
            return float(point.ef)
        before = points[i - 1]
        return before.ef + (point.ef - before.ef) * (target - before.recall) / (point.recall - before.recall)
    return float(points[-1].ef)


def calibrate(graph: _core.HnswView | _core.Frozen, seed: int, threads: int) -> Calibration | None:
    """Measures recall by width; None where the index is too small for it to matter.

    Each sampled row is a query, and its own node is not there for the walk: a query that is in the graph would be found by its own links.
    The true neighbours come from a scan of all rows by the same scores; the row itself is left out of them. The answer depends on the
    graph and the seed alone.
    """
    if graph.live < LEAST_ROWS:
        return None
    sample = np.sort(np.random.default_rng(seed).choice(graph.live_slots(), SAMPLE, replace=False))
    queries, limit = graph.get(sample), graph.slots
    most = max(k for k in KS if k == KS[0] or 20 * k <= graph.live)
    truth = _others(graph.search(queries, most + 1, limit, most, threads=threads, mode="scan")[:2], sample, most)
    growth = _measure_growth(queries, truth, graph.params()["metric"]) if isinstance(graph, _core.Frozen) else None
    if isinstance(graph, _core.Frozen) and growth is not None:
        graph.set_growth(*growth)
    points = {}
    for k in (k for k in KS if k <= most):
        measured: list[Point] = []
        for times in WIDTHS:
            ef = math.ceil(times * k)
            found = _others(graph.search(queries, k, limit, ef, threads=threads, mode="walk", skip=sample)[:2], sample, k)
            shares = (found >= truth[:, k - 1 : k]).mean(axis=1)
            recall = max(0.0, float(shares.mean() - shares.std() / math.sqrt(SAMPLE)))
            measured.append(Point(ef, max(recall, measured[-1].recall if measured else 0.0)))
            if recall >= ENOUGH:
                break
        points[k] = tuple(measured)
    return Calibration(graph.live, points, growth)


def _measure_growth(queries: FloatArray, scores: FloatArray, metric: str) -> Growth | None:
    """The growth that the sorted true scores (nq, most) of stored rows tell. Rounded, so that the last bits of a sum do not show in files.

    None where inner products are no distances because rows differ in length, and where most rows equal each other.

    >>> ranks = np.arange(1, 101)
    >>> _measure_growth(np.ones((9, 2), np.float32), -np.tile(ranks**0.25, (9, 1)), "l2")
    Growth(rate=0.25, near=0.445, square=0.0)
    """
    if scores.shape[1] < KS[-1]:
        return None
    lengths = (queries.astype(np.float64) ** 2).sum(axis=1)
    square = {"cosine": 1.0, "l2": 0.0, "ip": float(lengths.mean())}[metric]
    if metric == "ip" and np.ptp(lengths) > ALIKE * square:
        return None
    near, far = (scores[:, k - 1].astype(np.float64) for k in (KS[0], KS[-1]))
    first, last = (-near, -far) if metric == "l2" else (square - near, square - far)
    apart = (first > 0) & np.isfinite(last)
    if apart.mean() < 0.5:
        return None
    rate = float(np.log(last[apart] / first[apart]).mean() / math.log(KS[-1] / KS[0]))
    found = Growth(*(float(f"{value:.3g}") for value in (rate, np.median(first[apart]) / 4, square)))
    return found if 0 < found.rate <= MOST_GROWTH else None


def _others(answer: tuple[Any, FloatArray], own: Any, k: int) -> FloatArray:
    """Scores of the first k results that are not the query's own row, in order; -inf in missing places."""
    slots, scores = answer
    kept = np.where((slots == own[:, None]) | (slots < 0), -np.inf, scores)
    return -np.sort(-kept, axis=1)[:, :k]
