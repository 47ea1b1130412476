"""Arrays at the door: borrowed when they already fit, converted when that is exact in meaning, refused with a reason otherwise."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from nearfield.errors import FormatError, InputError
from nearfield.types import AnyArray, FloatArray, IntArray

# The result arrays of a search take 12 bytes a place; 2^32 places would be 48 GiB, surely not what was meant.
MAX_PLACES = 2**32
FLOAT32 = np.dtype(np.float32)


def as_matrix(values: npt.ArrayLike, *, dim: int | None, what: str) -> FloatArray:
    """Returns ``values`` as a C-contiguous float32 matrix of shape ``(n, dim)``; one row may come as a 1-D array.

    A C-contiguous, aligned, native-endian float32 array is returned as it is (no copy). float64, float16, strided and
    byte-swapped arrays are copied once. Integers, objects, complex numbers and other ranks are refused.

    Args:
        values: the array-like given by the caller.
        dim: the number of columns expected, or None to accept any.
        what: how to name the array in an error, for example ``"queries"``.

    Raises:
        InputError: wrong dtype, rank or number of columns.

    >>> as_matrix([0.5, 1.5], dim=2, what="queries").shape
    (1, 2)
    """
    # What needs nothing is told first: a query of one row takes 15 microseconds in all, the checks below 4.
    if type(values) is np.ndarray and values.dtype is FLOAT32 and values.ndim == 2 and values.shape[1] == dim:
        flags = values.flags
        if flags.c_contiguous and flags.aligned:
            return values
    array = as_array(values, what)
    if array.dtype.kind != "f":
        if array.size == 0 and array.ndim < 2 and dim is not None:
            return np.empty((0, dim), np.float32)
        raise InputError(
            f"{what}: dtype {array.dtype} given, a float array expected (float32 is borrowed without a copy): "
            f"convert with {what}.astype('float32') if the values mean what floats would"
        )
    if array.ndim == 1:
        array = array.reshape(1, -1) if array.size else array.reshape(0, dim or 0)
    if array.ndim != 2:
        raise InputError(f"{what}: shape {array.shape} given, (n, dim) or (dim,) expected")
    if dim is not None and array.shape[1] != dim:
        raise InputError(f"{what}: {array.shape[1]} columns given (shape {array.shape}), {dim} expected")
    with np.errstate(over="ignore"):
        matrix = np.require(array, np.float32, ["C", "A"])
    if array.dtype.itemsize > matrix.dtype.itemsize and np.isinf(matrix).any():
        lost = np.argwhere(np.isinf(matrix) & np.isfinite(array))
        if len(lost):
            row, column = lost[0].tolist()
            raise InputError(
                f"{what}: row {row} holds {array[row, column]} in column {column}, beyond float32 (3.4e38): scale the vectors down"
            )
    return matrix


def as_candidates(array: AnyArray, queries: int, what: str) -> AnyArray:
    """Returns candidates of ``queries`` queries in shape ``(queries, m)``; those of one query may come as ``(m,)``.

    >>> as_candidates(np.array([3, 1]), 1, "candidates").shape
    (1, 2)
    """
    if array.ndim == 1 and (queries == 1 or (queries == 0 and array.size == 0)):
        array = array.reshape(queries, array.size)
    if array.ndim != 2 or len(array) != queries:
        raise InputError(f"{what}: shape {array.shape} given, ({queries}, m) expected: as many candidates for each query, -1 for none")
    return array


def as_places(array: AnyArray, what: str) -> IntArray:
    """Returns candidates ``(nq, m)`` as C-contiguous int64.

    Raises:
        InputError: another dtype than an integer one; a number below -1 or beyond int64, named with its place.
    """
    if array.size == 0:
        return np.empty(array.shape, np.int64)
    if array.dtype.kind not in "iu":
        raise InputError(f"{what}: dtype {array.dtype} given, int64 expected, with -1 for none")
    places = np.require(array, np.int64, ["C", "A"])
    wrong = np.argwhere(places < (0 if array.dtype.kind == "u" else -1))
    if len(wrong):
        row, place = wrong[0].tolist()
        raise InputError(f"{what}: row {row}, place {place} is {array[row, place]}, a number from 0 to 2^63 - 1, or -1 for none, expected")
    return places


def as_array(values: Any, what: str, dtype: type | None = None) -> AnyArray:
    """Returns ``values`` as an array, of ``dtype`` where one is named; what numpy makes none of, and masked values, are refused.

    >>> as_array([[1.0], [2.0]], "queries").shape
    (2, 1)
    """
    if np.ma.is_masked(values):
        raise InputError(f"{what}: masked values given, which stand for no numbers: fill them or leave their rows out")
    try:
        return np.asarray(values, dtype)
    except (ValueError, TypeError, RuntimeError) as problem:
        raise InputError(
            f"{what}: {type(values).__name__} given of which numpy makes no array ({problem}): rows of one length expected"
        ) from None


def read_npz(file: IO[bytes] | Path, names: Sequence[str], *, where: str, max_bytes: int | None = None) -> list[AnyArray]:
    """Returns the named arrays of an npz archive that nobody vouches for; pickles are refused.

    Args:
        file: a path, or a file that can seek.
        names: of the arrays.
        where: how errors name the file.
        max_bytes: of all members unpacked, as the archive's directory states them (no more is read of any); None for no limit.

    Raises:
        FormatError: the file cannot be read, is no such archive, is damaged, is too large unpacked, or lacks an array.
    """
    try:
        with zipfile.ZipFile(file) as directory:
            unpacked = sum(member.file_size for member in directory.infolist())
        if max_bytes is not None and unpacked > max_bytes:
            raise ValueError(f"more than {max_bytes:,} bytes unpacked")
        if not isinstance(file, Path):
            file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            return [archive[name] for name in names]
    except Exception as error:
        # No shorter list holds: a flipped byte alone brings ValueError, KeyError, BadZipFile, NotImplementedError, zlib.error or
        # RuntimeError ("encrypted").
        raise FormatError(f"{where}: cannot be read: {error}") from None


def check_k(k: int) -> int:
    """Returns ``k`` as an int >= 1, or raises InputError.

    >>> check_k(10)
    10
    """
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
        raise InputError(f"k: {k!r} given, a whole number >= 1 expected")
    if k < 1:
        raise InputError(f"k: {k} given, a whole number >= 1 expected")
    return int(k)


def check_places(queries: int, k: int) -> None:
    """Refuses a result too large to mean anything."""
    if max(queries, 1) * k > MAX_PLACES:
        raise InputError(f"k: {k} results for {queries} queries are more than {MAX_PLACES} places: use a smaller k or fewer queries")


def check_whole(value: Any, what: str, low: int, high: int) -> int:
    """Returns ``value`` as an int between ``low`` and ``high``.

    >>> check_whole(384, "dim", 1, 65536)
    384
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise InputError(f"{what}: {value!r} given, a whole number from {low} to {high} expected")
    return int(value)


def check_threads(threads: int | None, default: int | None = None) -> int:
    """Returns a number of threads for the engine: ``threads``, else ``default``; where both are None, 0 (all cores)."""
    chosen = default if threads is None else threads
    return 0 if chosen is None else check_whole(chosen, "threads", 1, 2**16)
