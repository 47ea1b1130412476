"""FlatIndex against a float64 oracle: every metric and storage, ties, near-ties, filters, biases, deletes, odd values, threads."""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nearfield as nf
from conftest import of_native_scorer
from nearfield import _core
from oracles import assert_ranked, rank, scores, swap_tolerance, unit_rows

METRICS = ["cosine", "ip", "l2"]
STORAGES = ["float32", "bfloat16", "int8"]


def build(vectors: np.ndarray, metric: str = "cosine", storage: str = "float32", **options: Any) -> nf.FlatIndex:
    index = nf.FlatIndex(vectors.shape[1], metric=metric, storage=storage, **options)  # type: ignore[arg-type]
    index.add(vectors)
    return index


def check(
    index: nf.FlatIndex, queries: np.ndarray, k: int, mask: np.ndarray | None = None, bias: np.ndarray | None = None, **options: Any
) -> None:
    """Compares one search with the oracle over the stored rows."""
    ids = index.ids
    stored = index.get(ids) if len(ids) else np.empty((0, index.dim), np.float32)
    exact = scores(queries, stored, index.metric)
    if bias is not None:
        exact = exact + np.asarray(bias, np.float64)
    tolerance = swap_tolerance(queries, stored, index.metric) + (0 if bias is None else 2.0**-51 * float(np.max(np.abs(exact), initial=0)))
    hits = index.search(queries, k, filter=mask, bias=bias, **options)
    assert hits.ids.shape == hits.scores.shape == (len(queries), k)
    position = {id: j for j, id in enumerate(ids.tolist())}
    for i in range(len(queries)):
        allowed = None if mask is None else mask if mask.ndim == 1 else mask[i]
        wanted = rank(exact[i], k, allowed)
        count = int(hits.counts[i])
        assert count == len(wanted)
        found = np.array([position[id] for id in hits.ids[i, :count].tolist()], np.int64)
        assert_ranked(found, exact[i], wanted, tolerance)
        assert hits.ids[i, count:].tolist() == [-1] * (k - count)
        assert np.isnan(hits.scores[i, count:]).all()
        with np.errstate(over="ignore"):
            expected = exact[i][found].astype(np.float32)
        finite = np.isfinite(expected)
        assert np.array_equal(hits.scores[i, :count][~finite], expected[~finite])
        assert (
            np.abs(hits.scores[i, :count][finite] - expected[finite]) <= np.spacing(np.abs(expected[finite])) + np.float64(tolerance)
        ).all()


