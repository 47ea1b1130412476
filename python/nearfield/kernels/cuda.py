"""Exact top-k on a GPU through torch: float16 products that bound every score, float64 for the few that the bound leaves open.

docs/cuda.md says what is certified and how. All of it also runs on torch's device "cpu", which is how it is tested where there is no GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from nearfield import _core
from nearfield.errors import InputError, MissingExtraError
from nearfield.kernels import fused
from nearfield.kernels.cuda_codes import Frame, stride, width
from nearfield.kernels.cuda_maxima import GROUP
from nearfield.kernels.cuda_pool import HOST_ROWS, Best, Chunk, lane_sum, search_chunk
from nearfield.kernels.cuda_replay import FLOAT32_MAX, Replays, fill
from nearfield.kernels.found import Found
from nearfield.types import BoolArray, DoubleArray, FloatArray, IntArray, Metric

if TYPE_CHECKING:
    import torch

# Queries at a time. Their maxima take 2 / GROUP bytes a row each: 512 MB for a million rows.
QUERY_BLOCK = 4096
# Bytes of one of the two pinned buffers through which rows travel to the device: long enough for the full rate of the bus.
STAGE_BYTES = 64 * 2**20
# Rows are checked and coded in slices of so many values: some 2 GB of float64 in passing.
SLICE_VALUES = 2**25
# Share of the free memory that rows, codes and maxima may take, after what passes through while a slice or a pool is worked on.
MEMORY_SHARE = 0.8
IN_PASSING = 3 * 2**30

# The flags of `_as_supposed` belong to the whole process, and one scan fills a GPU: they take turns.
_TURN = threading.Lock()


def find_device(number: int | None) -> torch.device:
    """The CUDA device with this number; None: torch's current one.

    Raises:
        InputError: no CUDA device, or no such number.
        MissingExtraError: torch is not installed.
    """
    try:
        import torch
    except ImportError:
        raise MissingExtraError("device='cuda'", "cuda", "torch") from None
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPUs alone"
        raise InputError(f"device: 'cuda' given, but torch {torch.__version__} (built for {build}) finds no CUDA device: use device='cpu'")
    if number is not None and number >= count:
        raise InputError(f"device: 'cuda:{number}' given, but the last of the {count} CUDA devices is 'cuda:{count - 1}'")
    return torch.device("cuda", torch.cuda.current_device() if number is None else number)


class DeviceRows:
    """Rows to be searched on a device: kept there with their codes when they fit, sent anew in chunks for each search otherwise.

    Args:
        rows: (n, dim) float32, n and dim >= 1; C-contiguous. Borrowed for as long as this object lives when they do not fit.
        unit: the rows are a cosine index's stored unit rows, to be taken as they are; otherwise cosine normalizes them.
        device: where to search.
        chunk_rows: rows on the device at a time; default: all where the free memory holds them, otherwise as many as it holds.

    Raises:
        InputError: a row with NaN, infinity or a norm beyond float32.
    """

    def __init__(
        self, rows: FloatArray, metric: Metric, device: torch.device, *, unit: bool = False, chunk_rows: int | None = None
    ) -> None:
        self.metric = metric
        self.device = device
        self.unit = unit
        self.shape: tuple[int, int] = (rows.shape[0], rows.shape[1])
        self.chunk_rows = chunk_rows or _rows_that_fit(self.shape[1], metric, device)
        fits = self.shape[0] <= self.chunk_rows
        self._host = None if fits else rows
        with _TURN, _as_supposed(device):
            self._kept = [self._chunk(rows, 0)] if fits else []
        self._replays = Replays(metric, self._kept[0]) if fits and self._kept[0].fused else None

    def search(self, queries: FloatArray, k: int) -> Found:
        """The exact k best rows of each query, where the device can prove them. queries: (nq, dim) float32, nq >= 1.

        Raises:
            InputError: a query or, where rows are sent anew, a row with NaN, infinity or a norm beyond float32.
        """
        with _TURN, _as_supposed(self.device):
            replayed = self._replays.search(queries, k) if self._replays is not None and len(queries) <= QUERY_BLOCK else None
            if replayed is not None:
                if not replayed.accepted:
                    _refuse(queries, rows=np.empty((0, self.shape[1]), np.float32))
                return self._found(replayed.positions, replayed.scores, replayed.rescored, replayed.open, k)
            given = _sent(queries, self.device)
            norms = _norms(given)
            if not bool((norms <= FLOAT32_MAX).all()):
                _refuse(queries, rows=np.empty((0, self.shape[1]), np.float32))
            best = Best.empty(len(queries), k, self.device)
            for chunk in self._chunks():
                for start in range(0, len(queries), QUERY_BLOCK):
                    block = slice(start, start + QUERY_BLOCK)
                    search_chunk(self.metric, chunk, given[block], norms[block], best.at(block))
            parts = best.positions, best.scores, best.rescored, best.open
            positions, scores, rescored, left = (part.cpu().numpy() for part in parts)
            return self._found(positions, scores, rescored, left, k)

    def _found(self, positions: IntArray, scores: DoubleArray, rescored: IntArray, left: BoolArray, k: int) -> Found:
        count = min(k, self.shape[0])
        with np.errstate(over="ignore"):
            rounded = scores.astype(np.float32)
        positions[:, count:], rounded[:, count:] = -1, np.nan
        return Found(positions, rounded, np.full(len(positions), count, np.int64), rescored, left)

    def _chunks(self) -> Iterator[Chunk]:
        yield from self._kept
        if self._host is not None:
            for first in range(0, self.shape[0], self.chunk_rows):
                yield self._chunk(self._host, first)

    def _chunk(self, rows: FloatArray, first: int) -> Chunk:
        """Sends, checks, normalizes (cosine) and codes one chunk."""
        import torch

        values = _sent(rows[first : first + self.chunk_rows], self.device)
        norms = _norms(values)
        if not bool((norms <= FLOAT32_MAX).all()):
            _refuse(np.empty((0, self.shape[1]), np.float32), rows)
        slices = [slice(i, i + _slice_rows(self.shape[1])) for i in range(0, len(values), _slice_rows(self.shape[1]))]
        shift = torch.zeros(self.shape[1], dtype=torch.float64, device=self.device)
        if self.metric == "cosine" and not self.unit:
            for part in slices:
                # In float64, rounded once, as csrc/score/door.h does it.
                length = torch.where(norms[part] > 0, norms[part], 1.0)
                values[part] = (values[part].double() / length[:, None]).float()
        elif self.metric == "l2":
            shift = torch.stack([values[part].double().sum(dim=0) for part in slices]).sum(dim=0) / len(values)
        peak = max(float((values[part].double() - shift).norm(dim=1).max()) for part in slices)
        frame = Frame.of(self.metric, self.shape[1], shift, peak)
        codes = torch.cat([frame.rows(values[part]) for part in slices])
        return Chunk.of(first, values, codes, frame)


def _slice_rows(dim: int) -> int:
    return max(1, SLICE_VALUES // dim)


def _norms(rows: torch.Tensor) -> torch.Tensor:
    """Euclidean norms (n,) in float64, the sum in the order of csrc/score/door.h."""
    import torch

    if fused.pool_runs(rows.device):
        from nearfield.kernels import fused_pool

        return fused_pool.norms(rows)
    if len(rows) <= HOST_ROWS and rows.device.type != "cpu":
        return _norms(rows.cpu()).to(rows.device)
    parts = []
    for start in range(0, len(rows), _slice_rows(rows.shape[1])):
        values = rows[start : start + _slice_rows(rows.shape[1])].double()
        parts.append(lane_sum(values * values).sqrt())
    return torch.cat(parts)


def _refuse(queries: FloatArray, rows: FloatArray) -> None:
    """Raises the engine's own error for the first row that may not enter: without queries or without rows it only checks."""
    _core.topk(queries, rows, 1, "cosine", 0)
    raise AssertionError("the engine accepts what the device refused")


