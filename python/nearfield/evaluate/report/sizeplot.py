"""nDCG against bytes for each document's vector, as lines and dots of an SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nearfield.evaluate.report.charts import scale
from nearfield.evaluate.study.results import Size

# The plot's inner width and height, in its own units.
WIDTH, HEIGHT = 1000, 460


@dataclass(frozen=True, slots=True)
class Point:
    """A size on the plot, with its whisker from ``low`` to ``high`` (both on the plot; y grows downwards) and words for it."""

    x: float
    y: float
    low: float
    high: float
    hint: str


@dataclass(frozen=True, slots=True)
class Curve:
    """A storage: its number (which decides the colour), its name, an SVG path through its points."""

    number: int
    name: str
    path: str
    points: list[Point]


@dataclass(frozen=True, slots=True)
class Plot:
    """What the template draws: ticks are (place, label)."""

    across: list[tuple[float, str]]
    up: list[tuple[float, str]]
    curves: list[Curve]


def size_plot(sizes: Sequence[Size]) -> Plot | None:
    """Places the sizes: bytes on a logarithmic scale from left to right, the metric upwards; None where there are fewer than two."""
    if len(sizes) < 2:
        return None
    ends = [end for size in sizes for end in (size.metric.mean, size.metric.low, size.metric.high) if not math.isnan(end)]
    bottom, top, ticks = scale(min(ends), max(ends))
    first = math.floor(math.log2(min(size.bytes for size in sizes)))
    last = max(math.ceil(math.log2(max(size.bytes for size in sizes))), first + 1)

    def x_of(count: float) -> float:
        return round(WIDTH * (math.log2(count) - first) / (last - first), 1)

    def y_of(value: float) -> float:
        return round(HEIGHT * (1 - (min(max(value, bottom), top) - bottom) / (top - bottom)), 1)

    curves = []
    for number, storage in enumerate(dict.fromkeys(size.storage for size in sizes)):
        points = []
        for size in sorted((size for size in sizes if size.storage == storage), key=lambda size: size.bytes):
            metric = size.metric
            low, high = (metric.mean, metric.mean) if math.isnan(metric.low) else (metric.low, metric.high)
            hint = f"{storage}, {size.dim:,} columns, {size.bytes:,} bytes: {metric.mean:.3f}"
            points.append(Point(x_of(size.bytes), y_of(metric.mean), y_of(low), y_of(high), hint))
        path = "M" + "L".join(f"{point.x} {point.y}" for point in points)
        curves.append(Curve(number, storage, path, points))
    across = [(x_of(2**power), f"{2**power:,}") for power in range(first, last + 1)]
    return Plot(across, [(y_of(value), label) for value, label in ticks], curves)
