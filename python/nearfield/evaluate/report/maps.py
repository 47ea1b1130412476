"""A map as SVG paths: one for each part of the corpus, a dot for each document."""

from __future__ import annotations

from dataclasses import dataclass

from nearfield.evaluate.study.results import CorpusMap, Side

Box = tuple[int, int, int, int]
"""Centre, width and height."""

# On the map's scale of 1,000: what a name of two letters and a mark take up, and where a name may stand around its query, the best first.
WIDTH, HEIGHT, SQUARE = 50, 34, 30
AROUND = ((0, -28), (0, 28), (38, 0), (-38, 0), (38, -28), (-38, -28), (38, 28), (-38, 28))


@dataclass(frozen=True, slots=True)
class Pin:
    """A marked query, its relevant document and its name: coordinates on the map."""

    name: str
    query: str
    style: str
    x: int
    y: int
    document_x: int
    document_y: int
    label_x: int
    label_y: int


@dataclass(frozen=True, slots=True)
class Picture:
    """One model's map as the template takes it.

    Attributes:
        title: which model.
        text: what is measured of it, in a sentence.
        paths: (number of the part, SVG path of its dots).
        pins: the marked queries.
    """

    title: str
    text: str
    paths: list[tuple[int, str]]
    pins: list[Pin]


def pictures(drawn: CorpusMap) -> list[Picture]:
    """Returns the maps, before first."""
    sides = [("Before", drawn.before), ("After", drawn.after)] if drawn.before is not None else [("The model", drawn.after)]
    return [_picture(title, side, drawn) for title, side in sides if side is not None]


def part_counts(drawn: CorpusMap) -> list[tuple[int, str, int]]:
    """Returns (number, name, documents on the map) of each part that has any."""
    counts = [drawn.part.count(number) for number in range(len(drawn.parts))]
    return [(number, name, counts[number]) for number, name in enumerate(drawn.parts) if counts[number]]


def _picture(title: str, side: Side, drawn: CorpusMap) -> Picture:
    dots: dict[int, list[str]] = {}
    for part, (x, y) in zip(drawn.part, side.points, strict=False):
        # A line of no length with a round cap is a dot; eleven bytes instead of forty for a circle.
        dots.setdefault(part, []).append(f"M{x} {y}h0")
    same, chance, kept = (f"{100 * share:.0f} %" for share in (side.same_part, drawn.by_chance, side.kept))
    text = (
        f"Of a document's ten nearest by its vector, {same} are of its own part (by chance {chance}); "
        f"{kept} of the ten are among the ten nearest on the map."
    )
    return Picture(title, text, [(part, "".join(paths)) for part, paths in sorted(dots.items(), reverse=True)], _pins(side, drawn))


def _pins(side: Side, drawn: CorpusMap) -> list[Pin]:
    """The marks, each with its name beside its query where it covers the fewest of what was placed before."""
    places = [side.points[point] for mark in drawn.marks for point in (mark.query_point, mark.document_point)]
    taken = [(x, y, SQUARE, SQUARE) for x, y in places]
    pins = []
    for mark in drawn.marks:
        x, y = side.points[mark.query_point]
        around = [(x + dx, y + dy, WIDTH, HEIGHT) for dx, dy in AROUND]
        best = min(around, key=lambda box: sum(_overlap(box, other) for other in taken))
        taken.append(best)
        style = "win" if mark.name.startswith("W") else "loss"
        pins.append(Pin(mark.name, mark.query, style, x, y, *side.points[mark.document_point], best[0], best[1]))
    return pins


def _overlap(one: Box, other: Box) -> int:
    """The area that two boxes share."""
    width, height = ((one[2 + i] + other[2 + i]) // 2 - abs(one[i] - other[i]) for i in (0, 1))
    return max(width, 0) * max(height, 0)
