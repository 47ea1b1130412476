"""The suites, by name. Each is one function from a plan to rows; the module loads only when its suite is asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from benchmarks.core.plan import Plan
from benchmarks.core.results import Row

# Order of running: cheapest caches first, so that a mistake in the set-up shows within a minute.
DEFAULT = ("score", "search", "encode", "cuda")
# What each measures in a few words; the default ones together take most of an hour, the others run only when they are named.
NAMES = {
    "score": "exact top-k, one query and 512",
    "search": "graphs",
    "encode": "text to vectors",
    "encode_load": "one query at a time: tails, eight callers, idle CPU",
    "encode_start": "fresh process to first vector, and peak memory",
    "encode_quality": "loss of each precision on data with judgements",
    "tokenize": "texts to token ids",
    "text_search": "text to ids over 250,000 vectors",
    "cuda": "exact top-k on a GPU",
    "score_sweep": "1 to 4,096 queries at once, with a plot",
    "filter": "exact top-k among a part of the rows",
    "approximate": "scans that may miss, at equal recall",
    "search_filter": "graphs among a part of the rows",
    "search_churn": "graphs after deletes and replacements",
    "int8": "ways to make an int8 graph: loss, size, fusions",
    "int8_speed": "how fast those graphs are",
}
HELP = "; ".join(f"{name}: {what}" for name, what in NAMES.items()) + f". Without a name: {', '.join(DEFAULT)}"


def load(name: str) -> Callable[[Plan], list[Row]]:
    """Returns the ``run(plan) -> rows`` of one suite."""
    return import_module(f"benchmarks.suites.{name}").run  # type: ignore[no-any-return]
