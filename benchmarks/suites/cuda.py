"""Exact top-k by inner product on a GPU: 1 to 4,096 queries at once against vectors that already lie there.

Few queries read every code once, so their floor is bytes over the GPU's bandwidth; many reuse what they read, so theirs is multiply-adds
over the rate of a large bf16 matrix product. Both are measured just before. A row's share is of the higher floor, which its ceiling names;
its share of the bf16 rate alone stands in ``params`` as ``bf16_share``. Times include sending the queries and fetching the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

import nearfield
from benchmarks.core import data
from benchmarks.core.peers import Engine, present
from benchmarks.core.plan import Plan
from benchmarks.core.quality import exact_topk, same_lists
from benchmarks.core.results import Row
from benchmarks.core.timing import Series, interleave

ROWS = 1_000_000
QUICK_ROWS = 100_000
KS = (10, 100)
BATCHES = (1, 16, 128, 512, 1024, 4096)
# Calls in one round: small batches take less than a millisecond, and a round should be longer than the pauses between rounds.
CALLS = {1: 50, 16: 20, 128: 10}
# Queries whose ids are compared with the float64 oracle: 64 x 1,000,000 x 384 take seconds on two cores.
CHECKED = 64
# The peers' score matrices are cut to so many values: 4 GB in float32.
MATRIX_VALUES = 2**30
BUDGET_S = 12.0
# A product of this size runs long past its launch, and copies of this size are several times a GPU's cache.
PROBE_SIDE = 8192
PROBE_BYTES = 2**31
PROBE_ROUNDS = 5

Search = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Device:
    """The GPU, by the names nearfield and torch know it by, and what it can do at most: bf16 operations and bytes per second."""

    ours: str
    torch: Any
    name: str
    bf16: float
    bandwidth: float


def _flat(vectors: np.ndarray, k: int, device: Device) -> Search:
    index = nearfield.FlatIndex(vectors.shape[1], metric="ip")
    index.add(vectors)
    return lambda queries: index.search(queries, k, device=device.ours).ids


def _torch(vectors: np.ndarray, k: int, device: Device, dtype: str) -> Search:
    import torch

    table = torch.from_numpy(vectors).to(device.torch, getattr(torch, dtype))
    block = max(1, MATRIX_VALUES // len(vectors))

    def search(queries: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            given = torch.from_numpy(queries).to(device.torch, table.dtype)
            return torch.cat([torch.topk(part @ table.T, k, dim=1).indices for part in given.split(block)]).cpu().numpy()

    return search


def _torch_f32(vectors: np.ndarray, k: int, device: Device) -> Search:
    return _torch(vectors, k, device, "float32")


def _torch_bf16(vectors: np.ndarray, k: int, device: Device) -> Search:
    return _torch(vectors, k, device, "bfloat16")


# The precision tells how many bytes a value of the scanned table has.
ENGINES = (
    Engine("nearfield FlatIndex", _flat, precision="f16"),
    Engine("torch matmul + topk, float32", _torch_f32, "torch", ("torch",), precision="f32"),
    Engine("torch matmul + topk, bfloat16", _torch_bf16, "torch", ("torch",), precision="bf16"),
)
VALUE_BYTES = {"f16": 2, "bf16": 2, "f32": 4}


def run(plan: Plan, *, device: Device | None = None, rows: int | None = None) -> list[Row]:
    """All rows of the suite; none, and a line that says so, where there is no CUDA device.

    Args:
        plan: what the run was asked to do.
        device: replaces the GPU (tests).
        rows: replaces the number of vectors (tests).
    """
    device = device or _gpu(plan)
    if device is None:
        return []
    count = rows or (QUICK_ROWS if plan.quick else ROWS)
    per_round = max(nq * CALLS.get(nq, 1) for nq in BATCHES)
    vectors, queries, label = data.clustered(count, (plan.rounds + 1) * per_round)
    out = []
    for k in KS:
        engines = present(ENGINES, plan)
        searches = {engine.name: engine.make(vectors, k, device) for engine in engines}
        truth = exact_topk(queries[:CHECKED], vectors, k)[0]
        for nq in BATCHES:
            plan.say(f"cuda: {device.name}, k = {k}, nq = {nq}: {len(engines)} engines x {plan.rounds} rounds")
            calls = CALLS.get(nq, 1)
            cut = queries[: (plan.rounds + 1) * calls * nq].reshape(plan.rounds + 1, calls, nq, vectors.shape[1])
            timed = interleave(searches, [list(chunk) for chunk in cut], budget_s=BUDGET_S)
            for engine in engines:
                search = searches[engine.name]
                found = np.concatenate([search(queries[i : min(i + nq, CHECKED)]) for i in range(0, CHECKED, nq)])
                same = same_lists(found, truth)
                out.append(_row(device, engine, timed[engine.name], same, vectors.shape, nq, k, label))
    return out


def _gpu(plan: Plan) -> Device | None:
    line = None
    if find_spec("torch") is None:
        line = "skipped: cuda (torch not installed: pip install 'nearfield[cuda]')"
    else:
        import torch

        if not torch.cuda.is_available():
            line = f"skipped: cuda (no CUDA device: torch {torch.__version__} finds none)"
    if line is not None:
        plan.skipped.append(line)
        plan.say(line)
        return None
    where = torch.device("cuda", torch.cuda.current_device())
    found = Device("cuda", where, torch.cuda.get_device_name(where), *measure(where))
    plan.say(f"cuda: {found.name}, bf16 products {found.bf16 / 1e12:,.0f} TFLOP/s, copies {found.bandwidth / 1e9:,.0f} GB/s")
    return found


def measure(device: Any, *, side: int = PROBE_SIDE, size: int = PROBE_BYTES) -> tuple[float, float]:
    """The rate of a large bf16 matrix product on random data, operations per second, and of a copy, bytes read and written per second."""
    import torch

    left, right = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    seconds = _best_seconds(device, lambda: left @ right)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2.0 * side**3 / seconds, 2.0 * size / _best_seconds(device, lambda: target.copy_(source))


def _best_seconds(device: Any, work: Callable[[], Any], calls: int = 10) -> float:
    """Seconds of one call: the best round of several, after one that does not count."""
    import torch

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    best = float("inf")
    for number in range(PROBE_ROUNDS + 1):
        wait()
        start = time.perf_counter()
        for _ in range(calls):
            work()
        wait()
        if number:
            best = min(best, (time.perf_counter() - start) / calls)
    return best


def _row(device: Device, engine: Engine, timed: Series, same: float, shape: tuple[int, ...], nq: int, k: int, label: str) -> Row:
    n, dim = shape
    seconds = timed.median / len(timed.rounds[0])
    operations, touched = 2.0 * n * dim * nq, float(n * dim * VALUE_BYTES[engine.precision])
    arithmetic, reading = operations / device.bf16, touched / device.bandwidth
    if arithmetic >= reading:
        ceiling = f"bf16 matrix product: {device.bf16 / 1e12:,.1f} TFLOP/s"
    else:
        ceiling = f"device bandwidth: {device.bandwidth / 1e9:,.1f} GB/s"
    return Row(
        suite="cuda",
        group=f"exact top-{k}, {n:,} x {dim}, nq = {nq}, {device.name}",
        brief=f"k = {k}, nq = {nq}",
        engine=engine.name,
        version=engine.version,
        ours=engine.ours,
        data=label,
        threads=1,
        params={"n": n, "dim": dim, "nq": nq, "k": k, "device": device.name, "bf16_share": arithmetic / seconds},
        value=1000 * seconds if nq == 1 else nq / seconds,
        unit="ms / query" if nq == 1 else "queries / s",
        spread=timed.spread,
        p50=1000 * timed.percentile(50),
        p95=1000 * timed.percentile(95),
        p99=1000 * timed.percentile(99),
        quality_name="lists = float64",
        quality=same,
        ceiling=ceiling,
        share=max(arithmetic, reading) / seconds,
        rounds=timed.raw(),
    )
