"""HNSWIndex: its recall, its exact fallbacks against a float64 oracle, its files, and the same graph for any number of threads."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

import nearfield as nf
from nearfield import _core
from nearfield.errors import InputError
from oracle_hnsw import METRICS, Floats, clustered, made, oracle_scores, oracle_top, recall, walked


@pytest.fixture(scope="module")
def data() -> tuple[Floats, Floats]:
    return clustered(5000, 32, 1), clustered(200, 32, 2)


@pytest.fixture(scope="module", params=METRICS)
def built(request: pytest.FixtureRequest, data: tuple[Floats, Floats]) -> tuple[nf.HNSWIndex, str]:
    return made(data[0], request.param), request.param


# --- recall


def test_recall_of_the_walk(built: tuple[nf.HNSWIndex, str], data: tuple[Floats, Floats]) -> None:
    index, metric = built
    exact = oracle_top(oracle_scores(data[1], data[0], metric), 10)
    assert recall(walked(index, data[1], 10, 128), exact) >= 0.95
    assert recall(index.search(data[1], 10, ef=128).ids, exact) >= 0.95
    # More candidates find more: this also shows that ef reaches the graph.
    assert recall(walked(index, data[1], 10, 10), exact) < recall(walked(index, data[1], 10, 128), exact)


def test_recall_is_that_of_hnswlib(built: tuple[nf.HNSWIndex, str], data: tuple[Floats, Floats]) -> None:
    hnswlib = pytest.importorskip("hnswlib")
    index, metric = built
    peer = hnswlib.Index(space=metric, dim=32)
    peer.init_index(len(data[0]), M=16, ef_construction=200, random_seed=1)
    peer.set_num_threads(1)
    peer.add_items(data[0])
    exact = oracle_top(oracle_scores(data[1], data[0], metric), 10)
    for ef in (16, 64):
        peer.set_ef(ef)
        theirs = recall(peer.knn_query(data[1], 10)[0].astype(np.int64), exact)
        assert recall(walked(index, data[1], 10, ef), exact) >= theirs - 0.02


def test_recall_on_rows_without_structure() -> None:
    rng = np.random.default_rng(5)
    rows, queries = rng.normal(size=(3000, 16)).astype(np.float32), rng.normal(size=(100, 16)).astype(np.float32)
    exact = oracle_top(oracle_scores(queries, rows, "l2"), 10)
    assert recall(walked(made(rows, "l2"), queries, 10, 128), exact) >= 0.95


def test_scores_are_those_of_the_oracle(built: tuple[nf.HNSWIndex, str], data: tuple[Floats, Floats]) -> None:
    index, metric = built
    hits = index.search(data[1], 10, ef=64)
    expected = np.take_along_axis(oracle_scores(data[1], data[0], metric), hits.ids, axis=1)
    # One rounding from float64 to float32, and a float64 sum in another order: 2^-24 + 32 * 2^-53, relative to |q| |x| (l2: to the score).
    scale = (
        np.abs(expected)
        if metric == "l2"
        else (1.0 if metric == "cosine" else np.linalg.norm(data[1], axis=1)[:, None] * np.linalg.norm(data[0], axis=1).max())
    )
    assert np.all(np.abs(hits.scores - expected) <= 1.01 * 2**-24 * scale)
    assert np.all(np.diff(hits.scores, axis=1) <= 0)
    assert hits.counts.tolist() == [10] * 200


# --- small, odd and edge cases, all exact


def test_an_empty_index_finds_nothing() -> None:
    hits = nf.HNSWIndex(4).search(np.ones((2, 4), np.float32), 3)
    assert hits.ids.tolist() == [[-1] * 3] * 2
    assert np.isnan(hits.scores).all()
    assert hits.counts.tolist() == [0, 0]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n", [1, 2, 9, 60])
def test_fewer_rows_than_k_and_all_rows(metric: str, n: int) -> None:
    rows, queries = clustered(n, 7, 3), clustered(5, 7, 4)
    index = made(rows, metric, M=4)
    exact = oracle_top(oracle_scores(queries, rows, metric), n)
    for k in (n, n + 3):
        hits = index.search(queries, k)
        assert hits.ids[:, :n].tolist() == exact.tolist()
        assert hits.ids[:, n:].tolist() == [[-1] * (k - n)] * 5
        assert hits.counts.tolist() == [n] * 5


def test_k_is_filled_when_the_walk_cannot_reach() -> None:
    # 3,000 equal rows: the heuristic links them to few of each other, so a walk alone would end early.
    rows = np.repeat(clustered(1, 8, 1), 3000, axis=0)
    index = made(rows, "l2", M=4)
    hits = index.search(rows[:1], 2000, ef=1)
    assert hits.counts.tolist() == [2000]
    assert len(set(hits.ids[0].tolist())) == 2000


@pytest.mark.parametrize("m", [2, 4])
def test_every_row_is_reachable(tmp_path: Path, m: int) -> None:
    rows = np.concatenate([clustered(500, 6, 1), np.repeat(clustered(3, 6, 2), 500, axis=0)])
    index = nf.HNSWIndex(6, "l2", M=m, ef_construction=10)
    for begin in range(0, 900, 90):
        index.add(rows[begin : begin + 90], threads=1)
    assert index._graph.unreached() > 0  # or nothing is shown below
    index.save(tmp_path / "i.bin")
    assert index._graph.unreached() == 0
    index.add(rows[900:1900], threads=1)  # the index doubles
    assert index._graph.unreached() == 0
    file = _core.Container.open(str(tmp_path / "i.bin"), "hnsw")
    links = file.array("links0", np.dtype("<u4")).reshape(900, 2 * m)
    reached: set[int] = set()
    edge = {int(file.array("graph", np.dtype("<u4"))[7])}
    while edge:
        reached |= edge
        edge = {int(to) for at in edge for to in links[at] if to != 2**32 - 1} - reached
    assert len(reached) == 900


def test_duplicates_are_all_found() -> None:
    rows = clustered(600, 16, 7)
    index = made(np.concatenate([rows, rows, rows, rows]), "cosine")
    found = walked(index, rows[:50], 4, 64)
    expected = [[i, i + 600, i + 1200, i + 1800] for i in range(50)]
    assert recall(found, np.array(expected)) >= 0.99


def test_a_zero_row_and_a_zero_query_score_zero() -> None:
    index = made(np.array([[0, 0], [3, 4], [-1, 0]], np.float32), "cosine")
    hits = index.search(np.array([[1, 0], [0, 0]], np.float32), 3)
    assert hits.ids.tolist() == [[1, 0, 2], [0, 1, 2]]
    assert hits.scores[0].tolist() == pytest.approx([0.6, 0.0, -1.0])
    assert hits.scores[1].tolist() == [0.0, 0.0, 0.0]


# --- deletes and replacements


def test_deleted_rows_never_come_back(data: tuple[Floats, Floats]) -> None:
    rows, queries = data[0][:3000], data[1][:50]
    index = made(rows, "l2")
    gone = np.random.default_rng(0).permutation(3000)[:1500]
    index.delete(gone)
    scores = oracle_scores(queries, rows, "l2")
    scores[:, gone] = -np.inf
    found = walked(index, queries, 10, 128)
    assert not np.isin(found, gone).any()
    assert recall(found, oracle_top(scores, 10)) >= 0.95
    assert len(index) == 1500
    assert int(gone[0]) not in index
    assert np.array_equal(index.ids, np.setdiff1d(np.arange(3000), gone))
    with pytest.raises(InputError):
        index.delete([int(gone[0])])


def test_all_deleted_then_added_again() -> None:
    rows = clustered(300, 8, 1)
    index = made(rows, "cosine", M=4)
    index.delete(list(range(300)))
    assert len(index) == 0
    assert index.search(rows[:2], 5).counts.tolist() == [0, 0]
    index.add(rows[:10], ids=list(range(10)))
    assert index.search(rows[3], 1).ids.tolist() == [[3]]
    assert index.search(rows[3], 20).counts.tolist() == [10]


def test_an_existing_id_is_replaced_and_moves_last() -> None:
    rows = clustered(20, 8, 1)
    index = made(rows, "l2")
    index.add(rows[7:8] + 5, ids=[3])
    assert index.ids.tolist() == [*range(3), *range(4, 20), 3]
    assert len(index) == 20
    assert np.array_equal(index.get([3, 4]), np.stack([rows[7] + 5, rows[4]]))
    assert index.search(rows[7] + 5, 1).ids.tolist() == [[3]]
    assert index.search(rows[3], 20).counts.tolist() == [20]


def test_str_ids() -> None:
    rows = clustered(30, 8, 2)
    index = nf.HNSWIndex(8, "ip")
    index.add(rows, ids=[f"doc-{i}" for i in range(30)])
    hits = index.search(rows[:2], 31)
    expected = oracle_top(oracle_scores(rows[:2], rows, "ip"), 30)
    assert [[None if i is None else i for i in row] for row in hits.ids.tolist()] == [
        [f"doc-{i}" for i in row] + [None] for row in expected.tolist()
    ]
    index.delete(["doc-5"])
    assert "doc-5" not in index
    assert "doc-6" in index


# --- filters and bias: exact


@pytest.mark.parametrize("share", [0.5, 0.01, 0.0])
@pytest.mark.parametrize("as_mask", [True, False])
def test_filters(built: tuple[nf.HNSWIndex, str], data: tuple[Floats, Floats], share: float, as_mask: bool) -> None:
    index, metric = built
    queries = data[1][:40]
    mask = np.random.default_rng(int(share * 100)).random(5000) < share
    scores = oracle_scores(queries, data[0], metric)
    scores[:, ~mask] = -np.inf
    hits = index.search(queries, 10, ef=64, filter=mask if as_mask else np.flatnonzero(mask))
    filled = min(10, int(mask.sum()))
    assert hits.counts.tolist() == [filled] * 40
    assert mask[hits.ids[hits.ids >= 0]].all()
    if share == 0.01:
        assert hits.ids[:, :filled].tolist() == oracle_top(scores, filled).tolist()
    elif share:
        assert recall(hits.ids, oracle_top(scores, 10)) >= 0.95


def test_one_filter_per_query(built: tuple[nf.HNSWIndex, str], data: tuple[Floats, Floats]) -> None:
    index, metric = built
    queries = data[1][:3]
    mask = np.random.default_rng(3).random((3, 5000)) < [[0.004], [0.3], [0.0]]
    scores = np.where(mask, oracle_scores(queries, data[0], metric), -np.inf)
    hits = index.search(queries, 10, filter=mask)
    assert hits.ids[0].tolist() == oracle_top(scores, 10)[0].tolist()
    assert recall(hits.ids[1:2], oracle_top(scores, 10)[1:2]) >= 0.9
    assert hits.counts.tolist() == [10, 10, 0]


def test_the_walk_honours_a_filter(built: tuple[nf.HNSWIndex, str], data: tuple[Floats, Floats]) -> None:
    index, metric = built
    allowed = np.random.default_rng(8).random((1, 5000)) < 0.3
    found = index._graph.search(data[1], 10, 5000, 64, allowed, mode="walk", threads=1)[0]
    scores = np.where(allowed, oracle_scores(data[1], data[0], metric), -np.inf)
    assert allowed[0, found].all()
    assert recall(found, oracle_top(scores, 10)) >= 0.95


@pytest.mark.parametrize("per_query", [False, True])
def test_bias_is_added_exactly(built: tuple[nf.HNSWIndex, str], data: tuple[Floats, Floats], per_query: bool) -> None:
    index, metric = built
    queries = data[1][:10]
    bias = np.random.default_rng(9).normal(scale=3, size=(10, 5000) if per_query else 5000).astype(np.float32)
    scores = oracle_scores(queries, data[0], metric) + bias
    hits = index.search(queries, 10, bias=bias)
    assert hits.ids.tolist() == oracle_top(scores, 10).tolist()
    assert hits.scores == pytest.approx(-np.sort(-scores, axis=1)[:, :10], rel=1e-6, abs=1e-6)


def test_masks_align_with_live_rows() -> None:
    rows = clustered(50, 8, 1)
    index = made(rows, "l2")
    index.delete([0, 10, 20])
    mask = np.zeros(47, bool)
    mask[:3] = True  # ids 1, 2, 3
    assert sorted(index.search(rows[:1], 5, filter=mask).ids[0].tolist()) == [-1, -1, 1, 2, 3]
    bias = np.zeros(47, np.float32)
    bias[9] = 1000.0  # id 11
    assert index.search(rows[:1], 1, bias=bias).ids.tolist() == [[11]]


# --- what is refused, and threads


def test_what_cannot_be_used_is_refused() -> None:
    rows = clustered(10, 4, 1)
    index = made(rows)
    bad = rows.copy()
    bad[3, 1] = np.nan
    with pytest.raises(InputError, match="row 3"):
        index.add(bad, ids=list(range(10, 20)))
    bad[3, 1] = 3e38
    bad[3, 2] = 3e38
    with pytest.raises(InputError, match="row 3"):
        index.add(bad, ids=list(range(10, 20)))
    with pytest.raises(InputError, match="row 3"):
        index.search(np.where(np.isnan(bad), np.inf, bad))
    assert len(index) == 10
    with pytest.raises(InputError, match="k: 0"):
        index.search(rows, 0)
    with pytest.raises(InputError, match="ef: 0"):
        index.search(rows, 1, ef=0)
    with pytest.raises(InputError, match="target_recall"):
        index.search(rows, 1, target_recall=1.5)
    with pytest.raises(InputError, match="storage"):
        nf.HNSWIndex(4, storage="int8")
    with pytest.raises(InputError, match="M: 1 given"):
        nf.HNSWIndex(4, M=1)
    with pytest.raises(InputError, match="dim: 0 given"):
        nf.HNSWIndex(0)
    with pytest.raises(InputError, match="metric"):
        nf.HNSWIndex(4, "hamming")  # type: ignore[arg-type]


def test_searches_beside_adds_see_whole_states() -> None:
    rows = clustered(4000, 16, 1)
    index = made(rows[:1000], "l2")
    problems: list[str] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            hits = index.search(rows[:20], 5)
            if hits.ids[:, 0].tolist() != list(range(20)) or hits.counts.tolist() != [5] * 20:
                problems.append(str(hits.ids))

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    for begin in range(1000, 4000, 500):
        index.add(rows[begin : begin + 500])
        index.delete(list(range(begin, begin + 100)))
    done.set()
    for reader in readers:
        reader.join()
    assert problems == []
    assert len(index) == 4000 - 6 * 100


def test_levels_follow_the_seed_and_the_share_of_each_layer(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(4000, 2)).astype(np.float32)
    index = made(rows, "l2", M=4, ef_construction=4)
    index.save(tmp_path / "levels.bin")
    levels = _core.Container.open(str(tmp_path / "levels.bin"), "hnsw").array("levels", np.dtype("u1"))
    # A node reaches layer l with probability 4^-l; four standard deviations of a count of 4,000.
    for layer in (1, 2, 3):
        share = 4.0**-layer
        assert abs((levels >= layer).mean() - share) < 4 * np.sqrt(share * (1 - share) / 4000)


def test_an_interrupted_add_has_not_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = clustered(4000, 8, 3)
    index = made(rows[:100], "l2", M=4, ef_construction=20)
    graph, calls = index._graph, 0

    class Interrupted:
        """The graph, with Ctrl-C after two slices."""

        def __getattr__(self, name: str) -> object:
            return getattr(graph, name)

        def append(self, *args: object) -> None:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise KeyboardInterrupt
            graph.append(*args)

    monkeypatch.setattr(index, "_graph", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        index.add(rows, ids=np.arange(50, 4050))
    monkeypatch.setattr(index, "_graph", graph)

    def check(index: nf.HNSWIndex) -> None:
        assert len(index) == 100
        assert index.ids.tolist() == list(range(100))
        assert np.array_equal(index.get([60]), rows[60:61])
        assert 3000 not in index
        assert index.search(rows[3000], 200).counts.tolist() == [100]
        assert index.search(rows[:5], 1).ids.ravel().tolist() == [0, 1, 2, 3, 4]

    check(index)
    index.save(tmp_path / "i.bin")
    check(nf.HNSWIndex.load(tmp_path / "i.bin"))
    index.add(rows, ids=np.arange(50, 4050))
    assert len(index) == 4050
    assert np.array_equal(index.get([60]), rows[10:11])


@pytest.mark.parametrize("metric", METRICS)
def test_alpha_leaves_more_links_and_stays_in_the_file(metric: str, tmp_path: Path) -> None:
    rows, queries = clustered(1500, 24, 1), clustered(60, 24, 2)
    indexes = {}
    for alpha in (1, 1.2):
        index = indexes[alpha] = nf.HNSWIndex(24, metric, M=8, ef_construction=60, alpha=alpha)
        index.add(rows[:1000], threads=2)
        index.save(tmp_path / "i.bin")
        again = nf.HNSWIndex.load(tmp_path / "i.bin")
        assert again.alpha == index.alpha == np.float32(alpha)
        for each in (index, again):  # what is added later is chosen by the same rule
            each.add(rows[1000:], threads=1)
        assert again.stats()["degrees"] == index.stats()["degrees"]
        assert np.array_equal(walked(again, queries, 10, 30), walked(index, queries, 10, 30))
        found = walked(index, queries, 10, 60)
        assert recall(found, oracle_top(oracle_scores(queries, rows, metric), 10)) > 0.9
    assert indexes[1.2].stats()["degrees"]["mean"] > indexes[1].stats()["degrees"]["mean"] + 0.5


@pytest.mark.parametrize("alpha", [0.5, 5, float("nan"), "1", True])
def test_alpha_out_of_range(alpha: object) -> None:
    with pytest.raises(InputError, match=r"alpha: .* given, a number from 1 to 4 expected"):
        nf.HNSWIndex(4, alpha=alpha)  # type: ignore[arg-type]
