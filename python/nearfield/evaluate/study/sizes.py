"""What fewer columns and smaller numbers cost, from vectors that are already there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np

from nearfield.data.dataset import Dataset
from nearfield.evaluate.run import Encoded, exact_ranking
from nearfield.evaluate.significance import bootstrap, paired_columns
from nearfield.evaluate.study.results import Kept, Size
from nearfield.metrics import QueryMetrics, score_run
from nearfield.progress import progress
from nearfield.types import AnyArray, FloatArray, Storage

# The usual lengths of shortened vectors; all shorter than the model's are measured.
DIMS = (64, 128, 256, 512, 1024)
# Candidates by signs for each document that is asked for: the usual ten.
CANDIDATES = 10
# Pairs of a query and a document scored for one size. Two AVX2 cores score some 250 million a second, so a dozen sizes take ten seconds at
# most; larger corpora are asked fewer queries.
PAIRS = 200_000_000


def measure_sizes(
    encoded: Encoded, data: Dataset, metrics: QueryMetrics, *, split: str, k: int, seed: int = 0, threads: int | None = None,
    show: bool = False,
) -> tuple[list[Size], str]:  # fmt: skip
    """Searches the corpus again by shortened and rounded vectors.

    Shortened vectors are the first columns, normalized again, of queries and documents alike. Rounded are the documents alone. "1 bit" is
    what an index would keep in memory that finds ``CANDIDATES`` times k documents by the inner products of queries with the documents'
    signs and scores these by int8 rows from a disk; no index here does.

    Args:
        encoded: the model's vectors.
        data: documents and judgements.
        metrics: of the model with all columns in float32.
        split, k, seed, threads: as for `nearfield.evaluate`.
        show: whether progress is shown.

    Returns:
        The sizes, shortest vectors first, and a sentence on the queries asked.
    """
    most = max(1, PAIRS // len(data.doc_ids))
    rows = np.arange(len(metrics.positions))
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).permutation(len(rows))[:most])
    asked = metrics.positions[rows]
    full = metrics.values[f"ndcg@{k}"][rows]
    dim = encoded.documents.shape[1]
    kinds: list[tuple[int, Kept]]
    kinds = [(columns, storage) for columns in (*(d for d in DIMS if d < dim), dim) for storage in (*get_args(Storage), "1 bit")]
    sizes = []
    with progress("measuring smaller vectors", len(kinds), enabled=show) as bar:
        for columns, storage in kinds:
            values = full
            if (columns, storage) != (dim, "float32"):
                queries = np.ascontiguousarray(encoded.queries[asked, :columns])
                documents = encoded.documents[:, :columns]
                if storage == "1 bit":
                    ranked = by_signs(queries, documents, data.doc_ids, k)
                else:
                    ranked, _ = exact_ranking(queries, documents, data.doc_ids, depth=k, storage=storage, threads=threads)
                names = [encoded.query_ids[position] for position in asked]
                values = score_run(names, ranked, data.qrels[split], k=k, depth=k).values[f"ndcg@{k}"]
            change = None if values is full else paired_columns((values - full)[:, None], seed=seed)[0]
            sizes.append(Size(columns, storage, row_bytes(columns, storage), len(rows), bootstrap(values, seed=seed), change))
            bar.advance()
    drawn = f" of {len(metrics.positions):,} (drawn by seed {seed})" if len(rows) < len(metrics.positions) else ""
    return sizes, f"{len(rows):,}{drawn} scored queries, against all documents, by exact search."


def by_signs(queries: FloatArray, documents: FloatArray, doc_ids: Sequence[str], k: int) -> AnyArray:
    """Returns the ids ``(n, k)`` of the best of ``CANDIDATES * k`` candidates by signs, scored by int8 rows; None where there are fewer.

    Queries keep their numbers: a query's inner product with a document's signs estimates that with the document up to a factor.
    """
    from nearfield.index.flat import FlatIndex

    index = FlatIndex(documents.shape[1], storage="int8")
    index.add(np.ascontiguousarray(documents))
    signs = np.where(documents > 0, np.float32(1), np.float32(-1))
    depth = min(CANDIDATES * k, len(documents))
    found = np.full((len(queries), k), None, object)
    for place, query in enumerate(queries):
        candidates = np.sort(np.argsort(-(signs @ query), kind="stable")[:depth])
        scores = index.get(candidates).astype(np.float64) @ query.astype(np.float64)
        best = candidates[np.argsort(-scores, kind="stable")[:k]]
        found[place, : len(best)] = [doc_ids[row] for row in best]
    return found


def row_bytes(dim: int, storage: Kept) -> int:
    """Bytes of one stored vector; int8 has a float32 scale beside its codes.

    >>> row_bytes(384, "float32"), row_bytes(384, "bfloat16"), row_bytes(384, "int8"), row_bytes(384, "1 bit")
    (1536, 768, 388, 48)
    """
    return {"float32": 4 * dim, "bfloat16": 2 * dim, "int8": dim + 4, "1 bit": -(-dim // 8)}[storage]
