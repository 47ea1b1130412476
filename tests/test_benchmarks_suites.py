"""Every benchmark suite at a tiny size: agreement with float64, and what each promises to say."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmark_samples import SAMPLE, needs_core, sample_document, sample_row
from benchmarks import readme_table
from benchmarks.__main__ import installed_elsewhere
from benchmarks.core import peers, results, timing
from benchmarks.core.plan import ROOT, Plan, usable_cores
from benchmarks.suites import approximate, cuda, encode, exact, large, scans, score, score_sweep
from benchmarks.suites import filter_exact as filtered
from conftest import of_native_scorer


def test_operations_of_minilm_are_twice_10_6_million_multiply_adds_per_token() -> None:
    config = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}
    assert encode.operations([1], config) == 2 * 6 * (12 * 384**2 + 2 * 384)
    assert encode.operations([1], config) / 2 == pytest.approx(10.6e6, rel=0.01)
    assert encode.operations([100, 100], config) == 2 * encode.operations([100], config)
    assert encode.operations([200], config) > 2 * encode.operations([100], config)  # attention grows with the square


# Of 2,000 clustered rows: engines that round, and how far that may take them from the true ten. Everybody else finds all. torch's bfloat16
# products are themselves bfloat16: scores near 0.7 lie 0.004 apart, and many rows tie (0.936 measured).
LEAST_RECALL = {"faiss RaBitQFastScan": 0.3, "usearch exact i8": 0.92, "faiss SQ8": 0.97, "torch bf16 matmul + topk": 0.92}


@pytest.fixture
def tiny_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plan]:
    """Three rounds of a few queries on one thread."""
    sizes = {
        score: {"BATCH": 8, "SINGLES": 16, "PART": 4},
        large: {"BATCH": 8, "SINGLES": 2, "CHECKED": 8},
        filtered: {"BATCH": 8, "SINGLES": 2},
        approximate: {"BATCH": 8, "SINGLES": 2, "CHECKED": 32},
    }
    for module, values in sizes.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(exact, "interleave", partial(timing.interleave, pause_s=0.0))  # nobody looks at these times
    monkeypatch.setenv("NEARFIELD_THREADS", "1")  # the suites change it: its old value comes back with the fixture's end
    gc.freeze()  # each timed round begins with a collection: over all that torch loaded it takes longer than the round
    yield Plan(quick=True, threads=(1,), ceilings=SAMPLE, cache=tmp_path, out=tmp_path)
    gc.unfreeze()
    peers.set_threads(usable_cores())


@of_native_scorer  # rows rescored
@needs_core
def test_a_tiny_score_suite_agrees_with_float64(tiny_plan: Plan) -> None:
    rows = score.run(tiny_plan, sizes=(2_000,))
    ours = [row for row in rows if row.ours]
    assert [(row.engine, row.params["k"], row.params["nq"]) for row in ours] == [
        ("nearfield topk", 10, 1), ("nearfield FlatIndex", 10, 1), ("nearfield topk", 10, 8), ("nearfield FlatIndex", 10, 8),
        ("nearfield FlatIndex", 100, 1), ("nearfield FlatIndex", 100, 8),
    ]  # fmt: skip
    for row in ours:
        assert row.quality == row.params["recall"] == 1.0, row.engine
        assert row.share is not None
        assert row.share > 0
        assert len(row.rounds) == 3
    flat = [row for row in ours if row.engine == "nearfield FlatIndex"]
    assert all(row.params["k"] <= row.params["rescored_mean"] <= row.params["rescored_max"] < 2_000 for row in flat)
    for row in rows:
        assert row.params["recall"] >= LEAST_RECALL.get(row.engine, 1.0), row.engine
        assert row.params["checked"] == (64 if row.params["nq"] == 1 else row.params.get("asked", 32))
        assert (row.p99 is not None) == ("touched_bytes" in row.params) == (row.params["nq"] == 1)
        assert bool(row.brief) == (row.params["k"] == 10)
    assert next(row for row in flat if row.params["nq"] == 1).params["touched_bytes"] == 2_000 * 384
    parts = {row.engine: row.params["asked"] for row in rows if "asked" in row.params}
    assert set(parts) == {row.engine for row in rows if row.engine in {"faiss SQ8", "usearch exact f32", "usearch exact i8"}}
    assert set(parts.values()) <= {4}
    results.validate(sample_document(*rows))
    headline = readme_table._suite("score", sample_document(*rows))
    assert headline.count("2,000 synthetic rows, nq = 8, queries / s") == 1
    assert "**nearfield FlatIndex 0.1.0**" in headline
    assert "top-100" not in headline


def test_a_part_of_a_batch_counts_as_what_it_is() -> None:
    work = exact.Work("score", "g", "d", 1, n=1_000, dim=10, k=1, nq=100, calls=1, budget_s=1.0)
    part = exact.Contestant(scans.FAISS, lambda queries: queries, asked=25)
    row = exact._row(Plan(ceilings=SAMPLE), work, part, timing.Series([[0.5]]), {"lists": 1.0})
    assert row.value == 50.0
    assert row.params["nq"] == 100
    assert row.params["shown"] == "25 of 100"
    assert row.share == pytest.approx(max(2 * 1_000 * 10 * 25 / 0.5 / 50e9, 1_000 * 10 * 4 / 0.5 / 100e9))


def test_the_real_and_the_synthetic_collection_are_200_000_rows_each() -> None:
    asked = {kind: load.args[-2:] for kind, load in score.collections(Plan(), 5)}
    assert asked == {"real": (200_000, 5), "synthetic": (200_000, 5)}
    assert [kind for kind, _ in score.collections(Plan(quick=True), 5)] == ["real"]


@needs_core
def test_growth_and_bytes_per_vector(tiny_plan: Plan) -> None:
    rows = large.run(tiny_plan, sizes=(4_000, 20_000))
    memory = {row.params["storage"]: row.value for row in rows if row.unit == "bytes / vector"}
    assert list(memory) == list(large.STORAGES)
    assert memory["int8"] < memory["bfloat16"] < memory["float32"] < 384 * 8  # 1, 3 and 5 bytes a value, and room for noise
    timed = [row for row in rows if row.unit != "bytes / vector"]
    assert [row.params["n"] for row in timed] == [4_000, 20_000] * 2
    for small, big in zip(timed[::2], timed[1::2], strict=True):
        assert small.group == big.group
        assert small.quality == big.quality == 1.0
        assert "growth" not in small.params
        assert big.params["growth"] == pytest.approx(big.value / small.value / 5, abs=0.001)
    results.validate(sample_document(*rows))


@needs_core
def test_a_tiny_sweep_has_every_power_of_two_and_a_plot(tiny_plan: Plan) -> None:
    pytest.importorskip("matplotlib")
    rows = score_sweep.run(tiny_plan, rows=1_000, largest=8)
    ours = [row for row in rows if row.ours]
    assert [row.params["nq"] for row in ours] == [1, 2, 4, 8]
    assert all(row.quality == 1.0 and row.unit == "ms / query" for row in ours)
    assert ["rise" in row.params for row in ours] == [False, True, True, True]
    plot = (tiny_plan.out / "score_sweep-1t-quick.svg").read_text()
    assert plot.startswith("<?xml")
    results.validate(sample_document(*rows))


def test_a_valley_is_a_rise_of_more_than_a_tenth() -> None:
    plan = Plan()
    values = {1: 1.0, 2: 0.5, 4: 0.54, 8: 0.6}
    rows = score_sweep.valleys(plan, [sample_row(params={"nq": nq}, value=value) for nq, value in values.items()])
    assert [row.params.get("rise") for row in rows] == [None, -0.5, 0.08, 0.1111]
    assert [row.params.get("valley") for row in rows] == [None, False, False, True]
    assert plan.skipped == ["valley: nearfield FlatIndex, 1 thread: a query costs 11 % more at nq = 8 than at 4"]


@needs_core
def test_a_tiny_filter_suite_is_exact_for_every_mask(tiny_plan: Plan) -> None:
    rows = filtered.run(tiny_plan, sizes=(2_000,))
    ours = [row for row in rows if row.ours]
    shown = ["100 %", "50 %, random", "50 %, blocks", "5 %, random", "5 %, blocks", "0.1 %, random", "0.1 %, blocks"]
    assert [row.params["shown"] for row in ours] == [name for name in shown for _ in (1, 8)]
    assert all(row.quality == row.params["recall"] == 1.0 for row in rows), "0.1 % are two rows: fewer than k"
    assert {row.params["n"] for row in rows} == {2_000, 1_000, 100, 2}
    results.validate(sample_document(*rows))


@pytest.mark.parametrize("kept", [0.5, 0.05, 0.001])
def test_masks_keep_what_they_say(kept: float) -> None:
    n = 20_000
    scattered, blocks = filtered.mask_of(n, kept, False), filtered.mask_of(n, kept, True)
    assert scattered.sum() == blocks.sum() == round(n * kept)
    assert np.array_equal(blocks, filtered.mask_of(n, kept, True))
    runs = int(np.count_nonzero(np.diff(np.concatenate([[0], blocks, [0]]).astype(int)) == 1))
    assert runs <= -(-blocks.sum() // min(filtered.BLOCK, blocks.sum())) + 1


@needs_core
def test_a_tiny_approximate_suite_is_at_equal_recall(tiny_plan: Plan) -> None:
    pytest.importorskip("faiss")
    rows = approximate.run(tiny_plan, sizes=(2_000,))
    ours = [row for row in rows if row.engine == "nearfield FlatIndex, guarantee = 0.999"]
    assert [row.params["nq"] for row in ours] == [1, 8]
    assert all(row.params["recall"] >= 0.99 for row in ours)
    refined = [row for row in rows if "refine" in row.engine]
    assert {row.engine for row in refined} == {"faiss RaBitQFastScan + refine", "faiss SQ8 + refine"}
    assert all(row.params["recall"] >= 0.99 for row in refined)  # of the queries that were checked for the target, those that were timed
    assert all(row.params["shown"] == f"x{row.params['factor']}" for row in refined)
    batch = next(row for row in rows if row.engine == "faiss RaBitQFastScan" and row.params["nq"] > 1)
    assert (batch.ceiling, batch.share) == (None, None)  # table look-ups have no peak rate to compare with
    results.validate(sample_document(*rows))


def test_the_smallest_factor_that_reaches_the_target() -> None:
    assert approximate.smallest_factor(lambda factor: 1 - 1 / factor, 0.9) == 16
    assert approximate.smallest_factor(lambda factor: 0.5, 0.9) is None


def test_the_floor_is_the_larger_of_bytes_and_multiply_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(ceilings=SAMPLE)
    engine = peers.Engine("nearfield x", dict, precision="int8", value_bytes=1)

    def share(nq: int) -> tuple[str | None, float | None]:
        work = exact.Work("score", "g", "d", 1, n=100_000, dim=1_000, k=1, nq=nq, calls=1, budget_s=1.0)
        row = exact._row(plan, work, exact.Contestant(engine, lambda queries: queries), timing.Series([[1.0]]), {"lists": 1.0})
        return row.ceiling, row.share

    assert share(1) == ("read bandwidth at 64 MiB, 1 thread: 10.0 GB/s", pytest.approx(1e8 / 10e9))
    assert share(4) == ("read bandwidth at 64 MiB, 1 thread: 10.0 GB/s", pytest.approx(0.01))  # 8e8 operations of 100e9 a second are less
    assert share(100) == ("int8 peak, 1 thread: 100 GOP/s", pytest.approx(0.2))


def test_no_query_is_asked_twice() -> None:
    work = exact.Work("score", "g", "d", 1, n=1, dim=1, k=1, nq=2, calls=3, budget_s=1.0)
    queries = np.arange(24.0).reshape(24, 1)
    blocks = exact.chunks(queries, work, 4)
    assert [len(line) for line in blocks] == [3, 3, 3, 3]
    assert np.array_equal(np.concatenate([block for line in blocks for block in line]), queries)
    with pytest.raises(ValueError, match=r"24 queries given, 30 expected \(5 rounds of 3 calls of 2\)"):
        exact.chunks(queries, work, 5)


def test_places_beyond_the_kept_rows_must_be_empty() -> None:
    vectors = np.array([[1.0], [0.5]], np.float32)
    truth = exact.Truth(np.array([[0, 1]]), np.array([[1.0, 0.5]]), vectors)
    work = exact.Work("filter", "g", "d", 1, n=2, dim=1, k=3, nq=1, calls=1, budget_s=1.0)

    def lists(ids: list[int]) -> float:
        given = exact.Answers(lambda queries: np.array([ids]))
        given(np.ones((1, 1)))
        return exact._quality(work, given, np.ones((1, 1), np.float32), truth)["lists"]

    assert lists([0, 1, -1]) == 1.0
    assert lists([0, 1, 1]) == 0.0
    assert lists([1, 0, -1]) == 0.0


@needs_core
def test_a_tiny_cuda_suite_on_torchs_cpu_device(tiny_plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from nearfield.kernels import cuda as kernel

    here = torch.device("cpu")
    monkeypatch.setattr(kernel, "find_device", lambda number: here)
    for name, value in {"BATCHES": (1, 24), "CALLS": {1: 3}, "CHECKED": 8, "KS": (5,), "MATRIX_VALUES": 20_000, "PROBE_ROUNDS": 1}.items():
        monkeypatch.setattr(cuda, name, value)
    bf16, bandwidth = cuda.measure(here, side=32, size=2**16)
    assert bf16 > 1e5
    assert bandwidth > 1e5
    rows = cuda.run(tiny_plan, device=cuda.Device("cuda", here, "no GPU at all", 2.0 * 384 * 24 * 1e9, 2.0 * 384 * 1e9), rows=1_000)
    assert [(row.params["nq"], row.ours) for row in rows] == [(1, True), (1, False), (1, False), (24, True), (24, False), (24, False)]
    for row in rows:
        seconds = row.value / 1000 if row.params["nq"] == 1 else row.params["nq"] / row.value
        assert row.quality == 1.0 or not row.ours
        # With these ceilings 1,000 rows of two-byte values take 1 us to read, and their products with 24 queries 1 us to compute.
        slowest = 2e-6 if "float32" in row.engine else 1e-6
        assert row.share == pytest.approx(slowest / seconds, rel=0.01)
        assert row.params["bf16_share"] == pytest.approx(1e-6 * row.params["nq"] / 24 / seconds, rel=0.01)
    results.validate(sample_document(*rows))


def test_the_cuda_suite_says_that_there_is_no_device(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    plan = Plan(quick=True)
    assert cuda.run(plan) == []
    assert plan.skipped == [f"skipped: cuda (no CUDA device: torch {torch.__version__} finds none)"]
    assert "no CUDA device" in capsys.readouterr().err


def test_a_nearfield_from_elsewhere_is_told_of(tmp_path: Path) -> None:
    assert installed_elsewhere(ROOT / "python" / "nearfield" / "__init__.py") is None
    line = installed_elsewhere(tmp_path / "nearfield" / "__init__.py")
    assert line is not None
    assert "not this checkout's" in line
