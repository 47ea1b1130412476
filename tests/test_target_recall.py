"""What a search aims at: target_recall by calibration, scan or walk by plan, filters of every share; against a float64 oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from nearfield.errors import FormatError, InputError
from nearfield.index import calibration, planner
from nearfield.index.graph import read_calibration
from oracle_hnsw import Floats, clustered, made, oracle_scores, oracle_top, recall

ROWS, DIM = 8000, 32
KINDS = ["hnsw", "frozen", "compact"]
SHARES = [0.5, 0.1, 0.01, 0.001]


@pytest.fixture(scope="module")
def data() -> tuple[Floats, Floats]:
    drawn = clustered(ROWS + 300, DIM, 11)  # queries of the same clusters that are not among the rows
    return drawn[:ROWS], drawn[ROWS:]


@pytest.fixture(scope="module")
def indexes(data: tuple[Floats, Floats]) -> dict[str, Any]:
    index = made(data[0], "l2")
    index.search(data[1][:1], target_recall=0.9)  # calibrates it
    return {"hnsw": index, "frozen": index.freeze(), "compact": index.freeze(compact=True)}


# --- target_recall


@pytest.mark.parametrize("kind", KINDS)
def test_targets_are_met_on_queries_that_are_not_in_the_index(indexes: dict[str, Any], data: tuple[Floats, Floats], kind: str) -> None:
    scores = oracle_scores(data[1], data[0], "l2")
    efs = []
    # A compact index orders rows by 8-bit codes, and its calibration goes by that order.
    slack = 0.03 if kind == "compact" else 0.015
    for k in (5, 10, 30, 100):
        for target in (None, 0.9, 0.99):
            plan = indexes[kind].explain(data[1], k, target_recall=target)
            assert (plan.source, plan.target_recall) == ("calibration", 0.95 if target is None else target)
            assert not plan.scans.any()  # or nothing would be shown
            found = indexes[kind].search(data[1], k, target_recall=target).ids
            assert recall(found, oracle_top(scores, k)) >= plan.target_recall - slack
            efs.append(plan.ef)
    assert efs[4] < efs[3] < efs[5]  # 0.9, 0.95, 0.99 at k = 10: the target reaches the walk


def test_a_walk_does_not_see_the_node_it_skips(indexes: dict[str, Any], data: tuple[Floats, Floats]) -> None:
    slots = np.arange(0, ROWS, 100)
    for index in indexes.values():
        graph = index._seen.graph
        for skip, sees in ((slots, False), (np.full(len(slots), -1), True), (np.full(len(slots), ROWS), True)):
            found = graph.search(data[0][slots], 5, graph.slots, 40, threads=1, mode="walk", skip=skip)[0]
            assert (found == slots[:, None]).any(axis=1).mean() == float(sees)


def test_an_index_that_has_doubled_is_calibrated_again(data: tuple[Floats, Floats]) -> None:
    index = made(data[0][:2100], "l2")
    assert index.explain(data[1], 10).source == "default"
    index.search(data[1], 10, target_recall=0.9)
    assert index.explain(data[1], 10).source == "calibration"
    index.add(data[0][2100:5000])
    assert index.explain(data[1], 10).source == "default"
    assert index.explain(data[1], 10, target_recall=0.9).source == "calibration"


def test_small_indexes_with_a_target_are_scanned(data: tuple[Floats, Floats]) -> None:
    index = made(data[0][:1900], "l2")
    for each in (index, index.freeze()):
        plan = each.explain(data[1], 10, target_recall=1.0)
        assert plan.scans.all()
        exact = oracle_top(oracle_scores(data[1], data[0][:1900], "l2"), 10)
        assert recall(each.search(data[1], 10, target_recall=1.0).ids, exact) >= (1.0 if each is index else 0.999)


@pytest.mark.parametrize("kind", KINDS)
def test_files_hold_the_calibration(tmp_path: Path, indexes: dict[str, Any], data: tuple[Floats, Floats], kind: str) -> None:
    index = indexes[kind]
    index.save(tmp_path / "i.bin")
    again = type(index).load(tmp_path / "i.bin")
    assert again._calibration == index._calibration is not None
    assert np.array_equal(again.search(data[1]).ids, index.search(data[1]).ids)


def test_a_save_calibrates(tmp_path: Path, data: tuple[Floats, Floats]) -> None:
    index = made(data[0][:2100], "l2")
    index.save(tmp_path / "i.bin")
    assert nf.HNSWIndex.load(tmp_path / "i.bin").explain(data[1], 10).source == "calibration"


def test_what_is_no_calibration_is_refused(indexes: dict[str, Any]) -> None:
    good = indexes["frozen"]._calibration.to_json()
    assert read_calibration({"calibration": good}, "x") == indexes["frozen"]._calibration
    assert read_calibration({}, "x") is None
    points = [
        {},
        {"10": []},
        {"10": [[0, 0.5]]},
        {"0": [[1, 0.5]]},
        {"10": [[1, 1.5]]},
        {"10": [[1, float("nan")]]},
        3,
        {"ten": [[1, 0.5]]},
    ]
    for path, value in [("rows", -1), ("rows", "many"), *(("points", each) for each in points)]:
        bad = json.loads(json.dumps(good))
        bad[path] = value
        with pytest.raises(FormatError, match="x: its calibration"):
            read_calibration({"calibration": bad}, "x")


@pytest.mark.parametrize("target", [0, 1.01, True, "0.9", float("nan"), -0.5])
def test_targets_out_of_range_are_refused(indexes: dict[str, Any], data: tuple[Floats, Floats], target: Any) -> None:
    with pytest.raises(InputError, match="target_recall"):
        indexes["frozen"].search(data[1], 10, target_recall=target)
    with pytest.raises(InputError, match="one of them"):
        indexes["frozen"].search(data[1], 10, target_recall=0.9, ef=10)


# --- the plan


@pytest.mark.parametrize("kind", KINDS)
def test_the_plan_is_what_happens(indexes: dict[str, Any], data: tuple[Floats, Floats], kind: str) -> None:
    index, graph = indexes[kind], indexes[kind]._seen.graph
    masks = np.random.default_rng(3).random((4, ROWS)) < np.array([[0.9], [0.2], [0.02], [0.0]])
    queries = data[1][:4]
    plan = index.explain(queries, 10, ef=12, filter=masks)
    assert plan.matches.tolist() == masks.sum(axis=1).tolist()
    assert plan.scans.tolist() == [False, False, True, True]
    assert [line[:4] for line in plan.reasons] == ["walk", "walk", "scan", "scan"]
    hits = index.search(queries, 10, ef=12, filter=masks)
    exact = graph.search(queries, 10, graph.slots, 12, masks, mode="scan")
    for i in np.flatnonzero(plan.scans):
        assert np.array_equal(hits.ids[i], exact[0][i])
    assert hits.counts.tolist() == np.minimum(10, plan.matches).tolist()
    assert index.explain(queries, 10, bias=np.zeros(ROWS, np.float32)).scans.all()


def test_the_step_is_measured_once_on_a_large_index(
    monkeypatch: pytest.MonkeyPatch, indexes: dict[str, Any], data: tuple[Floats, Floats]
) -> None:
    monkeypatch.setattr(planner, "_steps", {})
    mask = np.arange(ROWS) % 5 == 0
    assert not indexes["frozen"].explain(data[1], 10, filter=mask).measured  # too small: M
    monkeypatch.setattr(planner, "LEAST_ROWS", 1000)
    first = indexes["frozen"].explain(data[1], 10, filter=mask)
    assert first.measured
    assert planner.LEAST_SHARE * 16 <= first.step <= planner.MOST_SHARE * 16
    assert indexes["frozen"].explain(data[1], 10, filter=mask).step == first.step
    # A step that is forced moves the crossover, in the plan and in the engine.
    for step, scans in ((1e-3, False), (1e6, True)):
        planner._steps[next(iter(planner._steps))] = step
        assert indexes["frozen"].explain(data[1], 10, ef=10, filter=mask).scans.all() == scans
        found = indexes["frozen"].search(data[1], 10, ef=10, filter=mask).ids
        exact = indexes["frozen"]._seen.graph.search(data[1], 10, ROWS, 10, mask[None], mode="scan")[0]
        assert np.array_equal(found, exact) == scans


# --- filters


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("correlated", [False, True])
def test_filters_of_every_share(indexes: dict[str, Any], data: tuple[Floats, Floats], kind: str, share: float, correlated: bool) -> None:
    kept = round(share * ROWS)
    mask = np.zeros(ROWS, np.bool_)
    if correlated:  # a region: most queries lie elsewhere
        mask[np.argsort(((data[0] - data[0][17]) ** 2).sum(axis=1), kind="stable")[:kept]] = True
    else:
        mask[np.random.default_rng(7).choice(ROWS, kept, replace=False)] = True
    scores = oracle_scores(data[1], data[0], "l2")
    scores[:, ~mask] = -np.inf
    filled = min(10, kept)
    hits = indexes[kind].search(data[1], 10, filter=mask)
    assert hits.counts.tolist() == [filled] * len(data[1])
    assert mask[hits.ids[:, :filled]].all()
    assert recall(hits.ids[:, :filled], oracle_top(scores, filled)) >= 0.95


def test_calibrations_are_the_same_for_any_number_of_threads(indexes: dict[str, Any]) -> None:
    graph = indexes["frozen"]._seen.graph
    assert calibration.calibrate(graph, 0, 1) == calibration.calibrate(graph, 0, 3)
