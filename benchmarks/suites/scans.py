"""The engines that scan every row, behind one signature: ``make(vectors)`` prepares, the scan it returns finds the k best rows.

nearfield also says how many rows it rescored, so its scans return ``Hits``. Which bytes an engine must read for a row is declared
beside it (``Engine.value_bytes``), with the arithmetic that its multiply-adds are made of. numpy, torch and faiss take their threads from
``peers.set_threads``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import nearfield
from benchmarks.core.answers import Answer
from benchmarks.core.machine import has_bf16
from benchmarks.core.peers import Engine

# numpy and torch get their queries in blocks of this many: scores of 128 x 200,000 are 100 MB, and larger blocks were not faster.
QUERY_BLOCK = 128
# The largest int8 code; the largest value of a collection becomes it. Steps of 1/127, made for values up to 1, lost 12 % of the neighbours
# of 2,000 clustered rows, these 2 %.
INT8_LARGEST = 127

# The probability with which each true neighbour is found, as asked of ``FlatIndex.search``.
GUARANTEE = 0.999

# Queries (nq, d), k and threads to ids (nq, k), or to the Hits that hold them.
Scan = Callable[[np.ndarray, int, int], Answer]


def topk(vectors: np.ndarray) -> Scan:
    """``nearfield.topk``: the rows are borrowed, nothing is prepared."""
    return lambda queries, k, threads: nearfield.topk(queries, vectors, k, metric="ip")


def flat(vectors: np.ndarray) -> Scan:
    """``nearfield.FlatIndex`` over float32 rows."""
    index = nearfield.FlatIndex(vectors.shape[1], metric="ip")
    index.add(vectors)
    return lambda queries, k, threads: index.search(queries, k, threads=threads)


def guaranteed(vectors: np.ndarray) -> Scan:
    """``nearfield.FlatIndex`` that may miss a true neighbour once in a thousand: one-bit codes decide what the int8 codes see."""
    index = nearfield.FlatIndex(vectors.shape[1], metric="ip")
    index.add(vectors)
    return lambda queries, k, threads: index.search(queries, k, guarantee=GUARANTEE, threads=threads)


def by_numpy(vectors: np.ndarray) -> Scan:
    """A matrix product, then argpartition and a sort of the k best."""

    def block(queries: np.ndarray, k: int) -> np.ndarray:
        scores = queries @ vectors.T
        best = np.argpartition(scores, -k, axis=1)[:, -k:]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        return np.take_along_axis(best, order, axis=1)

    return lambda queries, k, threads: np.concatenate([block(queries[i : i + QUERY_BLOCK], k) for i in range(0, len(queries), QUERY_BLOCK)])


def _torch(vectors: np.ndarray, half: bool) -> Scan:
    import torch

    kind = torch.bfloat16 if half else torch.float32
    table = torch.from_numpy(vectors).to(kind)

    def search(queries: np.ndarray, k: int, threads: int) -> np.ndarray:
        with torch.inference_mode():
            parts = torch.from_numpy(queries).to(kind).split(QUERY_BLOCK)
            return torch.cat([torch.topk(part @ table.T, k, dim=1).indices for part in parts]).numpy()

    return search


def torch_f32(vectors: np.ndarray) -> Scan:
    """torch.matmul and torch.topk in float32."""
    return _torch(vectors, half=False)


def torch_bf16(vectors: np.ndarray) -> Scan:
    """The same in bfloat16: half the bytes, and rounded scores."""
    return _torch(vectors, half=True)


def faiss_flat(vectors: np.ndarray) -> Scan:
    """faiss.IndexFlatIP."""
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return lambda queries, k, threads: index.search(queries, k)[1]


def sq8_index(vectors: np.ndarray) -> Any:
    """A filled faiss.IndexScalarQuantizer, 8 bits a value with a range per dimension."""
    import faiss

    index = faiss.IndexScalarQuantizer(vectors.shape[1], faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    return index


def rabitq_index(vectors: np.ndarray) -> Any:
    """A filled faiss.IndexRaBitQFastScan: one bit a value."""
    import faiss

    index = faiss.IndexRaBitQFastScan(vectors.shape[1], faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    return index


def faiss_sq8(vectors: np.ndarray) -> Scan:
    """faiss's int8 codes; their scores rank as they are."""
    index = sq8_index(vectors)
    return lambda queries, k, threads: index.search(queries, k)[1]


