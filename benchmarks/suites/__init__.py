"""The suites, by name. Each is one function from a plan to rows, or several in turn; modules load only when their suite is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from benchmarks.core.plan import Plan
from benchmarks.core.results import Row


@dataclass(frozen=True)
class Suite:
    """One name of the command line.

    Attributes:
        what: it measures, in a few words.
        minutes: on two cores with every peer from warm caches; ``--plan`` prefers what a run on this machine took.
        quick_s: seconds of a quick run.
        modules: of this package, run in this order; the suite's own name where none is given.
    """

    what: str
    minutes: float
    quick_s: float
    modules: tuple[str, ...] = ()


# Order of running: cheapest caches first, so that a mistake in the set-up shows within a minute.
DEFAULT = ("import", "score", "search", "encode", "end_to_end", "cuda")
# The default ones together take most of an hour, the others run only when they are named.
SUITES = {
    "import": Suite("import times in fresh processes, what loads, size on disk", 1, 12, ("imports",)),
    "score": Suite("exact top-k, one query and 512", 9, 10),
    "build": Suite("time to build a graph, at equal recall", 12, 15),
    "search": Suite("graphs: recall against queries per second, single calls", 22, 80),
    "encode": Suite("text to vectors", 14, 65),
    "encode_load": Suite("one query at a time: tails, eight callers, idle CPU", 4, 12),
    "encode_start": Suite("fresh process to first vector, and peak memory", 5, 40),
    "encode_quality": Suite("loss of each precision on data with judgements", 20, 30),
    "tokenize": Suite("texts to token ids", 1, 5),
    "end_to_end": Suite("text to ids over 250,000 vectors", 7, 30),
    "service": Suite("the example service under wrk, also overloaded", 2, 20),
    "tune": Suite("training pairs a second", 12, 45),
    "cuda": Suite("exact top-k on a GPU", 2, 6),
    "cuda_encode": Suite("text to vectors on a GPU", 1, 1),
    "cuda_tune": Suite("training pairs a second on a GPU", 1, 1),
    "score_sweep": Suite("1 to 4,096 queries at once, with a plot", 4, 8),
    "filter": Suite("top-k among a part of the rows, exact and by graphs", 8, 15, ("filter_exact", "filter_graphs")),
    "approximate": Suite("scans that may miss, at equal recall", 4, 6),
    "churn": Suite("graphs after deletes and replacements", 8, 10),
    "int8": Suite("ways to make an int8 graph: loss, size, fusions", 20, 60),
    "int8_speed": Suite("how fast those graphs are", 10, 30),
}
HELP = "; ".join(f"{name}: {suite.what}" for name, suite in SUITES.items()) + f". Without a name: {', '.join(DEFAULT)}; all: every one"


def load(name: str) -> Callable[[Plan], list[Row]]:
    """Returns the ``run(plan) -> rows`` of one suite."""
    runs = [import_module(f"benchmarks.suites.{module}").run for module in SUITES[name].modules or (name,)]
    return lambda plan: [row for run in runs for row in run(plan)]