@pytest.mark.parametrize("target", [row["name"] for row in _core.targets() if row["built"] and row["runs_here"]])
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("metric", METRICS)
def test_search_is_the_oracle(metric: str, storage: str, target: str) -> None:
    rng = np.random.default_rng(1)
    _core.force_target(target)
    try:
        for n, dim, nq in [(1, 1, 1), (130, 3, 2), (300, 33, 13), (700, 64, 5)]:
            index = build(rng.standard_normal((n, dim)).astype(np.float32), metric, storage)
            queries = rng.standard_normal((nq, dim)).astype(np.float32)
            for k, threads in [(1, 1), (10, 2), (n, 3), (n + 5, 1)]:
                check(index, queries, k, threads=threads)
    finally:
        _core.force_target("")


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    metric=st.sampled_from(METRICS),
    storage=st.sampled_from(STORAGES),
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 400),
    dim=st.integers(1, 20),
    nq=st.integers(1, 4),
    k=st.integers(1, 40),
    values=st.sampled_from(["few", "ulp", "denormal", "huge", "mixed", "normal"]),
    filtered=st.sampled_from([None, "row", "matrix", "nothing"]),
    biased=st.sampled_from([None, "row", "matrix", "large"]),
    threads=st.integers(1, 3),
)
def test_search_is_the_oracle_on_hard_values(
    metric: str,
    storage: str,
    seed: int,
    n: int,
    dim: int,
    nq: int,
    k: int,
    values: str,
    filtered: str | None,
    biased: str | None,
    threads: int,
) -> None:
    rng = np.random.default_rng(seed)

    def draw(rows: int) -> np.ndarray:
        if values == "few":  # many exact ties
            return rng.integers(-1, 2, (rows, dim)).astype(np.float32)
        base = rng.standard_normal((rows, dim)).astype(np.float32)
        if values == "ulp":  # rows one rounding step apart
            base[:] = base[0]
            return np.nextafter(base, rng.choice(np.array([-np.inf, np.inf], np.float32), base.shape)).astype(np.float32)
        if values == "denormal":
            return base * np.float32(1e-42)
        if values == "huge":
            return base * np.float32(1e37 / np.sqrt(dim))
        if values == "mixed":
            return (base * 10.0 ** rng.integers(-40, 35, (rows, 1))).astype(np.float32)
        return base

    index = build(draw(n), metric, storage)
    gone = rng.choice(n, rng.integers(0, n), replace=False) if rng.random() < 0.5 else np.empty(0, np.int64)
    index.delete(gone)
    live = len(index)
    mask = {None: None, "row": rng.random(live) < 0.3, "matrix": rng.random((nq, live)) < 0.5, "nothing": np.zeros(live, bool)}[filtered]
    bias = {
        None: None,
        "row": rng.standard_normal(live).astype(np.float32),
        "matrix": rng.integers(0, 3, (nq, live)).astype(np.float32),
        "large": (rng.standard_normal(live) * 1e30).astype(np.float32),
    }[biased]
    check(index, draw(nq), k, mask, bias, threads=threads)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dim", [20, 129])
@pytest.mark.parametrize("metric", METRICS)
def test_rows_one_rounding_step_apart(metric: str, dim: int, bias: bool) -> None:
    """Scores closer than float32 can tell: without the error bound and the float64 rescoring most of these answers are wrong."""
    rng = np.random.default_rng(dim)
    rows = np.repeat(rng.standard_normal((1, dim)).astype(np.float32), 1500, axis=0)
    rows = np.nextafter(rows, rng.choice(np.array([-np.inf, np.inf], np.float32), rows.shape)).astype(np.float32)
    queries = rng.standard_normal((4, dim)).astype(np.float32)
    index = build(rows, metric)
    check(index, queries, 10, bias=rng.integers(0, 2, 1500).astype(np.float32) if bias else None, threads=2)


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_products_beyond_float32(metric: str) -> None:
    """Products of 1e60, which float32 turns into infinity: scored in float64, next to ordinary rows in other tiles."""
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((600, 12)).astype(np.float32)
    rows[200:300] *= np.float32(1e30)
    queries = (rng.standard_normal((5, 12)) * np.array([[1], [1e30], [1e25], [1e-30], [1e10]])).astype(np.float32)
    check(build(rows, metric), queries, 250)


@pytest.mark.parametrize("metric", METRICS)
def test_all_rows_equal_rank_by_insertion(metric: str) -> None:
    index = build(np.ones((5000, 7), np.float32), metric)
    for threads in (1, 2):
        hits = index.search(np.ones((70, 7), np.float32), 40, threads=threads)
        assert (hits.ids == np.arange(40)).all()


@of_native_scorer
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("metric", METRICS)
def test_codes_leave_few_rows_to_rescore(metric: str, storage: str) -> None:
    """A scan whose bound excluded nothing would be exact too: this is what tells them apart."""
    rng = np.random.default_rng(7)
    index = build(rng.standard_normal((20_000, 48)).astype(np.float32), metric, storage)
    queries = rng.standard_normal((9, 48)).astype(np.float32)
    rescored = index.search(queries, 10).rescored
    assert rescored is not None
    assert rescored.shape == (9,)
    assert (rescored >= 10).all()
    assert (rescored < 400).all()
    check(index, queries, 10)


