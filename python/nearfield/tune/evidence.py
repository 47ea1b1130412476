"""What differences on a few hundred dev queries can say."""

from __future__ import annotations

import numpy as np

from nearfield.types import FloatArray

# Half the width of a normal 95 % interval in standard errors.
NORMAL_95 = 1.96


def paired_bounds(before: FloatArray, after: FloatArray) -> tuple[float, float, float]:
    """Returns (mean, low, high) of ``after - before``, query by query, with the normal 95 % interval; (mean, -inf, inf) for one query.

    >>> [round(float(v), 3) for v in paired_bounds(np.zeros(4), np.array([0.1, 0.3, 0.1, 0.3]))]
    [0.2, 0.087, 0.313]
    """
    differences = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    mean = float(differences.mean())
    if len(differences) < 2:
        return mean, -np.inf, np.inf
    half = NORMAL_95 * float(differences.std(ddof=1)) / len(differences) ** 0.5
    return mean, mean - half, mean + half


def surely_worse(before: FloatArray, after: FloatArray) -> bool:
    """Whether the interval of ``after - before`` lies below 0.

    >>> surely_worse(np.ones(5), np.zeros(5)), surely_worse(np.array([0.0, 1.0]), np.array([1.0, 0.0]))
    (True, False)
    """
    return paired_bounds(before, after)[2] < 0
