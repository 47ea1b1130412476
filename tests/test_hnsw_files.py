"""HNSWIndex on disk: the same bytes for any number of threads, round trips, and damage of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nearfield as nf
from nearfield.errors import FormatError
from oracle_hnsw import METRICS, Floats, clustered, made, walked


@pytest.fixture(scope="module")
def rows() -> Floats:
    return clustered(1700, 32, 1)


def test_the_same_bytes_for_any_number_of_threads(tmp_path: Path, rows: Floats) -> None:
    files = []
    for threads in (1, 2, 3):
        index = nf.HNSWIndex(32, "cosine", seed=7)
        index.add(rows[:1500], threads=threads)
        index.add(rows[1500:], threads=threads)
        index.save(tmp_path / f"{threads}.bin")
        files.append((tmp_path / f"{threads}.bin").read_bytes())
    assert files[0] == files[1] == files[2]
    one, two = index.search(rows, 10, threads=1), index.search(rows, 10, threads=2)
    assert np.array_equal(one.ids, two.ids)
    assert np.array_equal(one.scores, two.scores)


def test_the_seed_changes_the_levels(tmp_path: Path, rows: Floats) -> None:
    for seed in (0, 1):
        made(rows[:200], "cosine", seed=seed).save(tmp_path / f"{seed}.bin")
    assert (tmp_path / "0.bin").read_bytes() != (tmp_path / "1.bin").read_bytes()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["int", "str"])
def test_save_and_load(tmp_path: Path, metric: str, kind: str) -> None:
    rows, queries = clustered(3000, 8, 3), clustered(20, 8, 4)
    index = nf.HNSWIndex(8, metric, M=8, ef_construction=50, seed=3, fingerprint="abc")
    index.add(rows, ids=[f"d{i}" for i in range(3000)] if kind == "str" else None)
    index.delete([f"d{i}" for i in range(40)] if kind == "str" else list(range(40)))
    index.save(tmp_path / "i.bin")
    for mmap in (True, False):
        again = nf.HNSWIndex.load(tmp_path / "i.bin", mmap=mmap)
        assert (again.dim, again.metric, again.M, again.ef_construction, again.seed, again.fingerprint) == (8, metric, 8, 50, 3, "abc")
        assert list(again.ids) == list(index.ids)
        before, after = index.search(queries, 10, ef=100), again.search(queries, 10, ef=100)
        assert before.ids.tolist() == after.ids.tolist()
        assert np.array_equal(before.scores, after.scores)
    again.save(tmp_path / "again.bin")
    assert (tmp_path / "again.bin").read_bytes() == (tmp_path / "i.bin").read_bytes()
    # The loaded index goes on as the saved one would.
    for each in (index, again):
        each.add(rows[:5] + 1, ids=[f"new{i}" for i in range(5)] if kind == "str" else None)
    assert index.search(queries, 10).ids.tolist() == again.search(queries, 10).ids.tolist()


def small_file(path: Path) -> tuple[bytes, Floats]:
    rows = clustered(24, 3, 6)
    index = made(rows, "l2", M=2, ef_construction=8)
    index.delete([5])
    index.save(path)
    return path.read_bytes(), rows


def answers(index: nf.HNSWIndex, queries: Floats) -> list[object]:
    hits = index.search(queries, 5)
    return [hits.ids.tolist(), hits.scores.tolist(), walked(index, queries, 5, 6).tolist()]


def test_flipped_bits_are_noticed(tmp_path: Path) -> None:
    good, rows = small_file(tmp_path / "good.bin")
    expected = answers(nf.HNSWIndex.load(tmp_path / "good.bin"), rows[:3])
    path = tmp_path / "bad.bin"
    for at in [*range(600), *range(600, len(good), 3)]:
        bad = bytearray(good)
        bad[at] ^= 1 << (at % 8)
        path.write_bytes(bad)
        try:
            index = nf.HNSWIndex.load(path)
        except FormatError:
            continue
        assert answers(index, rows[:3]) == expected, f"byte {at}"


def test_damage_behind_skipped_checksums_never_crashes(tmp_path: Path) -> None:
    good, rows = small_file(tmp_path / "good.bin")
    path = tmp_path / "bad.bin"
    opened = 0
    for at in range(len(good)):
        bad = bytearray(good)
        bad[at] = (0xFF, 0x00, 0x7F, 0x05)[at // 4 % 4 ^ at % 4]  # every place of a number meets every value
        path.write_bytes(bad)
        try:
            index = nf.HNSWIndex.load(path, verify=False)
        except FormatError:
            continue
        opened += 1
        answers(index, rows[:3])
    assert opened > 100  # otherwise nothing was shown


def test_truncations_are_refused(tmp_path: Path) -> None:
    good, _ = small_file(tmp_path / "good.bin")
    path = tmp_path / "short.bin"
    for length in [*range(600), *range(600, len(good), 7), len(good) - 1]:  # the header and the section table wholly
        path.write_bytes(good[:length])
        with pytest.raises(FormatError):
            nf.HNSWIndex.load(path)
