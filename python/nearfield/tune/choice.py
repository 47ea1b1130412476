"""Which weights a run ends with: measured points between the base, the tuned weights and what pieces add to these."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import cache
from typing import Any

from nearfield.config import TuneConfig
from nearfield.progress import Bar
from nearfield.progress import progress as show_progress
from nearfield.tune.budget import Budget
from nearfield.tune.checkpoints import Tensors
from nearfield.tune.devset import DevSet
from nearfield.tune.loop import Trainer, Vectors
from nearfield.tune.merge import Point, blend, choose_alpha, interpolate
from nearfield.tune.pieces import add_change

# The most of the pieces' change that is tried under a guard, as a multiple of the config's, and the steps in which the least that holds the
# guard is looked for: 0.05 of it gives back a quarter of a point on the guard and costs a tenth of one on dev (docs/log.md).
MOST, STEPS = 2.0, 20
# What all of it gives back of the guard's nDCG@10, until the run has measured it: 4 to 5 points (docs/log.md).
GIVES_BACK = 0.045
# A share is good enough when the guard has no more than this to spare, and after so many tries beside the first.
CLOSE, TRIES = 0.0015, 4


def allowed_drop(config: TuneConfig) -> float:
    """How far the guard may fall on its dev split."""
    return max(config.guard_max_drop - config.guard_margin, 0.0)


def next_share(tries: list[Point], hold: float, most: float) -> float | None:
    """The share to try next for the least that holds the guard, or None where it has been found or cannot be.

    Straight lines through what was measured: from share to guard they are nearly straight.

    >>> next_share([Point(1.0, 0.9, 0.781, 0.0)], 0.80, most=1.0)
    0.45
    >>> next_share([Point(1.0, 0.9, 0.781, 0.0), Point(1.0, 0.9, 0.811, 0.4)], 0.80, most=1.0)
    0.3
    >>> next_share([Point(1.0, 0.9, 0.781, 0.0), Point(1.0, 0.9, 0.791, 0.4)], 0.80, most=1.0)
    0.8
    >>> next_share([Point(1.0, 0.9, 0.781, 0.0), Point(1.0, 0.9, 0.7992, 0.35), Point(1.0, 0.9, 0.799, 0.4)], 0.80, most=1.0)
    0.45
    >>> next_share([Point(1.0, 0.9, 0.781, 0.0), Point(1.0, 0.9, 0.801, 0.4)], 0.80, most=1.0)
    """
    guard = {point.pieces: point.guard or 0.0 for point in tries}
    failed = max((share for share in guard if guard[share] < hold), default=None)
    passed = min((share for share in guard if guard[share] >= hold), default=None)
    step = most / STEPS
    if failed is None or failed >= most - step / 2 or len(tries) > TRIES:
        return None
    if passed is not None and (passed - failed < 1.5 * step or guard[passed] < hold + CLOSE):
        return None
    usual = GIVES_BACK / most
    if passed is not None:
        gain = (guard[passed] - guard[failed]) / (passed - failed)
    elif failed > (least := min(guard)):
        # Over all that was measured, and not less than a third of what is usual: the last two shares may lie near each other, and
        # the difference of two scores of some hundred questions may have the wrong sign.
        gain = max((guard[failed] - guard[least]) / (failed - least), usual / 3)
    else:
        gain = usual
    needed = failed + (hold - guard[failed]) / gain
    top = most if passed is None else passed - step
    return round(step * math.ceil(max(failed + step, min(needed, top)) / step - 1e-6), 6)


def choose_weights(
    trainer: Trainer,
    base: Tensors,
    change: Callable[[], Tensors] | None,
    guard: DevSet | None,
    *,
    budget: Budget | None = None,
    progress: bool,
) -> tuple[Point, list[Point]]:
    """Chooses share and alpha, and leaves ``base + alpha * (tuned + share * (changed - base) - base)`` in the trainer's tower.

    Args:
        trainer: a finished run.
        base: the weights it began with.
        change: makes the base after ``tune_on_pieces``, asked only where some of that is tried; None without it.
        guard: the guard's sub-corpus, or None.
        budget: of the run; where it runs out, no more shares and alphas are tried once one has held the guard.
        progress: shows a bar on stderr.

    Returns:
        (the chosen point, all measured points: the base, other shares as they were tried, then by alpha).
    """
    config = trainer.config
    tuned = {name: tensor.to(trainer.tower.device) for name, tensor in trainer.best_weights().items()}
    steps = (
        1
        + (1 if change is None or guard is None else TRIES)
        + min(config.merge_trials, sum(0 < alpha < 1 for alpha in config.merge_alphas))
    )
    with show_progress("merging with the base", steps, enabled=progress) as bar:
        measuring = _Measuring(trainer, guard, bar)
        at_base = measuring.point(base, Point(0.0, 0.0, None), trainer.vectors.get(0))
        hold = None if at_base.guard is None else at_base.guard - allowed_drop(config)

        @cache
        def changed() -> Tensors:
            assert change is not None
            return change()

        def mixed(share: float) -> Tensors:
            return add_change(tuned, base, changed(), share) if share else tuned

        if change is None or hold is None:  # nothing to look for
            tries = [measuring.share(0.0 if change is None else config.pieces, mixed)]
        else:
            tries = _tried(measuring, mixed, hold, MOST * config.pieces, budget)
        held = [point for point in tries if hold is None or (point.guard or 0.0) >= hold]
        at_tuned = min(held, key=lambda point: point.pieces) if held else max(tries, key=lambda point: point.pieces)
        refused = [point for point in tries if point is not at_tuned]
        whole = mixed(at_tuned.pieces)

        def measure(alpha: float, to_beat: float) -> Point:
            """The guard is several times dev's size: where dev settles that the point is not chosen, it is not asked."""
            return measuring.point(interpolate(base, whole, alpha), Point(alpha, 0.0, None, at_tuned.pieces), to_beat=to_beat)

        trials = config.merge_trials
        if budget is not None:
            trials = min(trials, max(0 if held else 1, int(budget.left() / max(measuring.longest, 1e-9))))
        chosen, points = choose_alpha(
            at_base,
            at_tuned,
            config.merge_alphas,
            guess=lambda alpha: measuring.guess(at_base, at_tuned, alpha),
            measure=measure,
            trials=trials,
            allowed_drop=allowed_drop(config),
        )
        trainer.tower.model.load_state_dict(interpolate(base, whole, chosen.alpha))
    return chosen, [points[0], *refused, *points[1:]]


