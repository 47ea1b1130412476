"""The GPU that the CUDA suites run on: which one, and what it can do at most."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from benchmarks.core.plan import Plan

# A product of this size runs long past its launch.
PROBE_SIDE = 8192
PROBE_ROUNDS, PROBE_CALLS = 5, 10


@dataclass(frozen=True)
class Gpu:
    """A device.

    Attributes:
        ours: the name nearfield takes.
        name: what its driver calls it.
        rates: "fp16" and "bf16" -> operations per second of a large matrix product.
    """

    ours: str
    name: str
    rates: dict[str, float]


def find(plan: Plan, suite: str) -> Gpu | None:
    """The first GPU, measured; None, and one line in ``plan.skipped``, where there is none."""
    if find_spec("torch") is None:
        line = f"skipped: {suite} (torch not installed: pip install 'nearfield[cuda]')"
    else:
        import torch

        if torch.cuda.is_available():
            gpu = Gpu("cuda", torch.cuda.get_device_name(), {name: rate("cuda", name) for name in ("fp16", "bf16")})
            plan.say(
                f"{suite}: {gpu.name}, products " + ", ".join(f"{name} {value / 1e12:,.0f} TFLOP/s" for name, value in gpu.rates.items())
            )
            return gpu
        line = f"skipped: {suite} (no CUDA device: torch {torch.__version__} finds none)"
    plan.skipped.append(line)
    plan.say(line)
    return None


def rate(device: str, precision: str, *, side: int = PROBE_SIDE) -> float:
    """Operations per second of a product of two square matrices of random numbers: the best of several rounds."""
    import torch

    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2.0 * side**3 / best_seconds(device, lambda: left @ right)


def best_seconds(device: str, work: Callable[[], Any]) -> float:
    """Seconds of one call: the best round, after one that does not count."""
    best = float("inf")
    for number in range(PROBE_ROUNDS + 1):
        wait(device)
        start = time.perf_counter()
        for _ in range(PROBE_CALLS):
            work()
        wait(device)
        if number:
            best = min(best, (time.perf_counter() - start) / PROBE_CALLS)
    return best


def wait(device: str) -> None:
    """Until the device has done all that it was asked."""
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
