"""BM25 and reciprocal-rank fusion as plain loops, written from the papers' formulas alone; fusion in exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

# Lucene's English stop words, as its EnglishAnalyzer lists them.
STOP = """
a an and are as at be but by for if in into is it no not of on or such that the their then there these they this to was will with
""".split()  # noqa: SIM905 (quoted words read worse)


def split_words(text: str) -> list[str]:
    found, current = [], ""
    for letter in text.lower() + " ":
        if letter.isalnum() or letter == "_":
            current += letter
        elif current:
            found.append(current)
            current = ""
    return found


def bm25(documents: list[str], query: str, *, k1: float = 1.2, b: float = 0.75) -> list[float]:
    """The score of every document, in float64."""
    rows = [split_words(document) for document in documents]
    average = sum(len(row) for row in rows) / len(rows)
    asked = split_words(query)
    meaningful = [word for word in asked if word not in STOP]
    scores = []
    for row in rows:
        total = 0.0
        for word in meaningful or asked:
            count = row.count(word)
            holding = sum(word in other for other in rows)
            if count:
                idf = math.log(1.0 + (len(rows) - holding + 0.5) / (holding + 0.5))
                total += idf * count / (count + k1 * (1.0 - b + b * len(row) / average))
        scores.append(total)
    return scores


def ranking(scores: list[float], depth: int) -> list[int]:
    """Positions of positive scores, best first, ties in order."""
    positive = [position for position, score in enumerate(scores) if score > 0]
    return sorted(positive, key=lambda position: (-scores[position], position))[:depth]


def fused(lists: list[list[str]], documents: list[str], depth: int, k: int = 60) -> list[str]:
    sums: dict[str, Fraction] = {}
    for row in lists:
        for place, document in enumerate(row):
            sums[document] = sums.get(document, Fraction(0)) + Fraction(1, k + place + 1)
    order = [document for document in documents if document in sums]
    for end in range(len(order)):  # insertion sort: stable, and nothing to trust
        while end and sums[order[end]] > sums[order[end - 1]]:
            order[end - 1], order[end] = order[end], order[end - 1]
            end -= 1
    return order[:depth]
