"""The benchmark core: fake clocks for the timing, loops for the recall, a sample file for the README's table, and a tiny real run."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # the suite is no installed package: it lives in the repository

from benchmarks import __main__ as command  # noqa: E402
from benchmarks import readme_table  # noqa: E402
from benchmarks.core import ceilings, data, machine, peers, quality, results, tables, timing  # noqa: E402
from benchmarks.core.ceilings import Ceilings  # noqa: E402
from benchmarks.core.plan import Plan, usable_cores  # noqa: E402
from benchmarks.core.results import Row  # noqa: E402
from benchmarks.suites import cuda, encode, score, search  # noqa: E402

HAVE_CORE = importlib.util.find_spec("nearfield._core") is not None
needs_core = pytest.mark.skipif(not HAVE_CORE, reason="the native engine is not built")


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

SAMPLE = Ceilings(
    f32={"1": {"scalar": 5e9, "avx2": 50e9}},
    int8={"1": {"scalar": 5e9, "avx2": 100e9}},
    bandwidth={"1": {str(16 * 1024): 100e9, str(64 * 2**20): 10e9}},
    latency={str(64 * 2**20): 90.0},
)


def test_shares_are_of_the_fastest_target_and_of_the_nearest_working_set() -> None:
    assert SAMPLE.compute("f32", 1, 25e9, 1.0) == ("f32 peak, 1 thread: 50 GFLOP/s", 0.5)
    assert SAMPLE.compute("f32", 2, 25e9, 1.0) == (None, None)
    assert SAMPLE.compute("bf16", 1, 25e9, 1.0) == (None, None)
    name, share = SAMPLE.stream(1, 100e6, 0.02)
    assert name == "read bandwidth at 64 MiB, 1 thread: 10.0 GB/s"
    assert share == pytest.approx(0.5)
    assert SAMPLE.stream(1, 20_000, 1.0)[0] == "read bandwidth at 16 KiB, 1 thread: 100.0 GB/s"
    assert len(ceilings.lines(SAMPLE)) == 4


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


# --- results, tables, README -------------------------------------------------------------------------------------------


def sample_row(**changes: Any) -> Row:
    base = Row(
        suite="score", group="exact top-10", brief="nq = 1",
        engine="nearfield FlatIndex", version="0.1.0", ours=True, data="100 rows", threads=1,
        params={"n": 100}, value=0.5, unit="ms / query", spread=0.1, p50=0.4, p99=0.9, quality_name="lists = float64", quality=1.0,
        ceiling="read bandwidth", share=0.42, rounds=[{"seconds": 0.5, "calls": 1}],
    )  # fmt: skip
    return Row(**{**asdict(base), **changes})


def sample_document(*rows: Row, day: int = 1, quick: bool = False) -> dict[str, Any]:
    about = {"cpu": "Some CPU", "arch": "x86_64", "cores": 2, "flags": ["avx", "avx2"]}
    head = {"machine": about, "versions": {"nearfield": "0.1.0"}, "nearfield": {}, "ceilings": SAMPLE.to_dict()}
    when = datetime(2026, 1, day, 12, 30, tzinfo=UTC)
    return results.report(list(rows), head=head, command="python -m benchmarks", quick=quick, skipped=[], now=when)


def test_a_result_survives_the_file(tmp_path: Path) -> None:
    document = sample_document(sample_row(), sample_row(engine="faiss", ours=False))
    path = results.write(document, tmp_path / "results")
    assert path.name == "2026-01-01-123000.json"
    assert results.read(path) == document
    assert results.write(sample_document(sample_row(), quick=True), tmp_path).name.endswith("-quick.json")
    assert "\n" not in results.dumps(document)
    with pytest.raises(ValueError, match="not JSON compliant"):
        results.dumps({"value": float("nan")})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: d.update(schema=99), "schema 99"),
        (lambda d: d.pop("machine"), "machine: NoneType"),
        (lambda d: d.update(date="yesterday"), "yesterday"),
        (lambda d: d["rows"][0].pop("share"), r"rows\[0\]: keys \['share'\]"),
        (lambda d: d["rows"][0].update(rounds=[]), "no rounds"),
        (lambda d: d["rows"][0].update(value=0), "no value"),
    ],
)
def test_a_damaged_result_is_refused_with_its_name(tmp_path: Path, damage: Callable[[dict[str, Any]], Any], message: str) -> None:
    document = sample_document(sample_row())
    damage(document)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=f"result.json: .*{message}"):
        results.read(path)


def test_a_table_line_holds_speed_tail_quality_and_share() -> None:
    from rich.console import Console

    console = Console(width=150, record=True, file=io.StringIO())
    tables.show([sample_row(), sample_row(engine="numpy", ours=False, share=None)], console)
    text = console.export_text()
    line = next(line for line in text.splitlines() if "FlatIndex" in line)
    assert [cell.strip() for cell in line.split("│")[1:-1]] == [
        "nearfield FlatIndex 0.1.0",
        "0.500",
        "10 %",
        "0.400",
        "0.900",
        "1.0000",
        "42.0 %",
    ]
    assert "MiB" not in text  # no row has memory


def test_the_readme_gets_the_newest_figures_of_each_suite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, readme = tmp_path / "results", tmp_path / "README.md"
    readme.write_text(f"# Title\n{readme_table.BEGIN}\nold\n{readme_table.END}\nend\n")
    options = ["--readme", str(readme), "--results", str(folder)]
    assert readme_table.main(options) == 2  # nothing measured yet
    assert "no results for publication" in capsys.readouterr().err

    blank = dict.fromkeys(("p50", "p99", "quality", "quality_name", "share", "ceiling"))
    search_row = sample_row(suite="search", brief="build", engine="hnswlib", ours=False, unit="s", value=67.0, memory_bytes=2**20, **blank)
    results.write(sample_document(sample_row(value=9.0, p50=9.0), search_row, day=1), folder)
    results.write(sample_document(sample_row(), sample_row(brief="", p50=77.0), day=2), folder)
    results.write(sample_document(sample_row(p50=55.0), day=3, quick=True), folder)
    assert readme_table.main([*options, "--check"]) == 1
    assert "old" in readme.read_text()
    assert readme_table.main(options) == 0
    text = readme.read_text()
    assert text.startswith("# Title\n")
    assert text.endswith(f"{readme_table.END}\nend\n")
    assert "old" not in text
    assert "| **nearfield FlatIndex 0.1.0** | p50 0.400, p99 0.900 (42 %) | 1.0000 |" in text  # of day 2: neither day 1 nor the quick run
    assert "| hnswlib 0.1.0 | 67.0, 1 MiB |" in text  # of day 1: the newest file with this suite
    assert "77" not in text.split("Written by")[0].split("score")[1]  # rows without a brief stay in the JSON
    assert readme_table.main([*options, "--check"]) == 0


def test_our_own_readme_is_up_to_date() -> None:
    if not any(not document["quick"] for document in map(results.read, readme_table.RESULTS.glob("*.json"))):
        pytest.skip("no results for publication in benchmarks/results")
    assert readme_table.main(["--check"]) == 0


def test_a_readme_without_markers_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results.write(sample_document(sample_row()), tmp_path / "results")
    readme = tmp_path / "README.md"
    readme.write_text(f"{readme_table.END} {readme_table.BEGIN}")
    assert readme_table.main(["--readme", str(readme), "--results", str(tmp_path / "results")]) == 2
    assert "once each, in this order" in capsys.readouterr().err


# --- data --------------------------------------------------------------------------------------------------------------


def test_clustered_vectors_are_unit_rows_and_seeded() -> None:
    vectors, queries, label = data.clustered(300, 20, dim=64)
    assert vectors.dtype == queries.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert label.startswith("300 synthetic vectors in 3 clusters")
    assert np.array_equal(vectors, data.clustered(300, 20, dim=64)[0])
    nearest = np.sort(queries @ vectors.T, axis=1)
    assert nearest[:, -1].mean() > nearest[:, 0].mean() + 0.4  # clusters: neighbours are far closer than the rest


def test_cached_vectors_are_extended_and_dropped_when_the_texts_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []

    class FakeEncoder:
        def __init__(self, *args: Any, **options: Any) -> None: ...

        def encode(self, texts: list[str]) -> np.ndarray:
            encoded.extend(texts)
            return np.array([[len(text)] * data.DIM for text in texts], np.float32)

        def close(self) -> None: ...

    monkeypatch.setattr("nearfield.Encoder", FakeEncoder, raising=False)
    monkeypatch.setattr(data, "bundle", lambda plan: tmp_path)
    monkeypatch.setattr(data, "SAVED_EVERY", 2)
    plan, pool = Plan(cache=tmp_path), ["a", "bb", "ccc", "dddd"]
    assert data._encoded(plan, "rows", pool, 3)[:, 0].tolist() == [1, 2, 3]
    assert encoded == ["a", "bb", "ccc"]
    assert data._encoded(plan, "rows", pool, 2)[:, 0].tolist() == [1, 2]
    assert data._encoded(plan, "rows", pool, 4)[:, 0].tolist() == [1, 2, 3, 4]
    assert encoded == ["a", "bb", "ccc", "dddd"]
    assert data._encoded(plan, "rows", ["x", "bb"], 2).shape == (2, data.DIM)
    assert encoded[-2:] == ["x", "bb"]


# --- suites ------------------------------------------------------------------------------------------------------------


def test_the_smallest_ef_is_found_by_bisection() -> None:
    asked = []

    class Recalls(dict[int, float]):
        def __missing__(self, ef: int) -> float:
            asked.append(ef)
            return min(1.0, 0.5 + ef / 200)

    assert search.smallest_ef(Recalls(), 0.90) == 80
    assert len(asked) < 20
    assert search.smallest_ef(Recalls(), 0.50) == search.K
    assert search.smallest_ef({search.K: 0.1, search.MAX_EF: 0.8}, 0.9) is None


def test_operations_of_minilm_are_twice_10_6_million_multiply_adds_per_token() -> None:
    config = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}
    assert encode.operations([1], config) == 2 * 6 * (12 * 384**2 + 2 * 384)
    assert encode.operations([1], config) / 2 == pytest.approx(10.6e6, rel=0.01)
    assert encode.operations([100, 100], config) == 2 * encode.operations([100], config)
    assert encode.operations([200], config) > 2 * encode.operations([100], config)  # attention grows with the square


@pytest.fixture
def tiny_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plan]:
    """Three rounds of a few queries on one thread."""
    for module, sizes in ((score, {"BATCH": 8, "SINGLES": 16, "CHECKED": 8}), (search, {"BATCH": 32, "CURVE": (10, 40)})):
        for name, value in sizes.items():
            monkeypatch.setattr(module, name, value)
    monkeypatch.setenv("NEARFIELD_THREADS", "1")  # the suites change it: its old value comes back with the fixture's end
    yield Plan(quick=True, threads=(1,), ceilings=SAMPLE, cache=tmp_path)
    peers.set_threads(usable_cores())


@needs_core
def test_a_tiny_score_suite_agrees_with_float64(tiny_plan: Plan) -> None:
    rows = score.run(tiny_plan, sizes=(2_000,))
    ours = [row for row in rows if row.ours]
    assert len(ours) == 4  # topk and FlatIndex, one query and a batch
    for row in ours:
        assert row.quality == 1.0, row.engine
        assert row.share is not None
        assert row.share > 0
        assert len(row.rounds) == 3
    for row in rows:
        assert row.quality is not None
        assert row.quality >= 0.9, row.engine
        assert (row.p99 is not None) == (row.params["nq"] == 1)
    results.validate(sample_document(*rows))


@needs_core
def test_a_tiny_search_suite_reaches_its_recall(tiny_plan: Plan) -> None:
    rows = search.run(tiny_plan, rows=2_000)
    for row in rows:
        if row.brief.startswith("recall"):
            target = float(row.brief.split()[2])
            assert row.quality is not None
            assert row.quality >= target, row
    ours = {row.group.split(",")[0].split(" >=")[0] for row in rows if row.ours}
    assert {"build", "curve", "recall@10", "single calls from Python at recall@10"} <= ours
    results.validate(sample_document(*rows))


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


def test_the_command_refuses_an_unknown_suite_and_too_many_threads(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["nothing"]) == 2
    assert "unknown suite 'nothing', one of score, search, encode, cuda" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        command.main(["--threads", "99999"])
    assert stopped.value.code == 2


def test_the_command_ends_in_one_json_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("benchmarks.suites.load", lambda name: lambda plan: [sample_row(suite=name)])
    monkeypatch.setattr(ceilings, "measure", lambda *args, **options: SAMPLE)
    assert command.main(["score", "--quick", "--json", "-", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out.rstrip("\n").split("\n")
    document = json.loads(out[-1])
    results.validate(document)
    assert document["command"] == f"python -m benchmarks score --quick --json - --out {tmp_path}"
    assert document == results.read(next(tmp_path.glob("*-quick.json")))
    assert out[0].startswith("machine ")
