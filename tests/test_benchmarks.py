"""The benchmark core: fake clocks for the timing, loops for the recall, ceilings, machine and peers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmark_samples import SAMPLE, needs_core
from benchmarks.core import ceilings, held, machine, peers, quality, timing
from benchmarks.core.answers import Answers
from benchmarks.core.plan import Plan, usable_cores
from nearfield import Hits

# --- timing ------------------------------------------------------------------------------------------------------------


class FakeClock:
    """A clock that moves only when somebody works or sleeps."""

    def __init__(self) -> None:
        self.now, self.slept, self.log = 0.0, 0.0, []  # type: float, float, list[tuple[str, Any]]

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.now += seconds

    def worker(self, name: str, seconds: Callable[[Any], float]) -> Callable[[Any], None]:
        def work(item: Any) -> None:
            self.log.append((name, item))
            self.now += seconds(item)

        return work


def test_rounds_are_interleaved_and_the_warmup_does_not_count() -> None:
    clock = FakeClock()
    works = {"a": clock.worker("a", lambda item: 1.0 + item), "b": clock.worker("b", lambda item: 10.0)}
    series = timing.interleave(works, [[100.0], [0.0], [2.0]], warmup=1, pause_s=0.5, clock=clock, sleep=clock.sleep)
    assert clock.log == [("a", 100.0), ("b", 100.0), ("a", 0.0), ("b", 0.0), ("a", 2.0), ("b", 2.0)]
    assert series["a"].rounds == [[1.0], [3.0]]
    assert series["b"].rounds == [[10.0], [10.0]]
    assert clock.slept == 6 * 0.5


def test_short_calls_are_timed_after_work_that_does_not_count() -> None:
    clock = FakeClock()
    works = {"short": clock.worker("short", lambda item: 0.02), "long": clock.worker("long", lambda item: 0.06)}
    chunks = [["a", "b"], ["c"], ["d"]]
    series = timing.interleave(works, chunks, pause_s=0.0, settle_s=0.05, clock=clock, sleep=clock.sleep)
    assert [item for name, item in clock.log if name == "long"] == ["a", "b", "c", "d"]
    assert [item for name, item in clock.log if name == "short"] == ["a", "b", "a", "b", "a", "c", "c", "c", "c", "d"]
    assert [pytest.approx([0.02])] * 2 == series["short"].rounds


def test_a_contestant_over_its_budget_sits_out_but_keeps_three_rounds() -> None:
    clock = FakeClock()
    works = {"slow": clock.worker("slow", lambda item: 10.0), "fast": clock.worker("fast", lambda item: 1.0)}
    series = timing.interleave(works, [[n] for n in range(8)], budget_s=15.0, pause_s=0.0, clock=clock, sleep=clock.sleep)
    assert len(series["slow"].rounds) == timing.MIN_ROUNDS
    assert len(series["fast"].rounds) == 7


def test_no_timed_round_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 chunks given"):
        timing.interleave({"a": lambda item: None}, [[1]], warmup=1)


def test_series_median_spread_percentiles_and_raw_rounds() -> None:
    series = timing.Series([[1.0, 2.0], [2.0, 2.0], [5.0, 5.0]])
    assert series.totals == [3.0, 4.0, 10.0]
    assert series.median == 4.0
    assert series.spread == pytest.approx((10 - 3) / 4)
    assert series.percentile(50) == 2.0
    assert series.percentile(100) == 5.0
    assert series.raw()[0] == {"seconds": 3.0, "calls": 2, "p50": 1.5, "p99": 1.99, "max": 2.0}
    assert timing.Series([[1.5]]).raw() == [{"seconds": 1.5, "calls": 1}]


def test_timing_leaves_the_garbage_collector_as_it_was() -> None:
    import gc

    seen = []
    timing.time_calls(lambda item: seen.append(gc.isenabled()), [1])
    assert seen == [False]
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        timing.time_calls(lambda item: 1 / item, [0])
    assert gc.isenabled()


def test_rounds_hide_what_is_there_from_the_collector() -> None:
    import gc

    seen = []
    before = gc.get_freeze_count()
    timing.interleave({"a": lambda item: seen.append(gc.get_freeze_count())}, [[1], [2]], pause_s=0.0)
    assert min(seen) > 1_000
    assert gc.get_freeze_count() == before
    gc.freeze()
    try:
        timing.interleave({"a": lambda item: None}, [[1], [2]], pause_s=0.0)
        assert gc.get_freeze_count() > 1_000, "whoever had frozen them finds them frozen"
    finally:
        gc.unfreeze()


# --- recall and agreement ----------------------------------------------------------------------------------------------


def slow_topk(queries: np.ndarray, vectors: np.ndarray, k: int) -> list[list[int]]:
    """Loops over Python floats; ties by the smaller id."""
    out = []
    for query in queries.tolist():
        scores = [sum(a * b for a, b in zip(query, row, strict=True)) for row in vectors.tolist()]
        out.append(sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k])
    return out


@pytest.fixture
def small() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(3)
    vectors = draw.integers(-3, 4, (40, 4)).astype(np.float32)  # small integers: many exact ties
    return vectors, draw.integers(-3, 4, (9, 4)).astype(np.float32)


def test_the_oracle_equals_loops_with_ties_and_across_blocks(small: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries = small
    monkeypatch.setattr(quality, "BLOCK", 7)
    monkeypatch.setattr(quality, "QUERY_BLOCK", 4)
    ids, scores = quality.exact_topk(queries, vectors, 5)
    assert ids.tolist() == slow_topk(queries, vectors, 5)
    assert np.array_equal(scores, np.take_along_axis(queries.astype(float) @ vectors.T.astype(float), ids, axis=1))
    assert quality.exact_topk(queries, vectors, 100)[0].shape == (9, 40)
    assert quality.exact_topk(queries[:0], vectors, 5)[0].shape == (0, 5)


def test_recall_counts_ties_once_and_ignores_empty_places() -> None:
    vectors = np.array([[3.0], [2.0], [2.0], [2.0], [0.0]], np.float32)
    query = np.array([[1.0]], np.float32)
    true_scores = quality.exact_topk(query, vectors, 2)[1]

    def recall(ids: list[int]) -> float:
        return quality.recall_at_k(np.array([ids]), query, vectors, true_scores)

    assert recall([0, 1]) == 1.0
    assert recall([0, 3]) == 1.0  # row 3 equals row 1
    assert recall([1, 2]) == 1.0  # both reach the second score; rank is not recall's affair
    assert recall([0, 0]) == 0.5
    assert recall([0, -1]) == 0.5
    assert recall([4, -1]) == 0.0
    assert recall([0, 4]) == 0.5


def test_agreement_needs_the_whole_list_in_order() -> None:
    true = np.array([[1, 2], [3, 4]])
    assert quality.same_lists(np.array([[1, 2], [4, 3]]), true) == 0.5
    assert quality.same_lists(true, true) == 1.0


def test_mean_cosine() -> None:
    assert quality.mean_cosine(np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[3.0, 0.0], [1.0, 1.0]])) == pytest.approx((1 + 2**-0.5) / 2)


# --- ceilings ----------------------------------------------------------------------------------------------------------


def test_shares_are_of_the_fastest_target_and_of_the_nearest_working_set() -> None:
    assert SAMPLE.compute("f32", 1, 25e9, 1.0) == ("f32 peak, 1 thread: 50 GFLOP/s", 0.5)
    assert SAMPLE.compute("f32", 2, 25e9, 1.0) == (None, None)
    assert SAMPLE.compute("bf16", 1, 25e9, 1.0) == (None, None)
    name, share = SAMPLE.stream(1, 100e6, 0.02)
    assert name == "read bandwidth at 64 MiB, 1 thread: 10.0 GB/s"
    assert share == pytest.approx(0.5)
    assert SAMPLE.stream(1, 20_000, 1.0)[0] == "read bandwidth at 16 KiB, 1 thread: 100.0 GB/s"
    assert len(ceilings.lines(SAMPLE)) == 4
    assert SAMPLE.compute(None, 1, 25e9, 1.0) == (None, None)


def test_who_is_held_to_a_target_is_measured_against_its_peak() -> None:
    assert SAMPLE.compute("f32", 1, 2.5e9, 1.0, "scalar") == ("f32 peak, 1 thread: 5 GFLOP/s", 0.5)
    assert SAMPLE.compute("f32", 1, 25e9, 1.0, "amx")[1] == 0.5  # a target without a probe: the best there is


def test_avx2_and_avx512vnni_hold_the_peers() -> None:
    assert (held.bound(Plan(target="avx2"), ours=False), held.bound(Plan(target="scalar"), ours=False)) == ("avx2", None)
    assert held.bound(Plan(target="avx512vnni"), ours=False) == "avx512vnni"
    assert (held.bound(Plan(target="scalar"), ours=True), held.bound(Plan(), ours=True)) == ("scalar", None)


@needs_core
def test_the_probes_give_rates_that_make_sense() -> None:
    found = ceilings.measure([1], quick=True, working_sets=(64 * 1024, 4 * 2**20))
    assert max(found.f32["1"].values()) > 1e9  # a core that does not reach 1 GFLOP/s is no core of this century
    assert all(rate > 1e8 for rate in found.bandwidth["1"].values())
    assert all(0.1 < ns < 10_000 for ns in found.latency.values())


# --- machine and peers -------------------------------------------------------------------------------------------------


def test_the_machine_is_described_without_its_name() -> None:
    import platform

    about = machine.describe()
    assert about["cores"] == usable_cores() >= 1
    assert about["memory_bytes"] > 0
    head = "\n".join(machine.lines(about, machine.versions(), {"targets": ["avx2"], "active": "avx2"}))
    assert "python 3." in head
    assert "targets avx2, active avx2" in head
    assert platform.node() not in head.split() or len(platform.node()) < 3


def test_a_missing_peer_is_skipped_aloud_once(capsys: pytest.CaptureFixture[str]) -> None:
    ours = peers.Engine("nearfield x", dict)
    absent = peers.Engine("nobody", dict, "nobody-package", ("module_that_is_not_there",))
    here = peers.Engine("json", dict, "numpy", ("json",))
    plan = Plan()
    assert peers.present((ours, absent, here), plan) == [ours, here]
    assert peers.present((ours, absent, here), plan) == [ours, here]
    assert plan.skipped == ["skipped: nobody (module_that_is_not_there not installed: pip install 'nearfield[bench]')"]
    assert capsys.readouterr().err.count("skipped: nobody") == 1
    assert peers.present((ours, absent, here), Plan(peers=False)) == [ours]


def test_a_peer_may_lack_a_name_or_the_machine_a_unit() -> None:
    assert peers.Engine("json", dict, "numpy", ("json:loads",)).missing() is None
    for absent in ("module_that_is_not_there.inside", "json.not_inside", "module_that_is_not_there:Name"):
        assert f"({absent} not installed" in str(peers.Engine("x", dict, "numpy", (absent,)).missing())
    assert "json:nothing not installed" in str(peers.Engine("json", dict, "numpy", ("json:nothing",)).missing())
    assert peers.Engine("json", dict, "numpy", unable=lambda: "no unit").missing() == "skipped: json (no unit)"


def test_a_peer_that_cannot_be_held_sits_out_a_held_run() -> None:
    free, bound = peers.Engine("usearch exact f32", dict, "usearch"), peers.Engine("faiss", dict, "faiss-cpu")
    plan = Plan(target="avx2")
    assert peers.present((free, bound), plan) == [bound]
    assert plan.skipped == ["skipped: usearch exact f32 (it cannot be held to avx2)"]
    assert peers.present((free, bound), Plan(target="avx512")) == [free, bound]  # nothing holds the peers to it


def test_bytes_come_from_the_last_cache_or_from_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = [{"level": 1, "size": "32K"}, {"level": 2, "size": "1024K"}, {"level": 3, "size": "32M"}]
    monkeypatch.setattr(machine, "caches", lambda: levels)
    assert machine.last_cache() == ("L3", 32 * 2**20)
    assert machine.home_of(32 * 2**20) == "L3"
    assert machine.home_of(32 * 2**20 + 1) == "DRAM"
    monkeypatch.setattr(machine, "caches", lambda: [{"level": 1, "size": ""}])
    assert machine.home_of(1) == ""


def test_bf16_is_a_unit_and_not_a_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "flags", lambda: {"avx2", "avx512f"})
    assert not machine.has_bf16()
    monkeypatch.setattr(machine, "flags", lambda: {"avx2", "amx_bf16"})
    assert machine.has_bf16()


# --- answers -----------------------------------------------------------------------------------------------------------


def test_answers_are_kept_in_the_order_of_the_calls() -> None:
    plain = Answers(lambda queries: np.column_stack([queries, queries + 1]).astype(np.int64))
    for block in (np.array([5.0]), np.array([7.0, 9.0]), np.array([11.0])):
        assert plain(block) is None
    assert plain.ids(3).tolist() == [[5, 6], [7, 8], [9, 10]]
    assert plain.ids(99).shape == (4, 2)
    assert plain.rescored() == {}


def test_rescored_rows_are_counted_over_all_queries() -> None:
    counts = iter([[3], [5, 10]])

    def search(queries: np.ndarray) -> Hits:
        n = len(queries)
        return Hits(np.zeros((n, 1), np.int64), np.zeros((n, 1), np.float32), np.ones(n, np.int64), np.array(next(counts)))

    ours = Answers(search)
    ours(np.zeros(1))
    ours(np.zeros(2))
    assert ours.rescored() == {"rescored_mean": 6.0, "rescored_max": 10}
    assert ours.ids(2).tolist() == [[0], [0]]
