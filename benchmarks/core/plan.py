"""What a run was asked to do: the one value that the command line hands to every suite."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.core.ceilings import Ceilings

if TYPE_CHECKING:
    from benchmarks.core.results import Row

ROOT = Path(__file__).resolve().parents[2]


def usable_cores() -> int:
    """Cores this process may run on (containers and taskset restrict them)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def nowhere(rows: Sequence[Row]) -> None:
    """Keeps nothing: a suite that runs in the caller's own process."""


@dataclass
class Plan:
    """One run of the suite.

    Attributes:
        quick: small data and few rounds, to see that everything works; its figures are not for publication.
        peers: run the peers beside us.
        only: run only those peers whose name contains one of these, whatever the case; None for all.
        threads: thread counts asked for; None leaves the choice to the suite (all cores; search also one).
        ceilings: what this machine can do at most, measured before the suites.
        target: what everybody was held to (``"avx2"``), None for the best of the machine; see ``benchmarks.core.held``.
        full: encode also measures every length, batch and thread count of both models.
        large: the score and search suites also run on 1,000,000 rows.
        data: a file of documents whose texts replace those found on this machine, or of vectors that replace their embeddings.
        judged: data with judgements, for the loss of int8.
        out: folder of the results; plots go there too.
        cache: folder for vectors, texts and the bundle; safe to delete, ignored by git.
        skipped: lines about peers that were not there.
        so_far: a suite of many minutes hands over all rows that it has, now and then: they outlive it where it is stopped or breaks.
    """

    quick: bool = False
    peers: bool = True
    only: tuple[str, ...] | None = None
    threads: tuple[int, ...] | None = None
    ceilings: Ceilings = field(default_factory=Ceilings)
    target: str | None = None
    full: bool = False
    large: bool = False
    data: Path | None = None
    judged: tuple[Path, ...] = ()
    out: Path = ROOT / "benchmarks" / "results"
    cache: Path = ROOT / "benchmarks" / "cache"
    skipped: list[str] = field(default_factory=list)
    so_far: Callable[[Sequence[Row]], None] = nowhere

    @property
    def data_whole(self) -> bool:
        """Whether all rows of the caller's own data take part, and not as many as the suite would take of ours."""
        return self.data is not None and not self.quick

    @property
    def all_cores(self) -> tuple[int, ...]:
        """The thread counts for a suite whose default is every core."""
        return self.threads or (usable_cores(),)

    @property
    def one_and_all(self) -> tuple[int, ...]:
        """The thread counts for a suite whose default is one thread and every core; quick runs one thread only."""
        return self.threads or ((1,) if self.quick else tuple(sorted({1, usable_cores()})))

    @property
    def rounds(self) -> int:
        """Timed rounds; one warm-up round comes on top."""
        return 3 if self.quick else 7

    def wants(self, peer: str) -> bool:
        """Whether a peer of this name takes part."""
        return self.peers and (self.only is None or any(part.lower() in peer.lower() for part in self.only))

    def say(self, line: str) -> None:
        """One line on stderr before each long step. A live bar would wake a thread ten times a second inside the timings."""
        print(line, file=sys.stderr, flush=True)
