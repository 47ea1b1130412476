"""Hard negatives out of the training documents: what the base finds for a query, without what may well be an answer.

Two filters keep false negatives out. The relative margin: a candidate whose score comes within 5 % of the positive's is left away (Moreira
et al. 2024, NV-Retriever, https://arxiv.org/abs/2407.15831). The teacher: a candidate that it puts as high as the positive is no negative.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from nearfield.config import TuneConfig
from nearfield.encode.tower import Tower
from nearfield.index.flat import FlatIndex
from nearfield.progress import Bar
from nearfield.tune.embed import vectors_of
from nearfield.tune.pairs import TokenIds, TrainingPairs
from nearfield.types import FloatArray, IntArray

# The first ranks that are looked at for each negative that is wanted: after both filters enough are left.
DEPTH_FACTOR, LEAST_DEPTH = 5, 30
# Queries searched in one call of the index.
BLOCK = 1024


class Teacher(Protocol):
    """Scores query and document pairs; higher is more relevant. The scale is the teacher's own."""

    def scores(self, queries: Sequence[TokenIds], documents: Sequence[TokenIds]) -> FloatArray:
        """Returns float32 ``(n,)``, one score for each pair of token ids."""


def mine(
    pairs: TrainingPairs, queries: FloatArray, documents: FloatArray, config: TuneConfig, teacher: Teacher | None = None
) -> TrainingPairs:
    """Returns ``pairs`` with up to ``config.mined_negatives`` mined negatives behind the labelled ones, the hardest first.

    Args:
        pairs: the training pairs.
        queries, documents: unit rows of ``pairs.queries`` and ``pairs.documents`` by the base.
        config: ``mined_negatives`` and ``mined_margin``.
        teacher: refuses candidates that it scores at least as high as the best of the query's positives.
    """
    wanted = config.mined_negatives
    found = candidates(queries, documents, depth=max(LEAST_DEPTH, DEPTH_FACTOR * wanted))
    mined: list[list[int]] = []
    for row, rows in enumerate(found):
        known, labelled = pairs.relevant[row], set(pairs.negatives[row])
        own = documents[sorted(known)] @ queries[row]
        limit = (1 - config.mined_margin) * float(own.min()) if len(own) else np.inf
        fit = [int(d) for d in rows if d >= 0 and d not in known and d not in labelled and float(documents[d] @ queries[row]) < limit]
        mined.append(fit[: wanted if teacher is None else 2 * wanted])
    if teacher is not None:
        mined = [rows[:wanted] for rows in _unlike(pairs, mined, teacher)]
    return dataclasses.replace(pairs, negatives=[(*old, *new) for old, new in zip(pairs.negatives, mined, strict=True)])


def candidates(queries: FloatArray, documents: FloatArray, *, depth: int) -> IntArray:
    """Returns ``(n, depth)`` document rows by exact search, best first, -1 where there are fewer documents."""
    index = FlatIndex(documents.shape[1])
    index.add(documents)
    return np.concatenate([index.search(queries[i : i + BLOCK], depth).ids for i in range(0, len(queries), BLOCK)])


def score_candidates(pairs: TrainingPairs, teacher: Teacher) -> dict[tuple[int, int], float]:
    """Returns the teacher's score of every pair and of every negative of its query, by (query row, document row)."""
    asked = sorted(
        {(int(q), int(d)) for q, d in pairs.pairs} | {(q, d) for q in {int(q) for q, _ in pairs.pairs} for d in pairs.negatives[q]}
    )
    values = teacher.scores([pairs.queries[q] for q, _ in asked], [pairs.documents[d] for _, d in asked])
    return dict(zip(asked, map(float, values), strict=True))


def _unlike(pairs: TrainingPairs, mined: list[list[int]], teacher: Teacher) -> list[list[int]]:
    asked = [(row, doc) for row, docs in enumerate(mined) for doc in (*sorted(pairs.relevant[row]), *docs)]
    values = teacher.scores([pairs.queries[q] for q, _ in asked], [pairs.documents[d] for _, d in asked])
    of = dict(zip(asked, map(float, values), strict=True))
    best = [max((of[row, doc] for doc in pairs.relevant[row]), default=np.inf) for row in range(len(mined))]
    return [[doc for doc in docs if of[row, doc] < best[row]] for row, docs in enumerate(mined)]


class BiEncoderTeacher:
    """A (larger) encoder as teacher: the cosine of its vectors. Its tokenizer must be the student's, for it is given token ids.

    Args:
        tower: the teacher.
        dtype, chunk_rows: as for ``embed``.
    """

    def __init__(self, tower: Tower, *, dtype: str, chunk_rows: int = 32, bar: Bar | None = None) -> None:
        self.tower, self.dtype, self.chunk_rows, self.bar = tower, dtype, chunk_rows, bar

    def scores(self, queries: Sequence[TokenIds], documents: Sequence[TokenIds]) -> FloatArray:
        """Returns cosines; every distinct text is encoded once."""
        sides = []
        for texts in (queries, documents):
            rows: dict[tuple[int, ...], int] = {}
            places = np.array([rows.setdefault(tuple(text), len(rows)) for text in texts], np.int64)
            vectors = vectors_of(self.tower, [list(text) for text in rows], chunk_rows=self.chunk_rows, dtype=self.dtype, bar=self.bar)
            sides.append(vectors[places])
        scores: FloatArray = np.einsum("nd,nd->n", *sides).astype(np.float32)
        return scores
