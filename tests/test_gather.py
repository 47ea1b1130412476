"""Scores of given candidates: the bits of a search's scores, whatever the order, the storage, the threads and the gaps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from oracles import scores, unit_rows

METRICS = ["cosine", "ip", "l2"]
STORAGES = ["float32", "bfloat16", "int8"]


def hard_rows(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """Ordinary rows among zero, denormal, huge and equal ones."""
    rows = rng.standard_normal((n, dim)).astype(np.float32)
    rows[::11] = rows[0]
    rows[3::50] = 0
    rows[4::50] *= np.float32(1e-42)
    rows[5::50] *= np.float32(1e18)
    return rows


def shuffled(hits: nf.Hits, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A search's ids and scores, each line in an order of its own."""
    order = rng.permuted(np.tile(np.arange(hits.ids.shape[1]), (len(hits), 1)), axis=1)
    return np.take_along_axis(hits.ids, order, 1), np.take_along_axis(hits.scores, order, 1)


def assert_same_bits(a: np.ndarray, b: np.ndarray) -> None:
    assert a.dtype == b.dtype == np.float32
    assert a.shape == b.shape
    assert np.array_equal(np.isnan(a), np.isnan(b))
    assert np.array_equal(a.view(np.int32)[~np.isnan(a)], b.view(np.int32)[~np.isnan(b)])


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("metric", METRICS)
def test_scores_are_those_of_a_search(metric: Any, storage: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for dim, sizes in [(1, [3]), (17, [200, 1, 64, 5, 300]), (64, [4200, 30, 500])]:  # tiles that adds left unfilled, and whole segments
        index = nf.FlatIndex(dim, metric=metric, storage=storage)
        for size in sizes:
            index.add(hard_rows(rng, size, dim))
        queries = np.vstack([hard_rows(rng, 7, dim), index.get([0])])
        index.delete(rng.choice(len(index), len(index) // 3, replace=False))
        hits = index.search(queries, len(index) + 4)
        ids, wanted = shuffled(hits, rng)
        for threads in (1, 2, 5):
            assert_same_bits(index.score(queries, ids, threads=threads), wanted)
        index.save(tmp_path / "x.nf")
        assert_same_bits(nf.FlatIndex.load(tmp_path / "x.nf").score(queries, ids), wanted)


@pytest.mark.parametrize("metric", METRICS)
def test_scores_are_the_oracle(metric: Any) -> None:
    rng = np.random.default_rng(2)
    rows, queries = rng.standard_normal((90, 33)).astype(np.float32), rng.standard_normal((5, 33)).astype(np.float32)
    exact = scores(queries, unit_rows(rows) if metric == "cosine" else rows, metric)
    chosen = rng.integers(0, 90, (5, 40))  # some of them twice
    wanted = np.take_along_axis(exact, chosen, 1)
    index = nf.FlatIndex(33, metric=metric)
    index.add(rows)
    for got in (index.score(queries, chosen), nf.score(queries, rows, metric=metric, candidates=chosen)):
        assert (np.abs(got - wanted) <= np.spacing(np.abs(wanted).astype(np.float32))).all()


@pytest.mark.parametrize("metric", METRICS)
def test_scores_of_borrowed_vectors_are_those_of_topk(metric: Any) -> None:
    rng = np.random.default_rng(3)
    rows, queries = hard_rows(rng, 700, 24), hard_rows(rng, 6, 24)
    hits = nf.topk(queries, rows, 705, metric=metric)
    positions, wanted = shuffled(hits, rng)
    for threads in (1, 2, 5):
        assert_same_bits(nf.score(queries, rows, metric=metric, candidates=positions, threads=threads), wanted)


@pytest.mark.parametrize("metric", METRICS)
def test_scores_of_a_graph_are_those_of_its_search(metric: Any) -> None:
    rng = np.random.default_rng(4)
    rows, queries = hard_rows(rng, 600, 24), hard_rows(rng, 6, 24)
    index = nf.HNSWIndex(24, metric=metric)
    index.add(rows)
    index.delete(np.arange(0, 600, 7))
    flat = nf.FlatIndex(24, metric=metric)
    flat.add(rows)
    hits = index.search(queries, 80)
    ids, wanted = shuffled(hits, rng)
    assert_same_bits(index.score(queries, ids, threads=2), wanted)
    assert_same_bits(flat.score(queries, ids), wanted)


def test_candidates_come_in_every_form() -> None:
    rows = np.array([[1, 0], [2, 0], [3, 0]], np.float32)
    one, two = np.array([1, 0], np.float32), np.array([[1, 0], [2, 0]], np.float32)
    nan = np.nan
    words = nf.FlatIndex(2, metric="ip")
    words.add(rows, ids=["a", "b", "c"])
    forms: list[tuple[Any, Any, Any]] = [
        (one, ["c", "a"], [[3, 1]]),
        (one, ["c", None, "c"], [[3, nan, 3]]),
        (two, [["a", None], ("b", "c")], [[1, nan], [4, 6]]),
        (two, np.array([["a", "b"], ["c", "a"]]), [[1, 2], [6, 2]]),
        (two, words.search(two, 4).ids, [[3, 2, 1, nan], [6, 4, 2, nan]]),
        (two, [[None], [None]], [[nan], [nan]]),
        (two, [[-1], ["b"]], [[nan], [4]]),
        (two, [[], []], np.empty((2, 0))),
        (two[:0], [], np.empty((0, 0))),
        (two[:0], np.empty((0, 5), object), np.empty((0, 5))),
    ]
    for queries, ids, wanted in forms:
        assert np.array_equal(words.score(queries, ids), np.array(wanted, np.float32), equal_nan=True), ids
    numbers = nf.FlatIndex(2, metric="ip")
    numbers.add(rows, ids=[2**62, 7, 0])
    forms = [
        (one, [0, 2**62], [[3, 1]]),
        (one, [7, None, -1], [[2, nan, nan]]),
        (two, np.array([[0, 7], [7, 0]], np.uint8), [[3, 2], [4, 6]]),
        (two, np.array([[0, 7], [7, -1]], ">i8"), [[3, 2], [4, nan]]),
        (two, np.array([[0, 7], [-1, 0]]).T, [[3, nan], [4, 6]]),
        (two, [[None], [None]], [[nan], [nan]]),
    ]
    for queries, ids, wanted in forms:
        assert np.array_equal(numbers.score(queries, ids), np.array(wanted, np.float32), equal_nan=True), ids
    empty = nf.FlatIndex(2)
    assert np.isnan(empty.score(two, [[-1], [None]])).all()
    for positions in ([2, -1, 0], np.array([2, -1, 0], np.int16)):
        assert np.array_equal(nf.score(one, rows, metric="ip", candidates=positions), [[3, nan, 1]], equal_nan=True)


def test_only_the_candidates_are_read() -> None:
    """A row that nobody asks for may hold anything; one that is asked for is refused by its number."""
    rows = np.ones((500, 8), np.float32)
    rows[[7, 450], 2] = np.nan, np.inf
    for metric in METRICS:
        assert nf.score(np.ones(8, np.float32), rows, metric=metric, candidates=[499, 0]).shape == (1, 2)  # type: ignore[arg-type]
        for threads in (1, 4):
            with pytest.raises(nf.InputError, match="vectors: row 450 holds infinity in column 2"):
                nf.score(rows[:300:100], rows, metric=metric, candidates=[[1, 450, 7]] * 3, threads=threads)  # type: ignore[arg-type]


@pytest.mark.parametrize("ids", [["a", "c"], [5, 9]])
def test_a_replaced_row_has_its_new_score(ids: Any) -> None:
    for index in (nf.FlatIndex(1, metric="ip"), nf.HNSWIndex(1, metric="ip")):
        index.add(np.array([[1], [2]], np.float32), ids=ids)
        index.add(np.array([[4]], np.float32), ids=ids[:1])
        assert index.score(np.ones(1, np.float32), ids).tolist() == [[4, 2]]
