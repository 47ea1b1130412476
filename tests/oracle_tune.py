"""The training loss as loops over float64 numbers: slow, and nothing to get wrong."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def cosine(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    return float(sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b)))


def info_nce(queries, documents, target, relevant, temperature: float, symmetric: bool) -> float:  # type: ignore[no-untyped-def]
    """Mean over the rows of -log softmax of the target among the target and the documents that are not relevant."""
    rows, columns = len(queries), len(documents)
    total = 0.0
    for i in range(rows):
        seen = [j for j in range(columns) if j == target[i] or not relevant[i][j]]
        total += _entropy([cosine(queries[i], documents[j]) / temperature for j in seen], seen.index(target[i]))
    if not symmetric:
        return total / rows
    back = 0.0
    for i in range(rows):
        document = target[i]
        seen = [k for k in range(rows) if k == i or not (relevant[k][document] or target[k] == document)]
        back += _entropy([cosine(queries[k], documents[document]) / temperature for k in seen], seen.index(i))
    return (total + back) / rows / 2


def _entropy(scores: list[float], right: int) -> float:
    top = max(scores)
    return math.log(sum(math.exp(s - top) for s in scores)) + top - scores[right]
