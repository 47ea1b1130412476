"""Retrieval metrics and their statistics as plain loops, written from the definitions alone."""

from __future__ import annotations

import itertools
import math


def ndcg(ranked: list[str], judged: dict[str, int], k: int) -> float:
    def dcg(grades: list[int]) -> float:
        total = 0.0
        for rank, grade in enumerate(grades[:k], start=1):
            total += max(grade, 0) / math.log2(rank + 1)
        return total

    ideal = dcg(sorted(judged.values(), reverse=True))
    return dcg([judged.get(document, 0) for document in ranked]) / ideal if ideal else 0.0


def mrr(ranked: list[str], judged: dict[str, int], k: int) -> float:
    for rank, document in enumerate(ranked[:k], start=1):
        if judged.get(document, 0) > 0:
            return 1.0 / rank
    return 0.0


def recall(ranked: list[str], judged: dict[str, int], k: int) -> float:
    relevant = {document for document, grade in judged.items() if grade > 0}
    return len(relevant & set(ranked[:k])) / len(relevant)


def average_precision(ranked: list[str], judged: dict[str, int]) -> float:
    relevant = {document for document, grade in judged.items() if grade > 0}
    found, total = 0, 0.0
    for rank, document in enumerate(ranked, start=1):
        if document in relevant:
            found += 1
            total += found / rank
    return total / len(relevant)


def sign_flip_p(differences: list[float]) -> float:
    """The two-sided p-value over all 2^n sign patterns."""
    observed = abs(sum(differences))
    patterns = list(itertools.product((-1, 1), repeat=len(differences)))
    extreme = sum(abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= observed - 1e-12 for signs in patterns)
    return extreme / len(patterns)


def bootstrap_means(values: list[float]) -> list[float]:
    """The means of all n^n resamples, sorted: the exact bootstrap distribution."""
    n = len(values)
    return sorted(sum(sample) / n for sample in itertools.product(values, repeat=n))
