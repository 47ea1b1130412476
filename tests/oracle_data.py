"""Near duplicates by comparing every text with every other one, on sets of Python tuples."""

from __future__ import annotations

import re


def shingle_set(text: str) -> set[tuple[str, ...]]:
    found = re.findall(r"[a-z0-9]+", text.lower())
    return {tuple(found[i : i + 3]) for i in range(max(1, len(found) - 2))}


def near_pairs(texts: list[str], threshold: float) -> list[tuple[int, int]]:
    sets = [shingle_set(text) for text in texts]
    return [
        (i, j) for i in range(len(sets)) for j in range(i + 1, len(sets)) if len(sets[i] & sets[j]) >= threshold * len(sets[i] | sets[j])
    ]


def components(n: int, pairs: list[tuple[int, int]]) -> list[list[int]]:
    label = list(range(n))
    for _ in range(n):
        before = list(label)
        for i, j in pairs:
            label[i] = label[j] = min(label[i], label[j])
        if label == before:
            break
    groups = [[i for i in range(n) if label[i] == name] for name in sorted(set(label))]
    return [group for group in groups if len(group) > 1]
