"""The values that stages hand to each other and to the caller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Metric = Literal["cosine", "ip", "l2"]
Storage = Literal["float32", "bfloat16", "int8"]
Kind = Literal["document", "query"]

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
ByteArray = npt.NDArray[np.uint8]
AnyArray = npt.NDArray[Any]

# int64 ids (>= 0) or strings; one index holds one kind.
Ids = Sequence[int] | Sequence[str] | IntArray


@dataclass(frozen=True, slots=True)
class Hits:
    """The result of a search over ``nq`` queries.

    Attributes:
        ids: ``(nq, k)``; int64, or object (str) where the index has string ids. Missing places hold -1 or None.
        scores: ``(nq, k)`` float32, larger is better, descending in each row; missing places hold NaN.
        counts: ``(nq,)`` int64, how many places of each row are filled: ``min(k, rows that may match)``.
        rescored: ``(nq,)`` int64, the rows that the scan's error bound could not exclude and whose exact score was computed, from an exact
            index or a GPU; None otherwise.
    """

    ids: AnyArray
    scores: FloatArray
    counts: IntArray
    rescored: IntArray | None = None

    def __len__(self) -> int:
        return len(self.counts)
