"""The Numba twin of a walk through a compact frozen graph: the same nodes and scores from code that can be read in a few minutes.

Distances there are one integer product and two float32 operations (csrc/codec/codes.h), the same on every CPU, so the twin promises what
a twin of a float32 walk could not. It reads the arrays of a saved file; filters, biases and the scans that fill an answer up are the
native engine's alone.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import float32, float64, int32

from nearfield import _core
from nearfield.errors import FormatError, InputError
from nearfield.kernels.numba_exact import COSINE, IP, L2, compiled, norm_of, normalize
from nearfield.types import FloatArray, IntArray

FINE_STEPS = 254.0
OPEN_DOORS = 2
FAR = float(np.finfo(np.float32).max)
METRICS = (COSINE, IP, L2)  # in the order of csrc/base/metric.h


@dataclass(frozen=True)
class CompactGraph:
    """A compact frozen graph as arrays: row i of each belongs to node i."""

    metric: int
    m: int
    centre: FloatArray
    codes: npt.NDArray[np.int8]  # (n, width): zeros fill it up to a multiple of 32
    terms: FloatArray  # (n, 2): scale, add
    links: npt.NDArray[np.uint32]  # (n, 2 M): ends at the first number that is no node
    deleted: npt.NDArray[np.uint8]
    doors: npt.NDArray[np.uint32]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> CompactGraph:
        """The arrays of a file that ``FrozenIndex.save`` wrote.

        Raises:
            FormatError: damaged, or not a frozen index.
            InputError: a frozen index that is not compact.
        """
        file = _core.Container.open(os.fspath(path), "frozen")
        version, dim, metric, m, _, nodes, _, compact = file.array("frozen", np.dtype("<u4"))[:8].tolist()
        if version != 1 or metric >= len(METRICS):
            raise FormatError(
                f"{os.fspath(path)}: a frozen graph of layout {version} and metric {metric}, layout 1 and a metric below 3 expected"
            )
        if not compact:
            raise InputError(f"{os.fspath(path)}: an inlined graph given, a compact one expected: freeze(compact=True)")
        width = (dim + 31) // 32 * 32
        row, tail = _lines(width + 8), _lines(8 * m)
        blocks = file.array("blocks", np.dtype("u1")).reshape(nodes, row + tail)
        return cls(
            metric=METRICS[metric],
            m=m,
            centre=file.array("centre", np.dtype("<f4")),
            codes=np.ascontiguousarray(blocks[:, :width]).view(np.int8),
            terms=np.ascontiguousarray(blocks[:, width : width + 8]).view("<f4"),
            links=np.ascontiguousarray(blocks[:, row : row + 8 * m]).view("<u4"),
            deleted=file.array("deleted", np.dtype("u1")),
            doors=file.array("doors", np.dtype("<u4")),
        )

    def walk(self, queries: FloatArray, k: int, ef: int) -> tuple[IntArray, FloatArray, IntArray]:
        """As the native search with ``mode="walk"``: nodes (nq, k), -1 in missing places, scores, counts."""
        nodes = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), np.nan, np.float32)
        counts = np.zeros(len(queries), np.int64)
        live = int((self.deleted == 0).sum())
        width = max(ef, k)
        if 0 < live < len(self.deleted):  # so many more candidates that about ef of them live
            width = int(min(width * len(self.deleted) / live + 1.0, len(self.deleted)))
        for at, query in enumerate(queries):
            counts[at] = _walk(
                query, self.metric, self.centre, self.codes, self.terms, self.links, self.deleted, self.doors, width, nodes[at], scores[at]
            )
        return nodes, scores, counts


def _lines(size: int) -> int:
    return (size + 63) // 64 * 64


@compiled
def scale_for(peak: Any) -> Any:
    """The least float32 of 16 significant bits that is >= peak / 127 (csrc/codec/quantize.h), for peaks far from float32's ends."""
    if peak == 0.0:
        return float32(0.0)
    mantissa, exponent = math.frexp(float64(peak) / 127.0)
    return float32(math.ldexp(math.ceil(mantissa * 65536.0) / 65536.0, exponent))


@compiled
def encode(values: Any, scale: Any, codes: Any) -> None:
    """codes = values / scale, to the nearest, halves to even, as float32 multiplies them."""
    inverse = float32(1.0) / scale if scale > 0.0 else float32(0.0)
    for i in range(len(values)):
        codes[i] = np.int8(np.rint(values[i] * inverse))


@compiled
def encode_fine(values: Any, scale: Any, codes: Any, fine: Any) -> None:
    """What codes leave out, in 254ths of their scale."""
    steps = float32(FINE_STEPS) / scale if scale > 0.0 else float32(0.0)
    for i in range(len(values)):
        left = (values[i] - scale * float32(codes[i])) * steps
        fine[i] = np.int8(np.rint(min(float32(127.0), max(float32(-127.0), left))))


