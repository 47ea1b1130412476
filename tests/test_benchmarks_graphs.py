"""The graph suites: settings, every engine that is installed behind the one interface, and each suite at a tiny size."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from benchmark_samples import SAMPLE, needs_core, sample_document, sample_row
from benchmarks.core import data, peers, plots, results, timing
from benchmarks.core.plan import Plan, usable_cores
from benchmarks.core.quality import exact_topk, recall_at_k
from benchmarks.suites import churn, filter_graphs, graph_peers, graphs, kept, knobs, search
from benchmarks.suites.graphs import Setting

PEERS = ("hnswlib", "faiss IndexHNSWFlat")


@pytest.fixture
def graph_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plan]:
    """A quick plan on one thread with two peers; the suites with small batches."""
    sizes: dict[Any, dict[str, Any]] = {
        search: {"QUICK_BATCH": 32, "CURVE": {10: (10, 40), 100: (100,)}, "QUICK_LARGE_ROWS": 300},
        filter_graphs: {"BATCH": 16, "KEPT": (0.5, 0.001), "EFS": (16, 64)},
        churn: {"BATCH": 32, "EFS": (64,), "STEP": 0.1},
    }
    for module, values in sizes.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
        monkeypatch.setattr(module, "interleave", partial(timing.interleave, pause_s=0.0))  # nobody looks at these times
    monkeypatch.setenv("NEARFIELD_THREADS", "1")  # the suites change it: its old value comes back with the fixture's end
    peers.set_threads(1)  # loads torch: before the freeze, so that no collection goes through it
    gc.freeze()
    yield Plan(quick=True, threads=(1,), only=PEERS, ceilings=SAMPLE, cache=tmp_path, out=tmp_path)
    gc.unfreeze()
    peers.set_threads(usable_cores())


# --- settings ----------------------------------------------------------------------------------------------------------


def test_the_smallest_ef_is_found_by_doubling_and_bisection() -> None:
    asked: list[int] = []

    def recall(ef: int) -> float:
        asked.append(ef)
        return min(1.0, 0.5 + ef / 200)

    assert knobs.smallest_ef(recall, 10, 0.90) == 80
    assert max(asked) == 80, "nothing beyond the first width that reaches the target: wide walks are the slow ones"
    assert len(asked) < 12
    assert knobs.smallest_ef(recall, 10, 0.50) == 10
    found = [knobs.smallest_ef(lambda ef, needed=needed: min(1.0, ef / needed), 10, 1.0) for needed in range(10, 700)]
    assert found[:89] == list(range(10, 99)), "exact while 2 % are less than two steps"
    assert all(needed <= (ef or 0) <= 1.02 * needed + 1 for needed, ef in zip(range(10, 700), found, strict=True))


def test_a_target_out_of_reach_ends_the_search_early() -> None:
    asked: list[int] = []

    def recall(ef: int) -> float:
        asked.append(ef)
        return 0.97 if ef > 50 else 0.9

    assert knobs.smallest_ef(recall, 10, 0.99) is None
    assert asked == [10, 20], "a doubling that adds nothing is the end"
    assert knobs.smallest_ef(lambda ef: ef / 10_000, 10, 0.99) is None


class FakeGraph:
    """Exact search that forgets a share of the neighbours: 1 / ef of them, and with ``refine`` 1 never finds more than 0.93."""

    refines: ClassVar[tuple[int, ...]] = (1, 2)
    alive: ClassVar[weakref.WeakSet[Any]] = weakref.WeakSet()
    most: ClassVar[int] = 0

    def __init__(self, shape: graph_peers.Shape) -> None:
        FakeGraph.alive.add(self)
        FakeGraph.most = max(FakeGraph.most, len(FakeGraph.alive))

    def add(self, vectors: np.ndarray, threads: int) -> None:
        self.vectors = vectors

    def search(self, queries: np.ndarray, k: int, at: Setting, threads: int) -> np.ndarray:
        ids = np.argsort(-(queries @ self.vectors.T), axis=1)[:, :k]
        share = min(1 - 1 / at.ef, 0.93 if at.refine == 1 else 1.0)
        ids[:, round(share * k) :] = -1
        return ids

    def save(self, path: Path) -> None:
        path.write_bytes(b"x" * 1_000)


def test_the_fastest_of_the_settings_that_reach_a_recall(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries, _ = data.clustered(200, 8, dim=16)
    graph = FakeGraph(graph_peers.Shape(16, 200))
    graph.add(vectors, 1)
    recalls = knobs.Recalls(graph, queries, vectors, exact_topk(queries, vectors, 100)[1])
    monkeypatch.setattr(recalls, "_seconds", lambda at: {1: 1.0, 2: 2.0}[at.refine])
    assert recalls.fastest(0.5) == Setting(100, 1)  # k is the smallest width
    monkeypatch.setattr(recalls, "_seconds", lambda at: {1: 2.0, 2: 1.0}[at.refine])
    assert recalls.fastest(0.5) == Setting(100, 2)
    assert recalls.fastest(0.98) == Setting(100, 2)  # the other never reaches it
    assert recalls.fastest(1.0) == Setting(200, 2)
    assert recalls[Setting(100, 1)] == pytest.approx(0.93)
    assert (Setting(80).shown, Setting(80, 2).shown) == ("ef=80", "ef=80, x2")


# --- engines -----------------------------------------------------------------------------------------------------------


@needs_core
@pytest.mark.parametrize("engine", graphs.ENGINES, ids=lambda engine: engine.name)
def test_every_engine_that_is_here_keeps_the_contract(engine: peers.Engine, tmp_path: Path) -> None:
    if line := engine.missing():
        pytest.skip(line)
    vectors, queries, _ = data.clustered(1_000, 20, dim=64)
    graph: graphs.Graph = engine.make(graph_peers.Shape(64, 1_000))
    graph.add(vectors, 2)
    at = Setting(200, max(graph.refines))
    found = graph.search(queries, 10, at, 1)
    assert found.shape == (20, 10)
    assert found.dtype == np.int64
    assert recall_at_k(found, queries, vectors, exact_topk(queries, vectors, 10)[1]) >= 0.9
    assert np.array_equal(graph.search(queries, 10, at, 2), found)
    for row in (0, 7):
        one = graph.search(queries[row : row + 1], 10, at, 1)
        assert one.shape == (1, 10)
        assert np.array_equal(one[0], found[row])
    assert graphs.saved_bytes(graph) > 1_000 * 64  # a byte a value at the least
    if not engine.ours:  # what the cache does with it
        graph.save(tmp_path / "saved")
        again: Any = engine.make(graph_peers.Shape(64, 1_000))
        again.load(tmp_path / "saved", vectors)
        assert np.array_equal(again.search(queries, 10, at, 2), found)


@needs_core
def test_a_frozen_graph_is_what_freeze_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    import nearfield

    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(
        nearfield.HNSWIndex, "freeze", lambda self, **options: asked.append(options) or ("frozen", len(self)), raising=False
    )
    for engine in (graphs.FROZEN, graphs.COMPACT):
        assert engine.missing() is None
        graph = engine.make(graph_peers.Shape(16, 50))
        graph.add(data.clustered(50, 1, dim=16)[0], 1)
        assert graph.index == ("frozen", 50), "the index that was built is let go of"
    assert asked == [{}, {"compact": True}]


def test_engines_that_cannot_run_here_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs.peers, "flags", lambda: {"sse2"})
    assert graphs.peers.without_avx2() == "its package needs AVX2"
    for here in ({"sse2", "avx2"}, {"asimd"}):
        monkeypatch.setattr(graphs.peers, "flags", lambda here=here: here)
        assert graphs.peers.without_avx2() is None
    absent = peers.Engine("SVS", dict, "x", ("module_that_is_not_there",), extra="bench-svs")
    assert absent.missing() == "skipped: SVS (module_that_is_not_there not installed: pip install 'nearfield[bench-svs]')"


def test_only_the_peers_that_were_named() -> None:
    engines = [peers.Engine("nearfield x", dict), *(peers.Engine(name, dict, "numpy") for name in ("hnswlib", "faiss HNSW", "usearch"))]
    assert [engine.name for engine in peers.present(engines, Plan(only=("HNSW",)))] == ["nearfield x", "hnswlib", "faiss HNSW"]
    assert [engine.name for engine in peers.present(engines, Plan(only=("nobody",)))] == ["nearfield x"]
    assert len(peers.present(engines, Plan())) == 4


def test_a_quick_run_takes_two_peers_unless_it_is_told_which() -> None:
    here = [engine for engine in graphs.ENGINES if engine.missing() is None]
    assert graphs.engines_wanted(graphs.ENGINES, Plan()) == here
    brief = graphs.engines_wanted(graphs.ENGINES, Plan(quick=True))
    assert brief == [engine for engine in here if engine.ours or engine.name in ("hnswlib", "faiss IndexHNSWFlat")]
    named = graphs.engines_wanted(graphs.ENGINES, Plan(quick=True, only=("usearch",)))
    assert [engine.name for engine in named if not engine.ours] == [engine.name for engine in here if engine.name.startswith("usearch")]


# --- search ------------------------------------------------------------------------------------------------------------


@needs_core
def test_a_curve_ends_for_an_engine_that_has_become_slow(
    graph_plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    widths = {10: (10, 20, 30, 40, 50), 100: (100, 110, 120, 130, 140)}
    monkeypatch.setattr(search, "CURVE", widths)
    monkeypatch.setattr(search, "CURVE_MOST_S", -1.0)
    rows = [row for row in search.run(graph_plan, rows=300) if row.group.startswith("curve")]
    assert {row.params["ef"] for row in rows} == {10, 100}
    assert "ends at width 10, more than" in capsys.readouterr().err
    monkeypatch.setattr(search, "CURVE_MOST_S", 1.0)
    rows = [row for row in search.run(graph_plan, rows=300) if row.group.startswith("curve")]
    assert {row.params["ef"] for row in rows} == {ef for k in widths for ef in widths[k][::2]}


@needs_core
def test_a_tiny_search_suite_reaches_its_recall(graph_plan: Plan) -> None:
    pytest.importorskip("matplotlib")
    handed: list[Sequence[results.Row]] = []
    rows = search.run(replace(graph_plan, so_far=handed.append), rows=2_000)
    assert [len(part) for part in handed] == sorted({len(part) for part in handed}), "each time more"
    assert list(handed[-1]) == [row for row in rows if row.unit != "ms / query"], "all but the single calls, which come last"
    targets = [row for row in rows if row.group.startswith("recall@")]
    for row in targets:
        assert row.quality is not None
        assert row.quality >= float(row.group.split(">= ")[1].split(",")[0]), row
        assert bool(row.brief) == (row.params["k"] == 10)
    ours = [row for row in rows if row.ours and row.engine == "nearfield HNSWIndex"]
    assert {(row.params["k"], row.group.split(",")[0]) for row in ours if row in targets} == {
        (k, f"recall@{k} >= {target:.2f}") for k in search.KS for target in search.TARGETS
    }
    build = next(row for row in ours if row.unit == "s")
    assert build.params["file_bytes"] > 2_000 * 384 * 4
    assert build.quality_name == "recall@10 at ef = 100"
    assert build.quality is not None
    assert build.quality > 0.95
    single = next(row for row in ours if row.unit == "ms / query")
    batch = next(row for row in ours if row.group.startswith("recall@10 >= 0.95"))
    assert single.params["batch_gain"] == pytest.approx(batch.value * single.value / 1000, abs=0.001)
    assert [row.params["ef"] for row in ours if row.group.startswith("curve, k = 10,")] == [10]  # a quick run takes every second width
    for k in search.KS:
        plot = graph_plan.out / f"search-synthetic-k{k}-1t-quick.svg"
        assert plot.read_text().startswith("<?xml")
        assert plot.stat().st_size < 100_000
    results.validate(sample_document(*rows))


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    engines = tuple(
        peers.Engine(name, FakeGraph, distribution) for name, distribution in (("nearfield fake", None), ("hnswlib fake", "numpy"))
    )
    monkeypatch.setattr(search, "ENGINES", engines)
    monkeypatch.setattr(search, "draw", lambda plan, found, rows: None)
    monkeypatch.setattr(data, "real_with_metric", lambda plan, rows, queries: data.clustered(400, queries, dim=16))
    monkeypatch.setattr(data, "clustered", partial(data.clustered, dim=16))
    FakeGraph.most = 0


@pytest.mark.usefixtures("fakes")
def test_large_graphs_are_in_memory_one_at_a_time(graph_plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    search.run(graph_plan)
    assert FakeGraph.most == 2, "engines that take turns are there together"
    monkeypatch.setattr(search, "_collections", lambda plan, rows, every=search._collections: list(every(plan, rows))[1:])
    FakeGraph.most, graph_plan.large = 0, True
    rows = search.run(graph_plan)
    assert FakeGraph.most == 1
    assert {row.engine for row in rows if "300 synthetic rows" in row.group} == {"nearfield fake", "hnswlib fake"}
    assert not any(row.brief for row in rows), "the README's columns are those of the real rows"


@pytest.mark.usefixtures("fakes")
def test_a_peer_that_fails_is_left_out_and_we_are_not(graph_plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(FakeGraph):
        def add(self, vectors: np.ndarray, threads: int) -> None:
            raise RuntimeError("no memory")

    ours, peer = search.ENGINES
    monkeypatch.setattr(search, "ENGINES", (ours, peers.Engine("hnswlib broken", Broken, "numpy")))
    rows = search.run(graph_plan, rows=300)
    assert {row.engine for row in rows} == {"nearfield fake"}
    assert graph_plan.skipped == ["skipped: hnswlib broken (300 synthetic rows: RuntimeError: no memory)"]
    monkeypatch.setattr(search, "ENGINES", (peers.Engine("nearfield broken", Broken), peer))
    with pytest.raises(RuntimeError, match="no memory"):
        search.run(graph_plan, rows=300)


@pytest.mark.usefixtures("fakes")
def test_a_peers_graph_is_built_once_for_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Kept(FakeGraph):
        built = 0

        def add(self, vectors: np.ndarray, threads: int) -> None:
            Kept.built += 1
            super().add(vectors, threads)

        def load(self, path: Path, vectors: np.ndarray) -> None:
            assert path.stat().st_size == 1_000, "damaged"
            self.vectors = vectors

    ours, peer = peers.Engine("nearfield fake", Kept), peers.Engine("hnswlib fake", Kept, "numpy")
    monkeypatch.setattr(search, "KEPT_ROWS", 100)
    plan = Plan(cache=tmp_path)
    vectors, queries, label = data.clustered(200, 8)
    found = search.collection("real", vectors, queries, label, batch=8)

    def days(found: search.Collection, plan: Plan = plan) -> list[str | None]:
        items = [search.build(plan, engine, found) for engine in (ours, peer)]
        assert all(item is not None and item.cost.file_bytes == 1_000 for item in items)
        return [item.cost.day for item in items if item is not None]

    assert (days(found), Kept.built) == ([None, None], 2)
    first, second = days(found)
    assert (first, Kept.built) == (None, 3), "ours is built in every run"
    assert second is not None
    other = search.collection("real", vectors[::-1].copy(), queries, label, batch=8)
    assert (days(other), Kept.built) == ([None, None], 5)
    assert (days(found, Plan(cache=tmp_path, quick=True)), Kept.built) == ([None, None], 7)
    (kept.folder(plan, peer, found.digest) / kept.GRAPH).write_bytes(b"x")
    assert (days(found), Kept.built) == ([None, None], 9), "what cannot be read is built again"
    assert days(found)[1] == second


def test_plots_are_drawn_from_a_recall_on_and_in_its_order(graph_plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, Any] = {}
    monkeypatch.setattr("benchmarks.core.plots.draw", lambda plan, name, title, x, y, lines: drawn.update({name: lines}))
    points = [(0.99, 10.0, 1), (0.5, 99.0, 1), (0.9, 20.0, 1), (0.95, 15.0, 2)]
    rows = [
        sample_row(suite="search", unit="queries / s", value=rate, quality=recall, threads=threads, params={"k": 10})
        for recall, rate, threads in points
    ]
    empty = np.empty((0, 4))
    found = search.Collection("real", empty, empty, "", empty, 1, False, "ip", (empty, empty))
    search.draw(graph_plan, found, [*rows, sample_row(unit="s")])
    assert list(drawn) == ["search-real-k10-1t", "search-real-k10-2t"]
    (line,) = drawn["search-real-k10-1t"]
    assert (line.xs, line.ys, line.ours) == ([0.9, 0.99], [20.0, 10.0], True)


def test_without_matplotlib_there_is_a_line_and_no_plot(graph_plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    axis = plots.Axis("x")
    assert plots.draw(graph_plan, "some", "title", axis, axis, []) is None
    assert graph_plan.skipped == ["skipped: plot some (matplotlib not installed: pip install 'nearfield[bench]')"]
    assert not list(graph_plan.out.glob("*.svg"))


# --- filters -----------------------------------------------------------------------------------------------------------


def test_a_region_is_what_lies_around_one_row() -> None:
    vectors, _, _ = data.clustered(500, 1, dim=16)
    mask = filter_graphs.region(vectors, 0.1)
    assert mask.sum() == 50
    scores = vectors @ vectors.T
    centres = [row for row in range(500) if scores[row][mask].min() >= scores[row][~mask].max()]
    assert centres, "some row is nearer to all that are kept than to any that is not"
    assert filter_graphs.region(vectors, 0.0001).sum() == 1


def test_an_answer_outside_the_filter_does_not_count() -> None:
    vectors = np.array([[1.0], [0.9], [0.8]], np.float32)
    mask, query = np.array([False, True, True]), np.ones((1, 1), np.float32)
    work = filter_graphs.Work("scattered", 0.6, mask, exact_topk(query, vectors[mask], 2)[1])
    assert filter_graphs._recall(work, vectors, query, np.array([[1, 2]])) == 1.0
    assert filter_graphs._recall(work, vectors, query, np.array([[0, 1]])) == 0.5
    assert filter_graphs._recall(work, vectors, query, np.array([[1, -1]])) == 0.5


def test_the_width_of_a_peer_is_the_first_that_reaches_the_target() -> None:
    assert filter_graphs.width(lambda ef: ef / 130) == 128
    assert filter_graphs.width(lambda ef: 0.5) == filter_graphs.EFS[-1]


@needs_core
def test_a_tiny_filter_suite(graph_plan: Plan) -> None:
    rows = filter_graphs.run(graph_plan, rows=2_000)
    ours = [row for row in rows if row.engine == "nearfield HNSWIndex"]
    assert [(row.params["kept"], row.params["region"]) for row in ours] == [(0.5, False), (0.001, False), (0.5, True), (0.001, True)]
    assert all(row.quality is not None and row.quality >= 0.95 for row in ours)
    assert all(row.quality == 1.0 for row in rows if row.engine == "nearfield FlatIndex")
    lost = [row.quality for row in rows if row.engine == "hnswlib" and row.params["kept"] == 0.001]
    assert lost in ([], [0.0, 0.0])  # two rows are kept: it refuses to give fewer than ten
    assert all(row.params["ef"] in (16, 64) for row in rows if not row.ours)
    results.validate(sample_document(*rows))


# --- churn -------------------------------------------------------------------------------------------------------------


def test_churn_changes_what_it_says() -> None:
    vectors = np.arange(40, dtype=np.float32)[:, None]
    live, model = churn.Live(vectors, 20), {id: float(id) for id in range(20)}
    for level in (0.5, 0.9):
        for step in live.steps(level):
            for id, row in zip(step.replaced, step.by, strict=True):
                assert id in model
                model[int(id)] = float(row[0])
            for id in step.gone:
                del model[int(id)]
            for id in step.new:
                assert id not in model
                model[int(id)] = float(live.table[id, 0])
            assert {int(id): float(live.table[id, 0]) for id in live.ids} == model
        assert len(model) == 20
        assert sum(value < 20 for value in model.values()) == 20 - round(level * 20), "so many of the first rows are still there"
        assert len(set(model.values())) == 20, "every row comes in once"
    places = churn._places(live)
    assert [places[id] for id in sorted(model)] == list(range(20))
    assert places[-1] == -1


def test_recall_after_churn_is_told_beside_the_fresh_graph() -> None:
    def row(state: str, ef: int, quality: float) -> Any:
        return sample_row(params={"state": state, "ef": ef}, quality=quality)

    rows = churn.beside_fresh([row("fresh", 32, 0.9), row("churned", 32, 0.88), row("fresh", 64, 0.95), row("consolidated", 64, 0.96)])
    assert [row.params.get("to_fresh") for row in rows] == [None, -0.02, None, 0.01]


@needs_core
def test_a_tiny_churn_suite(graph_plan: Plan) -> None:
    rows = churn.run(graph_plan, rows=300)
    ours = [row for row in rows if row.ours]
    expected = [(level, state) for level in (0.5, 0.9) for state in ("fresh", "churned")]
    assert [(row.params["churn"], row.params["state"]) for row in ours if row.params["state"] != "consolidated"] == expected
    for row in rows:
        assert row.quality is not None
        assert row.quality > 0.95, row
        assert ("to_fresh" in row.params) == (row.params["state"] != "fresh")
        assert ("updates_per_s" in row.params) == (row.params["state"] == "churned")
    results.validate(sample_document(*rows))
