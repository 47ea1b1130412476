"""Searches that are exact with a chosen probability: never wrong by more than they may, whatever is searched and however."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from conftest import of_native_scorer
from nearfield import _core
from test_flat import METRICS, STORAGES, build, check

# So near to 1 that a mistake in any test here has a chance below 1e-6.
SURE = 1 - 1e-10


def clustered(rng: np.random.Generator, n: int, dim: int, clusters: int = 50, spread: float = 0.6) -> np.ndarray:
    """Rows around centres, off the origin, with unequal lengths: what embeddings look like."""
    centres = rng.standard_normal((clusters, dim)) + 0.4
    rows = centres[rng.integers(0, clusters, n)] + spread * rng.standard_normal((n, dim))
    return (rows * rng.uniform(0.7, 1.4, (n, 1))).astype(np.float32)


@pytest.mark.parametrize("target", [row["name"] for row in _core.targets() if row["built"] and row["runs_here"]])
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("metric", METRICS)
def test_a_sure_search_is_the_oracle(metric: str, storage: str, target: str) -> None:
    """Filters, biases, deletes, any number of threads and later rows, in the same pass."""
    rng = np.random.default_rng(2)
    _core.force_target(target)
    try:
        rows = clustered(rng, 900, 40)
        index = build(rows[:700], metric, storage)
        queries = rows[rng.integers(0, 900, 5)] + np.float32(0.1)
        for k, threads in [(1, 1), (10, 2), (700, 1)]:
            check(index, queries, k, guarantee=SURE, threads=threads)
        index.add(rows[700:])
        index.delete(rng.choice(900, 150, replace=False))
        live = len(index)
        for bias in (None, rng.standard_normal(live).astype(np.float32), rng.standard_normal((5, live)).astype(np.float32) * 100):
            for mask in (None, rng.random(live) < 0.3, rng.random((5, live)) < 0.1):
                check(index, queries, 7, mask, bias, guarantee=SURE, threads=2)
    finally:
        _core.force_target("")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["equal", "ulp", "axes", "signs", "denormal", "huge", "mixed", "zero", "far"])
def test_values_that_are_hard_to_bound(kind: str, metric: str) -> None:
    """Rows that a rotation by signs and Hadamard transforms would not mix, ties, rounding steps, the ends of float32."""
    rng = np.random.default_rng(3)
    dim, n = 32, 600
    rows = rng.standard_normal((n, dim)).astype(np.float32)
    if kind == "equal":
        rows[:] = rows[0]
    elif kind == "ulp":
        rows = np.nextafter(np.repeat(rows[:1], n, axis=0), rng.choice(np.array([-np.inf, np.inf], np.float32), (n, dim)))
    elif kind == "axes":
        rows = np.eye(dim, dtype=np.float32)[rng.integers(0, dim, n)] * rng.choice(np.array([-1, 1, 2], np.float32), (n, 1))
    elif kind == "signs":
        rows = np.sign(rows)
    elif kind == "far":
        rows += np.float32(1e4)
    else:
        scale = {"denormal": -42.0, "huge": 36.0, "zero": -46.0, "mixed": rng.integers(-40, 35, (n, 1)).astype(float)}[kind]
        rows = (rows * 10.0**scale).astype(np.float32)
    index = build(rows, metric)
    queries = np.concatenate([rows[:3], rng.standard_normal((2, dim)).astype(np.float32), np.zeros((1, dim), np.float32)])
    for k in (3, 200):
        check(index, queries, k, guarantee=SURE)


@pytest.mark.parametrize("dim", [1, 7, 8, 9, 31, 130, 2050])
def test_every_dimension_answers(dim: int) -> None:
    rng = np.random.default_rng(dim)
    index = build(rng.standard_normal((200, dim)).astype(np.float32))
    check(index, rng.standard_normal((3, dim)).astype(np.float32), 5, guarantee=SURE)


def failures(index: nf.FlatIndex, queries: np.ndarray, k: int, guarantee: float, rotations: int) -> np.ndarray:
    """For each rotation, how many queries' answers differ from the exact ones."""
    exact = index.search(queries, k).ids
    counts = []
    for seed in range(rotations):
        index._state[0].set_rotation(seed)
        counts.append(int((index.search(queries, k, guarantee=guarantee).ids != exact).any(axis=1).sum()))
    return np.array(counts)


