"""Reciprocal-rank fusion: two ranked lists become one by their ranks alone, so that scores on different scales need no calibration."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from nearfield.evaluate.run import Run

# The paper's constant, fixed in a pilot study and left as it is for every collection; tuning it here would tune on the queries that judge.
RRF_K = 60


def fuse(first: Sequence[str | None], second: Sequence[str | None]) -> dict[str, float]:
    """Each document's sum of ``1 / (60 + rank)`` over the lists that hold it (Cormack, Clarke and Büttcher, SIGIR 2009).

    Args:
        first, second: document ids, best first, each at most once; None marks a missing place.

    >>> fuse(["a", "b"], ["b"]) == {"a": 1 / 61, "b": 1 / 62 + 1 / 61}
    True
    """
    scores: dict[str, float] = {}
    for ranked in (first, second):
        for rank, document in enumerate(ranked, start=1):
            if document is not None:
                scores[document] = scores.get(document, 0.0) + 1.0 / (RRF_K + rank)
    return scores


def fused_run(first: Run, second: Run, doc_ids: Sequence[str]) -> Run:
    """Fuses two runs over the same queries and documents, query by query; as deep as ``first``.

    Ties keep the order of ``doc_ids``. Where one run retrieved nothing, the other's order stands.
    """
    start = time.perf_counter()
    place = {document: position for position, document in enumerate(doc_ids)}
    rows, depth = len(first.ranked), first.ranked.shape[1]
    ranked = np.full((rows, depth), None, object)
    scores = np.full((rows, depth), np.nan, np.float32)
    for row, lists in enumerate(zip(first.ranked, second.ranked, strict=True)):
        sums = fuse(*lists)
        best = sorted(sums, key=lambda document: (-sums[document], place[document]))[:depth]
        ranked[row, : len(best)] = best
        scores[row, : len(best)] = [sums[document] for document in best]
    return Run(first.query_ids, first.query_texts, ranked, scores, 0, 0, {"fuse": time.perf_counter() - start}, False)
