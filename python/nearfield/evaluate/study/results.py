"""What a study found: plain values that save as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nearfield.evaluate.significance import Interval, Paired
from nearfield.types import Storage

# Storages of an index, and what is computed here alone: signs that find candidates, which int8 rows score again.
Kept = Storage | Literal["1 bit"]
Word = Literal["better", "worse", "not sure", "too few queries", ""]


@dataclass(frozen=True, slots=True)
class Slice:
    """Some of the queries.

    Attributes:
        name: what they have in common, for example ``"4 to 6 words"``.
        queries: how many.
        after: mean nDCG@k of the model with its 95 % interval.
        before, change: the same of the model compared with, and the paired difference; None without one.
        word: what the change says: ``"better"`` or ``"worse"`` for sure, ``"not sure"``, ``"too few queries"``; empty without a comparison.
    """

    name: str
    queries: int
    after: Interval
    before: Interval | None
    change: Paired | None
    word: Word


@dataclass(frozen=True, slots=True)
class Slicing:
    """All queries, divided by one property.

    Attributes:
        by: the property, for example ``"length of the query"``.
        how: how it was read from the data, in a sentence.
        slices: a query is in exactly one.
    """

    by: str
    how: str
    slices: list[Slice]


@dataclass(frozen=True, slots=True)
class Size:
    """One way to store the documents' vectors.

    Attributes:
        dim: columns kept; fewer than the model's are its first ones, normalized again.
        storage: as `nearfield.FlatIndex` takes it; or ``"1 bit"``: signs in memory find candidates, whose int8 rows on disk score them.
        bytes: of one document's stored vector; of its signs for ``"1 bit"``.
        queries: how many were asked.
        metric: mean nDCG@k with its 95 % interval.
        change: paired difference to all columns in float32; None for these themselves.
    """

    dim: int
    storage: Kept
    bytes: int
    queries: int
    metric: Interval
    change: Paired | None


@dataclass(frozen=True, slots=True)
class Latency:
    """Time from text to ids on this machine, in milliseconds for one call.

    Attributes:
        rows: queries of one call.
        calls: how many were timed, after one that was not.
        encode, search: (median, 95th percentile) of the two steps.
        total: the same of both together.
    """

    rows: int
    calls: int
    encode: tuple[float, float]
    search: tuple[float, float]
    total: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Mark:
    """A query whose answer changed most, with its relevant document, as positions in a map's points.

    Attributes:
        name: as the report numbers it: ``"W1"`` is the largest gain, ``"L1"`` the largest loss.
        query: its text.
        query_point, document_point: rows of `Side.points`.
    """

    name: str
    query: str
    query_point: int
    document_point: int


@dataclass(frozen=True, slots=True)
class Side:
    """One model's map.

    Attributes:
        points: (x, y) of each point, 0 to 1000, y downwards.
        same_part: share of the ten nearest documents, by the vectors themselves, that are of a document's own part.
        kept: share of a document's ten nearest by the vectors that are among its ten nearest on the map.
    """

    points: list[tuple[int, int]]
    same_part: float
    kept: float


@dataclass(frozen=True, slots=True)
class CorpusMap:
    """The corpus in two dimensions, before and after.

    Attributes:
        how: method, sample and seed, in a sentence.
        by: what the parts are.
        parts: their names.
        part: for each document on the map the position of its part in ``parts``; documents are the first points, queries the rest.
        documents: documents of the whole corpus.
        by_chance: what ``same_part`` would be if neighbours were drawn at random.
        before: None where no second model was given.
        after: the model.
        marks: the queries that are shown.
        seconds: what it took.
    """

    how: str
    by: str
    parts: list[str]
    part: list[int]
    documents: int
    by_chance: float
    before: Side | None
    after: Side
    marks: list[Mark]
    seconds: float


@dataclass(frozen=True, slots=True)
class Study:
    """What `nearfield.evaluate` measures with ``study=True``.

    Attributes:
        slicings: by query length and by part of the corpus.
        sizes: columns and storage against quality.
        sizes_asked: whose queries ``sizes`` asked, in a sentence.
        latencies: one query at a time, and many.
        map: of the corpus, or None.
        map_note: why there is no map, and how to get one; else empty.
    """

    slicings: list[Slicing]
    sizes: list[Size]
    sizes_asked: str
    latencies: list[Latency]
    map: CorpusMap | None
    map_note: str