@compiled
def product(a: Any, b: Any) -> Any:
    total = int32(0)
    for i in range(len(a)):
        total += int32(a[i]) * int32(b[i])
    return total


@compiled
def offer(distances: Any, nodes: Any, size: Any, distance: Any, node: Any) -> Any:
    """Puts a candidate in its place among the nearest, by distance, then by node. Returns (how many there are, its place or -1)."""
    if size == len(nodes) and (distance, node) >= (distances[size - 1], nodes[size - 1]):
        return size, -1
    at = size if size < len(nodes) else size - 1
    while at > 0 and (distance, node) < (distances[at - 1], nodes[at - 1]):
        if at < len(nodes):
            distances[at], nodes[at] = distances[at - 1], nodes[at - 1]
        at -= 1
    distances[at], nodes[at] = distance, node
    return min(size + 1, len(nodes)), at


@compiled
def distance_to(codes: Any, factor: Any, row: Any, terms: Any) -> Any:
    """Smaller is nearer: csrc/codec/codes.h."""
    found = terms[1] + factor * terms[0] * float32(product(codes, row))
    return found if found < float32(FAR) else float32(FAR)


@compiled
def _walk(
    query: Any,
    metric: Any,
    centre: Any,
    codes: Any,
    terms: Any,
    links: Any,
    deleted: Any,
    doors: Any,
    ef: Any,
    out_nodes: Any,
    out_scores: Any,
) -> Any:
    k, dim, size = len(out_nodes), len(centre), len(deleted)
    norm = norm_of(query)
    unit = np.empty(dim, np.float32)
    if metric == COSINE:
        normalize(query, norm, unit)
    else:
        unit[:] = query
    rest = unit - centre
    peak = float32(0.0)
    for i in range(dim):
        peak = max(peak, abs(rest[i]))
    own = np.zeros(codes.shape[1], np.int8)
    fine = np.zeros(codes.shape[1], np.int8)
    scale = scale_for(peak)
    encode(rest, scale, own)
    encode_fine(rest, scale, own, fine)
    factor = float32(-2.0) * scale if metric == L2 else float32(-1.0) * scale

    most = k + k // 2 + 6
    far, near = np.empty(ef, np.float32), np.empty(ef, np.int64)  # candidates, nearest first
    expanded = np.zeros(size, np.bool_)
    seen = np.zeros(size, np.bool_)
    best_far, best = np.empty(most, np.float32), np.empty(most, np.int64)  # those of them that live
    candidates = found = 0
    for i in range(len(doors)):
        found, _ = offer(best_far, best, found, distance_to(own, factor, codes[doors[i]], terms[doors[i]]), np.int64(doors[i]))
    for i in range(min(OPEN_DOORS, found)):
        candidates, _ = offer(far, near, candidates, best_far[i], best[i])
        seen[best[i]] = True
    found = 0
    for i in range(candidates):
        if not deleted[near[i]]:
            found, _ = offer(best_far, best, found, far[i], near[i])

    at = 0
    while at < candidates:
        node = near[at]
        if expanded[node]:
            at += 1
            continue
        expanded[node] = True
        for i in range(links.shape[1]):
            to = np.int64(links[node, i])
            if to >= size:
                break
            if seen[to]:
                continue
            seen[to] = True
            distance = distance_to(own, factor, codes[to], terms[to])
            candidates, place = offer(far, near, candidates, distance, to)
            if 0 <= place < at:
                at = place
            if not deleted[to]:
                found, _ = offer(best_far, best, found, distance, to)

    square = along = 0.0
    for i in range(dim):
        square += float64(rest[i]) * float64(rest[i])
        along += float64(unit[i]) * float64(centre[i])
    scored = np.empty(found, np.float64)
    for i in range(found):
        row = codes[best[i]]
        small = float64(product(fine, row)) / FINE_STEPS
        exact = float64(scale) * float64(terms[best[i], 0]) * (float64(product(own, row)) + small)
        add = float64(terms[best[i], 1])
        if metric == L2:
            scored[i] = 0.0 - max(0.0, square + add - 2.0 * exact)
        else:
            scored[i] = along - add + exact if norm > 0.0 else 0.0
    taken = np.zeros(found, np.bool_)
    for place in range(min(k, found)):
        first = -1
        for i in range(found):
            if not taken[i] and (first < 0 or scored[i] > scored[first] or (scored[i] == scored[first] and best[i] < best[first])):
                first = i
        taken[first] = True
        out_nodes[place], out_scores[place] = best[first], float32(scored[first])
    return min(k, found)
