"""The cache of packed weights: found again, rebuilt when stale or damaged, and never the reason that an encoder does not open."""

from __future__ import annotations

import multiprocessing
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from nearfield import _core
from nearfield.encode.cache import cache_folder, cached
from nearfield.errors import InputError
from nearfield.types import ByteArray

KEY = {"weights": "ab" * 32, "precision": "int8", "layout": 1}
SIZE = 100_003


@dataclass
class Model:
    blob: ByteArray
    packed: bool


def pack(seed: int = 0) -> Model:
    return Model(np.random.default_rng(seed).integers(0, 256, SIZE).astype(np.uint8), packed=True)


def load(blob: ByteArray) -> Model:
    if len(blob) != SIZE:
        raise InputError("not a blob of this test")
    return Model(blob, packed=False)


def refuse() -> Model:
    raise AssertionError("packed again")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NEARFIELD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_packed_once_and_mapped_from_then_on(folder: Path) -> None:
    first, where = cached(KEY, pack, load)
    assert where == str(only_file(folder))
    assert folder.stat().st_mode & 0o777 == 0o700
    again, where_again = cached(KEY, refuse, load)
    assert where_again == where
    for model in (first, again):
        np.testing.assert_array_equal(model.blob, pack().blob)
        assert not model.packed  # both are the file's bytes, which other processes share
        assert not model.blob.flags.writeable
        assert model.blob.ctypes.data % 64 == 0
    assert where in Path("/proc/self/maps").read_text()


def test_every_part_of_the_key_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached(KEY, pack, load)
    for number, change in enumerate(({"weights": "cd" * 32}, {"precision": "bf16"}, {"layout": 2})):
        cached(KEY | change, lambda seed=number + 1: pack(seed), load)
    monkeypatch.setattr("nearfield.encode.cache.__version__", "9.9.9")
    cached(KEY, lambda: pack(9), load)
    assert len(list(folder.iterdir())) == 5
    np.testing.assert_array_equal(cached(KEY, refuse, load)[0].blob, pack(9).blob)


def test_a_file_under_another_key_s_name_is_not_used(folder: Path) -> None:
    cached(KEY, pack, load)
    path = only_file(folder)
    _core.write_container(str(path), "encoder", [("key", b"{}"), ("blob", memoryview(pack(1).blob))])
    np.testing.assert_array_equal(cached(KEY, pack, load)[0].blob, pack().blob)
    cached(KEY, refuse, load)


def test_damage_anywhere_means_packing_again(folder: Path) -> None:
    cached(KEY, pack, load)
    path = only_file(folder)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    places = [*range(0, 400, 7), *rng.integers(0, len(good), 60).tolist()]
    for place in places:
        bad = bytearray(good)
        bad[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        model, where = cached(KEY, pack, load)
        np.testing.assert_array_equal(model.blob, pack().blob)
        assert where
        assert path.read_bytes() == good, place
    for cut in (0, 1, 63, 64, 1000, len(good) - 1):
        path.write_bytes(good[:cut])
        np.testing.assert_array_equal(cached(KEY, pack, load)[0].blob, pack().blob)
        assert path.read_bytes() == good
    path.unlink()
    path.mkdir()  # in the way, and not to be replaced: then in memory
    assert cached(KEY, pack, load)[1] == ""


def test_bytes_that_the_engine_refuses_are_packed_again(folder: Path) -> None:
    cached(KEY, pack, load)
    path = only_file(folder)
    key = _core.Container.open(str(path), "encoder").section("key")
    _core.write_container(str(path), "encoder", [("key", key), ("blob", b"short")])
    assert len(cached(KEY, pack, load)[0].blob) == SIZE
    cached(KEY, refuse, load)


def test_what_packing_raises_is_raised_and_leaves_nothing(folder: Path) -> None:
    def broken() -> Model:
        raise InputError("no such tensor")

    with pytest.raises(InputError, match="no such tensor"):
        cached(KEY, broken, load)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("value", ["", "off"])
def test_no_cache_on_request(value: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("NEARFIELD_CACHE", value)
    model, where = cached(KEY, pack, load)
    assert (model.packed, where) == (True, "")
    assert not folder.exists()


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("NEARFIELD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "nearfield"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "nearfield"
    model, where = cached(KEY, pack, load)
    assert where.startswith(str(tmp_path / "home"))
    assert not model.packed


def test_folders_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "public").mkdir()
    (tmp_path / "public").chmod(0o777)  # others could put weights there
    for name in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "public", Path("/proc/nearfield"), Path("/dev/null/x")):
        monkeypatch.setenv("NEARFIELD_CACHE", str(name))
        model, where = cached(KEY, pack, load)
        assert (model.packed, where) == (True, ""), name
    assert list((tmp_path / "public").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_still_read(monkeypatch: pytest.MonkeyPatch) -> None:
    cached(KEY, pack, load)

    def full(*_: object) -> None:
        raise InputError("cannot be written: No space left on device")

    monkeypatch.setattr("nearfield.encode.cache._core.write_container", full)
    assert cached(KEY, refuse, load)[1]
    model, where = cached(KEY | {"layout": 3}, pack, load)
    assert (model.packed, where) == (True, "")


def test_old_files_go_and_used_ones_stay(folder: Path) -> None:
    cached(KEY, pack, load)
    used = only_file(folder)
    day = 86_400
    for path, age in (
        (used, 200 * day),
        (folder / "0.packed", 200 * day),
        (folder / "1.packed.7.0.tmp", 2 * day),
        (folder / "note", 900 * day),
    ):
        path.touch()
        os.utime(path, (time.time() - age,) * 2)
    cached(KEY, refuse, load)  # opening says that it is used
    cached(KEY | {"layout": 2}, pack, load)
    names = {path.name for path in folder.iterdir()}
    assert used.name in names
    assert "note" in names  # not ours
    assert len(names) == 3


def work(folder: str, start: float, results: multiprocessing.Queue[tuple[bool, int, str]]) -> None:
    os.environ["NEARFIELD_CACHE"] = folder
    times = 0

    def slow() -> Model:
        nonlocal times
        times += 1
        time.sleep(0.3)
        return pack()

    time.sleep(max(0.0, start - time.time()))
    model, where = cached(KEY, slow, load)
    results.put((bool((model.blob == pack().blob).all()), times, where))


def test_processes_that_start_together_pack_once(folder: Path) -> None:
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[tuple[bool, int, str]] = context.Queue()
    workers = [context.Process(target=work, args=(str(folder), time.time() + 0.3, results)) for _ in range(6)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert all(right for right, _, _ in found)
    assert sum(times for _, times, _ in found) == 1
    assert {where for _, _, where in found} == {str(only_file(folder))}


def test_a_lock_that_is_never_given_back_holds_nobody_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    monkeypatch.setattr("nearfield.encode.cache._WAIT_S", 0.05)
    folder.mkdir(mode=0o700)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert cached(KEY, pack, load)[1]
    finally:
        os.close(handle)
