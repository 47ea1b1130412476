"""Rows on a GPU behind one signature, and which code searches them."""

from __future__ import annotations

import os
import re
from typing import Protocol

from nearfield.errors import InputError
from nearfield.kernels.found import Found
from nearfield.types import FloatArray, Metric

# torch: float16 products with a proof, docs/cuda.md. numba: every score in float64, short enough to be read; slower.
BACKENDS = ("torch", "numba")
VARIABLE = "NEARFIELD_CUDA_BACKEND"


class RowsOnDevice(Protocol):
    """Rows that a device searches."""

    def search(self, queries: FloatArray, k: int) -> Found:
        """The exact k best rows of each query (nq, dim), nq >= 1. Raises InputError for a query that may not enter."""


def cuda_number(device: str) -> int | None:
    """The number in ``"cuda:N"``; None for ``"cuda"``, the current one.

    >>> cuda_number("cuda"), cuda_number("cuda:1")
    (None, 1)
    """
    match = re.fullmatch(r"cuda(?::(\d{1,4}))?", device) if isinstance(device, str) else None
    if match is None:
        raise InputError(f"device: {device!r} given, 'cpu', 'cuda' or 'cuda:N' expected")
    return None if match[1] is None else int(match[1])


def rows_on(device: str, rows: FloatArray, metric: Metric, *, unit: bool = False) -> RowsOnDevice:
    """Brings rows (n, dim), n and dim >= 1, to a GPU.

    Args:
        device: ``"cuda"`` or ``"cuda:N"``.
        rows: C-contiguous float32; borrowed for as long as the result lives where they do not fit into the device's memory.
        metric: what they will be searched by.
        unit: the rows are a cosine index's stored unit rows, to be taken as they are; otherwise cosine normalizes them.

    Raises:
        InputError: no such device, an unknown ``NEARFIELD_CUDA_BACKEND``, a row that may not enter.
        MissingExtraError: torch (or numba) is not installed.
    """
    number = cuda_number(device)
    backend = os.environ.get(VARIABLE, BACKENDS[0])
    if backend == "torch":
        from nearfield.kernels.cuda import DeviceRows, find_device

        return DeviceRows(rows, metric, find_device(number), unit=unit)
    if backend == "numba":
        from nearfield.kernels.numba_cuda import NumbaRows

        return NumbaRows(rows, metric, number, unit=unit)
    raise InputError(f"{VARIABLE}: {backend!r} given, one of {', '.join(BACKENDS)} expected")