@pytest.mark.parametrize("metric", METRICS)
def test_codes_that_exclude_nothing_are_given_up_and_tried_again(metric: str) -> None:
    """Equal rows fill more tiles than the scan is patient for, then rest for; ordinary rows follow, before and behind the second try."""
    rng = np.random.default_rng(11)
    rows = rng.standard_normal((14_000, 16)).astype(np.float32)
    rows[:9_000] = rows[0]
    index = build(rows, metric)
    queries = np.concatenate([rows[:1], rng.standard_normal((3, 16))]).astype(np.float32)
    for k in (10, 3_000):
        check(index, queries, k, threads=1)
        check(index, queries, k, bias=rng.standard_normal((4, 14_000)).astype(np.float32) * np.float32(1e-3), threads=2)


def test_a_replaced_row_moves_last() -> None:
    index = build(np.ones((4, 2), np.float32))
    index.add(np.ones((1, 2), np.float32), ids=[1])
    assert index.ids.tolist() == [0, 2, 3, 1]
    assert index.search(np.ones(2, np.float32), 5).ids.tolist() == [[0, 2, 3, 1, -1]]
    assert len(index) == 4


def test_zero_vectors_score_zero_under_cosine() -> None:
    index = build(np.array([[0, 0], [1, 0], [-1, 0]], np.float32))
    hits = index.search(np.array([[1, 0], [0, 0]], np.float32), 3)
    assert hits.ids.tolist() == [[1, 0, 2], [0, 1, 2]]
    assert hits.scores.tolist() == [[1, 0, -1], [0, 0, 0]]


def test_stored_rows_are_what_the_storage_says() -> None:
    rows = np.random.default_rng(0).standard_normal((50, 19)).astype(np.float32)
    assert np.array_equal(build(rows, "cosine").get(range(50)), unit_rows(rows))  # type: ignore[arg-type]
    assert np.array_equal(build(rows, "ip").get([3, 1]), rows[[3, 1]])
    half = build(rows, "ip", "bfloat16").get(range(50))  # type: ignore[arg-type]
    assert (half.view(np.uint32) & 0xFFFF == 0).all()
    assert (np.abs(half - rows) <= np.abs(rows) * 2.0**-8).all()
    codes = build(rows, "ip", "int8").get(range(50))  # type: ignore[arg-type]
    steps = np.abs(rows).max(axis=1, keepdims=True) / 127
    assert (np.abs(codes - rows) <= steps * 0.501).all()


def test_default_ids_follow_the_largest() -> None:
    index = nf.FlatIndex(1, metric="ip")
    one = np.ones((1, 1), np.float32)
    index.add(one)
    index.add(one, ids=[41])
    index.add(one)
    assert index.ids.tolist() == [0, 41, 42]
    index.delete([42])
    index.add(one)
    assert index.ids.tolist() == [0, 41, 43]  # a deleted id is not given out again


def test_membership_get_and_delete() -> None:
    for ids in (["a", "b", "c"], [5, 3, 9]):
        index = nf.FlatIndex(1, metric="ip")
        index.add(np.array([[1], [2], [3]], np.float32), ids=ids)  # type: ignore[arg-type]
        assert ids[1] in index
        index.delete([ids[1]])  # type: ignore[list-item]
        assert ids[1] not in index
        assert index.get([ids[2], ids[0]]).ravel().tolist() == [3, 1]  # type: ignore[list-item]
        for call in (index.get, index.delete):
            with pytest.raises(nf.InputError, match="is not in the index"):
                call([ids[0], ids[1]])  # type: ignore[list-item]
        assert len(index) == 2
    assert "5" not in index
    assert -1 not in index
    assert 2**80 not in index


def test_filters_by_id() -> None:
    index = nf.FlatIndex(1, metric="ip")
    index.add(np.arange(6, dtype=np.float32)[:, None], ids=list("uvwxyz"))
    index.delete(["z"])
    query = np.ones(1, np.float32)
    assert index.search(query, 3, filter=["v", "x", "z", "unknown"]).ids.tolist() == [["x", "v", None]]
    assert index.search(query, 2, filter=[]).counts.tolist() == [0]
    with pytest.raises(nf.InputError, match="filter"):
        index.search(query, filter=[1, 2])
    with pytest.raises(nf.InputError, match="filter: shape"):
        index.search(query, filter=np.ones(6, bool))
    with pytest.raises(nf.InputError, match="bias: NaN"):
        index.search(query, bias=np.full(5, np.nan))


