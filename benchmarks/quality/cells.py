"""The table on disk: one JSON line for each finished cell, so that a comparison of hours goes on where it was stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

# Seconds of measuring where nothing has been measured yet: medquad and squad_general took 60 to 120 on two cores.
UNKNOWN = 120.0


@dataclass(frozen=True)
class Cell:
    """One training run and its measurement.

    Attributes:
        recipe, data: their names.
        seed: of training, and of the choice of pairs.
        pairs: how many training pairs are given; None: all.
        seconds: budget of training, None: as long as the recipe takes.
        clock: "wall", or "cpu": processor time of all threads, for machines with other work on them.
        device: "cpu" or "cuda".
    """

    recipe: str
    data: str
    seed: int
    pairs: int | None
    seconds: float | None
    clock: str
    device: str

    @property
    def key(self) -> str:
        """The name of the cell, for --only and for people.

        >>> Cell("ours", "nl2bash", 0, None, 20.0, "wall", "cuda").key
        'nl2bash/ours/all/20s-wall-cuda/seed0'
        """
        time = "free" if self.seconds is None else f"{self.seconds:g}s"
        return f"{self.data}/{self.recipe}/{self.pairs or 'all'}/{time}-{self.clock}-{self.device}/seed{self.seed}"


def grid(recipes: Sequence[str], data: Sequence[str], seeds: Sequence[int], pairs: Sequence[int | None], **same: Any) -> list[Cell]:
    """Returns all cells, recipes innermost: those that are compared run one after the other and meet the same hour of the machine.

    The base is one cell for each set of data: it has neither seed nor budget.
    """
    cells: dict[str, Cell] = {}
    for seed, name, count, recipe in product(seeds, data, pairs, recipes):
        cell = Cell(recipe, name, seed, count, **same)
        if recipe == "base":
            cell = Cell(recipe, name, 0, None, None, same["clock"], same["device"])
        cells.setdefault(cell.key, cell)
    return list(cells.values())


def expected_seconds(cell: Cell, rows: Sequence[dict[str, Any]]) -> float | None:
    """How long a cell will take by what the table has: training as its budget says or as the same recipe took, measuring as on its data.

    None where there is neither a budget nor an earlier cell of the recipe; the base trains nothing.
    """
    alike = [row["wall_seconds"] for row in rows if (row["recipe"], row["data"]) == (cell.recipe, cell.data)]
    training = 0.0 if cell.recipe == "base" else max(alike, default=cell.seconds)
    measuring = [row["measuring_seconds"] for row in rows if row["data"] == cell.data] or [row["measuring_seconds"] for row in rows]
    return None if training is None else training + max(measuring, default=UNKNOWN)


class Table:
    """The finished cells in a file of JSON lines.

    A line that a kill left half written is not JSON; it is left away, and its cell runs again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[dict[str, Any]]:
        """Returns the finished cells, the last line of a key where it was measured twice."""
        rows: dict[str, dict[str, Any]] = {}
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                    rows[row["key"]] = row
                except (ValueError, KeyError, TypeError):
                    continue
        return list(rows.values())

    def missing(self, cells: Iterable[Cell]) -> list[Cell]:
        """Returns the cells that are not there yet, in order."""
        done = {row["key"] for row in self.rows()}
        return [cell for cell in cells if cell.key not in done]

    def add(self, cell: Cell, result: dict[str, Any]) -> None:
        """Appends a finished cell and waits for the disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"key": cell.key, **asdict(cell), **result}, allow_nan=False) + "\n"
        torn = self.path.is_file() and self.path.stat().st_size and not self.path.read_bytes().endswith(b"\n")
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" * bool(torn) + line)
            file.flush()
            os.fsync(file.fileno())
