"""Which code scores on the CPU: the native engine, or its Numba twin where ``NEARFIELD_BACKEND=numba``."""

from __future__ import annotations

import os
from types import ModuleType
from typing import Protocol, cast

from nearfield import _core
from nearfield.errors import InputError, MissingExtraError
from nearfield.types import BoolArray, FloatArray, IntArray, Metric

BACKENDS = ("native", "numba")
VARIABLE = "NEARFIELD_BACKEND"


class Engine(Protocol):
    """Scores and top-k of the caller's arrays, already checked for shape and dtype; threads 0 means all cores."""

    def score_matrix(self, queries: FloatArray, vectors: FloatArray, metric: str, threads: int = 0) -> FloatArray: ...

    def score_candidates(
        self, queries: FloatArray, vectors: FloatArray, positions: IntArray, metric: str, threads: int = 0
    ) -> FloatArray: ...

    def topk(
        self, queries: FloatArray, vectors: FloatArray, k: int, metric: str, threads: int = 0
    ) -> tuple[IntArray, FloatArray, IntArray]: ...


class StoredRows(Protocol):
    """Rows of an index by slot, as ``_core.FlatStore`` searches and scores them."""

    def search(
        self,
        queries: FloatArray | _core.TextQueries,
        k: int,
        limit: int,
        mask: BoolArray | None = None,
        bias: FloatArray | None = None,
        guarantee: float = 1.0,
        threads: int = 0,
    ) -> tuple[IntArray, FloatArray, IntArray, IntArray]: ...

    def score(self, queries: FloatArray, slots: IntArray, threads: int = 0) -> FloatArray: ...


def backend_name() -> str:
    """``"native"`` (default) or ``"numba"``, from ``NEARFIELD_BACKEND``, read at every call.

    Raises:
        InputError: any other name.

    >>> backend_name() in BACKENDS
    True
    """
    name = os.environ.get(VARIABLE) or BACKENDS[0]
    if name not in BACKENDS:
        raise InputError(f"{VARIABLE}: {name!r} given, one of {', '.join(BACKENDS)} expected")
    return name


def engine() -> Engine:
    """What answers ``score`` and ``topk``. Raises InputError for an unknown name, MissingExtraError where numba is not installed."""
    return cast(Engine, _core if backend_name() == "native" else _numba())


def rows_of(store: _core.FlatStore, metric: Metric) -> StoredRows:
    """What searches a store's rows. Raises as ``engine``."""
    return store if backend_name() == "native" else cast(StoredRows, _numba().TwinRows(store, metric))


def score_stored(
    store: _core.FlatStore | _core.HnswView | _core.Frozen, metric: Metric, queries: FloatArray, slots: IntArray, threads: int
) -> FloatArray:
    """Scores of given slots (nq, m), -1 where there is none. Raises as ``engine``.

    A frozen graph's scores are integer products of its codes, and its searches stay native: another sum would not be the score that they
    report.
    """
    if backend_name() == "native" or isinstance(store, _core.Frozen):
        return store.score(queries, slots, threads)
    twin: StoredRows = _numba().TwinRows(store, metric)
    return twin.score(queries, slots, threads)


def _numba() -> ModuleType:
    try:
        from nearfield.kernels import numba_cpu
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "numba":
            raise
        raise MissingExtraError(f"{VARIABLE}=numba", "numba", "numba") from None
    return numba_cpu
