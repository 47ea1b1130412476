"""How much of the tuned model to keep: weights between base and tuned, chosen on dev, held back by the guard.

Averaging the weights of a tuned model with those it started from keeps most of the gain and gives back most of what was forgotten
(https://arxiv.org/abs/2109.01903 for images, https://arxiv.org/abs/2311.13534 for text vectors). A point on the line costs one encoding
of the sub-corpora. To spend few of them, the vectors themselves are averaged first, which is free and close as long as the two models
are; only the most promising points are then encoded with really averaged weights, and only those can be chosen.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch

from nearfield.types import FloatArray

# Points beyond those asked for, each well below the last: one is nearly always enough (``surely_held``).
RESCUES = 2


@dataclass(frozen=True, slots=True)
class Point:
    """nDCG@10 (0 to 1) at one alpha; ``guard`` is None where there is no guard set, or where it was not asked.

    ``pieces`` is the share of the pieces' change in the tuned weights (``nearfield.tune.pieces``).
    """

    alpha: float
    dev: float
    guard: float | None
    pieces: float = 0.0


def interpolate(base: dict[str, torch.Tensor], tuned: dict[str, torch.Tensor], alpha: float) -> dict[str, torch.Tensor]:
    """Returns ``(1 - alpha) * base + alpha * tuned`` for floating tensors, the tuned one for others; 0 and 1 are exact copies.

    >>> interpolate({"w": torch.zeros(1)}, {"w": torch.ones(1)}, 0.25)["w"].item()
    0.25
    """
    if alpha in (0.0, 1.0):
        return {name: tensor.clone() for name, tensor in (tuned if alpha else base).items()}
    return {name: torch.lerp(base[name], tensor, alpha) if tensor.is_floating_point() else tensor.clone() for name, tensor in tuned.items()}


def blend(base: FloatArray, tuned: FloatArray, alpha: float) -> FloatArray:
    """Returns the normalized ``(1 - alpha) * base + alpha * tuned`` of two ``(n, dim)`` arrays: a guess of what merged weights give."""
    mixed = (1 - alpha) * base + alpha * tuned
    normalized: FloatArray = (mixed / np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-12)).astype(np.float32)
    return normalized


def surely_held(waiting: Iterable[Point], base: Point, failed: Point, allowed_drop: float) -> Point:
    """The greatest alpha whose guard holds if it falls no faster than along the line from the base to a point that failed; else the least.

    Weights that are moved half as far forget less than half: the line is the careful side.

    >>> points = [Point(alpha, 0.0, None) for alpha in (0.25, 0.5, 0.7)]
    >>> surely_held(points, Point(0.0, 0.5, 0.80), Point(0.8, 0.9, 0.785), 0.01).alpha
    0.5
    """
    drop = (base.guard or 0.0) - (failed.guard or 0.0)
    held = [point for point in waiting if drop * point.alpha <= allowed_drop * failed.alpha]
    return max(held, key=lambda point: point.alpha) if held else min(waiting, key=lambda point: point.alpha)


def choose_alpha(
    base: Point,
    tuned: Point,
    alphas: Iterable[float],
    *,
    guess: Callable[[float], Point],
    measure: Callable[[float, float], Point],
    trials: int,
    allowed_drop: float,
) -> tuple[Point, list[Point]]:
    """Picks the alpha with the best dev score among the measured ones whose guard score is within ``allowed_drop`` of the base.

    Ties go to the smaller alpha (nearer to the base). Where no alpha of the list passes, the base (alpha 0) is the answer.

    Args:
        base: the measured point at 0.
        tuned: the measured point at 1.
        alphas: the alphas that may be chosen; 0 and 1 only if they are among them.
        guess: a free estimate of a point, which decides the order of measuring.
        measure: the true point, given alpha and the dev score it has to reach to be chosen; below that it may leave the guard out.
        trials: points between 0 and 1 to measure at most; ``RESCUES`` more where none of them passed and tuning had a gain, unless 0.
        allowed_drop: of the guard's nDCG@10, >= 0.

    Returns:
        (the chosen point, all measured points by alpha).
    """

    def passes(point: Point) -> bool:
        return point.guard is None or base.guard is None or point.guard >= base.guard - allowed_drop

    def fitting() -> list[Point]:
        return [point for point in measured.values() if point.alpha in set(alphas) and passes(point)]

    measured = {0.0: base, 1.0: tuned}
    waiting = [guess(alpha) for alpha in alphas if 0 < alpha < 1]
    for number in itertools.count():
        # Where every one so far failed the guard, ending here would give all of the gain away.
        rescue = number >= trials
        if rescue and (trials == 0 or number == trials + RESCUES or tuned.dev <= base.dev or any(point.alpha for point in fitting())):
            break
        # The guard falls as alpha grows: beyond a point that failed there is nothing to find.
        lowest = min((point for point in measured.values() if not passes(point)), key=lambda point: point.alpha, default=None)
        waiting = [point for point in waiting if point.alpha not in measured and (lowest is None or point.alpha < lowest.alpha)]
        if not waiting:
            break
        if rescue and lowest is not None:
            next_one = surely_held(waiting, base, lowest, allowed_drop)
        else:
            next_one = max(waiting, key=lambda point: (passes(point), point.dev if passes(point) else -point.alpha, -point.alpha))
        measured[next_one.alpha] = measure(next_one.alpha, max((point.dev for point in fitting()), default=0.0))
    fit = fitting()
    chosen = max(fit, key=lambda point: (point.dev, -point.alpha)) if fit else base
    return chosen, [measured[alpha] for alpha in sorted(measured)]
