"""Dots with whiskers as percentages of a track's width, so that the page's styles draw them at any width without a script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nearfield.evaluate.results import interval_text
from nearfield.evaluate.significance import Interval

STEPS = (0.01, 0.02, 0.05, 0.1, 0.2)
# More labelled lines than these run into each other on a phone.
MAX_TICKS = 6


@dataclass(frozen=True, slots=True)
class Line:
    """What one line of a chart shows: a name, figures in words, and values by style (``"before"``, ``"after"`` or ``"other"``)."""

    name: str
    text: str
    values: Sequence[tuple[str, Interval]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Dot:
    """A value on the track: all positions in percent of its width."""

    style: str
    at: float
    low: float
    width: float
    hint: str


@dataclass(frozen=True, slots=True)
class Row:
    """A line with its dots placed."""

    name: str
    text: str
    note: str
    dots: list[Dot]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart as the template takes it.

    Attributes:
        title: for people who cannot see it, and above it.
        ticks: (percent, label).
        rows: the lines.
        legend: (style, words).
    """

    title: str
    ticks: list[tuple[float, str]]
    rows: list[Row]
    legend: list[tuple[str, str]]


def chart(title: str, lines: Sequence[Line], legend: Sequence[tuple[str, str]] = ()) -> Chart:
    """Places lines on a scale that holds all of them; it need not begin at 0, since dots claim no length.

    >>> made = chart("nDCG@10", [Line("base", "", [("before", Interval(0.5, 0.45, 0.55))])])
    >>> made.ticks[0], made.ticks[-1], made.rows[0].dots[0].at
    ((0.0, '0.45'), (100.0, '0.55'), 50.0)
    """
    ends = [end for line in lines for _, value in line.values for end in _ends(value)]
    low, high, ticks = scale(min(ends), max(ends))

    def percent(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    rows = []
    for line in lines:
        dots = []
        for style, value in line.values:
            start, end = (percent(edge) for edge in _ends(value))
            dots.append(Dot(style, percent(value.mean), start, round(end - start, 2), interval_text(value)))
        rows.append(Row(line.name, line.text, line.note, dots))
    return Chart(title, [(percent(tick), label) for tick, label in ticks], rows, list(legend))


def scale(least: float, most: float) -> tuple[float, float, list[tuple[float, str]]]:
    """Returns the ends of a scale within 0 to 1 that holds both values, and its ticks with their labels.

    >>> scale(0.512, 0.638)
    (0.5, 0.65, [(0.5, '0.50'), (0.55, '0.55'), (0.6, '0.60'), (0.65, '0.65')])
    """
    for step in STEPS:
        low = math.floor(max(least, 0.0) / step + 1e-9)
        high = max(math.ceil(min(most, 1.0) / step - 1e-9), low + 1)
        if high - low < MAX_TICKS or step == STEPS[-1]:
            break
    digits = 1 if step >= 0.1 else 2
    ticks = [(round(number * step, 2), f"{number * step:.{digits}f}") for number in range(low, high + 1)]
    return ticks[0][0], ticks[-1][0], ticks


def _ends(value: Interval) -> tuple[float, float]:
    """The interval within 0 to 1, where the scale is; the mean where there is no interval."""
    if math.isnan(value.low):
        return value.mean, value.mean
    return max(value.low, 0.0), min(value.high, 1.0)
