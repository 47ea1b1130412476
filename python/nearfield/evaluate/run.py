"""A run: every query of one split with its best documents by exact search, so that only the model is measured."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nearfield.arrays import read_npz
from nearfield.data.dataset import Dataset
from nearfield.errors import FormatError, InputError
from nearfield.files import cannot_write, whole_file
from nearfield.metrics import DEPTH
from nearfield.progress import progress
from nearfield.search.encoders import TextEncoder
from nearfield.types import AnyArray, FloatArray

# Queries searched between two steps of the bar; a block amortizes the passes over the corpus and still moves the bar every second or so.
QUERY_BLOCK = 512


@dataclass(frozen=True)
class Run:
    """The ranked lists of one model on one split.

    Attributes:
        query_ids, query_texts: the ``n`` queries judged in the split.
        ranked: ``(n, depth)`` document ids (object), best first; None marks a missing place where the corpus is smaller than the depth.
        scores: ``(n, depth)`` float32, NaN at missing places.
        truncated_documents, truncated_queries: texts cut to the model's length.
        seconds: what each step took: ``"encode documents"`` (0 where the cache held them), ``"encode queries"``, ``"search"``.
        cached: whether the documents' vectors came from the cache.
    """

    query_ids: list[str]
    query_texts: list[str]
    ranked: AnyArray
    scores: FloatArray
    truncated_documents: int
    truncated_queries: int
    seconds: dict[str, float]
    cached: bool


def make_run(
    data: Dataset,
    encoder: TextEncoder,
    *,
    split: str = "test",
    depth: int = DEPTH,
    cache: str | os.PathLike[str] | None = None,
    show: bool = False,
    threads: int | None = None,
    label: str = "model",
) -> Run:
    """Encodes corpus and queries and searches exactly, by cosine.

    Args:
        data: documents, queries and judgements.
        encoder: what encodes.
        split: whose queries.
        depth: documents kept for each query; 100 is the deepest cut-off that is reported.
        cache: a folder that keeps the corpus vectors between calls, by model, backend, precision and document texts.
        show: whether progress is shown.
        threads: of the search; None takes the library's default.
        label: names the model in the progress display.

    Raises:
        InputError: no documents, no queries in the split, or no such split.
    """
    query_ids, query_texts = data.queries_of(split)
    if not data.doc_ids:
        raise InputError(f"{data.name}: no documents, so nothing can be found: a corpus with at least one document expected")
    if not query_ids:
        raise InputError(f"{data.name}: split {split!r} has no queries, at least one expected")
    start = time.perf_counter()
    documents, truncated_documents, cached = corpus_vectors(data.doc_texts, encoder, cache=cache, show=show)
    encoded = time.perf_counter()
    queries = encoder.encode(query_texts, kind="query", progress=show)
    truncated_queries = encoder.truncated
    asked = time.perf_counter()
    ranked, scores = exact_ranking(queries, documents, data.doc_ids, depth=depth, show=show, threads=threads, label=label)
    seconds = {"encode documents": encoded - start, "encode queries": asked - encoded, "search": time.perf_counter() - asked}
    return Run(query_ids, query_texts, ranked, scores, truncated_documents, truncated_queries, seconds, cached)


def exact_ranking(
    queries: FloatArray,
    documents: FloatArray,
    doc_ids: Sequence[str],
    *,
    depth: int = DEPTH,
    show: bool = False,
    threads: int | None = None,
    label: str = "model",
) -> tuple[AnyArray, FloatArray]:
    """Returns ``(ids, scores)`` of the ``depth`` best documents for each query, as `Run` holds them."""
    from nearfield.index.flat import FlatIndex

    index = FlatIndex(documents.shape[1], metric="cosine", threads=threads)
    index.add(documents)
    names = np.array([*doc_ids, None], object)
    ids = np.empty((len(queries), depth), object)
    scores = np.full((len(queries), depth), np.nan, np.float32)
    with progress(f"searching, {label}", len(queries), enabled=show) as bar:
        for start in range(0, len(queries), QUERY_BLOCK):
            block = slice(start, min(start + QUERY_BLOCK, len(queries)))
            hits = index.search(queries[block], depth, threads=threads)
            # a missing place holds -1, which is the None at the end of the names
            ids[block] = names[hits.ids]
            scores[block] = hits.scores
            bar.advance(block.stop - block.start)
    return ids, scores


def corpus_vectors(
    texts: Sequence[str], encoder: TextEncoder, *, cache: str | os.PathLike[str] | None = None, show: bool = False
) -> tuple[FloatArray, int, bool]:
    """Returns ``(vectors, truncated, cached)`` of the documents, from the cache where it holds them.

    A cache file that is damaged or of another shape is made again; it is only a saving.
    """
    if cache is None:
        vectors = encoder.encode(texts, kind="document", progress=show)
        return vectors, encoder.truncated, False
    path = Path(cache) / f"{_cache_key(texts, encoder)}.npz"
    kept = _read_cache(path, (len(texts), encoder.dim))
    if kept is not None:
        return (*kept, True)
    vectors = encoder.encode(texts, kind="document", progress=show)
    truncated = encoder.truncated
    _write_cache(path, vectors, truncated)
    return vectors, truncated, False


def _cache_key(texts: Sequence[str], encoder: TextEncoder) -> str:
    """The texts themselves count, not the whole dataset: a new split of the same documents finds the same vectors."""
    digest = hashlib.sha256()
    for part in (encoder.fingerprint, encoder.backend, encoder.precision, *texts):
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def _read_cache(path: Path, shape: tuple[int, int]) -> tuple[FloatArray, int] | None:
    try:
        vectors, truncated = read_npz(path, ("vectors", "truncated"), where=str(path))
    except FormatError:
        return None
    if vectors.shape != shape or vectors.dtype != np.float32 or truncated.shape != () or truncated.dtype != np.int64:
        return None
    return vectors, int(truncated)


def _write_cache(path: Path, vectors: FloatArray, truncated: int) -> None:
    """Whole or not at all, so that no reader ever sees half of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path.parent, error) from None
    with whole_file(path) as file:
        np.savez(file, vectors=vectors, truncated=np.int64(truncated))
