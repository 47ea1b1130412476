"""Vectors of one's own: ``--data FILE`` with rows in a ``.npy`` file, or an ann-benchmarks HDF5 file (train, test, attribute distance)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

SUFFIXES = (".npy", ".hdf5", ".h5")
# What ann-benchmarks calls the metric of a file, and what the graphs call it; angular rows are normalized and then ranked by ip.
METRICS = {"angular": "ip", "euclidean": "l2"}
# A file of rows alone gives its last rows as queries: at most this many and at most a tenth of them.
HELD, HELD_PART = 8_192, 10


class BadData(RuntimeError):
    """The data given cannot be used; the message is one line that says what, where and how to mend it."""


@dataclass(frozen=True)
class OwnVectors:
    """What a file holds: ``(n, d)`` float32 rows, ``(m, d)`` float32 queries that are not among them, and ``"ip"`` or ``"l2"``."""

    rows: np.ndarray
    queries: np.ndarray
    metric: str
    origin: str


def holds_vectors(path: Path | None) -> bool:
    """Whether the file's name says that it holds vectors and not texts."""
    return path is not None and path.suffix.lower() in SUFFIXES


def read(path: Path) -> OwnVectors:
    """Reads the whole file.

    Raises:
        BadData: no such layout, a metric that nobody here computes, or rows that are not finite.
    """
    rows, queries, distance = _npy(path) if path.suffix.lower() == ".npy" else _hdf5(path)
    if distance not in METRICS:
        raise BadData(f"{path}: distance {distance!r}, one of {', '.join(METRICS)} expected")
    metric = METRICS[distance]
    kept = [_checked(path, name, part, metric == "ip") for name, part in (("row", rows), ("query", queries))]
    if kept[0].shape[1] != kept[1].shape[1]:
        raise BadData(f"{path}: queries of {kept[1].shape[1]} columns and rows of {kept[0].shape[1]}, the same number expected")
    return OwnVectors(kept[0], kept[1], metric, f"{path.name}, {distance}")


def _npy(path: Path) -> tuple[Any, Any, str]:
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise BadData(f"{path}: no array that numpy reads without pickle ({error})") from None
    if table.ndim != 2 or len(table) < 2 * HELD_PART:
        raise BadData(f"{path}: an array of shape {table.shape}, (n, d) with at least {2 * HELD_PART} rows expected")
    held = min(HELD, len(table) // HELD_PART)
    return table[:-held], table[-held:], "angular"


def _hdf5(path: Path) -> tuple[Any, Any, str]:
    if find_spec("h5py") is None:
        raise BadData(f"{path}: HDF5 needs h5py: pip install 'nearfield[bench]'")
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if "train" not in file or "test" not in file:
                raise BadData(f"{path}: datasets {', '.join(file) or 'none'}, train and test expected as in ann-benchmarks")
            distance = file.attrs.get("distance", "")
            return file["train"][:], file["test"][:], distance.decode() if isinstance(distance, bytes) else str(distance)
    except OSError as error:
        raise BadData(f"{path}: no HDF5 file ({error})") from None


def _checked(path: Path, name: str, table: Any, unit: bool) -> np.ndarray:
    if table.ndim != 2 or table.dtype.kind not in "fiu" or 0 in table.shape:
        raise BadData(f"{path}: {name} array of shape {table.shape} and type {table.dtype}, numbers of shape (n, d) expected")
    out = np.array(table, np.float32, order="C")
    lengths = np.sqrt(np.einsum("ij,ij->i", out, out, dtype=np.float64))
    if bad := np.flatnonzero(~np.isfinite(lengths)).tolist():
        raise BadData(f"{path}: {name} {bad[0]} holds NaN, infinity or values too large for float32")
    if unit:
        if zero := np.flatnonzero(lengths == 0).tolist():
            raise BadData(f"{path}: {name} {zero[0]} is zero, which has no direction; leave it out")
        out /= lengths[:, None].astype(np.float32)
    return out


def as_products(table: np.ndarray, *, query: bool) -> np.ndarray:
    """Float64 rows whose inner products rank as the squared distances of ``table`` do: q x - x^2 / 2.

    >>> rows, query = np.array([[3.0], [1.0]]), np.array([[0.0]])
    >>> (as_products(query, query=True) @ as_products(rows, query=False).T).tolist()
    [[-4.5, -0.5]]
    """
    wide = np.asarray(table, np.float64)
    last = np.ones(len(wide)) if query else -0.5 * np.einsum("ij,ij->i", wide, wide)
    return np.column_stack([wide, last])
