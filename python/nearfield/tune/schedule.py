"""The learning rate and the evaluation points as pure functions of the step, so that a resumed run needs no state for them."""

from __future__ import annotations

import math

from nearfield.config import Decay


def rate_at(step: int, total: int, *, peak: float, warmup_fraction: float, decay: Decay) -> float:
    """Returns the learning rate of step ``step`` (0 <= step < total): a linear rise to ``peak``, then a fall that would reach 0 at
    ``total``.

    The first step already moves (rate peak / warmup steps), the last one still does.

    >>> [round(rate_at(s, 10, peak=1.0, warmup_fraction=0.2, decay="linear"), 3) for s in range(10)]
    [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    """
    warmup = math.ceil(total * warmup_fraction)
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / (total - warmup)
    return peak * (1 - done) if decay == "linear" else peak * (1 + math.cos(math.pi * done)) / 2


def evaluation_steps(total: int, every: float) -> frozenset[int]:
    """Returns the numbers of finished steps at which the dev set is scored: every ``every`` of the run, and its end.

    >>> sorted(evaluation_steps(10, 0.25))
    [2, 5, 8, 10]
    >>> sorted(evaluation_steps(1, 0.25))
    [1]
    """
    points = {round(total * every * part) for part in range(1, math.floor(1 / every) + 1)}
    return frozenset(point for point in points if point > 0) | {total}
