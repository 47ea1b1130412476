"""Training within a given time: how much of it each part may take, and where in its schedule a run is.

The learning rate falls to 0 at the end of a run, so a run that is cut off in the middle is worth less than a shorter one. Under a budget
the place in the schedule is therefore the share of the time that has passed, or of the steps, whichever is larger; the rate reaches 0 as
the time does, at whatever speed the machine trains. Measuring costs time as well (dev scores, the merge with the base): how much is
estimated from the speed of encoding, and set aside.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from nearfield.config import TuneConfig

Clock = Callable[[], float]

# A dev score, and a point of the merge on the guard, may each take this share of the budget: some four of either happen. Twice as much for
# the guard took a fifth of the training from three minutes.
DEV_SHARE, GUARD_SHARE = 0.015, 0.015
# Below these sizes dev says too little; they are kept even where they take more than its share. 200 paired queries see a difference of two
# points (docs/log.md); 100 let noise of three decide.
LEAST_QUERIES, LEAST_DOCUMENTS = 200, 400
# The guard's: its documents are read at full length, so that twice as many of them took a fifth of three minutes from training.
LEAST_GUARD_QUERIES, LEAST_GUARD_DOCUMENTS = 150, 200
# Queries for each document. The guard's are short and its documents whole: more of them cost little, and each narrows the interval.
QUERIES_OF_DEV, QUERIES_OF_GUARD = 0.5, 0.75
# Where the least is more than the share, dev is scored less often: at the beginning, in the middle and at the end.
SELDOM = 0.5
# Points of the merge that time is set aside for: on the guard base, tuned and one between; on dev the one between, for the two ends are
# known there, and the last score of training, which begins when its time is over. With pieces one more of both, for their first share. More
# are measured where time is left, or as long as nothing has held the guard.
GUARD_POINTS, DEV_POINTS, PIECE_POINTS = 3, 2, 1


@dataclass
class Budget:
    """The time of one run.

    Attributes:
        seconds: all of it.
        clock: what measures it: ``time.monotonic``, or ``time.process_time`` on a machine that others use too.
        began: the clock at the start.
    """

    seconds: float
    clock: Clock = time.monotonic
    began: float = field(default=math.nan)

    def __post_init__(self) -> None:
        if math.isnan(self.began):
            self.began = self.clock()

    def left(self) -> float:
        """Seconds that remain, below 0 once it is overdrawn.

        >>> Budget(2.0, clock=iter([10.0, 11.5]).__next__).left()
        0.5
        """
        return self.seconds - (self.clock() - self.began)


def fitted(config: TuneConfig, budget: Budget, *, tokens_per_second: float, dev_tokens: float, guard_tokens: float) -> TuneConfig:
    """Returns ``config`` with sub-corpora that can be scored within their shares of the budget; never larger ones.

    Args:
        config: its sizes are upper limits.
        budget: its ``seconds`` count.
        tokens_per_second: of encoding without gradients, measured.
        dev_tokens, guard_tokens: mean tokens of a dev document and of a guard document.

    >>> small = fitted(TuneConfig(), Budget(60.0), tokens_per_second=10_000, dev_tokens=100, guard_tokens=200)
    >>> small.dev_documents, small.guard_documents, small.eval_every, TuneConfig().dev_documents
    (400, 200, 0.5, 1000)
    """

    def size(limit: int, least: int, share: float, tokens: float) -> int:
        return min(limit, max(least, math.floor(share * budget.seconds * tokens_per_second / max(tokens, 1.0))))

    documents = size(config.dev_documents, LEAST_DOCUMENTS, DEV_SHARE, dev_tokens)
    guarding = size(config.guard_documents, LEAST_GUARD_DOCUMENTS, GUARD_SHARE, guard_tokens)

    def queries(limit: int, of: int, whole: int, least: int, share: float) -> int:
        return limit if of >= whole else min(limit, max(least, math.floor(share * of)))

    wanted = DEV_SHARE * budget.seconds * tokens_per_second / max(dev_tokens, 1.0)
    return dataclasses.replace(
        config,
        eval_every=max(config.eval_every, SELDOM) if wanted < documents else config.eval_every,
        dev_documents=documents,
        dev_queries=queries(config.dev_queries, documents, config.dev_documents, LEAST_QUERIES, QUERIES_OF_DEV),
        guard_documents=guarding,
        guard_queries=queries(config.guard_queries, guarding, config.guard_documents, LEAST_GUARD_QUERIES, QUERIES_OF_GUARD),
    )


def reserve(config: TuneConfig, *, tokens_per_second: float, dev_tokens: int, guard_tokens: int, piece_seconds: float = 0.0) -> float:
    """Returns the seconds that the end of a run needs: the pieces, and the merge's points on dev and guard.

    Args:
        config: whether there are pieces.
        tokens_per_second: of encoding without gradients.
        dev_tokens, guard_tokens: of the sub-corpora; 0 where there is none.
        piece_seconds: what all steps on pieces take together, measured (``nearfield.tune.sizing``).

    >>> reserve(TuneConfig(pieces=0), tokens_per_second=1000.0, dev_tokens=500, guard_tokens=1500)
    5.5
    >>> reserve(TuneConfig(), tokens_per_second=1000.0, dev_tokens=500, guard_tokens=1500, piece_seconds=10.0)
    17.5
    """
    more, pieces = (PIECE_POINTS, piece_seconds) if config.pieces else (0, 0.0)
    return ((DEV_POINTS + more) * dev_tokens + (GUARD_POINTS + more) * guard_tokens) / tokens_per_second + pieces


def place(step: int, total: int, spent: float, limit: float | None) -> float:
    """Returns where in its schedule a run is, from 0 to 1 (its end): by finished steps, or by the time where that is further.

    >>> place(10, 100, spent=3.0, limit=None), place(10, 100, spent=3.0, limit=6.0), place(10, 100, spent=9.0, limit=6.0)
    (0.1, 0.5, 1.0)
    """
    by_steps = step / total
    return by_steps if limit is None else min(1.0, max(by_steps, spent / max(limit, 1e-9)))


def expected_steps(step: int, total: int, at: float) -> int:
    """Returns how many steps a run at place ``at`` will have made at its end; ``total`` before there is anything to go by.

    >>> expected_steps(10, 100, 0.5), expected_steps(0, 100, 0.0), expected_steps(10, 100, 0.1)
    (20, 100, 100)
    """
    return min(total, max(step + 1, round(step / at))) if step and at else total
