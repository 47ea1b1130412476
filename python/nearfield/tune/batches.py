"""Which pairs make up which step: a pure function of seed and step, so that a resumed run sees what an uninterrupted one would."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nearfield.config import TuneConfig
from nearfield.tune.pairs import TokenIds, TrainingPairs
from nearfield.types import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class Batch:
    """One step: ``B`` pairs over distinct texts, so that nothing is encoded twice.

    Attributes:
        queries: token ids of the distinct queries.
        documents: token ids of the ``C`` distinct documents: the pairs' own, then labelled negatives.
        query_of: ``(B,)`` int64, each pair's place in ``queries``.
        target: ``(B,)`` int64, each pair's place in ``documents``.
        relevant: ``(B, C)`` bool, True where the document is relevant to the pair's query.
        candidates: ``(B, 1 + m)`` int64, places of the pair's document and of its own negatives; -1 where there are fewer.
        teacher: float32 of the same shape, the teacher's scores of these; NaN where there is none.
        query_rows, document_rows: which rows of the training pairs' texts ``queries`` and ``documents`` are.
    """

    queries: list[TokenIds]
    documents: list[TokenIds]
    query_of: IntArray
    target: IntArray
    relevant: BoolArray
    candidates: IntArray
    teacher: FloatArray
    query_rows: IntArray
    document_rows: IntArray

    def __len__(self) -> int:
        return len(self.target)


class Batches:
    """The steps of a run; ``batches[step]`` for 0 <= step < len(batches).

    Each epoch is a new permutation of all pairs, cut into equal parts of at most ``batch_size`` (they differ by one pair at most: a short
    last batch would have fewer negatives than the others).
    """

    def __init__(self, pairs: TrainingPairs, config: TuneConfig) -> None:
        self.pairs, self.config = pairs, config
        self.per_epoch = -(-len(pairs.pairs) // config.batch_size)
        self._epoch, self._parts = -1, [np.empty(0, np.int64)]

    def __len__(self) -> int:
        return self.per_epoch * self.config.epochs

    def __getitem__(self, step: int) -> Batch:
        return self._assemble(*self._pairs_of(step))

    def texts(self, step: int) -> tuple[list[TokenIds], list[TokenIds]]:
        """The distinct queries and documents of a step, without the rest of it."""
        pairs, epoch = self._pairs_of(step)
        places, _ = self._documents_of(pairs, epoch)
        return [self.pairs.queries[row] for row in np.unique(pairs[:, 0])], [self.pairs.documents[row] for row in places]

    def _pairs_of(self, step: int) -> tuple[IntArray, int]:
        epoch, part = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            order = np.random.default_rng((self.config.seed, epoch)).permutation(len(self.pairs.pairs))
            self._epoch, self._parts = epoch, np.array_split(order, self.per_epoch)
        return self.pairs.pairs[self._parts[part]], epoch

    def _documents_of(self, pairs: IntArray, epoch: int) -> tuple[dict[int, int], list[list[int]]]:
        """The place of each document row in a step, the pairs' own first, and the negatives of each pair."""
        places = {row: i for i, row in enumerate(dict.fromkeys(pairs[:, 1].tolist()))}
        negatives = [_rotating(self.pairs.negatives[query_row], self.config.hard_negatives, epoch) for query_row in pairs[:, 0]]
        for rows in negatives:
            for row in rows:
                places.setdefault(row, len(places))
        return places, negatives

    def pairs_before(self, step: int) -> int:
        """How many pairs the steps before ``step`` hold."""
        epochs, part = divmod(step, self.per_epoch)
        whole = len(self.pairs.pairs)
        return epochs * whole + sum(len(rows) for rows in np.array_split(np.empty(whole), self.per_epoch)[:part])

    def _assemble(self, pairs: IntArray, epoch: int) -> Batch:
        query_rows, query_of = np.unique(pairs[:, 0], return_inverse=True)
        places, own_negatives = self._documents_of(pairs, epoch)
        target = np.array([places[row] for row in pairs[:, 1].tolist()], np.int64)
        relevant = np.zeros((len(pairs), len(places)), np.bool_)
        for i, query_row in enumerate(pairs[:, 0]):
            known = self.pairs.relevant[query_row]
            relevant[i] = [row in known for row in places]
        candidates = np.full((len(pairs), 1 + max(map(len, own_negatives), default=0)), -1, np.int64)
        teacher = np.full(candidates.shape, np.nan, np.float32)
        for i, ((query_row, own), rows) in enumerate(zip(pairs.tolist(), own_negatives, strict=True)):
            for j, row in enumerate((own, *rows)):
                candidates[i, j] = places[row]
                teacher[i, j] = self.pairs.teacher.get((query_row, row), np.nan)
        queries, documents = [self.pairs.queries[row] for row in query_rows], [self.pairs.documents[row] for row in places]
        return Batch(
            queries, documents, query_of.reshape(-1).astype(np.int64), target, relevant, candidates, teacher, query_rows,
            np.fromiter(places, np.int64, len(places)),
        )  # fmt: skip


def _rotating(rows: Sequence[int], count: int, epoch: int) -> list[int]:
    """Takes ``count`` of the rows, beginning where the previous epoch stopped."""
    take = min(count, len(rows))
    return [rows[(epoch * take + i) % len(rows)] for i in range(take)]


def length_chunks(lengths: Sequence[int], rows: int) -> Iterator[IntArray]:
    """Yields the positions of texts, longest first, ``rows`` at a time, so that texts padded together have about the same length.

    Longest first: the largest allocation comes first and the rest fits into it.

    >>> [chunk.tolist() for chunk in length_chunks([3, 9, 4], 2)]
    [[1, 2], [0]]
    """
    order = np.argsort(-np.asarray(lengths, np.int64), kind="stable")
    for start in range(0, len(order), rows):
        yield order[start : start + rows]
