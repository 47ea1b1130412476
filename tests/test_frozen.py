"""FrozenIndex: its recall, scores, filters and biases against a float64 oracle, the same bytes for any number of threads, files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import nearfield as nf
from nearfield import _core
from nearfield.errors import FormatError, InputError
from oracle_hnsw import METRICS, Floats, clustered, made, oracle_scores, oracle_top, recall

LAYOUTS = [False, True]


@pytest.fixture(scope="module")
def data() -> tuple[Floats, Floats]:
    return clustered(4000, 48, 1), clustered(120, 48, 2)


@pytest.fixture(scope="module", params=[(metric, compact) for metric in METRICS for compact in LAYOUTS])
def frozen(request: pytest.FixtureRequest, data: tuple[Floats, Floats]) -> tuple[nf.FrozenIndex, str]:
    metric, compact = request.param
    return made(data[0], metric).freeze(compact=compact), metric


def walked(index: nf.FrozenIndex, queries: Floats, k: int, ef: int) -> np.ndarray:
    """What the graph alone finds, without the fallbacks."""
    return index._graph.search(queries, k, index._graph.slots, ef, mode="walk", threads=1)[0]


def margin(index: nf.FrozenIndex, queries: Floats, rows: Floats, metric: str) -> float:
    """How far a score may be from that of the rows added: half a step of their last code and of the query's, in every dimension."""
    if metric == "cosine":
        queries, rows = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (queries, rows))
    rest = rows - rows[:1024].mean(axis=0)
    asked = queries - rows[:1024].mean(axis=0)
    steps = 254 if index.compact else 254 * 254
    long = max(np.linalg.norm(rest, axis=1).max(), np.linalg.norm(asked, axis=1).max())
    step = max(np.abs(rest).max(), np.abs(asked).max()) / steps * np.sqrt(index.dim)
    # The query always has both codes; l2 counts a product twice; 2^-16: float32 scales and first terms.
    return float((2 if metric == "l2" else 1) * long * 2 * step * 1.02 + 2**-20 * long**2)


# --- recall and scores


def test_recall_of_the_walk(frozen: tuple[nf.FrozenIndex, str], data: tuple[Floats, Floats]) -> None:
    index, metric = frozen
    exact = oracle_top(oracle_scores(data[1], data[0], metric), 10)
    few, many = (recall(walked(index, data[1], 10, ef), exact) for ef in (12, 160))
    assert many >= 0.95
    assert few < many  # ef reaches the walk


def test_scores_are_near_those_of_the_oracle(frozen: tuple[nf.FrozenIndex, str], data: tuple[Floats, Floats]) -> None:
    index, metric = frozen
    hits = index.search(data[1], 10, ef=100)
    expected = np.take_along_axis(oracle_scores(data[1], data[0], metric), hits.ids, axis=1)
    gap = np.abs(hits.scores - expected)
    assert gap.max() <= margin(index, data[1], data[0], metric)
    assert np.all(np.diff(hits.scores, axis=1) <= 0)
    assert hits.counts.tolist() == [10] * len(data[1])
    assert np.array_equal(index.score(data[1], hits.ids), hits.scores)
    if not index.compact:  # the second codes are used: without them the gap would be hundreds of times as large
        assert gap.max() <= margin(index, data[1], data[0], metric) / 4


def test_rows_are_kept_to_half_a_step(frozen: tuple[nf.FrozenIndex, str], data: tuple[Floats, Floats]) -> None:
    index, metric = frozen
    rows = data[0] / np.linalg.norm(data[0], axis=1, keepdims=True) if metric == "cosine" else data[0]
    rest = rows - rows[:1024].mean(axis=0)
    step = np.abs(rest).max(axis=1, keepdims=True) / (127 if index.compact else 127 * 254)
    gap = np.abs(index.get(np.arange(len(rows))) - rows)
    # Scales are rounded up to 16 bits; float32 keeps rows of this size to 2^-22.
    assert np.all(gap <= step * 0.51 + 2**-20)
    assert gap.max() >= step.min() / 4  # and no better than that: the bound is the right one


def test_it_beats_chance_by_its_estimates(data: tuple[Floats, Floats]) -> None:
    # One-bit codes that said nothing would leave an order by chance among the candidates: far fewer neighbours found at a small ef.
    index = made(data[0], "l2").freeze()
    exact = oracle_top(oracle_scores(data[1], data[0], "l2"), 10)
    assert recall(walked(index, data[1], 10, 32), exact) >= 0.75


