"""One query at a time, thousands of times: the tail beside that of a bare loop as long, eight callers at once, and idle CPU afterwards.

A machine that is shared with others stops any program now and then. So a tail is compared with that of a loop in Python that does nothing
but count for as long as the engine's median call: what is above it is the engine's own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from itertools import repeat

import numpy as np

from benchmarks.core.ceilings import threads_text
from benchmarks.core.peers import set_threads
from benchmarks.core.plan import Plan
from benchmarks.core.results import Row
from benchmarks.core.texts import fingerprint, texts_of_length
from benchmarks.core.timing import Series, interleave, time_calls
from benchmarks.encoders.engines import EncodeEngine, Maker, engines_named
from benchmarks.encoders.loop import Encode
from benchmarks.encoders.models import MINILM

TOKENS = 18
# Each round asks so many queries of every engine, all of them different: some thousands over the rounds, so that p99 has tens behind it.
CALLS, QUICK_CALLS = 500, 40
CALLERS, CALLS_OF_ONE = 8, 150
IDLE_S = 1.0
# Only engines that somebody would serve queries with.
NAMES = ("nearfield native int8", "nearfield native bf16", "nearfield onnx int8", "onnxruntime int8", "OpenVINO int8")
# Counts of one trial that calibrates the bare loop.
TRIAL = 200_000


def run(plan: Plan) -> list[Row]:
    """All rows of the suite."""
    rows = []
    for threads in plan.all_cores:
        set_threads(threads)
        maker = Maker(plan, MINILM, threads, engines_named(NAMES))
        calls = QUICK_CALLS if plan.quick else CALLS
        texts = texts_of_length(plan, TOKENS, (plan.rounds + 1) * calls)
        encoders = {engine.name: maker.encode(engine, engine.settings(threads, 1)[0]) for engine in maker.engines}
        rows += _one_by_one(maker, encoders, texts, calls)
        maker.close()
    set_threads(1)
    maker = Maker(plan, MINILM, 1, engines_named(NAMES))
    encoders = {engine.name: maker.encode(engine, engine.settings(1, 1)[0] | engine.served) for engine in maker.engines}
    rows += _at_once(maker, encoders, texts)
    maker.close()
    return rows


def bare_loop(seconds: float) -> Callable[[object], None]:
    """A function that counts for about so long, always to the same number."""
    _count(TRIAL)
    count = max(1, round(TRIAL * seconds / float(np.median([time_calls(_count, [TRIAL])[0] for _ in range(5)]))))
    return lambda item: _count(count)


def _count(times: int) -> None:
    for _ in repeat(None, times):
        pass


def idle_share(encode: Encode, texts: Sequence[str]) -> float:
    """CPU seconds of all threads of this process per second, beginning right after the last of some calls."""
    for text in texts:
        encode([text])
    start, used = time.perf_counter(), time.process_time()
    time.sleep(IDLE_S)
    return (time.process_time() - used) / (time.perf_counter() - start)


def _one_by_one(maker: Maker, encoders: dict[str, Encode], texts: list[str], calls: int) -> list[Row]:
    plan = maker.plan
    plan.say(f"encode_load: one query at a time, {threads_text(maker.threads)}")
    chunks = [texts[start : start + calls] for start in range(0, (plan.rounds + 1) * calls, calls)]
    contestants: dict[str, Callable[[str], object]] = {}
    for name, encode in encoders.items():
        contestants[name] = lambda text, encode=encode: encode([text])  # type: ignore[misc]
        for text in chunks[0]:
            encode([text])
        contestants[f"bare loop beside {name}"] = bare_loop(float(np.median(time_calls(contestants[name], chunks[0]))))
    timed = interleave(contestants, chunks, budget_s=60.0)
    group = f"one query of {TOKENS} tokens at a time, {threads_text(maker.threads)}"
    rows = []
    for engine in maker.engines:
        series, bare = timed[engine.name], timed[f"bare loop beside {engine.name}"]
        params = {
            "tail": _tail(series), "bare_tail": _tail(bare), "bare_p50_ms": 1000 * bare.percentile(50),
            "idle": idle_share(encoders[engine.name], chunks[0][:CALLERS]), "calls": sum(map(len, series.rounds)),
        }  # fmt: skip
        rows.append(_row(maker, engine, group, series, 1000 * series.percentile(50), "ms / query", params, texts))
    return rows


def _tail(series: Series) -> float:
    return series.percentile(99) / series.percentile(50)


def _at_once(maker: Maker, encoders: dict[str, Encode], texts: list[str]) -> list[Row]:
    """Eight Python threads that ask one query after the other of one shared engine, which has one thread for each call."""
    plan = maker.plan
    plan.say(f"encode_load: {CALLERS} callers at once")
    group = f"{CALLERS} callers at once, one query of {TOKENS} tokens a call, {threads_text(1)} for a call"
    calls = {name: Series() for name in encoders}
    seconds = {name: Series() for name in encoders}
    share = max(1, min(CALLS_OF_ONE, len(texts) // CALLERS))
    parts = [texts[i * share : (i + 1) * share] for i in range(CALLERS)]
    for name, encode in encoders.items():
        _check(name, encode, parts)
    for number in range(plan.rounds + 1):
        for name, encode in encoders.items():
            spent, taken = _together(encode, parts)
            if number:  # the first warms up
                calls[name].rounds.append(taken)
                seconds[name].rounds.append([spent])
    rows = []
    for engine in maker.engines:
        series = calls[engine.name]
        rate = CALLERS * share / seconds[engine.name].median
        params = {"tail": _tail(series), "calls": sum(map(len, series.rounds)), "callers": CALLERS}
        rows.append(_row(maker, engine, group, series, rate, "queries / s", params, texts, spread=seconds[engine.name].spread))
    return rows


def _check(name: str, encode: Encode, parts: Sequence[Sequence[str]]) -> None:
    """That callers at once get the rows that one caller gets: an engine which they spoil for each other has no figure."""
    alone = {text: encode([text])[0] for part in parts for text in part}
    wrong = []

    def compared(one: Sequence[str]) -> np.ndarray:
        row = encode(one)
        if not np.allclose(row[0], alone[one[0]], rtol=0, atol=1e-3):  # a unit row's entries; the order of sums may differ
            wrong.append(one[0])
        return row

    _together(compared, parts)
    if wrong:
        raise RuntimeError(f"{name}: {len(wrong)} of {len(alone)} rows are not what one caller gets when {len(parts)} call at once, "
                           f"first for {wrong[0]!r}")  # fmt: skip


def _together(encode: Encode, parts: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """Seconds until all callers are done, and the seconds of each call."""
    gate = threading.Barrier(len(parts) + 1)
    taken: list[list[float]] = [[] for _ in parts]

    def caller(number: int) -> None:
        gate.wait()
        for text in parts[number]:
            start = time.perf_counter()
            encode([text])
            taken[number].append(time.perf_counter() - start)

    workers = [threading.Thread(target=caller, args=(number,)) for number in range(len(parts))]
    for worker in workers:
        worker.start()
    gate.wait()
    start = time.perf_counter()
    for worker in workers:
        worker.join()
    spent = time.perf_counter() - start
    if any(len(mine) != len(part) for mine, part in zip(taken, parts, strict=True)):
        raise RuntimeError("a caller stopped early; its error stands above")
    return spent, [seconds for mine in taken for seconds in mine]


def _row(
    maker: Maker, engine: EncodeEngine, group: str, series: Series, value: float, unit: str, params: dict[str, float], texts: list[str],
    *, spread: float | None = None,
) -> Row:  # fmt: skip
    return Row(
        suite="encode_load", group=group, brief="", engine=engine.name, version=engine.version, ours=engine.ours,
        data=f"{len(texts):,} pieces of API documentation ({fingerprint(texts)}) of about {TOKENS} tokens, tokenization included",
        threads=maker.threads, params={"model": maker.model.name, **params}, value=value, unit=unit,
        spread=series.spread if spread is None else spread, p50=1000 * series.percentile(50), p95=1000 * series.percentile(95),
        p99=1000 * series.percentile(99),
        rounds=series.raw(),
    )  # fmt: skip