def _tried(measuring: _Measuring, mixed: Callable[[float], Tensors], hold: float, most: float, budget: Budget | None) -> list[Point]:
    """The shares on the way to the least that holds the guard, in the order of measuring: ``next_share`` from 0 on."""
    tries: list[Point] = []
    share: float | None = 0.0
    while share is not None:
        tries.append(measuring.share(share, mixed))
        held = any((point.guard or 0.0) >= hold for point in tries)
        # Time for the second share is set aside. Until one has held the next is worth more than it: alphas cost more gain.
        share = None if budget is not None and held and budget.left() < measuring.longest else next_share(tries, hold, most)
    return tries


def summary(points: list[Point], chosen: Point, name: str) -> dict[str, Any]:
    """Base, tuned (the last point) and chosen of ``name``, "dev" or "guard"."""
    return {"base": getattr(points[0], name), "tuned": getattr(points[-1], name), "chosen": getattr(chosen, name)}


class _Measuring:
    """Points on dev and on the guard, and the vectors behind those that guesses are made of."""

    def __init__(self, trainer: Trainer, guard: DevSet | None, bar: Bar) -> None:
        self.trainer, self.guard, self.bar = trainer, guard, bar
        self.vectors: dict[Point, tuple[Vectors, Vectors | None]] = {}
        self.longest = 0.0  # seconds of a point

    def share(self, share: float, mixed: Callable[[float], Tensors]) -> Point:
        """All of the tuned weights with this share of the pieces' change; for a share of 0 dev has been encoded already."""
        known = None if share else self.trainer.vectors.get(self.trainer.state.best_step)
        return self.point(mixed(share), Point(1.0, 0.0, None, share), known)

    def point(self, weights: Tensors, of: Point, known: Vectors | None = None, *, to_beat: float | None = None) -> Point:
        """``of`` with its scores under these weights; the guard is asked unless dev stays below ``to_beat``."""
        trainer, began = self.trainer, self.trainer.clock()
        trainer.tower.model.load_state_dict(weights)
        packed = trainer.packed(weights)
        dev_vectors = known or trainer.encoded(trainer.dev, self.bar, packed, states=trainer.states)
        dev = trainer.dev.ndcg(*dev_vectors)
        guard_vectors = None
        if self.guard is not None and (to_beat is None or dev >= to_beat):
            guard_vectors = trainer.encoded(self.guard, self.bar, packed)
        self.bar.advance(1)
        self.longest = max(self.longest, trainer.clock() - began)
        found = dataclasses.replace(of, dev=dev, guard=self.guard.ndcg(*guard_vectors) if self.guard and guard_vectors else None)
        if to_beat is None:
            self.vectors[found] = dev_vectors, guard_vectors
        return found

    def guess(self, low: Point, high: Point, alpha: float) -> Point:
        """A point between two measured ones, from blended vectors."""
        (dev_low, guard_low), (dev_high, guard_high) = self.vectors[low], self.vectors[high]
        dev = self.trainer.dev.ndcg(*(blend(a, b, alpha) for a, b in zip(dev_low, dev_high, strict=True)))
        guard = None
        if self.guard is not None and guard_low is not None and guard_high is not None:
            guard = self.guard.ndcg(*(blend(a, b, alpha) for a, b in zip(guard_low, guard_high, strict=True)))
        return Point(alpha, dev, guard, high.pieces)