def test_the_same_answers_for_any_target_and_number_of_threads(data: tuple[Floats, Floats]) -> None:
    answers = []
    for target in [row["name"] for row in _core.targets() if row["built"] and row["runs_here"]]:
        _core.force_target(target)
        try:
            index = made(data[0][:1500], "cosine").freeze()
            answers += [index.search(data[1], 10, threads=threads) for threads in (1, 3)]
        finally:
            _core.force_target("")
    for each in answers[1:]:
        assert np.array_equal(each.ids, answers[0].ids)
        assert np.array_equal(each.scores, answers[0].scores)


def test_one_query_at_a_time_or_many(frozen: tuple[nf.FrozenIndex, str], data: tuple[Floats, Floats]) -> None:
    index, _ = frozen
    many = index.search(data[1][:30], 7)
    for i in range(30):
        one = index.search(data[1][i], 7)
        assert np.array_equal(one.ids[0], many.ids[i])
        assert np.array_equal(one.scores[0], many.scores[i])


# --- odd sizes


@pytest.mark.parametrize("compact", LAYOUTS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("n", "dim", "m"), [(1, 1, 2), (2, 3, 2), (60, 7, 4), (300, 33, 20), (200, 100, 40)])
def test_small_indexes_and_all_rows(metric: str, compact: bool, n: int, dim: int, m: int) -> None:
    rows, queries = clustered(n, dim, 3), clustered(5, dim, 4)
    index = made(rows, metric, M=m, ef_construction=40).freeze(compact=compact)
    for k in (n, n + 3):
        hits = index.search(queries, k)
        assert np.sort(hits.ids[:, :n], axis=1).tolist() == [list(range(n))] * 5
        assert hits.ids[:, n:].tolist() == [[-1] * (k - n)] * 5
        assert hits.counts.tolist() == [n] * 5
    assert recall(walked(index, queries, min(n, 5), 300), oracle_top(oracle_scores(queries, rows, metric), min(n, 5))) >= 0.8


@pytest.mark.parametrize("compact", LAYOUTS)
def test_an_empty_index_finds_nothing(compact: bool, tmp_path: Path) -> None:
    index = nf.HNSWIndex(4).freeze(compact=compact)
    index.save(tmp_path / "i.bin")
    for each in (index, nf.FrozenIndex.load(tmp_path / "i.bin")):
        hits = each.search(np.ones((2, 4), np.float32), 3)
        assert hits.ids.tolist() == [[-1] * 3] * 2
        assert np.isnan(hits.scores).all()
        assert len(each) == 0


@pytest.mark.parametrize("compact", LAYOUTS)
def test_a_zero_row_and_a_zero_query_score_zero(compact: bool) -> None:
    index = made(np.array([[0, 0], [3, 4], [-1, 0]], np.float32), "cosine").freeze(compact=compact)
    hits = index.search(np.array([[1, 0], [0, 0]], np.float32), 3)
    assert hits.ids[0].tolist() == [1, 0, 2]
    assert hits.scores[0].tolist() == pytest.approx([0.6, 0.0, -1.0], abs=1e-2 if compact else 1e-4)
    assert hits.scores[1].tolist() == [0.0, 0.0, 0.0]


def test_rows_far_from_the_origin_keep_their_order() -> None:
    # An offset a thousand times the spread: codes are relative to the centre, or nothing would be left of the differences.
    rows = (clustered(2000, 16, 1) + 1000).astype(np.float32)
    queries = (clustered(50, 16, 2) + 1000).astype(np.float32)
    exact = oracle_top(oracle_scores(queries, rows, "l2"), 10)
    index = made(rows, "l2")
    for each in (index, index.freeze(), index.freeze(compact=True)):
        assert recall(each.search(queries, 10, ef=128).ids, exact) >= 0.95


# --- deletes, filters and biases


def test_what_was_deleted_or_replaced_stays_so(frozen: tuple[nf.FrozenIndex, str], data: tuple[Floats, Floats]) -> None:
    compact, metric = frozen[0].compact, frozen[1]
    index = made(data[0][:1500], metric)
    index.delete(list(range(0, 1500, 3)))
    index.add(data[0][1500:1502], ids=[1, 2])
    before = index.freeze(compact=compact)
    index.delete([4])  # the frozen one does not see it
    assert 4 in before
    assert 3 not in before
    assert len(before) == 1000
    assert before.ids.tolist() == [*[i for i in range(4, 1500) if i % 3], 1, 2]
    hits = before.search(data[1], 10, ef=100)
    assert not (hits.ids % 3 == 0).any()
    assert before.search(data[0][1500], 1).ids.tolist() == [[1]] or metric == "ip"


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01, 0.0])
def test_filters(frozen: tuple[nf.FrozenIndex, str], data: tuple[Floats, Floats], share: float) -> None:
    index, metric = frozen
    mask = np.random.default_rng(int(share * 100)).random(4000) < share
    scores = oracle_scores(data[1], data[0], metric)
    scores[:, ~mask] = -np.inf
    for given in (mask, np.flatnonzero(mask), np.repeat(mask[None], len(data[1]), axis=0)):
        hits = index.search(data[1], 10, ef=96, filter=given)
        filled = min(10, int(mask.sum()))
        assert hits.counts.tolist() == [filled] * len(data[1])
        assert mask[hits.ids[hits.ids >= 0]].all()
        if filled:
            assert recall(hits.ids[:, :filled], oracle_top(scores, filled)) >= 0.93