def faiss_rabitq(vectors: np.ndarray) -> Scan:
    """faiss's one-bit codes; nothing is refined."""
    index = rabitq_index(vectors)
    return lambda queries, k, threads: index.search(queries, k)[1]


def _usearch(vectors: np.ndarray) -> Scan:
    from usearch.index import MetricKind
    from usearch.index import search as scan

    def search(queries: np.ndarray, k: int, threads: int) -> np.ndarray:
        found = scan(vectors, queries, k, MetricKind.IP, exact=True, threads=threads)
        return np.asarray(found.keys, np.int64).reshape(len(queries), -1)  # one query comes back as one line

    return search


def usearch_f32(vectors: np.ndarray) -> Scan:
    """usearch's exact search over float32 rows."""
    return _usearch(vectors)


def usearch_i8(vectors: np.ndarray) -> Scan:
    """usearch's exact search over rows and queries rounded to int8."""
    search = _usearch(as_int8(vectors))
    return lambda queries, k, threads: search(as_int8(queries, axis=1), k, threads)


def as_int8(values: np.ndarray, axis: int | None = None, largest: float | None = None) -> np.ndarray:
    """Rounded to int8 with one scale for all, or with ``axis=1`` one for each row, as queries may have.

    Where ``largest`` is given, it and all values beyond become the largest code.
    """
    top = np.abs(values).max(axis=axis, keepdims=True) if largest is None else largest
    return np.clip(np.rint(values * (INT8_LARGEST / top)), -INT8_LARGEST, INT8_LARGEST).astype(np.int8)


TOPK = Engine("nearfield topk", topk)
FLAT = Engine("nearfield FlatIndex", flat, precision="int8", value_bytes=1)
GUARANTEED = Engine(f"nearfield FlatIndex, guarantee = {GUARANTEE}", guaranteed, precision=None, value_bytes=1 / 8)
NUMPY = Engine("numpy matmul + argpartition", by_numpy, "numpy", ("threadpoolctl",))
TORCH = Engine("torch f32 matmul + topk", torch_f32, "torch", ("torch",))
TORCH_BF16 = Engine(
    "torch bf16 matmul + topk", torch_bf16, "torch", ("torch",), precision="bf16", value_bytes=2,
    unable=lambda: None if has_bf16() else "this CPU has no bf16 arithmetic",
)  # fmt: skip
FAISS = Engine("faiss IndexFlatIP", faiss_flat, "faiss-cpu", ("faiss",))
# Measured on 20,000 rows, one AVX2 core: the same time per query at 64 and at 512 (1.3 ms SQ8, 2.0 and 2.4 ms usearch f32).
SQ8 = Engine("faiss SQ8", faiss_sq8, "faiss-cpu", ("faiss",), value_bytes=1, linear=True)
RABITQ = Engine(
    "faiss RaBitQFastScan", faiss_rabitq, "faiss-cpu", ("faiss:IndexRaBitQFastScan",), precision=None, value_bytes=1 / 8
)  # table look-ups: no multiply-adds to compare with
USEARCH = Engine("usearch exact f32", usearch_f32, "usearch", ("usearch",), linear=True)
USEARCH_I8 = Engine("usearch exact i8", usearch_i8, "usearch", ("usearch",), precision="int8", value_bytes=1, linear=True)

# Who runs in every table: ourselves, and the fastest exact peers.
LEADERS = (FLAT, NUMPY, TORCH, TORCH_BF16, FAISS)
EVERYBODY = (TOPK, FLAT, NUMPY, TORCH, TORCH_BF16, FAISS, SQ8, RABITQ, USEARCH, USEARCH_I8)
