"""The probes of the machine's ceilings: positive, in sane relation to each other, and refusing what they cannot do."""

from __future__ import annotations

import threading
import time

import pytest

from nearfield import _core
from nearfield.errors import InputError

KIB, MIB = 1 << 10, 1 << 20
BRIEF = 0.05  # seconds per probe: long enough for the relations below, short enough for every test run


def usable() -> set[str]:
    return {row["name"] for row in _core.targets() if row["runs_here"]}


def test_float_peak_names_exactly_the_targets_that_run_here() -> None:
    peak = _core.probe_peak("f32", seconds=BRIEF)
    assert set(peak) == {"scalar", "avx2", "avx512"} & usable()
    # No core runs below 100 Mflop/s or above 1 Tflop/s on registers.
    assert all(1e8 < rate < 1e12 for rate in peak.values())


@pytest.mark.skipif("avx2" not in usable(), reason="this CPU has no AVX2")
def test_wide_fused_multiply_adds_beat_the_baseline() -> None:
    peak = _core.probe_peak("f32", seconds=0.1)
    # Twice the width and two operations in one instruction: up to four times; 1.5 leaves room for a busy machine.
    assert peak["avx2"] > 1.5 * peak["scalar"]
    # Three instructions per 32 products of bytes against one per 8 of floats: between 0.5 and 6 times.
    ratio = _core.probe_peak("int8", seconds=0.1)["avx2"] / peak["avx2"]
    assert 0.5 < ratio < 6


def test_low_precision_peaks_follow_the_cpu() -> None:
    assert set(_core.probe_peak("int8", seconds=BRIEF)) == {"avx2", "avxvnni", "avx512vnni", "amx"} & usable()
    bf16 = _core.probe_peak("bf16", seconds=BRIEF)
    assert set(bf16) <= {"avx512bf16", "amx"}
    assert ("amx" in bf16) == ("amx" in usable())
    assert all(rate > 1e9 for rate in bf16.values())


def test_caches_read_faster_than_memory() -> None:
    small = _core.probe_bandwidth(256 * KIB, seconds=BRIEF)
    large = _core.probe_bandwidth(256 * MIB, seconds=BRIEF)
    assert large > 1e8
    assert small >= large / 2


def test_caches_answer_sooner_than_memory() -> None:
    small = _core.probe_latency(16 * KIB, seconds=BRIEF)
    large = _core.probe_latency(64 * MIB, seconds=BRIEF)
    # A first-level cache answers in 4-5 cycles, memory in well under 2 microseconds even when busy.
    assert 0.3 < small < 50
    assert small < large < 5000


def test_two_threads_each_get_their_slice() -> None:
    assert _core.probe_bandwidth(512 * KIB, threads=2, seconds=BRIEF) > 1e8
    assert _core.probe_latency(512 * KIB, threads=2, seconds=BRIEF) > 0.3
    assert _core.probe_peak("f32", threads=2, seconds=BRIEF)["scalar"] > 1e8


def test_probes_release_the_interpreter_lock() -> None:
    ticks = 0
    stop = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not stop.is_set():
            ticks += 1
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    before = ticks
    _core.probe_bandwidth(256 * KIB, seconds=0.2)
    after = ticks
    stop.set()
    thread.join()
    assert after - before >= 5


def test_what_cannot_be_probed_is_refused() -> None:
    with pytest.raises(InputError, match=r"kind: 'f64' given, 'f32', 'int8' or 'bf16' expected"):
        _core.probe_peak("f64")
    with pytest.raises(InputError, match="threads: 0 given"):
        _core.probe_peak("f32", threads=0)
    with pytest.raises(InputError, match="seconds: nan given"):
        _core.probe_peak("f32", seconds=float("nan"))
    with pytest.raises(InputError, match="bytes: 100 given, 4096 to"):
        _core.probe_bandwidth(100)
    with pytest.raises(InputError, match="bytes: 4096 given, 8192 to"):
        _core.probe_latency(4096, threads=2)
