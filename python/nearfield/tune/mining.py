"""Documents that share rare tokens with a query: plausible wrong answers, found over the whole corpus without encoding it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nearfield.types import IntArray

# Tokens in more than this share of the documents tell nothing and have the longest lists; without them 300 queries over 15,000
# documents take half a second.
COMMON = 0.1


def lexical_neighbours(queries: Sequence[Sequence[int]], documents: Sequence[Sequence[int]], k: int) -> list[IntArray]:
    """Returns for each query the rows of up to ``k`` documents that share its rarest tokens, best first, ties by row.

    The score is the sum of log(n / df) over the distinct shared tokens, divided by the square root of the document's distinct tokens;
    documents that share nothing are not returned. This is no ranker to search with: it only has to find hard rows cheaply.

    Args:
        queries: token ids of each query.
        documents: token ids of each of the n documents.
        k: rows per query at most.

    >>> [rows.tolist() for rows in lexical_neighbours([[7]], [[5, 7], [5, 6], [7]] + [[5]] * 18, 2)]
    [[2, 0]]
    """
    n = len(documents)
    distinct = [np.unique(np.asarray(row, np.int64)) for row in documents]
    sizes = np.array([len(row) for row in distinct], np.int64)
    tokens = np.concatenate(distinct) if distinct else np.empty(0, np.int64)
    order = np.argsort(tokens, kind="stable")
    postings, tokens = np.repeat(np.arange(n), sizes)[order], tokens[order]
    norm = np.sqrt(np.maximum(sizes, 1))
    found = []
    for query in queries:
        scores = np.zeros(n)
        wanted = np.unique(np.asarray(query, np.int64))
        for low, high in zip(np.searchsorted(tokens, wanted), np.searchsorted(tokens, wanted, side="right"), strict=True):
            if 0 < high - low <= max(COMMON * n, 1):
                scores[postings[low:high]] += np.log(n / (high - low))
        scores /= norm
        rows = np.argsort(-scores, kind="stable")[:k]
        found.append(rows[scores[rows] > 0])
    return found
