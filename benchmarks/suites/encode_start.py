"""A fresh process until its first vector, and the most memory that it takes until it has encoded 256 texts.

Files are in the page cache and graphs are made (nearfield's packed weights, OpenVINO's int8); Python's own start is part of it. Each engine
imports nothing but what it needs.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

from benchmarks.core.ceilings import threads_text
from benchmarks.core.plan import ROOT, Plan
from benchmarks.core.results import Row
from benchmarks.core.texts import fingerprint
from benchmarks.encoders.engines import EncodeEngine, Maker
from benchmarks.encoders.models import DEEP, MINILM, Model
from benchmarks.suites.encode import texts_for

TOKENS, TEXTS, QUICK_TEXTS = 167, 256, 16
STARTS, QUICK_STARTS = 3, 1


def run(plan: Plan) -> list[Row]:
    """All rows of the suite."""
    rows = []
    for threads in plan.all_cores:
        for model in (MINILM,) if plan.quick else (MINILM, DEEP):
            maker = Maker(plan, model, threads)
            texts = texts_for(plan, TOKENS, QUICK_TEXTS if plan.quick else TEXTS)
            plan.say(f"encode_start: {model.name}, {threads_text(threads)}")
            for engine in maker.engines:  # whatever has to be made once is made here
                maker.encode(engine, engine.settings(threads, 1)[0])
            maker.close()
            rows += [_row(plan, engine, model, threads, texts) for engine in maker.engines]
    return rows


def _row(plan: Plan, engine: EncodeEngine, model: Model, threads: int, texts: list[str]) -> Row:
    runs = [_start(plan, engine.name, model, threads, texts) for _ in range(QUICK_STARTS if plan.quick else STARTS)]
    seconds = sorted(first for first, _ in runs)
    value = statistics.median(seconds)
    return Row(
        suite="encode_start", group=f"{model.name}, fresh process to first vector, {threads_text(threads)}", brief="", engine=engine.name,
        version=engine.version, ours=engine.ours,
        data=f"peak memory after {len(texts)} texts of {TOKENS} tokens ({fingerprint(texts)}) in one call", threads=threads,
        params={"model": model.name}, value=value, unit="s", spread=(seconds[-1] - seconds[0]) / value,
        memory_bytes=int(statistics.median(peak for _, peak in runs)), rounds=[{"seconds": first, "calls": 1} for first in seconds],
    )  # fmt: skip


def _start(plan: Plan, name: str, model: Model, threads: int, texts: list[str]) -> tuple[float, int]:
    """Seconds until the first vector, and peak resident bytes at the end."""
    order = {"engine": name, "model": model.short, "threads": threads, "cache": str(plan.cache), "texts": texts}
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.encoders.fresh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps(order))
        child.stdin.close()
        lines = (line for line in child.stdout if line.startswith("{"))  # libraries print too
        first = "first" in json.loads(next(lines, "{}"))
        seconds = time.perf_counter() - start
        last = json.loads(next(lines, "{}"))
    if not first or "peak" not in last:
        raise RuntimeError(f"{name}: a fresh process ended with {child.returncode} and without its figures")
    return seconds, int(last["peak"])
