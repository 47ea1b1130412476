"""Exact top-k as one CUDA kernel that can be read in a minute: the second opinion on the torch path, and what runs where torch is not.

A block of threads takes one query. Each thread scores one row of a strip in float64, with the native engine's order of summation; then one
thread inserts what beats the k-th best so far. Runs in Numba's CUDA simulator (``NUMBA_ENABLE_CUDASIM=1``) without a GPU.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from nearfield import _core
from nearfield.errors import InputError, MissingExtraError
from nearfield.kernels.found import Found
from nearfield.types import FloatArray, Metric

# Threads of a block, and so rows of a strip: two warps hide each other's latency, and one thread looks through 64 scores quickly.
THREADS = 64


def _cuda() -> Any:
    try:
        from numba import cuda
    except ImportError:
        raise MissingExtraError("NEARFIELD_CUDA_BACKEND=numba", "numba", "numba") from None
    if not cuda.is_available():
        raise InputError("device: 'cuda' given, but numba finds no CUDA device: use device='cpu'")
    return cuda


class NumbaRows:
    """Rows (n, dim) in a GPU's memory, all of them: they must fit. Arguments and errors as ``kernels.devices.rows_on``."""

    def __init__(self, rows: FloatArray, metric: Metric, number: int | None = None, *, unit: bool = False, threads: int = THREADS) -> None:
        self._number, self._metric, self._threads = number, metric, threads
        if not unit:
            # The native store checks rows and makes unit rows of them; what comes back has the bits that a search on the CPU would see.
            store = _core.FlatStore(rows.shape[1], metric, "float32")
            store.append(rows, np.empty(0, np.int64), 0)
            rows = store.get(np.arange(len(rows)))
        with self._device():
            self._rows = _cuda().to_device(rows)

    def search(self, queries: FloatArray, k: int) -> Found:
        """As ``RowsOnDevice.search``. Scores closer than ``dim * 2^-52 * |q| |x|`` may swap under l2, where the compiler may fuse a square
        with its sum; every row is rescored."""
        from nearfield.kernels import numba_scan

        cuda, count = _cuda(), len(self._rows)
        metric = {"cosine": numba_scan.COSINE, "ip": numba_scan.IP, "l2": numba_scan.L2}[self._metric]
        _core.topk(queries, np.empty((0, queries.shape[1]), np.float32), 1, self._metric, 0)  # refuses queries that may not enter
        kept = min(k, count)
        with self._device():
            scores = cuda.to_device(np.full((len(queries), kept), -np.inf))
            positions = cuda.to_device(np.full((len(queries), kept), -1, np.int64))
            numba_scan.scan[len(queries), self._threads](self._rows, cuda.to_device(queries), metric, scores, positions)
            found = positions.copy_to_host(), scores.copy_to_host()
        filled = np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), np.nan, np.float32)
        with np.errstate(over="ignore"):
            filled[0][:, :kept], filled[1][:, :kept] = found
        counts, rescored = np.full(len(queries), kept, np.int64), np.full(len(queries), count, np.int64)
        return Found(*filled, counts, rescored, np.zeros(len(queries), np.bool_))

    def _device(self) -> AbstractContextManager[Any]:
        cuda = _cuda()
        if self._number is not None and self._number >= len(cuda.gpus):
            raise InputError(
                f"device: 'cuda:{self._number}' given, but the last of the {len(cuda.gpus)} CUDA devices is 'cuda:{len(cuda.gpus) - 1}'"
            )
        device: AbstractContextManager[Any] = cuda.gpus[self._number or 0]
        return device
