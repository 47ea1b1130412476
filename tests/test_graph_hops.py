"""Walks under a filter over the rows it keeps alone, two links at a time: what they find, and when they are taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nearfield as nf
from nearfield import _core
from nearfield.index import planner
from nearfield.types import Metric

ROWS, DIM = 6000, 24
KINDS = ["mutable", "frozen", "compact"]


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((60, DIM))
    return (centres[rng.integers(0, 60, ROWS)] + 0.7 * rng.standard_normal((ROWS, DIM))).astype(np.float32)


def made(rows: np.ndarray, metric: Metric, kind: str, gone: int = 0) -> Any:
    index = nf.HNSWIndex(DIM, metric=metric)
    index.add(rows)
    if gone:
        index.delete(np.arange(gone))
    return index if kind == "mutable" else index.freeze(compact=kind == "compact")


def filters(rows: np.ndarray, share: float) -> dict[str, np.ndarray]:
    """At random, and of rows that lie together."""
    rng = np.random.default_rng(2)
    along = rows @ rng.standard_normal(DIM)
    return {"apart": rng.random(ROWS) < share, "together": along > np.quantile(along, 1 - share)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_hops_find_what_a_scan_finds(rows: np.ndarray, metric: Metric, kind: str) -> None:
    queries = rows[::60] + np.float32(0.3) * np.random.default_rng(3).standard_normal((100, DIM)).astype(np.float32)
    gone = 500 if kind == "mutable" else 0  # a frozen index has no tombstones
    index = made(rows, metric, kind, gone)
    graph = index._seen.graph
    for share in (0.3, 0.045, 0.02):
        for name, mask in filters(rows, share).items():
            allowed = mask & (np.arange(ROWS) >= gone)
            exact = graph.search(queries, 10, ROWS, 10, mask[None], mode="scan")[0]
            found, scores, counts = graph.search(queries, 10, ROWS, 40, mask[None], mode="hop", threads=2)
            assert all(allowed[row[row >= 0]].all() for row in found), name
            assert (np.diff(scores, axis=1)[np.isfinite(np.diff(scores, axis=1))] <= 0).all()
            recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact.tolist(), found.tolist(), strict=True)])
            # One filter for each query is the same as one for all.
            own = graph.search(queries[:9], 10, ROWS, 40, np.repeat(mask[None], 9, axis=0), mode="hop")[0]
            assert np.array_equal(own, found[:9])
            assert (counts <= 10).all()
            # Where the rows that a filter keeps lie together, away from most queries, a frozen index notices and scans.
            assert recall >= (0.95 if name == "apart" or kind == "mutable" else 0.8), (share, name, recall)
            if share > 0.05:
                continue
            noticed = graph.search(queries, 10, ROWS, 40, mask[None], step=1e-6)[0]
            assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact.tolist(), noticed.tolist(), strict=True)]) >= 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_hops_under_filters_of_nothing_and_of_all(rows: np.ndarray, kind: str) -> None:
    graph = made(rows[:300], "l2", kind)._seen.graph
    none, every = np.zeros((1, 300), np.bool_), np.ones((1, 300), np.bool_)
    assert graph.search(rows[:5], 3, 300, 20, none, mode="hop")[2].tolist() == [0] * 5
    assert np.array_equal(
        graph.search(rows[:5], 3, 300, 20, every, mode="hop")[0], graph.search(rows[:5], 3, 300, 20, every, mode="walk")[0]
    )
    one = none.copy()
    one[0, 7] = True
    assert graph.search(rows[:5], 3, 300, 20, one)[0][:, 0].tolist() == [7] * 5


@pytest.mark.parametrize("kind", KINDS)
def test_the_plan_says_when_walks_hop(rows: np.ndarray, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    index = made(rows, "cosine", kind)
    graph = index._seen.graph
    monkeypatch.setattr(planner, "step_of", lambda *_: (1e-6, True))
    monkeypatch.setattr("nearfield.index.graph.step_of", lambda *_: (1e-6, True))  # nothing is scanned
    mask = np.random.default_rng(4).random((2, ROWS)) < np.array([[0.5], [0.01]])
    plan = index.explain(rows[:2], 10, ef=30, filter=mask)
    assert plan.hops.tolist() == [False, True]
    assert "over these rows alone" in plan.reasons[1]
    assert "alone" not in plan.reasons[0]
    found = index.search(rows[:2], 10, ef=30, filter=mask).ids
    for i, mode in enumerate(["walk", "hop"]):
        assert np.array_equal(found[i : i + 1], graph.search(rows[i : i + 1], 10, ROWS, 30, mask[i : i + 1], mode=mode)[0])


def test_what_a_walk_costs() -> None:
    assert _core.walk_nodes(100.0, 1000.0, 20.0, 12.0) == 200.0
    assert _core.walk_nodes(10.0, 1000.0, 20.0, 12.0) == 240.0
    assert _core.walk_nodes(0.0, 1000.0, 20.0, 12.0) == 0.0
    assert not _core.hops_pay(100.0, 1000.0, 12.0)
    assert _core.hops_pay(10.0, 1000.0, 12.0)
    assert _core.scan_pays(240.0, 24000.0, 20.0, 1.0, 12.0)
    assert not _core.scan_pays(241.0, 24000.0, 20.0, 1.0, 12.0)