@pytest.mark.parametrize("kept", [0.001, 0.1])
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("metric", METRICS)
def test_filters_that_leave_few_rows(metric: str, storage: str, kept: float) -> None:
    rng = np.random.default_rng(int(1000 * kept))
    n, dim = 1200, 19
    rows = rng.standard_normal((n, dim)).astype(np.float32)
    rows[500:503] *= np.float32(1e19)  # a tile whose products float32 cannot hold
    index = build(rows, metric, storage)
    index.delete(rng.choice(n, n // 3, replace=False))
    live = len(index)
    for nq in (1, 13):
        queries = rng.standard_normal((nq, dim)).astype(np.float32)
        bias = (3 * rng.standard_normal(live)).astype(np.float32)
        own = rng.random((nq, live)) < kept
        for threads in (1, 3):
            check(index, queries, 7, own[0], threads=threads)
            check(index, queries, 7, own, bias, threads=threads)


@of_native_scorer
@pytest.mark.parametrize("metric", METRICS)
def test_filters_that_leave_few_rows_under_a_guarantee(metric: str) -> None:
    rng = np.random.default_rng(12)
    index = build(rng.standard_normal((1500, 19)).astype(np.float32), metric)
    for kept in (0.003, 0.05):
        check(index, rng.standard_normal((9, 19)).astype(np.float32), 7, rng.random(1500) < kept, guarantee=0.999999)


def test_deletes_that_leave_few_rows() -> None:
    rng = np.random.default_rng(3)
    index = build(rng.standard_normal((2000, 24)).astype(np.float32))
    queries = rng.standard_normal((5, 24)).astype(np.float32)
    for left in (150, 30, 1):
        index.delete(rng.choice(index.ids, len(index) - left, replace=False))
        check(index, queries, 4)


def test_an_empty_index_answers() -> None:
    index = nf.FlatIndex(3)
    hits = index.search(np.ones((2, 3), np.float32), 4)
    assert hits.ids.tolist() == [[-1] * 4] * 2
    assert hits.counts.tolist() == [0, 0]
    assert index.search(np.empty((0, 3), np.float32), 4).ids.shape == (0, 4)
    assert len(index) == 0
    assert index.ids.tolist() == []


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([[1, 2], [np.nan, 1]], "row 1 holds NaN in column 0"),
        ([[1, 2], [1, np.inf]], "row 1 holds infinity in column 1"),
        ([[3e38, 3e38]], "row 0 has a norm beyond float32"),
    ],
)
def test_bad_rows_are_refused_whole(rows: list[list[float]], reason: str) -> None:
    index = build(np.ones((2, 2), np.float32))
    with pytest.raises(nf.InputError, match=f"vectors: {reason}"):
        index.add(np.array(rows, np.float32), ids=[7] * len(rows) if len(rows) == 1 else [7, 1])
    with pytest.raises(nf.InputError, match=f"queries: {reason}"):
        index.search(np.array(rows, np.float32))
    assert index.ids.tolist() == [0, 1]
    index.add(np.ones((1, 2), np.float32))
    assert index.ids.tolist() == [0, 1, 2]


@pytest.mark.parametrize("ids", [[1], [1, 1], [1, -2], ["a", "b"], [1.5, 2.5], "ab", [True, False], [1, 2**63], [None, None]])
def test_bad_ids_are_refused(ids: Any) -> None:
    index = build(np.ones((2, 2), np.float32))
    with pytest.raises(nf.InputError, match="ids"):
        index.add(np.ones((2, 2), np.float32), ids=ids)
    assert len(index) == 2


