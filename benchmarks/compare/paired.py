"""Pairs of timings that were taken next to each other, and what they say: a median ratio with an interval that assumes no distribution."""

from __future__ import annotations

import math
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# One figure in a hundred may be called different when it is not.
CONFIDENCE = 0.99
# A difference of less than this is not worth a word, however certain.
WORTH = 0.01
# A turn is so long: a shared machine changes its speed for seconds on end, so that two turns of this length mostly see the same.
TURN_S = 0.05
MOST_CALLS = 200


@dataclass(frozen=True)
class Ratio:
    """How many times as fast the new commit is: the median over the pairs, its interval, and the fastest turn of each in seconds."""

    median: float
    low: float
    high: float
    base_s: float
    new_s: float

    @property
    def verdict(self) -> str:
        """``"faster"``, ``"slower"`` or ``"no difference shown"``."""
        if self.low > 1 and self.median >= 1 + WORTH:
            return "faster"
        if self.high < 1 and self.median <= 1 - WORTH:
            return "slower"
        return "no difference shown"


def ratio(base: Sequence[float], new: Sequence[float]) -> Ratio:
    """Of seconds that belong together by their places."""
    ratios = sorted(b / n for b, n in zip(base, new, strict=True))
    out = order(len(ratios))
    return Ratio(statistics.median(ratios), ratios[out], ratios[-1 - out], min(base), min(new))


def order(pairs: int, confidence: float = CONFIDENCE) -> int:
    """How many of the sorted ratios lie outside the interval on either side.

    The true median lies between the (m+1)-th smallest and the (m+1)-th largest of n values unless at most m of n fair coins fall on one
    side: probability 2 * P(Binomial(n, 1/2) <= m).

    >>> order(20), order(6)
    (3, 0)
    """
    below, out = 0.0, 0
    for fallen in range(pairs // 2):
        below += 2 * math.comb(pairs, fallen) / 2**pairs
        if below > 1 - confidence:
            break
        out = fallen
    return out


def take_turns(ask: Sequence[Callable[[int], float]], pairs: int, calls: int) -> tuple[list[float], list[float]]:
    """Seconds of base and new for each pair; who is first changes with each."""
    out: tuple[list[float], list[float]] = ([], [])
    for number in range(pairs):
        for place in (0, 1) if number % 2 == 0 else (1, 0):
            out[place].append(ask[place](calls))
    return out


class Worker:
    """A process that waits for its turn."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        self.quality = ""  # what it says of its answers, once it is ready

    def ready(self) -> str | None:
        """Waits until it is prepared; the last line of its error if it is not."""
        assert self.process.stdout is not None
        word, _, self.quality = self.process.stdout.readline().strip().partition(" ")
        if word == "ready":
            return None
        _, error = self.process.communicate()
        return (error.strip().splitlines() or ["it ended"])[-1]

    def ask(self, calls: int) -> float:
        """Seconds of the fastest of so many calls."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{calls}\n")
        self.process.stdin.flush()
        return min(map(float, self.process.stdout.readline().split()))

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def calls_of(seconds: float) -> int:
    """As many calls as fill a turn."""
    return max(1, min(MOST_CALLS, round(TURN_S / seconds)))
