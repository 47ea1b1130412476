"""Progress on stderr: a live bar with ETA on a terminal, a plain line every ten seconds elsewhere, nothing when switched off."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

# A log file wants few lines; ten seconds keeps a ten-minute step under sixty.
PLAIN_INTERVAL_S = 10.0


class Bar(Protocol):
    """What a long step sees of its progress display."""

    def advance(self, steps: float = 1, note: str = "") -> None:
        """Moves the bar by ``steps``; a non-empty ``note`` replaces the text after the bar (a loss, a dev score)."""


class _Silent:
    def advance(self, steps: float = 1, note: str = "") -> None:
        """Shows nothing."""


class _Plain:
    def __init__(self, label: str, total: float) -> None:
        self.label, self.total, self.done, self.note = label, total, 0.0, ""
        self.start = self.last = time.monotonic()

    def advance(self, steps: float = 1, note: str = "") -> None:
        self.done += steps
        self.note = note or self.note
        now = time.monotonic()
        if now - self.last >= PLAIN_INTERVAL_S:
            self.last = now
            elapsed = now - self.start
            left = f"{elapsed / self.done * (self.total - self.done):.0f} s left" if self.done else "no estimate yet"
            print(f"{self.label}: {100 * self.done / max(self.total, 1):.0f} %, {left} {self.note}".rstrip(), file=sys.stderr)


class _Rich:
    def __init__(self, label: str, total: float) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.display = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("ETA"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=Console(stderr=True),
        )  # fmt: skip
        self.task = self.display.add_task(label, total=total, note="")

    def advance(self, steps: float = 1, note: str = "") -> None:
        if note:
            self.display.update(self.task, note=note)
        self.display.advance(self.task, steps)


@contextmanager
def progress(label: str, total: float, *, enabled: bool = True) -> Iterator[Bar]:
    """Shows one long step.

    Args:
        label: what is being done, for example ``"encoding 8,000 documents"``.
        total: the number of steps; ``Bar.advance`` counts towards it.
        enabled: False shows nothing (library calls are silent unless asked).

    >>> with progress("counting", 3, enabled=False) as bar:
    ...     for _ in range(3):
    ...         bar.advance()
    """
    if not enabled:
        yield _Silent()
    elif sys.stderr.isatty():
        rich = _Rich(label, total)
        with rich.display:
            yield rich
    else:
        start = time.monotonic()
        yield _Plain(label, total)
        if time.monotonic() - start > 2:
            print(f"{label}: done in {time.monotonic() - start:.1f} s", file=sys.stderr)
