"""HNSWIndex that changes: recall after churn beside a fresh index, mended links, consolidation, searches beside a writer."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

import nearfield as nf
from nearfield import _core
from nearfield.index import hnsw
from oracle_hnsw import METRICS, Floats, clustered, made, oracle_scores, oracle_top, recall, walked

# What churn may cost in recall@10. Inner products of rows whose norms differ (here by a factor of two) lead every walk to a few long rows,
# and the links that a long row had are not all made good when it goes.
ALLOWED = {"cosine": 0.01, "l2": 0.01, "ip": 0.04}


def links_of(index: nf.HNSWIndex, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Neighbour lists of layer 0 and tombstones, as the index saves them."""
    index.save(path)
    file = _core.Container.open(str(path), "hnsw")
    return file.array("links0", np.dtype("<u4")).reshape(-1, 2 * index.M), file.array("deleted", np.dtype("u1"))


def recall_of(index: nf.HNSWIndex, queries: Floats, rows: dict[int, np.ndarray], metric: str) -> float:
    """The walk's recall@10 at an ef that is low enough for a worse graph to show."""
    ids = np.array(list(rows))
    exact = ids[oracle_top(oracle_scores(queries, np.stack(list(rows.values())), metric), 10)]
    return recall(walked(index, queries, 10, 20), exact)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("step", [1, 200])
