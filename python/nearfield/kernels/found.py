"""What a device answers to a search."""

from __future__ import annotations

from dataclasses import dataclass

from nearfield.types import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Found:
    """What a device found: positions, scores, counts and rescored as in ``Hits``.

    ``open`` (nq,) marks the queries whose answer it could not prove; the native engine answers these.
    """

    positions: IntArray
    scores: FloatArray
    counts: IntArray
    rescored: IntArray
    open: BoolArray
