"""The training pairs as token ids: what is encoded, which document belongs to which query, and what must never count as a negative."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nearfield.config import TuneConfig
from nearfield.data.dataset import Dataset
from nearfield.errors import InputError
from nearfield.types import IntArray

TokenIds = list[int]
Tokenize = Callable[[Sequence[str]], list[TokenIds]]


@dataclass(frozen=True)
class TrainingPairs:
    """Distinct queries, distinct documents and the pairs between them.

    Texts with the same token ids are one row: the model cannot tell them apart, so one must never be a negative of the other.

    Attributes:
        queries: token ids of each distinct query.
        documents: token ids of each distinct document that a pair or a labelled negative uses.
        pairs: ``(n, 2)`` int64, distinct (query row, document row).
        relevant: for each query row all document rows judged relevant in training, whether or not their pair was kept.
        negatives: for each query row the document rows labelled as negatives, relevant ones left out.
        available: pairs that could be used, of which ``config.max_pairs`` were.
        document_ids: for each document row the id of a document with that text.
        teacher: scores by (query row, document row), of the pairs and of the negatives; empty without a teacher.
    """

    queries: list[TokenIds]
    documents: list[TokenIds]
    pairs: IntArray
    relevant: list[frozenset[int]]
    negatives: list[tuple[int, ...]]
    available: int = 0
    teacher: Mapping[tuple[int, int], float] = field(default_factory=dict)
    document_ids: list[str] = field(default_factory=list)


def training_pairs(dataset: Dataset, config: TuneConfig, *, query_ids_of: Tokenize, doc_ids_of: Tokenize) -> TrainingPairs:
    """Collects the pairs of the ``train`` split.

    Pairs with an empty text or an unknown document are left out; ``config.max_pairs`` of the rest are chosen by ``config.seed``.

    Args:
        dataset: with a ``train`` split.
        config: ``max_pairs``, ``hard_negatives`` and ``seed`` count here.
        query_ids_of: texts -> token ids, cut and with the query prompt.
        doc_ids_of: the same for documents.

    Raises:
        InputError: no ``train`` split, no usable pair, or nothing that could be a negative (one distinct document and no labelled
        negative).
    """
    ids, texts = dataset.queries_of("train")
    query_text = {i: text for i, text in zip(ids, texts, strict=True) if text.strip()}
    doc_text = {i: text for i, text in zip(dataset.doc_ids, dataset.doc_texts, strict=True) if text.strip()}
    judged = [(q, d) for q in query_text for d, grade in dataset.qrels["train"][q].items() if grade > 0 and d in doc_text]
    kept = _choose(judged, config)
    if not kept:
        raise InputError(f"{dataset.name}: no training pair: the train split has no judgement whose query and document both have text")
    labelled = [(q, d) for q in dict.fromkeys(q for q, _ in kept) for d in dataset.hard_negatives.get(q, ()) if d in doc_text]
    if config.hard_negatives == 0:
        labelled = []

    queries, query_row = _distinct(list(dict.fromkeys(q for q, _ in judged)), query_text, query_ids_of)
    documents, doc_row = _distinct(list(dict.fromkeys(d for _, d in judged + labelled)), doc_text, doc_ids_of)
    relevant: list[set[int]] = [set() for _ in queries]
    for q, d in judged:
        relevant[query_row[q]].add(doc_row[d])
    negatives: list[dict[int, None]] = [{} for _ in queries]
    for q, d in labelled:
        if doc_row[d] not in relevant[query_row[q]]:
            negatives[query_row[q]][doc_row[d]] = None
    pairs = np.array(list(dict.fromkeys((query_row[q], doc_row[d]) for q, d in kept)), np.int64)
    if len(np.unique(pairs[:, 1])) < 2 and not any(negatives):
        raise InputError(
            f"{dataset.name}: the {len(kept)} training pairs have one document between them once texts that look alike to the model are "
            "joined: at least two different documents are needed, for each is the other's negative"
        )
    return TrainingPairs(
        queries, documents, pairs, [frozenset(rows) for rows in relevant], [tuple(rows) for rows in negatives], len(judged),
        document_ids=[name for _, name in sorted({row: name for name, row in reversed(doc_row.items())}.items())],
    )  # fmt: skip


def _choose(judged: list[tuple[str, str]], config: TuneConfig) -> list[tuple[str, str]]:
    if config.max_pairs is None or len(judged) <= config.max_pairs:
        return judged
    chosen = np.random.default_rng(config.seed).choice(len(judged), config.max_pairs, replace=False)
    return [judged[i] for i in np.sort(chosen)]


def _distinct(names: list[str], text: dict[str, str], ids_of: Tokenize) -> tuple[list[TokenIds], dict[str, int]]:
    rows: dict[tuple[int, ...], int] = {}
    row_of = {name: rows.setdefault(tuple(ids), len(rows)) for name, ids in zip(names, ids_of([text[n] for n in names]), strict=True)}
    return [list(ids) for ids in rows], row_of
