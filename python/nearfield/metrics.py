"""Retrieval metrics per query, from ranked document ids and relevance judgements.

Definitions are those of trec_eval: nDCG takes the grade itself as the gain and divides the gain at rank r by log2(r + 1); the ideal
ranking holds every judged document of the query, found or not. MRR@k is 1 / rank of the first relevant document, 0 if it is not among the
first k. Recall@k is the share of the relevant documents found among the first k. MAP averages the precision at the rank of each
relevant document over *all* relevant documents; a document below the depth of the list counts as never found, so its name carries
the depth: ``map@100``. A grade of 0 or less means not relevant. Sums run in float64.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nearfield.arrays import check_k
from nearfield.errors import InputError

Values = npt.NDArray[np.float64]

# The cut-offs of recall that every report shows: the first hit, one screen, and what a reranker would be given.
RECALL_CUTS = (1, 10, 100)
DEPTH = 100


@dataclass(frozen=True)
class QueryMetrics:
    """The metrics of one run, query by query.

    Attributes:
        query_ids: the ``n`` queries that have at least one relevant document, in the order of the run.
        values: metric name -> ``(n,)`` float64 in [0, 1]; names: ``ndcg@k``, ``mrr@k``, ``recall@1``, ``recall@10``, ``recall@100``,
            ``map@depth``.
        positions: ``(n,)`` int64: where each of those queries stands in the run.
        without_relevant: how many queries of the run were left out because no document is judged relevant to them.
        depth: the length of the ranked lists that MAP and recall saw.
    """

    query_ids: list[str]
    values: dict[str, Values]
    positions: npt.NDArray[np.int64]
    without_relevant: int
    depth: int

    def means(self) -> dict[str, float]:
        """The mean of each metric over the queries; NaN where no query has a relevant document."""
        return {name: float(values.mean()) if len(values) else float("nan") for name, values in self.values.items()}


def score_run(
    query_ids: Sequence[str],
    ranked: Sequence[Sequence[str | None]] | npt.NDArray[Any],
    qrels: Mapping[str, Mapping[str, int]],
    *,
    k: int = 10,
    depth: int = DEPTH,
) -> QueryMetrics:
    """Scores ranked lists against judgements.

    Args:
        query_ids: the queries of the run.
        ranked: for each query its document ids, best first; rows may differ in length; None marks a missing place.
        qrels: query id -> {document id: grade}; grades <= 0 count as not relevant.
        k: the cut-off of nDCG and MRR; 10 is what most published results state.
        depth: places beyond it are ignored; raised to ``k`` where it is smaller.

    Raises:
        InputError: as many lists as queries expected; a document that stands twice in one list.

    >>> score_run(["q"], [["b", "a"]], {"q": {"a": 1}}).means()["mrr@10"]
    0.5
    """
    k = check_k(k)
    depth = max(depth, k)
    if len(query_ids) != len(ranked):
        raise InputError(f"ranked: {len(ranked)} lists given, {len(query_ids)} expected, one for each query")
    rows, kept, ideals = [], [], []
    for position, (query, row) in enumerate(zip(query_ids, ranked, strict=True)):
        relevant = {document: grade for document, grade in qrels.get(query, {}).items() if grade > 0}
        if not relevant:
            continue
        places = list(row[:depth])
        present = [document for document in places if document is not None]
        if len(set(present)) != len(present):
            raise InputError(f"ranked: a document stands twice in the list of query {query!r}: each document may be ranked once")
        rows.append([relevant.get(document, 0) if document is not None else 0 for document in places])
        ideals.append(sorted(relevant.values(), reverse=True))
        kept.append(position)
    gains, ideal = _rectangle(rows), _rectangle(ideals)
    counts = (ideal > 0).sum(axis=1)
    values = {f"ndcg@{k}": ndcg(gains, ideal, k), f"mrr@{k}": reciprocal_rank(gains, k)}
    values.update({f"recall@{cut}": recall(gains, counts, cut) for cut in sorted({*RECALL_CUTS, k}) if cut <= depth})
    values[f"map@{depth}"] = average_precision(gains, counts)
    left_out = len(query_ids) - len(kept)
    return QueryMetrics([query_ids[p] for p in kept], values, np.array(kept, np.int64), left_out, depth)


def ndcg_at(ranked: Sequence[Hashable] | npt.NDArray[Any], relevant: Mapping[Any, float] | Collection[Any], k: int = 10) -> float:
    """nDCG@k of one ranked list; 0 when nothing is relevant.

    Args:
        ranked: document ids or positions, best first, each once.
        relevant: {document: grade}, or the relevant documents alone (all with grade 1).
        k: the cut-off.

    >>> round(ndcg_at([7, 3, 5], {3}, k=10), 4)
    0.6309
    """
    grades = dict(relevant) if isinstance(relevant, Mapping) else dict.fromkeys(relevant, 1.0)
    top = ranked[:k].tolist() if isinstance(ranked, np.ndarray) else list(ranked[:k])
    gains = [max(grades.get(document, 0.0), 0.0) for document in top]
    ideal = sorted((max(grade, 0.0) for grade in grades.values()), reverse=True)
    return float(ndcg(_rectangle([gains]), _rectangle([ideal]), k)[0])


def ndcg(gains: Values, ideal: Values, k: int) -> Values:
    """nDCG@k of each row.

    Args:
        gains: ``(n, depth)`` the grade at each rank, 0 where the document is not relevant.
        ideal: ``(n, m)`` the grades of all relevant documents of the query, descending, padded with zeros.
        k: the cut-off.

    >>> ndcg(np.array([[0.0, 1.0]]), np.array([[1.0]]), 1)
    array([0.])
    """
    best = _discounted(ideal, k)
    return np.divide(_discounted(gains, k), best, out=np.zeros(len(gains)), where=best > 0)


def reciprocal_rank(gains: Values, k: int) -> Values:
    """1 / rank of the first relevant document among the first k of each row, else 0."""
    hit = gains[:, :k] > 0
    if not hit.shape[1]:
        return np.zeros(len(gains))
    return np.where(hit.any(axis=1), 1.0 / (hit.argmax(axis=1) + 1), 0.0)


def recall(gains: Values, counts: npt.NDArray[np.int64], k: int) -> Values:
    """The share of each row's ``counts`` relevant documents that stand among its first k."""
    return np.asarray((gains[:, :k] > 0).sum(axis=1) / counts, np.float64)


def average_precision(gains: Values, counts: npt.NDArray[np.int64]) -> Values:
    """Precision at the rank of each relevant document, averaged over all ``counts`` of them."""
    hit = gains > 0
    precision = np.cumsum(hit, axis=1) / np.arange(1, gains.shape[1] + 1)
    return np.asarray((precision * hit).sum(axis=1) / counts, np.float64)


def _discounted(gains: Values, k: int) -> Values:
    top = gains[:, :k]
    return np.asarray(top @ (1.0 / np.log2(np.arange(2, top.shape[1] + 2))), np.float64)


def _rectangle(rows: Sequence[Sequence[float]]) -> Values:
    width = max((len(row) for row in rows), default=0)
    out = np.zeros((len(rows), width))
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out
