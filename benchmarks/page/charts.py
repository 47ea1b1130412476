"""Lines and points over two axes, as SVG whose colours are the page's: the same figures give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from benchmarks.core.tables import number

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 84, 16, 22, 54
# Colours of the page for peers and for ours; after the last they begin again with another dash.
COLOURS, OURS = 9, 4
DASHES = ("", "5 3", "2 3")
# Labels on a logarithmic axis within one decade.
STEPS = (1, 2, 5)


@dataclass(frozen=True)
class Line:
    """One engine's points in the order in which they are joined; ``joined`` False draws them alone."""

    label: str
    points: Sequence[tuple[float, float]]
    ours: bool = False
    joined: bool = True


@dataclass(frozen=True)
class Axis:
    """What it shows, whether it is logarithmic, and its ends where they are not those of the points."""

    label: str
    log: bool = False
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Chart:
    """A plot with its title; ``roofs`` are drawn thin and grey behind the lines, with their names at their ends."""

    title: str
    x: Axis
    y: Axis
    lines: Sequence[Line]
    roofs: Sequence[Line] = ()
    note: str = ""


class Scale:
    """Values of one axis to pixels."""

    def __init__(self, axis: Axis, values: Sequence[float], start: float, end: float) -> None:
        self.log, self.start, self.end = axis.log, start, end
        low = min(values) if axis.low is None else axis.low
        high = max(values) if axis.high is None else axis.high
        if self.log:
            low, high = (low / 1.15, high * 1.15) if low > 0 else (high / 10, high)
        elif axis.low is None:
            low = min(low, 0.0)
        self.low, self.high = low, high if high > low else low + 1

    def __call__(self, value: float) -> float:
        if self.log:
            part = (math.log(max(value, self.low)) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values inside the axis, four to ten of them."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            inside = [step * 10.0**d for d in decades for step in STEPS if self.low <= step * 10.0**d <= self.high]
            return inside if len(inside) <= 10 else [tick for tick in inside if math.isclose(math.log10(tick) % 1, 0, abs_tol=1e-9)]
        raw = (self.high - self.low) / 6
        size = 10.0 ** math.floor(math.log10(raw))
        step = next(factor * size for factor in (1, 2, 5, 10) if factor * size >= raw)
        first = math.ceil(self.low / step)
        return [round(i * step, 12) for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def svg(chart: Chart) -> str:
    """The plot without its title and legend."""
    points = [point for line in chart.lines for point in line.points]
    x = Scale(chart.x, [point[0] for point in points], LEFT, WIDTH - RIGHT)
    y = Scale(chart.y, [point[1] for point in points] + [point[1] for roof in chart.roofs for point in roof.points], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(chart.title)}" xmlns="http://www.w3.org/2000/svg">',
        *_grid(chart, x, y),
        *(part for roof in chart.roofs for part in _roof(roof, x, y)),
        # Ours last, so that they lie on top.
        *(part for line, style in sorted(zip(chart.lines, styles(chart), strict=True), key=_ours) for part in _line(line, style, x, y)),
        "</svg>",
    ]
    return "".join(parts)


def _grid(chart: Chart, x: Scale, y: Scale) -> list[str]:
    out = []
    for tick in x.ticks():
        at = f"{x(tick):.1f}"
        out.append(f'<line class="g" x1="{at}" x2="{at}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        out.append(f'<text x="{at}" y="{HEIGHT - BOTTOM + 19}" text-anchor="middle">{_label(tick)}</text>')
    for tick in y.ticks():
        at = y(tick)
        out.append(f'<line class="g" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        out.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{_label(tick)}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(chart.x.label)}</text>')
    out.append(f'<text transform="translate(17 {middle}) rotate(-90)" text-anchor="middle">{escape(chart.y.label)}</text>')
    return out


def _label(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.6g}"


def styles(chart: Chart) -> list[tuple[str, str]]:
    """For each line its class and its dash. Ours have warm colours of their own."""
    ours = [line.ours for line in chart.lines]
    out = []
    for place, mine in enumerate(ours):
        before, colours = ours[:place].count(mine), OURS if mine else COLOURS
        out.append((f"{'o' if mine else 'c'}{before % colours}", DASHES[before // colours % len(DASHES)]))
    return out


def _ours(item: tuple[Line, object]) -> bool:
    return item[0].ours


def _line(line: Line, style: tuple[str, str], x: Scale, y: Scale) -> list[str]:
    name, dash = style
    places = [(x(a), y(b), a, b) for a, b in line.points]
    out = [f'<g class="{name}">']
    if line.joined and len(places) > 1:
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b, *_ in places)
        out.append(f'<polyline points="{path}"' + (f' stroke-dasharray="{dash}"' if dash else "") + "/>")
    for a, b, given_x, given_y in places:
        told = escape(f"{line.label}: {number(given_x) if given_x >= 1 else f'{given_x:.4f}'}, {number(given_y)}")
        out.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{5 if line.ours else 3.5}"><title>{told}</title></circle>')
    return [*out, "</g>"]


def _roof(roof: Line, x: Scale, y: Scale) -> list[str]:
    inside = [(min(max(a, x.low), x.high), b) for a, b in roof.points]
    path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in inside)
    end_x, end_y = inside[-1]
    place = f'x="{x(end_x) - 4:.1f}" y="{y(end_y) - 5:.1f}" text-anchor="end"'
    return [f'<polyline class="roof" points="{path}"/>', f'<text class="roof" {place}>{escape(roof.label)}</text>']


def legend(chart: Chart) -> str:
    """The names of the lines with their colours, as a list."""
    items = []
    for line, (name, dash) in zip(chart.lines, styles(chart), strict=True):
        stroke = f' stroke-dasharray="{dash}"' if dash and line.joined else ""
        shape = f'<line x1="1" x2="23" y1="6" y2="6"{stroke}/>' if line.joined else '<circle cx="12" cy="6" r="4.5"/>'
        items.append(f'<li><svg class="key {name}" viewBox="0 0 24 12">{shape}</svg>{escape(line.label)}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'
