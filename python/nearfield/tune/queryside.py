"""Tuning queries alone: the documents keep the vectors that they have, so no index is made again and every document is a negative.

A step encodes its queries and nothing else; their documents, and all other training documents as negatives, are rows of a table that was
made once. That is the softmax which training both sides would need over the whole corpus and cannot pay for. The documents' space, and so
its fingerprint, stays the base's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch

from nearfield.config import TuneConfig
from nearfield.data.dataset import Dataset
from nearfield.encode.tower import Tower
from nearfield.errors import InputError
from nearfield.progress import progress as show_progress
from nearfield.tune.batches import Batch
from nearfield.tune.devset import DevSet
from nearfield.tune.embed import vectors_of
from nearfield.tune.pairs import TrainingPairs
from nearfield.types import FloatArray, IntArray

# Rows of the table at most: 50 MB at 384 columns, and 64 queries against them take a hundredth of their own encoding.
MOST_ROWS = 32_768

VectorsOf = Callable[[Sequence[str]], FloatArray]


def check_query_only(config: TuneConfig) -> TuneConfig:
    """Returns the config without what acts on documents by default (the pieces).

    Raises:
        InputError: something is asked for that changes documents or scores them anew.
    """
    for name, nothing in (("mined_negatives", 0), ("distill", 0.0), ("teacher", None), ("gradcache", False)):
        if getattr(config, name) != nothing:
            raise InputError(
                f"config: {name}: {getattr(config, name)!r} given together with query_only, {nothing!r} expected: every training document "
                "is a negative already, and a step holds nothing but its queries"
            )
    return dataclasses.replace(config, pieces=0.0)


def vectors_by_id(dataset: Dataset, tower: Tower, given: FloatArray | None, config: TuneConfig, *, dtype: str, progress: bool) -> VectorsOf:
    """Returns what gives unit rows for ids of documents: from the vectors given, or encoded by the base at its full length.

    Args:
        dataset: whose documents.
        tower: the base.
        given: float ``(documents, dim)`` in the order of ``dataset.doc_ids``, or None.
        config: ``chunk_rows`` counts.
        dtype: as for ``embed``.
        progress: shows a bar on stderr where documents are encoded.

    Raises:
        InputError: vectors of another shape, or with values that are not finite.
    """
    place = {doc: row for row, doc in enumerate(dataset.doc_ids)}
    if given is None:
        prompt = tower.spec.prompts["document"]

        def encoded(ids: Sequence[str]) -> FloatArray:
            tokens = tower.tokenizer([prompt + dataset.doc_texts[place[doc]] for doc in ids]).ids
            with show_progress(f"encoding {len(ids):,} documents that stay as they are", 1, enabled=progress) as bar:
                return vectors_of(tower, tokens, chunk_rows=2 * config.chunk_rows, dtype=dtype, bar=bar)

        return encoded
    expected = (len(place), tower.spec.dim)
    if given.shape != expected or not np.issubdtype(given.dtype, np.floating):
        raise InputError(
            f"document vectors: {given.dtype} of shape {given.shape} given, float {expected} expected, a row for "
            f"each document as {tower.folder.name} makes it"
        )
    rows = np.asarray(given, np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    wrong = np.flatnonzero(~np.isfinite(norms[:, 0]))
    if len(wrong):
        raise InputError(f"document vectors: row {wrong[0]} holds NaN or infinity, finite numbers expected")
    unit = rows / np.maximum(norms, 1e-12)
    return lambda ids: np.ascontiguousarray(unit[[place[doc] for doc in ids]])


def with_fixed(dev: DevSet, vectors: VectorsOf) -> DevSet:
    """The sub-corpus with vectors that are never made again."""
    return dataclasses.replace(dev, fixed=vectors(dev.doc_ids))


class FixedDocuments:
    """The table, and steps against it.

    Args:
        pairs: the training pairs. Documents of pairs that are trained, labelled negatives of their queries, and then others up to
            ``MOST_ROWS``, chosen by the seed, are its rows.
        vectors: unit rows by id.
        config: the seed counts.
        device: where the table goes.

    Attributes:
        table: float32 ``(rows, dim)``.
    """

    def __init__(self, pairs: TrainingPairs, vectors: VectorsOf, config: TuneConfig, device: torch.device) -> None:
        self.pairs = pairs
        rows = _chosen(pairs, config)
        self._column = np.full(len(pairs.documents), -1, np.int64)
        self._column[rows] = np.arange(len(rows))
        self.table = torch.from_numpy(vectors([pairs.document_ids[row] for row in rows])).to(device)

    def against(self, batch: Batch) -> Batch:
        """The step with the table's rows in place of its own documents; relevant ones are marked wherever they stand."""
        target = self._column[batch.document_rows[batch.target]]
        relevant = np.zeros((len(batch), len(self.table)), np.bool_)
        for i, query in enumerate(batch.query_rows[batch.query_of].tolist()):
            columns = self._column[sorted(self.pairs.relevant[query])]
            relevant[i, columns[columns >= 0]] = True
        return dataclasses.replace(batch, documents=[], target=target, relevant=relevant)


def _chosen(pairs: TrainingPairs, config: TuneConfig) -> IntArray:
    negatives = [row for query in np.unique(pairs.pairs[:, 0]) for row in pairs.negatives[query]]
    needed = np.unique(np.concatenate([pairs.pairs[:, 1], np.array(negatives, np.int64)]))
    others = np.setdiff1d(np.arange(len(pairs.documents)), needed)
    room = max(MOST_ROWS - len(needed), 0)
    if len(others) > room:
        others = np.random.default_rng((config.seed, 3)).choice(others, room, replace=False)
    return np.sort(np.concatenate([needed, others])).astype(np.int64)