def test_a_filter_of_rows_elsewhere(frozen: tuple[nf.FrozenIndex, str], data: tuple[Floats, Floats]) -> None:
    # For each query the half of the rows that is farthest from it: a walk around the query meets none of them.
    index, metric = frozen
    scores = oracle_scores(data[1], data[0], metric)
    mask = scores < np.median(scores, axis=1, keepdims=True)
    hits = index.search(data[1], 10, ef=16, filter=mask)  # ef = 64 would scan half of 4,000 rows anyway
    best = -np.sort(-np.where(mask, scores, -np.inf), axis=1)[:, :10]
    assert np.take_along_axis(mask, hits.ids, axis=1).all()
    assert np.all(hits.scores >= best - 2 * margin(index, data[1], data[0], metric))


def test_bias_is_added(frozen: tuple[nf.FrozenIndex, str], data: tuple[Floats, Floats]) -> None:
    index, metric = frozen
    bias = np.random.default_rng(9).normal(scale=3, size=4000).astype(np.float32)
    scores = oracle_scores(data[1][:10], data[0], metric) + bias
    hits = index.search(data[1][:10], 10, bias=bias)
    slack = 2 * margin(index, data[1][:10], data[0], metric)
    assert np.abs(hits.scores + np.sort(-scores, axis=1)[:, :10]).max() <= slack


# --- what is refused


def test_what_cannot_be_used_is_refused(data: tuple[Floats, Floats]) -> None:
    index = made(data[0][:50]).freeze()
    with pytest.raises(InputError, match="row 1"):
        index.search(np.array([[0] * 48, [np.nan] * 48], np.float32))
    with pytest.raises(InputError, match="ef: 0"):
        index.search(data[1], 1, ef=0)
    with pytest.raises(InputError, match="not in the index"):
        index.get([50])
    with pytest.raises(InputError, match="slot 50"):
        index._graph.get(np.array([50]))
    with pytest.raises(InputError, match="row 0, place 1"):
        index._graph.score(data[1][:1], np.array([[0, 50]]))


# --- files


@pytest.mark.parametrize("compact", LAYOUTS)
def test_the_same_bytes_for_any_number_of_threads(tmp_path: Path, data: tuple[Floats, Floats], compact: bool) -> None:
    files = []
    for threads in (1, 2, 4):
        index = nf.HNSWIndex(48, "l2", seed=7)
        index.add(data[0][:1500], threads=threads)
        index.freeze(compact=compact, threads=threads).save(tmp_path / "i.bin")
        files.append((tmp_path / "i.bin").read_bytes())
    assert files[0] == files[1] == files[2]


@pytest.mark.parametrize("compact", LAYOUTS)
@pytest.mark.parametrize("kind", ["int", "str"])
def test_save_and_load(tmp_path: Path, kind: str, compact: bool) -> None:
    rows, queries = clustered(800, 8, 3), clustered(20, 8, 4)
    graph = nf.HNSWIndex(8, "l2", M=8, ef_construction=50, seed=3, fingerprint="abc")
    graph.add(rows, ids=[f"d{i}" for i in range(800)] if kind == "str" else None)
    graph.delete([f"d{i}" for i in range(40)] if kind == "str" else list(range(40)))
    index = graph.freeze(compact=compact)
    index.save(tmp_path / "i.bin")
    for mmap in (True, False):
        again = nf.FrozenIndex.load(tmp_path / "i.bin", mmap=mmap)
        assert (again.dim, again.metric, again.M, again.ef_construction, again.seed, again.fingerprint) == (8, "l2", 8, 50, 3, "abc")
        assert again.compact == compact
        assert list(again.ids) == list(index.ids) == list(graph.ids)
        before, after = index.search(queries, 10), again.search(queries, 10)
        assert before.ids.tolist() == after.ids.tolist()
        assert np.array_equal(before.scores, after.scores)
    again.save(tmp_path / "again.bin")
    assert (tmp_path / "again.bin").read_bytes() == (tmp_path / "i.bin").read_bytes()
    with pytest.raises(FormatError, match="'hnsw' expected"):
        nf.HNSWIndex.load(tmp_path / "i.bin")


