"""Suites about what a user meets first: imports in fresh processes, build times, and how long the suites themselves take."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmark_samples import SAMPLE, needs_core, sample_document, sample_row
from benchmarks import __main__ as command
from benchmarks import suites
from benchmarks.core import durations, machine, peers, results
from benchmarks.core.plan import Plan, usable_cores
from benchmarks.suites import build, imports


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plan]:
    monkeypatch.setenv("NEARFIELD_THREADS", "1")  # the suites change it: its old value comes back with the fixture's end
    yield Plan(quick=True, threads=(1,), only=("hnswlib",), ceilings=SAMPLE, cache=tmp_path, out=tmp_path)
    peers.set_threads(usable_cores())


# --- import ------------------------------------------------------------------------------------------------------------


def test_a_fresh_process_says_what_a_statement_loads() -> None:
    found = imports.in_fresh_process("import time; time.sleep(0.05); import colorsys")
    assert 0.05 <= found["seconds"] < 10
    assert "colorsys" in found["modules"]
    with pytest.raises(RuntimeError, match="import nothing_like_this: ModuleNotFoundError"):
        imports.in_fresh_process("import nothing_like_this")


@needs_core
def test_importing_nearfield_loads_none_of_the_large_libraries(plan: Plan) -> None:
    rows = imports.run(plan)
    times = {row.engine: row for row in rows if row.unit == "ms"}
    assert times["nearfield"].params["loads"] == "none of the large ones"
    assert times["nearfield, with its native engine"].params["loads"] == "numpy"
    assert times["nearfield"].value < times["nearfield, with its native engine"].value
    sizes = {row.engine: row.value for row in rows if row.unit == "MB"}
    assert 0.5 < sizes["nearfield"] < 15, "what installs must stay below 15 MB"
    assert set(sizes) - {"nearfield"} == {row.engine for row in times.values() if not row.ours}
    results.validate(sample_document(*rows))


# --- build -------------------------------------------------------------------------------------------------------------


def test_the_fewest_candidates_are_found_without_building_them_all() -> None:
    asked: list[int] = []

    def recall(ef: int) -> float:
        asked.append(ef)
        return min(1.0, 0.90 + ef / 1_000)

    assert build.fewest(recall) == (96, pytest.approx(0.996))
    assert build.LADDER[build.LADDER.index(96) - 1] / 1_000 + 0.90 < build.TARGET
    assert len(asked) <= 5
    assert build.fewest(lambda ef: 0.5) is None
    assert build.fewest(lambda ef: 1.0) == (build.LADDER[0], 1.0)


@needs_core
def test_a_tiny_build_suite_is_at_equal_recall(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    gc.freeze()
    try:
        rows = build.run(plan, rows=1_000)
    finally:
        gc.unfreeze()
    assert {row.engine for row in rows} >= {"nearfield HNSWIndex", "nearfield FrozenIndex"}
    for row in rows:
        assert row.quality is not None
        assert row.quality >= build.TARGET
        assert row.params["ef_construction"] in build.LADDER
        assert row.params["rate"] == pytest.approx(1_000 / row.value)
    results.validate(sample_document(*rows))
    monkeypatch.setattr(build, "TARGET", 1.01)
    monkeypatch.setattr(build, "LADDER", (16,))
    assert build.run(plan, rows=1_000) == []
    assert any(line.startswith("nearfield HNSWIndex: recall@10 below 1.01") for line in plan.skipped)


def test_a_peer_that_fails_while_building_is_left_out(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self, shape: object) -> None:
            raise OSError("no room")

    monkeypatch.setattr(build, "ENGINES", (peers.Engine("hnswlib broken", Broken, "numpy"),))
    assert build.run(plan, rows=300) == []
    assert plan.skipped == ["skipped: hnswlib broken (build: OSError: no room)"]
    monkeypatch.setattr(build, "ENGINES", (peers.Engine("nearfield broken", Broken),))
    with pytest.raises(OSError, match="no room"):
        build.run(plan, rows=300)


# --- names and durations -----------------------------------------------------------------------------------------------


def test_every_suite_has_a_module_that_runs() -> None:
    for name in suites.SUITES:
        assert callable(suites.load(name))
    assert set(suites.DEFAULT) <= set(suites.SUITES)
    expected = sum(suites.SUITES[name].minutes for name in suites.DEFAULT)
    assert expected <= 60, "the default suites with peers fit in an hour"
    assert sum(suites.SUITES[name].quick_s for name in suites.DEFAULT) <= 240, "quick ones in five minutes, also where the host is slow"


def test_a_suite_of_two_modules_gives_the_rows_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.suites.filter_exact.run", lambda plan: ["exact"])
    monkeypatch.setattr("benchmarks.suites.filter_graphs.run", lambda plan: ["graphs"])
    assert suites.load("filter")(Plan()) == ["exact", "graphs"]


def test_durations_are_those_of_this_machine_where_there_are_any(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = sample_document(sample_row(), sample_row(engine="faiss", ours=False))
    results.write({**document, "seconds": {"score": 75.4, "encode": 9.0}}, tmp_path)
    cpu = document["machine"]["cpu"]
    assert durations.measured(tmp_path, False, cpu) == {"score": 75.4}, "encode ran without a peer"
    part = {
        **document,
        "date": "2026-01-02T00:00:00+00:00",
        "command": "python -m benchmarks score --only faiss",
        "seconds": {"score": 1.0},
    }
    results.write(part, tmp_path)
    assert durations.measured(tmp_path, False, cpu) == {"score": 75.4}, "with some of the peers alone it says nothing"
    assert durations.measured(tmp_path, True, cpu) == durations.measured(tmp_path, False, "another") == {}
    lines = durations.lines(["score", "tokenize"], False, tmp_path)
    assert len(lines) == 3
    assert lines[2].split()[:3] == ["together", f"{suites.SUITES['score'].minutes + suites.SUITES['tokenize'].minutes:.0f}", "min"]
    assert machine.describe()["cpu"] != cpu
    assert (durations.text(89), durations.text(90)) == ("89 s", "2 min")
    assert command.main(["--plan", "--quick", "import", "score"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == ["import", "score", "together"]
