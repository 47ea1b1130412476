"""Which products int8 may keep: the worst go back to float32 until retrieval is as good as with fp32, or int8 is given up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nearfield.config import ExportConfig
from nearfield.export.parts import part_names

# With half of the products in float32 an int8 graph has lost most of its speed; what does not hold by then is not made good.
MOST_FLOAT = 0.5


@dataclass(frozen=True)
class Settled:
    """The end of the search.

    Attributes:
        keep: products left in float32, the worst first.
        loss: the retrieval figures of the graph that keeps them, with ``max_loss``, ``max_drop`` and ``passed``.
        rounds: one entry for each graph that was measured: how many products it kept in float32, ``queries``, ``loss`` and ``low``.
    """

    keep: tuple[str, ...]
    loss: dict[str, Any]
    rounds: tuple[dict[str, float], ...]


def settle(
    measure: Callable[[tuple[str, ...]], dict[str, Any]], worst_first: Callable[[], Sequence[str]], settings: ExportConfig
) -> Settled:
    """Gives products back to float32, the worst first, until the limits hold: one, two, four and so on, for each trial costs an evaluation.

    Args:
        measure: the retrieval figures (``nearfield.export.parity.RetrievalLoss.of``) of the graph that keeps the named products in float32.
        worst_first: the products by how far int8 in each alone moves the vectors; asked only when the first graph does not hold.
        settings: the limits.

    Returns:
        the first graph that holds; where none does with up to half of the products in float32, the plain one, not passed.

    >>> losses = {(): 0.02, ("b",): 0.001}
    >>> found = settle(lambda keep: {"loss": losses[keep], "low": -losses[keep], "queries": 300}, lambda: ["b", "a"], ExportConfig())
    >>> found.keep, found.loss["passed"], len(found.rounds)
    (('b',), True, 2)
    """
    first = _judged(measure(()), settings)
    rounds = [_round((), first)]
    if first["passed"]:
        return Settled((), first, tuple(rounds))
    order = worst_first()
    most, count = int(len(order) * MOST_FLOAT), 1
    while count <= most:
        keep = tuple(order[:count])
        found = _judged(measure(keep), settings)
        rounds.append(_round(keep, found))
        if found["passed"]:
            return Settled(keep, found, tuple(rounds))
        count = most if count < most < 2 * count else 2 * count
    return Settled((), first, tuple(rounds))


def _judged(figures: dict[str, Any], settings: ExportConfig) -> dict[str, Any]:
    passed = figures["loss"] <= settings.int8_max_loss and figures["low"] > -settings.int8_max_drop
    return {**figures, "max_loss": settings.int8_max_loss, "max_drop": settings.int8_max_drop, "passed": bool(passed)}


def _round(keep: tuple[str, ...], figures: dict[str, Any]) -> dict[str, float]:
    return {"float32": len(keep), "queries": figures["queries"], "loss": figures["loss"], "low": figures["low"]}


def _points(figures: Mapping[str, Any]) -> str:
    """A change in points with the lower end of its interval; a loss is negative."""
    return f"{-100 * figures['loss']:+.2f} points (95 % bound {100 * figures['low']:+.2f})"


def sentence(settled: Settled) -> str | None:
    """One line for people where the gate had something to do; None where the first graph held."""
    first, last = settled.rounds[0], settled.loss
    change = f"{_points(first)} of nDCG@10 on {first['queries']:,} queries"
    if settled.keep:
        return (
            f"int8 in every product changed {change}; {part_names(settled.keep)} stay{'s' if len(settled.keep) == 1 else ''} in float32, "
            f"and it changes {_points(last)}"
        )
    if not last["passed"]:
        limits = f"at least {-100 * last['max_loss']:+.2f} and a bound above {-100 * last['max_drop']:+.2f} expected"
        tried = f"up to {int(settled.rounds[-1]['float32'])} products given back to float32 did not mend it"
        return f"int8 was not made good: it changes {change}, {limits}, and {tried}; precision 'auto' stays fp32"
    return None