@pytest.mark.parametrize(
    "options", [{"dim": 0}, {"dim": 1.0}, {"dim": 2, "metric": "dot"}, {"dim": 2, "storage": "int4"}, {"dim": 2, "threads": 0}]
)
def test_bad_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(nf.InputError):
        nf.FlatIndex(**options)


@pytest.mark.parametrize("storage", STORAGES)
def test_many_small_adds_deletes_and_reloads(tmp_path: Path, storage: str) -> None:
    rng = np.random.default_rng(5)
    index = nf.FlatIndex(5, metric="l2", storage=storage)  # type: ignore[arg-type]
    kept: dict[int, None] = {}
    for step in range(60):
        ids = rng.choice(3000, int(rng.integers(1, 300)), replace=False)
        index.add(rng.standard_normal((len(ids), 5)).astype(np.float32), ids=ids)
        for id in ids.tolist():
            kept.pop(id, None)
            kept[id] = None
        gone = rng.choice(list(kept), len(kept) // 5, replace=False)
        index.delete(gone)
        for id in gone.tolist():
            del kept[id]
        assert index.ids.tolist() == list(kept)
        if step % 20 == 7:
            index.save(tmp_path / "x.nf")
            index = nf.FlatIndex.load(tmp_path / "x.nf", mmap=bool(step % 40 == 7))
            assert index.ids.tolist() == list(kept)
    assert index._state[0].slots < 2 * len(index) + 2 * 4096  # dead rows give their memory back
    check(index, rng.standard_normal((4, 5)).astype(np.float32), 20)


def test_a_loaded_index_is_the_same(tmp_path: Path) -> None:
    rows = np.random.default_rng(2).standard_normal((300, 9)).astype(np.float32)
    index = build(rows, "cosine", "int8", fingerprint="abc")
    index.save(tmp_path / "x.nf")
    loaded = nf.FlatIndex.load(tmp_path / "x.nf", verify=False)
    assert (loaded.dim, loaded.metric, loaded.storage, loaded.fingerprint, len(loaded)) == (9, "cosine", "int8", "abc", 300)
    a, b = index.search(rows[:5], 20), loaded.search(rows[:5], 20)
    assert np.array_equal(a.ids, b.ids)
    assert np.array_equal(a.scores, b.scores)
    loaded.add(rows[:1])
    assert loaded.ids[-1] == 300


def test_searches_and_writers_together() -> None:
    """Eight readers while rows come and go: every answer names live or once-live rows, in order, and nothing hangs."""
    rng = np.random.default_rng(9)
    index = build(rng.standard_normal((2000, 16)).astype(np.float32), threads=2)
    queries = rng.standard_normal((40, 16)).astype(np.float32)
    problems: list[BaseException] = []
    stop = threading.Event()

    def read() -> None:
        try:
            while not stop.is_set():
                hits = index.search(queries, 5)
                assert (hits.counts == 5).all()
                assert (hits.ids >= 0).all()
                assert (np.diff(hits.scores, axis=1) <= 0).all()
        except BaseException as problem:
            problems.append(problem)

    readers = [threading.Thread(target=read) for _ in range(8)]
    for reader in readers:
        reader.start()
    for _ in range(20):
        index.add(rng.standard_normal((500, 16)).astype(np.float32))
        index.delete(rng.choice(index.ids, 450, replace=False))
    stop.set()
    for reader in readers:
        reader.join(60)
    assert not problems
    assert not any(reader.is_alive() for reader in readers)
    check(index, queries[:3], 10)


def test_search_works_in_a_forked_child() -> None:
    """The parent's pool has threads; the child has none of them and must make its own."""
    index = build(np.random.default_rng(0).standard_normal((5000, 64)).astype(np.float32), threads=2)
    queries = np.ones((3, 64), np.float32)
    wanted = index.search(queries).ids.tolist()
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=lambda: answers.put(index.search(queries).ids.tolist()))
    child.start()
    try:
        assert answers.get(timeout=60) == wanted
    finally:
        child.join(10)
        child.kill()
