"""Which weights a run ends with: measured points between the base, the tuned weights and what pieces add to these."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from nearfield.config import TuneConfig
from nearfield.progress import Bar
from nearfield.progress import progress as show_progress
from nearfield.tune.budget import Budget
from nearfield.tune.checkpoints import Tensors
from nearfield.tune.devset import DevSet
from nearfield.tune.loop import Trainer, Vectors, encode_devset
from nearfield.tune.merge import Point, blend, choose_alpha, interpolate
from nearfield.tune.pieces import add_change

# Shares of the pieces' change that are tried under a guard, as multiples of the config's: the least that holds the guard is taken, for more
# of it costs gain.
MULTIPLES = (0.0, 0.5, 1.0, 1.5, 2.0)


def allowed_drop(config: TuneConfig) -> float:
    """How far the guard may fall on its dev split."""
    return max(config.guard_max_drop - config.guard_margin, 0.0)


def worth_trying(waiting: list[float], tries: list[Point], hold: float) -> list[float]:
    """The shares that may hold the guard, by the line through the last two that did not; a point less is a point more for alpha.

    After the first, which had none of the pieces' change, the lower half is passed over.

    >>> worth_trying([0.25, 0.5, 0.75, 1.0], [Point(1.0, 0.9, 0.78, 0.0)], 0.80)
    [0.5, 0.75, 1.0]
    >>> worth_trying([0.75, 1.0], [Point(1.0, 0.9, 0.78, 0.0), Point(1.0, 0.9, 0.79, 0.5)], 0.80)
    [1.0]
    """
    if len(tries) < 2:
        return waiting[len(waiting) // 2 - 1 :]
    before, last = tries[-2:]
    gain = ((last.guard or 0.0) - (before.guard or 0.0)) / (last.pieces - before.pieces)
    needed = math.inf if gain <= 0 else last.pieces + (hold - (last.guard or 0.0)) / gain
    return [share for share in waiting if share >= needed - 1e-9] or waiting[-1:]


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
        budget: of the run; where it runs out, fewer alphas are tried, one at least.
        progress: shows a bar on stderr.

    Returns:
        (the chosen point, all measured points: the base, shares that did not hold the guard, then by alpha).
    """
    config = trainer.config
    tuned = {name: tensor.to(trainer.tower.device) for name, tensor in trainer.best_weights().items()}
    shares = [0.0] if change is None else [config.pieces] if guard is None else [config.pieces * each for each in MULTIPLES]
    steps = 1 + len(shares) + min(config.merge_trials, sum(0 < alpha < 1 for alpha in config.merge_alphas))
    with show_progress("merging with the base", steps, enabled=progress) as bar:
        measuring, began = _Measuring(trainer, guard, bar), trainer.clock()
        at_base = measuring.point(base, Point(0.0, 0.0, None), trainer.vectors.get(0))
        hold = None if at_base.guard is None else at_base.guard - allowed_drop(config)
        tries: list[Point] = []
        changed: Tensors | None = None
        waiting = list(shares)
        while waiting:
            share = waiting.pop(0)
            if share and change is not None:
                changed = change() if changed is None else changed
            mixed = tuned if changed is None else add_change(tuned, base, changed, share)
            known = trainer.vectors.get(trainer.state.best_step) if share == 0 else None
            tries.append(measuring.point(mixed, Point(1.0, 0.0, None, share), known))
            if hold is None or tries[-1].guard is None or tries[-1].guard >= hold:
                break
            if budget is not None:
                waiting = worth_trying(waiting, tries, hold)
                # A further share costs a point as well, and one alpha has to be left for after it. Time for one is set aside.
                if len(tries) > 1 and budget.left() < 2 * (trainer.clock() - began) / (1 + len(tries)):
                    break
        *refused, at_tuned = tries

        def measure(alpha: float, to_beat: float) -> Point:
            """The guard is several times dev's size: where dev settles that the point is not chosen, it is not asked."""
            return measuring.point(interpolate(base, mixed, alpha), Point(alpha, 0.0, None, share), to_beat=to_beat)

        trials = config.merge_trials
        if budget is not None:
            each = (trainer.clock() - began) / (1 + len(tries))
            trials = min(trials, max(1, int(budget.left() / max(each, 1e-9))))
        chosen, points = choose_alpha(
            at_base,
            at_tuned,
            config.merge_alphas,
            guess=lambda alpha: measuring.guess(at_base, at_tuned, alpha),
            measure=measure,
            trials=trials,
            allowed_drop=allowed_drop(config),
        )
        trainer.tower.model.load_state_dict(interpolate(base, mixed, chosen.alpha))
    return chosen, [points[0], *refused, *points[1:]]


def summary(points: list[Point], chosen: Point, name: str) -> dict[str, Any]:
    """Base, tuned (the last point) and chosen of ``name``, "dev" or "guard"."""
    return {"base": getattr(points[0], name), "tuned": getattr(points[-1], name), "chosen": getattr(chosen, name)}


class _Measuring:
    """Points on dev and on the guard, and the vectors behind those that guesses are made of."""

    def __init__(self, trainer: Trainer, guard: DevSet | None, bar: Bar) -> None:
        self.trainer, self.guard, self.bar = trainer, guard, bar
        self.vectors: dict[Point, tuple[Vectors, Vectors | None]] = {}

    def point(self, weights: Tensors, of: Point, known: Vectors | None = None, *, to_beat: float | None = None) -> Point:
        """``of`` with its scores under these weights; the guard is asked unless dev stays below ``to_beat``."""
        trainer = self.trainer
        trainer.tower.model.load_state_dict(weights)
        dev_vectors = known or trainer.dev_vectors(self.bar)
        dev = trainer.dev.ndcg(*dev_vectors)
        guard_vectors = None
        if self.guard is not None and (to_beat is None or dev >= to_beat):
            guard_vectors = encode_devset(trainer.tower, self.guard, trainer.config, trainer.dtype, self.bar)
        self.bar.advance(1)
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