def small_file(path: Path, compact: bool) -> tuple[bytes, Floats]:
    rows = clustered(24, 3, 6)
    index = made(rows, "l2", M=2, ef_construction=8)
    index.delete([5])
    index.freeze(compact=compact).save(path)
    return path.read_bytes(), rows


def answers(index: nf.FrozenIndex, queries: Floats) -> list[object]:
    hits = index.search(queries, 5)
    return [hits.ids.tolist(), hits.scores.tolist(), walked(index, queries, 5, 6).tolist()]


@pytest.mark.parametrize("compact", LAYOUTS)
def test_flipped_bits_are_noticed(tmp_path: Path, compact: bool) -> None:
    good, rows = small_file(tmp_path / "good.bin", compact)
    expected = answers(nf.FrozenIndex.load(tmp_path / "good.bin"), rows[:3])
    path = tmp_path / "bad.bin"
    for at in [*range(0, 600, 3), *range(600, len(good), 97)]:
        bad = bytearray(good)
        bad[at] ^= 1 << (at % 8)
        path.write_bytes(bad)
        try:
            index = nf.FrozenIndex.load(path)
        except FormatError:
            continue
        assert answers(index, rows[:3]) == expected, f"byte {at}"


@pytest.mark.parametrize("compact", LAYOUTS)
def test_damage_behind_skipped_checksums_never_crashes(tmp_path: Path, compact: bool) -> None:
    good, rows = small_file(tmp_path / "good.bin", compact)
    path = tmp_path / "bad.bin"
    opened = 0
    for at in range(0, len(good), 19):
        bad = bytearray(good)
        bad[at] = (0xFF, 0x00, 0x7F, 0x80)[at // 4 % 4 ^ at % 4]
        path.write_bytes(bad)
        try:
            index = nf.FrozenIndex.load(path, verify=False)
        except FormatError:
            continue
        opened += 1
        answers(index, rows[:3])
    assert opened > 50  # otherwise nothing was shown


def test_truncations_are_refused(tmp_path: Path) -> None:
    good, _ = small_file(tmp_path / "good.bin", False)
    path = tmp_path / "short.bin"
    for length in [*range(0, 600, 3), *range(600, len(good), 97), len(good) - 1]:
        path.write_bytes(good[:length])
        with pytest.raises(FormatError):
            nf.FrozenIndex.load(path)


GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", ["frozen-1", "frozen-1-compact"])
def test_a_file_of_this_version_opens_and_answers_as_when_it_was_written(name: str, tmp_path: Path) -> None:
    """Written by ``tests/golden/make.py``. A later layout gets a file of its own; this one must open for as long as it can be read."""
    expected = json.loads((GOLDEN / f"{name}.json").read_text())
    queries = np.array(expected["queries"], np.float32)
    for mmap in (True, False):
        index = nf.FrozenIndex.load(GOLDEN / f"{name}.bin", mmap=mmap)
        assert [index.dim, index.metric, index.M, index.ef_construction, index.seed, index.fingerprint, index.compact] == expected[
            "settings"
        ]
        assert list(index.ids) == expected["ids"]
        found = index.search(queries, 5, ef=8)
        assert [found.ids.tolist(), found.scores.tolist()] == expected["found"]
        assert walked(index, queries, 5, 8).tolist() == expected["walked"]
        assert index.get(expected["ids"]).tobytes().hex() == expected["rows"]
    index.save(tmp_path / "again.bin")
    again, golden = (_core.Container.open(str(path), "frozen") for path in (tmp_path / "again.bin", GOLDEN / f"{name}.bin"))
    for section in ("frozen", "centre", "blocks", "fine", "deleted", "doors", "id_bytes", "id_ends"):
        assert again.section(section) == golden.section(section)


def test_stats_say_what_the_index_holds(frozen: tuple[nf.FrozenIndex, str], data: tuple[Floats, Floats], tmp_path: Path) -> None:
    index, metric = frozen
    source = made(data[0], metric).stats()
    found = index.stats()
    assert [found["rows"], found["deleted"], found["compact"]] == [4000, 0, index.compact]
    assert found["degrees"] == source["degrees"]  # the same links
    assert 1 <= found["doors"] <= 128
    assert found["memory"]["total"] == found["memory"]["codes"] + found["memory"]["links"] + found["memory"]["other"]
    assert abs(found["memory"]["total"] - 4000 * index._graph.row_bytes) < 128 * 1024
    assert found["target"] == _core.kernel_targets()["dot_i8" if index.compact else "estimate_1bit"]
    assert found["calibration"] is not None
    index.save(tmp_path / "f.bin")
    assert nf.FrozenIndex.load(tmp_path / "f.bin").stats() == found
