"""Collects a study while an evaluation runs: vectors of one model at a time, and of each only what the map needs is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nearfield.data.dataset import Dataset
from nearfield.errors import MissingExtraError
from nearfield.evaluate.run import Encoded
from nearfield.evaluate.study.latency import measure_latency
from nearfield.evaluate.study.parts import parts_of
from nearfield.evaluate.study.projection import LEAST_POINTS, draw
from nearfield.evaluate.study.results import CorpusMap, Latency, Mark, Size, Study
from nearfield.evaluate.study.sizes import measure_sizes
from nearfield.evaluate.study.slices import slicings
from nearfield.metrics import QueryMetrics
from nearfield.search.encoders import TextEncoder
from nearfield.types import FloatArray

if TYPE_CHECKING:
    from nearfield.evaluate.results import QueryChange

# Documents on the map: as many as can be told apart, and two maps of these take some 15 seconds on one core.
MAP_DOCUMENTS = 1500
# Queries marked on it, for the largest gains and as many for the largest losses; more hide the documents.
MAP_MARKS = 5


class Gathering:
    """What is known of a study so far.

    Args:
        data: documents, queries and judgements.
        split, k, seed, threads: as for `nearfield.evaluate`.
        show: whether progress is shown.
    """

    def __init__(self, data: Dataset, *, split: str, k: int, seed: int, threads: int | None, show: bool) -> None:
        self.data, self.split, self.k, self.seed, self.threads, self.show = data, split, k, seed, threads, show
        self.parts = parts_of(data)
        drawn = np.random.default_rng(seed).permutation(len(data.doc_ids))[:MAP_DOCUMENTS]
        self.sample = np.sort(drawn)
        self.place = {identity: position for position, identity in enumerate(data.doc_ids)}
        judged = {self.place[doc] for grades in data.qrels.get(split, {}).values() for doc in grades if doc in self.place}
        self.kept = np.array(sorted({*drawn.tolist(), *judged}), np.int64)
        self.vectors: list[tuple[FloatArray, FloatArray]] = []
        self.queries: dict[str, int] = {}
        self.sizes: list[Size] = []
        self.asked = ""
        self.latencies: list[Latency] = []

    def look(self, encoder: TextEncoder, encoded: Encoded, metrics: QueryMetrics) -> None:
        """Takes what is needed of one model: first of the model measured, then of the one it is compared with."""
        if not self.vectors:
            self.sizes, self.asked = measure_sizes(
                encoded, self.data, metrics, split=self.split, k=self.k, seed=self.seed, threads=self.threads, show=self.show
            )
            self.latencies = measure_latency(encoder, encoded.query_texts, encoded.documents, k=self.k, threads=self.threads)
            self.queries = {identity: row for row, identity in enumerate(encoded.query_ids)}
        self.vectors.append((encoded.queries, encoded.documents[self.kept]))

    def finish(self, after: QueryMetrics, before: QueryMetrics | None, wins: Sequence[QueryChange], losses: Sequence[QueryChange]) -> Study:
        """Returns the study.

        Args:
            after, before: the metrics of the two models.
            wins, losses: the largest changes, which the map marks.
        """
        texts = dict(zip(self.data.query_ids, self.data.query_texts, strict=True))
        judged = [self.data.qrels[self.split][query] for query in after.query_ids]
        metric = f"ndcg@{self.k}"
        slices = slicings(
            [texts[query] for query in after.query_ids], judged, self.data.doc_ids, self.parts, after.values[metric],
            None if before is None else before.values[metric], seed=self.seed,
        )  # fmt: skip
        drawn, note = self._map(wins, losses)
        return Study(slices, self.sizes, self.asked, self.latencies, drawn, note)

    def _map(self, wins: Sequence[QueryChange], losses: Sequence[QueryChange]) -> tuple[CorpusMap | None, str]:
        named = [(f"W{place}", change) for place, change in enumerate(wins[:MAP_MARKS], start=1)]
        named += [(f"L{place}", change) for place, change in enumerate(losses[:MAP_MARKS], start=1)]
        named = [(name, change) for name, change in named if change.document_id in self.place]
        marked = np.array([self.place[change.document_id] for _, change in named], np.int64)
        shown = np.union1d(self.sample, marked)
        if len(shown) < LEAST_POINTS:
            return None, f"A map needs at least {LEAST_POINTS} documents; this corpus has {len(shown)}."
        document_points = np.searchsorted(shown, marked).tolist()
        marks = [
            Mark(name, change.query, len(shown) + row, point)
            for row, ((name, change), point) in enumerate(zip(named, document_points, strict=True))
        ]
        asked = np.array([self.queries[change.query_id] for _, change in named], np.int64)
        rows = np.searchsorted(self.kept, shown)
        points = [np.concatenate([documents[rows], queries[asked]]) for queries, documents in self.vectors]
        try:
            return draw(
                points[0], points[1] if len(points) > 1 else None, self.parts.of[shown], marks, self.parts, seed=self.seed, show=self.show
            ), ""
        except MissingExtraError as missing:
            return None, f"{missing}."
