"""What this machine can do at most, measured by nearfield's own native probes just before the suites run.

Nothing that computes can be faster than the peak rate of its instructions, nothing that streams faster than the bandwidth at its
working set: a share of the ceiling says how much is left, where a bare figure only says which machine was bought.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

MB = 2**20
# One working set inside each level of the caches of today's servers, two beyond them (L3 is 32 MiB and more).
WORKING_SETS = (16 * 1024, 256 * 1024, MB, 8 * MB, 64 * MB, 256 * MB)
# A probe runs this long, in five rounds of which the best counts; quick halves the accuracy, not the meaning.
PROBE_S = 0.25
QUICK_PROBE_S = 0.05


@dataclass
class Ceilings:
    """Measured ceilings; every table is keyed by the number of threads, as text because JSON keys are text.

    Attributes:
        f32, int8, bf16: threads -> target -> operations per second (a multiply-add is two); bf16 is empty where no such unit exists.
        bandwidth: threads -> working set in bytes -> bytes per second read.
        latency: working set in bytes -> nanoseconds of one dependent random cache line, one thread.
    """

    f32: dict[str, dict[str, float]] = field(default_factory=dict)
    int8: dict[str, dict[str, float]] = field(default_factory=dict)
    bf16: dict[str, dict[str, float]] = field(default_factory=dict)
    bandwidth: dict[str, dict[str, float]] = field(default_factory=dict)
    latency: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For the JSON."""
        return asdict(self)

    def compute(
        self, kind: str | None, threads: int, operations: float, seconds: float, target: str | None = None
    ) -> tuple[str | None, float | None]:
        """The peak that arithmetic is measured against and the share of it that was reached.

        Args:
            kind: ``"f32"``, ``"int8"`` or ``"bf16"``; the fastest target of this kind counts. None: no multiply-adds, so no peak to
                compare with.
            target: counts instead of the fastest, where it has a peak of this kind: for an engine that is held to it.
            operations: what the algorithm needs (2 per multiply-add), not what an engine happened to execute.

        Returns:
            ``("f32 peak, 1 thread: 78.1 GFLOP/s", 0.42)``, or ``(None, None)`` where this peak was not measured.
        """
        rates = getattr(self, kind).get(str(threads)) if kind else None
        if not rates:
            return None, None
        peak = rates.get(target or "", max(rates.values()))
        unit = "GOP/s" if kind == "int8" else "GFLOP/s"
        return f"{kind} peak, {threads_text(threads)}: {peak / 1e9:,.0f} {unit}", operations / seconds / peak

    def stream(self, threads: int, touched: float, seconds: float) -> tuple[str | None, float | None]:
        """The bandwidth that streaming ``touched`` bytes is measured against, and the share of it that was reached.

        The bandwidth is the one measured at the working set nearest to ``touched`` on a logarithmic scale.
        """
        table = self.bandwidth.get(str(threads))
        if not table or touched <= 0:
            return None, None
        size, rate = min(table.items(), key=lambda item: abs(math.log(int(item[0]) / touched)))
        return f"read bandwidth at {size_text(int(size))}, {threads_text(threads)}: {rate / 1e9:,.1f} GB/s", touched / seconds / rate


def threads_text(count: int) -> str:
    """``"1 thread"``, ``"2 threads"``."""
    return f"{count} thread{'' if count == 1 else 's'}"


def size_text(size: int) -> str:
    """A working set for people: 16 KiB, 8 MiB."""
    return f"{size // 1024} KiB" if size < MB else f"{size // MB} MiB"


def measure(
    threads: Sequence[int],
    *,
    quick: bool = False,
    working_sets: Sequence[int] = WORKING_SETS,
    say: Callable[[str], None] = lambda line: None,
) -> Ceilings:
    """Runs the probes for each thread count, a few seconds altogether; empty where the native engine is not built.

    Args:
        threads: thread counts to measure rates and bandwidth for; random-line latency is measured with one thread.
        quick: shorter probes.
        working_sets: bytes, for bandwidth and latency.
        say: gets one line when something cannot be measured.
    """
    out = Ceilings()
    try:
        from nearfield import _core
    except ImportError as error:
        say(f"ceilings: not measured, the native engine is not built ({error})")
        return out
    seconds = QUICK_PROBE_S if quick else PROBE_S
    for count in sorted(set(threads)):
        key = str(count)
        for kind in ("f32", "int8", "bf16"):
            if rates := _core.probe_peak(kind, count, seconds):
                getattr(out, kind)[key] = rates
        out.bandwidth[key] = {str(size): _core.probe_bandwidth(size, count, seconds) for size in working_sets}
    out.latency = {str(size): _core.probe_latency(size, 1, seconds) for size in working_sets}
    return out


def lines(found: Ceilings) -> list[str]:
    """The ceilings for people, one line each."""
    out = []
    for kind, unit in (("f32", "GFLOP/s"), ("int8", "GOP/s"), ("bf16", "GFLOP/s")):
        for count, rates in getattr(found, kind).items():
            out.append(
                f"ceiling    {kind} peak, {threads_text(int(count))}: "
                + ", ".join(f"{target} {rate / 1e9:,.0f} {unit}" for target, rate in rates.items())
            )
    for count, table in found.bandwidth.items():
        out.append(
            f"ceiling    read bandwidth, {threads_text(int(count))}: "
            + ", ".join(f"{size_text(int(s))} {rate / 1e9:,.0f} GB/s" for s, rate in table.items())
        )
    if found.latency:
        out.append(
            "ceiling    random cache line, 1 thread: " + ", ".join(f"{size_text(int(s))} {ns:,.0f} ns" for s, ns in found.latency.items())
        )
    return out
