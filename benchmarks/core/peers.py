"""Engines behind one small interface: each says its name, its version and what it needs; one that is missing is skipped aloud."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import nearfield
from benchmarks.core import held
from benchmarks.core.machine import version_of
from benchmarks.core.plan import Plan


@dataclass(frozen=True)
class Engine:
    """One contestant of a suite.

    Attributes:
        name: as shown in the tables.
        make: what the suite calls to get the engine; its arguments are the suite's affair.
        distribution: the package on PyPI, for its version; None for nearfield.
        needs: modules that must be importable; ``"faiss:IndexX"`` also asks for a name in the module.
        precision: of its arithmetic, for the ceiling it is measured against: "f32", "int8" or "bf16"; None for no multiply-adds.
        value_bytes: bytes that it must read for each value of each row when it scans all of them.
        linear: it answers the queries of a batch one after the other, so that a part of a batch gives the rate of the whole.
        unable: says why this machine cannot run it, or None.
        extra: of nearfield, which installs it.
    """

    name: str
    make: Callable[..., Any]
    distribution: str | None = None
    needs: tuple[str, ...] = ()
    precision: str | None = "f32"
    value_bytes: float = 4.0
    linear: bool = False
    unable: Callable[[], str | None] = lambda: None
    extra: str = "bench"

    @property
    def ours(self) -> bool:
        return self.distribution is None

    @property
    def version(self) -> str:
        return nearfield.__version__ if self.distribution is None else (version_of(self.distribution) or "?")

    def missing(self) -> str | None:
        """The line that says why this engine cannot run here, or None."""
        if reason := self.unable():
            return f"skipped: {self.name} ({reason})"
        absent = [name for name in self.needs if not _there(name)]
        if not absent:
            return None
        return f"skipped: {self.name} ({', '.join(absent)} not installed: pip install 'nearfield[{self.extra}]')"


def _there(need: str) -> bool:
    module, _, name = need.partition(":")
    # A module inside a package that is absent is an error of find_spec, not a None.
    if find_spec(module.partition(".")[0]) is None or find_spec(module) is None:
        return False
    return not name or hasattr(import_module(module), name)


def present(engines: Sequence[Engine], plan: Plan) -> list[Engine]:
    """The engines that run in this plan; the others are named on stderr and in ``plan.skipped``, once each."""
    out = []
    for engine in engines:
        if not (engine.ours or plan.wants(engine.name)):
            continue
        line = engine.missing()
        if line is None and plan.target in held.PEERS and engine.name.startswith(held.FREE):
            line = f"skipped: {engine.name} (it cannot be held to {plan.target})"
        if line is None:
            out.append(engine)
        elif line not in plan.skipped:
            plan.skipped.append(line)
            plan.say(line)
    return out


def set_threads(threads: int) -> None:
    """Gives nearfield and every library that is installed the same number of threads, for calls that do not say one themselves."""
    os.environ["NEARFIELD_THREADS"] = str(threads)
    if find_spec("torch") is not None:
        import torch

        torch.set_num_threads(threads)
    if find_spec("faiss") is not None:
        import faiss

        faiss.omp_set_num_threads(threads)
    if find_spec("threadpoolctl") is not None:
        import numpy as np
        import threadpoolctl

        np.dot(np.zeros((2, 2)), np.zeros((2, 2)))  # the BLAS library must be loaded before it can be limited
        threadpoolctl.threadpool_limits(threads)
