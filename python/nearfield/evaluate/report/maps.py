"""A map as SVG paths: one for each part of the corpus, a dot for each document."""

from __future__ import annotations

from dataclasses import dataclass

from nearfield.evaluate.study.results import CorpusMap, Side


@dataclass(frozen=True, slots=True)
class Pin:
    """A marked query and its relevant document: coordinates on the map."""

    name: str
    query: str
    style: str
    x: int
    y: int
    document_x: int
    document_y: int


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
    pins = [
        Pin(mark.name, mark.query, "win" if mark.name.startswith("W") else "loss",
            *side.points[mark.query_point], *side.points[mark.document_point])
        for mark in drawn.marks
    ]  # fmt: skip
    same, chance, kept = (f"{100 * share:.0f} %" for share in (side.same_part, drawn.by_chance, side.kept))
    text = (
        f"Of a document's ten nearest by its vector, {same} are of its own part (by chance {chance}); "
        f"{kept} of the ten are among the ten nearest on the map."
    )
    return Picture(title, text, [(part, "".join(paths)) for part, paths in sorted(dots.items(), reverse=True)], pins)