@of_native_scorer
@pytest.mark.parametrize("data", ["clustered", "random", "axes"])
@pytest.mark.parametrize("metric", METRICS)
def test_answers_fail_no_oftener_than_they_may(metric: str, data: str) -> None:
    """Per query, over rotations: at most its share fails, and at a low guarantee some do, so that the count can tell."""
    rng = np.random.default_rng(5)
    dim, n, nq, k, rotations = 64, 3000, 250, 3, 40
    if data == "axes":  # sparse rows, all weight on a few axes
        rows = np.zeros((n, dim), np.float32)
        np.put_along_axis(rows, rng.integers(0, dim, (n, 3)), rng.standard_normal((n, 3)).astype(np.float32), axis=1)
    else:
        rows = clustered(rng, n, dim) if data == "clustered" else rng.standard_normal((n, dim)).astype(np.float32)
    queries = rows[rng.integers(0, n, nq)] + 0.2 * rng.standard_normal((nq, dim)).astype(np.float32)
    index = build(rows, metric)
    for guarantee in (0.5, 0.9, 0.99):
        failed = failures(index, queries, k, guarantee, rotations)
        assert failed.mean() / nq <= 1 - guarantee
    assert failures(index, queries, k, 1e-3, 4).sum() > 0


@of_native_scorer
def test_the_first_pass_runs_when_asked_for_and_only_then() -> None:
    rng = np.random.default_rng(7)
    rows = clustered(rng, 20_000, 128, clusters=400)
    index = build(rows, "cosine")
    queries = rows[:64] + 0.3 * rng.standard_normal((64, 128)).astype(np.float32)
    # One thread: with several, how many rows are rescored depends on what they knew of each other's thresholds at the time.
    likely, certain = index.search(queries, 10, guarantee=0.999, threads=1), index.search(queries, 10, threads=1)
    assert (likely.ids != certain.ids).any(axis=1).sum() <= 2
    same = index.search(queries, 10, guarantee=1, threads=1)
    assert np.array_equal(same.ids, certain.ids)
    # Rows that come through the first pass are bounded in float32, 300 times as tightly as by int8 codes: hardly one beyond k is rescored.
    # The first tiles are searched by both, for without a threshold neither excludes anything.
    assert likely.rescored is not None
    assert certain.rescored is not None
    assert np.array_equal(same.rescored, certain.rescored)  # type: ignore[arg-type]
    assert 2 * (likely.rescored.mean() - 10) < certain.rescored.mean() - 10


def test_a_loaded_index_makes_its_codes_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    rows = clustered(rng, 2000, 48)
    index = build(rows)
    before = index.search(rows[:20], 5, guarantee=0.99)
    size = [0, 0]
    for i in range(2):
        index.save(tmp_path / "x.nf")
        size[i] = (tmp_path / "x.nf").stat().st_size
        index = nf.FlatIndex.load(tmp_path / "x.nf")
        after = index.search(rows[:20], 5, guarantee=0.99)
        assert np.array_equal(before.ids, after.ids)
    assert size[0] == size[1]


def test_guaranteed_searches_and_writers_together() -> None:
    rng = np.random.default_rng(9)
    index = build(clustered(rng, 2000, 24), threads=2)
    queries = clustered(rng, 30, 24)
    problems: list[BaseException] = []
    stop = threading.Event()

    def read() -> None:
        try:
            while not stop.is_set():
                hits = index.search(queries, 5, guarantee=0.999)
                assert (hits.counts == 5).all()
                assert (np.diff(hits.scores, axis=1) <= 0).all()
        except BaseException as problem:
            problems.append(problem)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for _ in range(12):
        index.add(clustered(rng, 500, 24))
        index.delete(rng.choice(index.ids, 400, replace=False))
    stop.set()
    for reader in readers:
        reader.join(60)
    assert not problems
    assert not any(reader.is_alive() for reader in readers)
    check(index, queries[:3], 10, guarantee=SURE)


@pytest.mark.parametrize("guarantee", [0, -0.1, 1.0001, np.nan, True, "0.9", np.inf])
def test_no_such_guarantee(guarantee: Any) -> None:
    index = build(np.ones((2, 8), np.float32))
    with pytest.raises(nf.InputError, match=r"guarantee: .* a probability above 0 and at most 1 expected"):
        index.search(np.ones(8, np.float32), guarantee=guarantee)
