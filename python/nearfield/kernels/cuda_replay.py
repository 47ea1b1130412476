"""A search of a GPU's rows recorded once as a CUDA graph and replayed: forty small launches become one.

Each launch costs the host 5 to 10 microseconds; the scan of a million rows for one query takes 300. What a search needs is the same for all
searches with as many queries and the same k, so it is recorded at the second one of its kind.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nearfield.kernels.cuda_maxima import Maxima
from nearfield.kernels.cuda_pool import Asked, Best, Chunk, finish, first_attempt
from nearfield.types import BoolArray, DoubleArray, FloatArray, IntArray, Metric

if TYPE_CHECKING:
    import torch

# Numbers of queries are rounded up to a power of two, from here on to a multiple of this: a block of the fused scan.
STEP = 128
# The maxima of all recorded searches together: two searches of 4,096 queries among a million rows are 1.02 GB.
MOST_BYTES = 5 * 2**28
# What a search tells of each query, added up.
SETTLED, ACCEPTED, OPEN = 1, 2, 4
FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a replay found. ``accepted`` is false when a query has NaN, infinity or a norm beyond float32; then the rest means nothing."""

    positions: IntArray
    scores: DoubleArray
    rescored: IntArray
    open: BoolArray
    accepted: bool


def rounded(queries: int) -> int:
    """For how many queries a search of so many is recorded.

    >>> [rounded(n) for n in (1, 3, 128, 129, 4000)]
    [1, 4, 128, 256, 4096]
    """
    return 1 << (queries - 1).bit_length() if queries <= STEP else -(-queries // STEP) * STEP


def fill(target: torch.Tensor, rows: FloatArray) -> None:
    """Copies rows into the first of a tensor in host memory; by torch, which takes several threads, where it may borrow them."""
    import torch

    if rows.flags.writeable:
        target[: len(rows)].copy_(torch.from_numpy(rows))
    else:
        target.numpy()[: len(rows)] = rows


class Replays:
    """The recorded searches of one chunk, the least recently used ones forgotten. Used by one thread at a time."""

    def __init__(self, metric: Metric, chunk: Chunk) -> None:
        self._metric, self._chunk = metric, chunk
        self._kept: OrderedDict[tuple[int, int], _Replay] = OrderedDict()
        self._seen: set[tuple[int, int]] = set()
        self._works = True

    def search(self, queries: FloatArray, k: int) -> Answer | None:
        """The answer to queries (nq, dim) float32, or None where the search is not recorded: yet, or because it is too large."""
        key = rounded(len(queries)), k
        if key not in self._kept:
            if not self._works or self._bytes(key) > MOST_BYTES or key not in self._seen:
                self._seen.add(key)
                return None
            while sum(map(self._bytes, self._kept)) + self._bytes(key) > MOST_BYTES:
                self._kept.popitem(last=False)
            try:
                self._kept[key] = _Replay(self._metric, self._chunk, *key)
            except RuntimeError as error:  # out of memory, or an operation that cannot be recorded
                self._works = False
                reason = str(error).strip().splitlines()[0]
                warnings.warn(f"device: searches are not recorded as CUDA graphs ({reason})", RuntimeWarning, stacklevel=4)
                return None
        self._kept.move_to_end(key)
        return self._kept[key].search(queries)

    def _bytes(self, key: tuple[int, int]) -> int:
        return 2 * key[0] * self._chunk.groups


class _Replay:
    """One recorded search."""

    def __init__(self, metric: Metric, chunk: Chunk, queries: int, k: int) -> None:
        import torch

        self._metric, self._chunk, self._k = metric, chunk, k
        device, dim = chunk.rows.device, chunk.rows.shape[1]
        self._host = torch.ones((queries, dim), dtype=torch.float32, pin_memory=True)
        self._given = torch.empty((queries, dim), dtype=torch.float32, device=device)
        self._answer = torch.empty((queries, 2 * k + 2), dtype=torch.int64, pin_memory=True)
        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            self._run()  # compiles what is not compiled yet, outside the recording
        torch.cuda.current_stream(device).wait_stream(side)
        torch.cuda.synchronize(device)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads may go on using the device meanwhile.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._asked, self._maxima, self._best, self._proven = self._run()

    def _run(self) -> tuple[Asked, Maxima, Best, torch.Tensor]:
        import torch

        from nearfield.kernels import fused_pool

        self._given.copy_(self._host, non_blocking=True)
        norms = fused_pool.norms(self._given)
        asked = Asked(self._given, norms, self._chunk.frame.queries(self._given, norms))
        best = Best.empty(len(self._given), self._k, self._given.device)
        maxima = Maxima.of(asked.coded.codes, self._chunk.codes, self._chunk.scan)
        best.open.logical_or_(~asked.coded.usable)
        proven = first_attempt(self._metric, self._chunk, asked, maxima, best)
        flags = SETTLED * (proven | best.open).long() + ACCEPTED * (norms <= FLOAT32_MAX).long() + OPEN * best.open.long()
        beside = torch.stack([best.rescored, flags], dim=1)
        self._answer.copy_(torch.cat([best.positions, best.scores.view(torch.int64), beside], dim=1), non_blocking=True)
        return asked, maxima, best, proven

    def search(self, queries: FloatArray) -> Answer:
        import torch

        count, k = len(queries), self._k
        fill(self._host, queries)
        if count < len(self._host):
            self._host[count:] = self._host[0]  # a query like any other: it can be proven
        self._graph.replay()
        torch.cuda.current_stream(self._given.device).synchronize()
        told = self._answer.numpy()[:count].copy()
        flags = told[:, -1]
        accepted = bool((flags & ACCEPTED != 0).all())
        if accepted and not (flags & SETTLED != 0).all():
            finish(self._metric, self._chunk, self._asked, self._maxima, self._best, self._proven)
            return self._finished(count)
        return Answer(told[:, :k], told[:, k : 2 * k].view(np.float64), told[:, -2], flags & OPEN != 0, accepted)

    def _finished(self, count: int) -> Answer:
        best = self._best.at(slice(count))
        positions, scores, rescored, left = (part.cpu().numpy() for part in (best.positions, best.scores, best.rescored, best.open))
        return Answer(positions, scores, rescored, left, True)