def _sent(rows: FloatArray, device: torch.device) -> torch.Tensor:
    """A copy of the rows on the device, by way of two pinned buffers: one is filled while the other one travels."""
    import torch

    pinned = device.type == "cuda"
    out = torch.empty(rows.shape, dtype=torch.float32, device=device)
    step = min(len(rows), max(1, STAGE_BYTES // (4 * rows.shape[1])))
    buffers = 1 if step == len(rows) else 2
    stages = [torch.empty((step, rows.shape[1]), device="cpu", dtype=torch.float32, pin_memory=pinned) for _ in range(buffers)]
    sent: list[torch.cuda.Event | None] = [None] * buffers
    for number, start in enumerate(range(0, len(rows), step)):
        part, place = rows[start : start + step], number % buffers
        before = sent[place]
        if before is not None:
            before.synchronize()
        fill(stages[place], part)
        out[start : start + len(part)].copy_(stages[place][: len(part)], non_blocking=pinned)
        if pinned:
            sent[place] = torch.cuda.current_stream(device).record_event()
    return out


def _rows_that_fit(dim: int, metric: Metric, device: torch.device) -> int:
    """How many rows, their codes and one block's maxima the device's free memory holds."""
    import torch

    if device.type != "cuda":
        return 2**62
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    a_row = 4 * dim + 2 * (stride(width(dim, metric)) + width(dim, metric)) + 2 * QUERY_BLOCK // GROUP + 8
    fit = int(MEMORY_SHARE * (free - IN_PASSING)) // a_row
    if fit < 1:
        raise InputError(
            f"device: {device} has {free / 2**30:.1f} GiB free, at least {IN_PASSING / 2**30 + 1:.0f} expected: use device='cpu'"
        )
    return fit


@contextmanager
def _as_supposed(device: torch.device) -> Iterator[None]:
    """float16 products are summed in float32 throughout and no type is changed, as the bound supposes; the caller's settings come back."""
    import torch

    flags = torch.backends.cuda.matmul
    names = [name for name in ("allow_fp16_reduced_precision_reduction", "allow_fp16_accumulation") if hasattr(flags, name)]
    before = {name: getattr(flags, name) for name in names}
    try:
        for name in names:
            setattr(flags, name, False)
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        for name, value in before.items():
            setattr(flags, name, value)
