"""HNSWIndex on disk: the same bytes for any number of threads, round trips, and damage of every kind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

import nearfield as nf
from nearfield import _core
from nearfield.errors import FormatError, InputError
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


def test_every_byte_flipped_is_noticed_or_means_nothing(tmp_path: Path) -> None:
    good, rows = small_file(tmp_path / "good.bin")
    expected = answers(nf.HNSWIndex.load(tmp_path / "good.bin"), rows[:3])
    path = tmp_path / "bad.bin"
    path.write_bytes(good)
    harmless = 0
    with path.open("r+b") as file:
        for at in range(len(good)):
            for flip in (1 << at % 8, 0xFF):
                write_at(file, at, bytes([good[at] ^ flip]))
                try:
                    index = nf.HNSWIndex.load(path)
                except FormatError:
                    continue
                assert answers(index, rows[:3]) == expected, f"byte {at}"
                harmless += 1
            write_at(file, at, good[at : at + 1])
    assert harmless < len(good) / 5  # the gaps between sections


def write_at(file: BinaryIO, at: int, content: bytes) -> None:
    file.seek(at)
    file.write(content)
    file.flush()


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


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    good, _ = small_file(tmp_path / "good.bin")
    path = tmp_path / "short.bin"
    path.write_bytes(good)
    for length in reversed(range(len(good))):
        os.truncate(path, length)
        for verify in (True, False):
            with pytest.raises(FormatError):
                nf.HNSWIndex.load(path, verify=verify)
    path.write_bytes(good + b"\0")
    with pytest.raises(FormatError):
        nf.HNSWIndex.load(path)


def test_no_count_in_a_file_makes_it_ask_for_memory_that_the_file_does_not_have(tmp_path: Path) -> None:
    """Every number of the graph's head made large, in a process that may have 64 MB more than it has: FormatError, never MemoryError."""
    small_file(tmp_path / "good.bin")
    code = """
import resource, struct, sys
from pathlib import Path
import nearfield as nf
from nearfield import _core
from nearfield.errors import FormatError, InputError
path = Path(sys.argv[1])
good = path.read_bytes()
nf.HNSWIndex.load(path)
entries = [good[at:at + 48] for at in range(64, 64 + 48 * struct.unpack_from("<I", good, 12)[0], 48)]
head = next(struct.unpack_from("<Q", entry, 24)[0] for entry in entries if entry.startswith(b"graph\\0"))
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
resource.setrlimit(resource.RLIMIT_AS, (int(status["VmSize"].split()[0]) * 1024 + 2**26,) * 2)
refused = 0
for at in range(head, head + 48, 4):
    for value in (1, 2**16, 2**24, 2**31 - 2, 2**32 - 1):
        bad = bytearray(good)
        struct.pack_into("<I", bad, at, value)
        path.write_bytes(bad)
        try:
            nf.HNSWIndex.load(path, verify=False)
        except FormatError:
            refused += 1
print(refused)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "good.bin")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30


GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", ["hnsw-3", "hnsw-4"])
def test_a_file_of_this_version_opens_and_answers_as_when_it_was_written(name: str, tmp_path: Path) -> None:
    """Written by ``tests/golden/make.py``. A later layout gets a file of its own; this one must open for as long as it can be read."""
    expected = json.loads((GOLDEN / f"{name}.json").read_text())
    for mmap in (True, False):
        index = nf.HNSWIndex.load(GOLDEN / f"{name}.bin", mmap=mmap)
        assert [index.dim, index.metric, index.M, index.ef_construction, index.seed, index.fingerprint] == expected["settings"]
        assert index.alpha == expected.get("alpha", 1)
        assert list(index.ids) == expected["ids"]
        queries = np.array(expected["queries"], np.float32)
        found = index.search(queries, 5, ef=8)
        assert [found.ids.tolist(), found.scores.tolist()] == expected["found"]
        assert walked(index, queries, 5, 8).tolist() == expected["walked"]
        assert index.get(expected["ids"]).tobytes().hex() == expected["rows"]
    index.save(tmp_path / "again.bin")
    again, golden = (_core.Container.open(str(path), "hnsw") for path in (tmp_path / "again.bin", GOLDEN / f"{name}.bin"))
    for section in ("graph", "rows", "centre", "links0", "upper", "levels", "deleted", "id_bytes", "id_ends"):
        assert again.section(section) == golden.section(section)


def test_a_file_left_by_a_killed_process_with_the_same_pid_is_in_nobodys_way(tmp_path: Path) -> None:
    rows = clustered(20, 4, 1)
    index = made(rows)
    for number in range(3000):
        (tmp_path / f"i.bin.{os.getpid()}.{number}.tmp").touch()
    index.save(tmp_path / "i.bin")
    assert len(nf.HNSWIndex.load(tmp_path / "i.bin")) == 20
    assert len(list(tmp_path.iterdir())) == 3001
    with pytest.raises(InputError, match="cannot be written"):
        index.save(tmp_path / "none" / "i.bin")


def killed_while_saving(folder: Path, kills: int) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("killed_saves.py"), str(folder), str(kills)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    counts: dict[str, int] = json.loads(done.stdout)
    assert counts["killed"] == kills
    assert counts["unfinished"] >= kills // 4, counts  # so many fell into the writing
    assert counts["one"] + counts["other"] == kills
    assert min(counts["one"], counts["other"]) > 0
    return counts


def test_killed_while_saving(tmp_path: Path) -> None:
    killed_while_saving(tmp_path, 20)


@pytest.mark.slow
def test_killed_while_saving_200_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = killed_while_saving(tmp_path, 200)
    with capsys.disabled():
        print(f"\n{counts}")
