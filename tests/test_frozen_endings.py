"""Frozen walks that end by distance: what is measured for them, that it is kept, and that no answer is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from nearfield.index.calibration import Calibration, Growth, Point
from nearfield.types import Metric


def clustered(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    centres = rng.standard_normal((rows // 40, dim))
    return (centres[rng.integers(0, len(centres), rows)] + 0.6 * rng.standard_normal((rows, dim))).astype(np.float32)


def frozen(rows: np.ndarray, metric: Metric, **options: Any) -> nf.FrozenIndex:
    index = nf.HNSWIndex(rows.shape[1], metric=metric)
    index.add(rows)
    return index.freeze(**options)


def recall(index: nf.FrozenIndex, rows: np.ndarray, queries: np.ndarray, k: int, **options: Any) -> float:
    exact = nf.topk(queries, rows, k, metric=index.metric).ids
    found = index.search(queries, k, **options).ids
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(exact.tolist(), found.tolist(), strict=True)]))


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_an_ending_keeps_the_recall_of_its_ef(metric: Metric, compact: bool) -> None:
    rng = np.random.default_rng(1)
    rows, queries = clustered(rng, 6000, 24), clustered(rng, 400, 24)
    index = frozen(rows, metric, compact=compact)
    made = index._calibration
    assert made is not None
    if metric == "ip":
        assert made.growth is None  # between rows of many lengths inner products are no distances
        return
    assert made.growth is not None
    # By hand: the slope of log distance over log rank, from sampled rows to all others.
    sample = rng.choice(6000, 200, replace=False)
    stored = rows / np.linalg.norm(rows, axis=1, keepdims=True) if metric == "cosine" else rows
    squares = np.sort(
        ((stored[sample, None] - stored[None]) ** 2).sum(axis=2) if metric == "l2" else 1 - stored[sample] @ stored.T, axis=1
    )[:, 1:]
    assert made.growth[0] == pytest.approx(np.log(squares[:, 99] / squares[:, 9]).mean() / np.log(10), rel=0.15)
    assert made.growth[1] == pytest.approx(np.median(squares[:, 9]) / 4, rel=0.15)
    for k, ef in [(1, 2), (1, 10), (10, 11), (10, 15), (10, 20), (10, 60), (50, 52), (50, 100)]:
        ended = recall(index, rows, queries, k, ef=ef)
        index._graph.set_growth(0.0, 0.0, 0.0)
        plain = recall(index, rows, queries, k, ef=ef)
        index._graph.set_growth(*made.growth)
        assert ended >= plain - 0.015, (k, ef)


def test_inner_products_of_rows_of_one_length_are_distances() -> None:
    rng = np.random.default_rng(5)
    rows, queries = clustered(rng, 6000, 24), 3 * clustered(rng, 300, 24)
    rows *= 7 / np.linalg.norm(rows, axis=1, keepdims=True)
    index = frozen(rows, "ip")
    made = index._calibration
    assert made is not None
    assert made.growth is not None
    assert made.growth.square == pytest.approx(49, rel=0.01)
    twin = frozen(rows, "cosine")._calibration
    assert twin is not None
    assert twin.growth is not None
    assert made.growth.rate == pytest.approx(twin.growth.rate, rel=0.05)
    assert made.growth.near == pytest.approx(49 * twin.growth.near, rel=0.05)
    for ef in (15, 60):
        ended = recall(index, rows, queries, 10, ef=ef)
        index._graph.set_growth(0.0, 0.0, 0.0)
        assert ended >= recall(index, rows, queries, 10, ef=ef) - 0.015
        index._graph.set_growth(*made.growth)


def test_the_ending_is_kept_in_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    rows, queries = clustered(rng, 3000, 16), clustered(rng, 100, 16)
    index = frozen(rows, "cosine")
    index.save(tmp_path / "index")
    for mmap in (True, False):
        opened = nf.FrozenIndex.load(tmp_path / "index", mmap=mmap)
        assert opened._calibration == index._calibration
        for ef in (10, 40):
            a, b = index.search(queries, 10, ef=ef), opened.search(queries, 10, ef=ef)
            assert np.array_equal(a.ids, b.ids)
            assert np.array_equal(a.scores, b.scores)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_rows_that_equal_the_query_do_not_end_a_walk_too_early(metric: Metric) -> None:
    """The k-th distance is 0, or the codes' noise around it: a share of it would be nothing."""
    rng = np.random.default_rng(3)
    rows = clustered(rng, 4000, 24)
    rows[100:112] = rows[99]
    rows[200:1000:8] = rows[99] * np.float32(1 + 1e-4)
    index = frozen(rows, metric)
    hits = index.search(rows[99:100] * np.float32(1.00005), 40, ef=120)
    # Any of the rows that are as good as equal: the codes do not tell them apart.
    assert set(hits.ids[0].tolist()) <= {*range(99, 112), *range(200, 1000, 8)}
    assert len(set(hits.ids[0].tolist())) == 40


def test_filters_whose_rows_are_spread_or_elsewhere_are_answered() -> None:
    rng = np.random.default_rng(4)
    rows, queries = clustered(rng, 8000, 24), clustered(rng, 60, 24)
    index = frozen(rows, "l2")
    spread = rng.random(8000) < 0.3
    far = ((rows - queries[0]) ** 2).sum(axis=1)
    elsewhere = far > np.quantile(far, 0.7)
    for mask in (spread, elsewhere):
        kept = np.flatnonzero(mask)
        exact = kept[nf.topk(queries, rows[mask], 10, metric="l2").ids]
        found = index.search(queries, 10, ef=60, filter=mask).ids
        assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact.tolist(), found.tolist(), strict=True)]) >= 0.95


def test_growth_in_a_description_is_checked() -> None:
    made = Calibration(5_000, {10: (Point(10, 0.5), Point(20, 0.75))}, Growth(0.1, 0.02, 1.0))
    assert Calibration.from_json(made.to_json()) == made
    without = made.to_json()
    del without["growth"]
    opened = Calibration.from_json(without)
    assert opened is not None
    assert opened.growth is None
    for bad in (
        [0.0, 1, 1],
        [-1, 1, 1],
        [3.0, 1, 1],
        [0.1, -1, 1],
        [float("nan"), 0.1, 1],
        [0.1, float("inf"), 1],
        [0.1, 1, -1],
        [0.1, 1],
        "xy",
        7,
        [0.1, "a", 1],
    ):
        with pytest.raises(nf.InputError, match="calibration"):
            Calibration.from_json({**without, "growth": bad})
