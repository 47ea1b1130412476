"""What the commands read and print, apart from what they do."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from nearfield.types import Hits


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5 alone
    """A time such as 90s, 10m or 1.5h, in seconds; a bare number is seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Returns the seconds, at least 1; anything else is refused with an example."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(value).strip())
        seconds = float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
        if not 1 <= seconds <= 1e8:
            self.fail(f"{value!r} given, a time of at least one second expected: 90s, 10m or 1.5h", param, ctx)
        return seconds


def int8_figures(figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return ""
    loss = figures.get("retrieval")
    return f", int8 mean cosine {figures['mean_cosine']:.4f}" + (f", {100 * loss['loss']:.2f} points of nDCG@10" if loss else "")


def print_native(native: dict[str, Any]) -> None:
    forced = f", forced to {native['forced']}" if native["forced"] else ""
    scorer = "" if native["scorer"] == "native" else f", scores by {native['scorer']}"
    click.echo(f"native engine: target {native['active']}{forced}, {native['threads']} threads{scorer}")
    click.echo("  kernels: " + ", ".join(f"{name} {target}" for name, target in native["kernels"].items()))
    for target in native["targets"]:
        state = "runs here" if target["runs_here"] else "not on this CPU" if target["built"] else "no kernels in this version"
        click.echo(f"  {target['name']}: {state} (needs {target['needs']})")


def hit_rows(hits: Hits, text: Callable[[Any], str]) -> Any:
    for rank in range(int(hits.counts[0])):
        identity = hits.ids[0, rank]
        identity = identity if isinstance(identity, str) else int(identity)
        yield {"rank": rank + 1, "id": identity, "score": float(hits.scores[0, rank]), "text": text(identity)}


def snippet(text: str, width: int = 100) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "none"
    return "none" if value is None else str(value)
