"""Arrays at the door: borrowed when they already fit, converted when that is exact in meaning, refused with a reason otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from nearfield.errors import FormatError, InputError
from nearfield.types import AnyArray, FloatArray


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
    array = np.asarray(values)
    if array.dtype.kind != "f":
        if array.size == 0 and array.ndim < 2 and dim is not None:
            return np.empty((0, dim), np.float32)
        raise InputError(
            f"{what}: dtype {array.dtype} given, a float array expected (float32 is borrowed without a copy): "
            f"convert with {what}.astype('float32') if the values mean what floats would"
        )
    if array.ndim == 1:
        array = array.reshape(1, -1) if array.size or dim is None else array.reshape(0, dim)
    if array.ndim != 2:
        raise InputError(f"{what}: shape {array.shape} given, (n, dim) or (dim,) expected")
    if dim is not None and array.shape[1] != dim:
        raise InputError(f"{what}: {array.shape[1]} columns given (shape {array.shape}), {dim} expected")
    return np.require(array, np.float32, ["C", "A"])


def read_npz(file: IO[bytes] | Path, names: Sequence[str], *, where: str) -> list[AnyArray]:
    """Returns the named arrays of an npz archive that nobody vouches for; pickles are refused.

    Raises:
        FormatError: the file cannot be read, is no such archive, is damaged, or lacks an array.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            return [archive[name] for name in names]
    except Exception as error:
        # No shorter list holds: a flipped byte alone brings ValueError, KeyError, BadZipFile, zlib.error or RuntimeError ("encrypted").
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
