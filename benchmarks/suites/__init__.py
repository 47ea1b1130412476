"""The suites, by name. Each is one function from a plan to rows; the module loads only when its suite is asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from benchmarks.core.plan import Plan
from benchmarks.core.results import Row

# Order of running: cheapest caches first, so that a mistake in the set-up shows within a minute.
NAMES = ("score", "search", "encode", "cuda")


def load(name: str) -> Callable[[Plan], list[Row]]:
    """Returns the ``run(plan) -> rows`` of one suite."""
    return import_module(f"benchmarks.suites.{name}").run  # type: ignore[no-any-return]