def test_recall_after_churn_is_that_of_a_fresh_index(metric: str, share: float, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A share of the rows is deleted, others come in, in steps of one row or many; without the consolidation that is due, then with one."""
    n = 2500
    changes = int(share * n)
    old, new, queries = clustered(n, 24, 1), clustered(changes, 24, 2), clustered(400, 24, 3)
    index = made(old, metric, M=6, ef_construction=60)
    rows = dict(enumerate(old))
    doomed = np.random.default_rng(4).permutation(n)[:changes]
    monkeypatch.setattr(hnsw, "CONSOLIDATE_FROM", n)
    for at in range(0, changes, step):
        index.delete(doomed[at : at + step])
        index.add(new[at : at + step], ids=np.arange(n + at, n + min(at + step, changes)), threads=1)
    for id in doomed.tolist():
        del rows[id]
    rows |= {n + i: row for i, row in enumerate(new)}
    fresh = nf.HNSWIndex(24, metric, M=6, ef_construction=60)
    fresh.add(np.stack(list(rows.values())), ids=np.array(list(rows)), threads=1)
    fresh._graph.connect()  # as consolidate does, and save and freeze
    expected = recall_of(fresh, queries, rows, metric)
    assert 0.8 < expected < 0.999  # otherwise nothing is compared
    assert index._graph.slots == n + changes
    churned = recall_of(index, queries, rows, metric)
    index.consolidate()
    assert index._graph.slots == n
    consolidated = recall_of(index, queries, rows, metric)
    assert churned > expected - ALLOWED[metric]
    assert consolidated > expected - ALLOWED[metric]


@pytest.mark.parametrize("share", [0.02, 0.9])
def test_live_rows_are_linked_to_live_rows(tmp_path: Path, share: float) -> None:
    """Deletes of few rows find nearly all lists that name them, deletes of many find all."""
    rows = clustered(3000, 16, 1)
    index = made(rows, "l2", M=8, ef_construction=100)
    gone = np.random.default_rng(0).permutation(3000)[: int(share * 3000)]
    for part in np.array_split(gone, len(gone)) if share < 0.5 else [gone[:900], gone[900:]]:
        index.delete(part)
    before = index._graph.slots
    links, deleted = links_of(index, tmp_path / "i.bin")
    live = links[deleted == 0]
    named = live[live != 2**32 - 1]
    left = float(deleted[named].mean())
    assert left <= (0.002 if share < 0.5 else 0.0)
    assert index._graph.unreached() == 0
    degrees = (live != 2**32 - 1).sum(axis=1)
    assert degrees.mean() > 8  # mended, not only cut
    index.consolidate()
    links, deleted = links_of(index, tmp_path / "i.bin")
    assert len(links) == len(index) == 3000 - len(gone) <= before
    assert not deleted.any()
    assert index._graph.unreached() == 0


def test_consolidation_keeps_ids_order_rows_and_what_comes_next(tmp_path: Path) -> None:
    rows = clustered(400, 8, 5)
    for kind in (int, str):
        index = nf.HNSWIndex(8, "ip", M=4, ef_construction=30)
        index.add(rows, ids=[kind(i) for i in range(400)])
        index.delete([kind(i) for i in range(0, 400, 3)])
        index.add(rows[:2] + 1, ids=[kind(4), kind(399)])
        before = list(index.ids), index.get(list(index.ids)), index.search(rows[:20], 5, bias=np.zeros(len(index), np.float32))
        index.consolidate()
        index.consolidate()
        assert list(index.ids) == before[0]
        assert np.array_equal(index.get(before[0]), before[1])
        after = index.search(rows[:20], 5, bias=np.zeros(len(index), np.float32))
        assert after.ids.tolist() == before[2].ids.tolist()
        assert np.array_equal(after.scores, before[2].scores)
        assert index._graph.slots == len(index)
        index.save(tmp_path / "i.bin")
        again = nf.HNSWIndex.load(tmp_path / "i.bin")
        assert list(again.ids) == before[0]
    index.add(rows[:1] + 2, ids=["x"])
    index.delete(["x"])
    index.add(rows[:1] + 3, ids=["x"])
    assert index.ids[-1] == "x"
    numbered = made(rows, "l2")
    numbered.delete([399])
    numbered.consolidate()
    numbered.add(rows[:1])
    assert numbered.ids[-1] == 400  # a deleted id is not given again


def test_memory_is_taken_back_when_as_many_rows_are_deleted_as_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hnsw, "CONSOLIDATE_FROM", 50)
    rows = clustered(100, 8, 1)
    index = made(rows, "l2", M=4)
    for round in range(10):
        index.add(rows + round, ids=np.arange(100), threads=1)
        assert index._graph.slots <= 200
    assert np.array_equal(index.get([3]), rows[3:4] + 9)
    index.delete(list(range(100)))
    assert (len(index), index._graph.slots) == (0, 0)
    assert index.search(rows[:1], 3).counts.tolist() == [0]
    index.add(rows[:5])
    assert index.ids.tolist() == [100, 101, 102, 103, 104]
    assert index.search(rows[:1], 3).ids[0, 0] == 100


def test_the_same_changes_make_the_same_bytes_for_any_number_of_threads(tmp_path: Path) -> None:
    rows = clustered(2000, 16, 1)
    files = []
    for threads in (1, 2, 4):
        index = nf.HNSWIndex(16, "cosine", M=6, ef_construction=40)
        index.add(rows[:1500], threads=threads)
        index.delete(list(range(0, 1000, 2)), threads=threads)
        index.add(rows[1500:], threads=threads)
        for id in range(1, 60, 2):
            index.delete([id], threads=threads)
        index.add(rows[:100], ids=np.arange(1001, 1101), threads=threads)
        index.save(tmp_path / "i.bin")
        files.append((tmp_path / "i.bin").read_bytes())
        index.consolidate(threads=threads)
        index.save(tmp_path / "i.bin")
        files.append((tmp_path / "i.bin").read_bytes())
    assert files[0::2] == [files[0]] * 3
    assert files[1::2] == [files[1]] * 3


def test_the_entry_goes_and_the_graph_stays(tmp_path: Path) -> None:
    rows = clustered(600, 8, 2)
    index = made(rows, "l2", M=4, ef_construction=30)
    for left in range(600, 20, -1):
        index.save(tmp_path / "i.bin")
        if left % 50:
            continue
        head = _core.Container.open(str(tmp_path / "i.bin"), "hnsw").array("graph", np.dtype("<u4"))
        entry = int(head[7])
        index.delete([int(index._names.names(np.array([entry]))[0])])
        assert index._graph.unreached() == 0
    found = walked(index, rows, 1, 16)[:, 0]
    live = np.isin(np.arange(600), index.ids)
    assert (found[live] == np.arange(600)[live]).mean() > 0.98


def test_every_answer_beside_a_writer_is_one_of_a_moment() -> None:
    """A writer replaces ids again and again; each id's rows carry its number and a generation that only rises."""
    ids, dim = 300, 8
    rng = np.random.default_rng(0)

    def rows_of(names: np.ndarray, generation: int) -> Floats:
        rows = rng.normal(scale=0.01, size=(len(names), dim)).astype(np.float32)
        rows[:, 0], rows[:, 1] = names, generation
        return rows

    index = nf.HNSWIndex(dim, "l2", M=4, ef_construction=30)
    index.add(rows_of(np.arange(ids), 0), ids=np.arange(ids))
    written = np.zeros(ids, np.int64)  # the last generation of each id that add() has returned for
    begun = np.zeros(ids, np.int64)  # ... and that it was called with
    problems: list[str] = []
    looks = [0, 0]
    done = threading.Event()

    def look(reader: int) -> None:
        while not done.is_set():
            name = (17 * looks[reader] + reader) % ids
            least = int(written[name])
            query = np.zeros(dim, np.float32)
            query[0], query[1] = name, least
            alone = index.search(query, 3, filter=[name])
            near = index.search(query, 300, ef=300)
            most = int(begun[name])
            if alone.ids[0].tolist() != [name, -1, -1]:
                problems.append(f"{name}: by itself {alone.ids[0].tolist()}")
            elif not any(abs(-float(alone.scores[0, 0]) - (g - least) ** 2) < 0.5 for g in range(least, most + 1)):
                problems.append(f"{name}: score {alone.scores[0, 0]} between {least} and {most}")
            if sorted(near.ids[0].tolist()) != list(range(ids)):
                problems.append(f"{ids - len(set(near.ids[0].tolist()) - {-1})} ids missing or twice")
            if not {name} <= set(index.ids.tolist()) or name not in index or len(index) != ids:
                problems.append(f"{name} is not in the index")
            looks[reader] += 1

    readers = [threading.Thread(target=look, args=(reader,)) for reader in range(2)]
    for reader in readers:
        reader.start()
    generation = 0
    while min(looks) < 60 and generation < 2000:
        generation += 1
        names = rng.permutation(ids)[: int(rng.integers(1, 120))]
        begun[names] = generation
        index.add(rows_of(names, generation), ids=names, threads=1)
        written[names] = generation
        if generation % 10 == 0:
            index.consolidate(threads=1)
    done.set()
    for reader in readers:
        reader.join()
    assert problems == []
    assert min(looks) >= 60
    assert generation > 3


def test_stats_say_what_the_saved_graph_says(tmp_path: Path) -> None:
    rows = clustered(1500, 16, 1)
    index = nf.HNSWIndex(16, "l2", M=2, ef_construction=20)  # so few links that some rows are cut off
    empty = index.stats()
    assert (empty["rows"], empty["deleted"], empty["levels"], empty["degrees"]["mean"], empty["unreached"]) == (0, 0, [], 0.0, 0)
    for at in range(0, 1000, 100):
        index.add(rows[at : at + 100], threads=1)
    index.delete(list(range(7)))
    told = index.stats()
    assert told["unreached"] == index._graph.unreached() > 0  # by 100 rows at a time, and looked at when the index doubled
    links, deleted = links_of(index, tmp_path / "i.bin")
    stats = index.stats()
    assert stats["unreached"] == 0
    file = _core.Container.open(str(tmp_path / "i.bin"), "hnsw")
    live = links[deleted == 0]
    degrees = (live != 2**32 - 1).sum(axis=1)
    assert stats["degrees"]["counts"] == np.bincount(degrees, minlength=5).tolist()
    assert (stats["degrees"]["mean"], stats["degrees"]["least"]) == (pytest.approx(degrees.mean()), degrees.min())
    assert (stats["degrees"]["most"], stats["degrees"]["capacity"]) == (degrees.max(), 4)
    levels = file.array("levels", np.dtype("u1"))[deleted == 0]
    assert stats["levels"] == np.bincount(levels).tolist()
    assert (stats["rows"], stats["deleted"]) == (993, 7)
    assert stats["memory"]["rows"] >= 1000 * 64
    assert stats["memory"]["total"] == sum(stats["memory"][part] for part in ("rows", "codes", "links", "other"))
    assert stats["target"] == _core.kernel_targets()["dot_i8"]
