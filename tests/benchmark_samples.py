"""What the tests of the benchmark suite share: its place in the repository, sample ceilings, rows and documents."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # the suite is no installed package: it lives in the repository

from benchmarks.core import results  # noqa: E402
from benchmarks.core.ceilings import Ceilings  # noqa: E402
from benchmarks.core.results import Row  # noqa: E402

HAVE_CORE = importlib.util.find_spec("nearfield._core") is not None
needs_core = pytest.mark.skipif(not HAVE_CORE, reason="the native engine is not built")

SAMPLE = Ceilings(
    f32={"1": {"scalar": 5e9, "avx2": 50e9}},
    int8={"1": {"scalar": 5e9, "avx2": 100e9}},
    bandwidth={"1": {str(16 * 1024): 100e9, str(64 * 2**20): 10e9}},
    latency={str(64 * 2**20): 90.0},
)


def sample_row(**changes: Any) -> Row:
    base = Row(
        suite="score", group="exact top-10", brief="nq = 1",
        engine="nearfield FlatIndex", version="0.1.0", ours=True, data="100 rows", threads=1,
        params={"n": 100}, value=0.5, unit="ms / query", spread=0.1, p50=0.4, p95=0.7, p99=0.9, quality_name="lists = float64", quality=1.0,
        ceiling="read bandwidth", share=0.42, rounds=[{"seconds": 0.5, "calls": 1}],
    )  # fmt: skip
    return Row(**{**asdict(base), **changes})


def sample_document(*rows: Row, day: int = 1, quick: bool = False, forced: str | None = None) -> dict[str, Any]:
    about = {"cpu": "Some CPU", "arch": "x86_64", "cores": 2, "flags": ["avx", "avx2"]}
    head = {"machine": about, "versions": {"nearfield": "0.1.0"}, "nearfield": {"forced": forced}, "ceilings": SAMPLE.to_dict()}
    when = datetime(2026, 1, day, 12, 30, tzinfo=UTC)
    return results.report(list(rows), head=head, command="python -m benchmarks", quick=quick, skipped=[], now=when)
