"""The container: what is written is what is read; every flipped byte and every truncation is an error or changes nothing."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest

import nearfield as nf
from nearfield import _core


@pytest.fixture
def small(tmp_path: Path) -> Path:
    index = nf.FlatIndex(3, metric="ip")
    index.add(np.arange(12, dtype=np.float32).reshape(4, 3), ids=["a", "b", "cé", "d"])
    index.save(tmp_path / "small.nf")
    return tmp_path / "small.nf"


def answer(path: Path, **options: bool) -> list[object]:
    hits = nf.FlatIndex.load(path, **options).search(np.ones(3, np.float32), 3)
    return [hits.ids.tolist(), hits.scores.tolist()]


def test_sections_come_back(tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    _core.write_container(path, "thing", [("one", b"abc"), ("two", np.arange(5)), ("none", b"")])
    for mmap in (True, False):
        file = _core.Container.open(path, "thing", mmap)
        assert file.section("one") == b"abc"
        assert file.section("none") == b""
        assert not file.has("three")
        numbers = file.array("two", np.dtype("<i8"))
        del file
        assert numbers.tolist() == [0, 1, 2, 3, 4]  # the array keeps the file open
        assert not numbers.flags.writeable
        assert numbers.ctypes.data % 64 == 0


def test_the_layout_is_the_documented_one(small: Path) -> None:
    data = small.read_bytes()
    assert data[:8] == b"NEARFLD\n"
    version, sections, kind, length = struct.unpack_from("<II8sQ", data, 8)
    assert (version, kind, length) == (1, b"flat\0\0\0\0", len(data))
    table_crc, header_crc = struct.unpack_from("<II", data, 32)
    assert header_crc == _core.crc32c(data[:36])
    assert table_crc == _core.crc32c(data[64 : 64 + 48 * sections])
    names = []
    for i in range(sections):
        name, offset, size, crc, _ = struct.unpack_from("<24sQQII", data, 64 + 48 * i)
        names.append(name.rstrip(b"\0").decode())
        assert offset % 64 == 0
        assert crc == _core.crc32c(data[offset : offset + size])
    assert names == ["meta", "id_bytes", "id_ends", "rows", "tile_norms", "codes", "code_scales", "code_errors", "code_squares"]


@pytest.mark.parametrize("mmap", [True, False])
def test_every_flipped_byte_is_an_error(small: Path, mmap: bool) -> None:
    data = small.read_bytes()
    for at in range(len(data)):
        for flip in (0x01, 0xFF) if mmap else (0x80,):
            damaged = bytearray(data)
            damaged[at] ^= flip
            small.write_bytes(damaged)
            with pytest.raises(nf.FormatError):
                nf.FlatIndex.load(small, mmap=mmap)


def test_every_truncation_is_an_error(small: Path) -> None:
    data = small.read_bytes()
    for length in range(len(data)):
        small.write_bytes(data[:length])
        for verify in (True, False):
            with pytest.raises(nf.FormatError):
                nf.FlatIndex.load(small, verify=verify)
    small.write_bytes(data + b"\0")
    with pytest.raises(nf.FormatError, match="truncated or extended"):
        nf.FlatIndex.load(small)


def test_unverified_damage_never_crashes(small: Path) -> None:
    """verify=False: any byte may be anything; loading either refuses or searches to some answer of the right shape."""
    data = small.read_bytes()
    for at in range(len(data)):
        for value in (0x00, 0xFF):
            damaged = bytearray(data)
            damaged[at] = value
            small.write_bytes(damaged)
            try:
                index = nf.FlatIndex.load(small, verify=False)
            except nf.FormatError:
                continue
            assert index.search(np.full(index.dim, 0.5, np.float32), 3).ids.shape == (1, 3)


def test_unverified_rows_of_nan_and_infinity_never_crash(tmp_path: Path) -> None:
    for dim, metric in [(4, "cosine"), (4, "ip"), (4, "l2")]:
        index = nf.FlatIndex(dim, metric=metric)  # type: ignore[arg-type]
        index.add(np.ones((2000, dim), np.float32))
        path = tmp_path / "odd.nf"
        index.save(path)
        data = bytearray(path.read_bytes())
        offset, size = next(
            struct.unpack_from("<QQ", data, 64 + 48 * i + 24) for i in range(8) if data[64 + 48 * i :].startswith(b"rows\0")
        )
        odd = np.random.default_rng(0).choice(np.array([np.nan, np.inf, -np.inf, 1, 3e38], np.float32), size // 4)
        data[offset : offset + size] = odd.tobytes()
        path.write_bytes(data)
        loaded = nf.FlatIndex.load(path, verify=False)
        for k in (1, 10, 2000):
            assert loaded.search(np.ones((3, dim), np.float32), k, bias=np.ones(2000, np.float32)).counts.tolist() == [k] * 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: b"PK\x03\x04" + data[4:], "not a nearfield file"),
        (lambda data: data[:8] + struct.pack("<I", 99) + data[12:], "format version 99"),
        (lambda data: data[:30], "not a nearfield file"),
        (lambda data: b"", "not a nearfield file"),
        (lambda data: data[:-64], "truncated"),
        (lambda data: data[:-1] + b"x", "checksum of section|not zero"),
    ],
)
def test_the_reason_is_named(small: Path, change: object, reason: str) -> None:
    small.write_bytes(change(small.read_bytes()))  # type: ignore[operator]
    with pytest.raises(nf.FormatError, match=reason) as caught:
        nf.FlatIndex.load(small)
    assert str(small) in str(caught.value)


def test_a_folder_and_a_missing_file_and_another_kind(tmp_path: Path) -> None:
    with pytest.raises(nf.FormatError, match="not a file"):
        nf.FlatIndex.load(tmp_path)
    with pytest.raises(nf.FormatError, match="No such file"):
        nf.FlatIndex.load(tmp_path / "none")
    _core.write_container(str(tmp_path / "x"), "hnsw", [])
    with pytest.raises(nf.FormatError, match="holds a 'hnsw' index, 'flat' expected"):
        nf.FlatIndex.load(tmp_path / "x")


def test_lies_inside_a_valid_container_are_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "lies")
    good = {"dim": 3, "metric": "ip", "storage": "float32", "count": 2, "ids": "int", "fingerprint": None}
    rows, norms, ids = np.zeros((2, 3), np.float32), np.zeros(1, np.float32), np.arange(2)
    # One block of sixteen rows, one group of four dimensions.
    packed: dict[str, object] = {"codes": np.zeros(64, np.int8)}
    packed |= {f"code_{name}": np.zeros(16, np.float32) for name in ("scales", "errors", "squares")}

    def write(meta: object, rows: object = rows, norms: object = norms, ids: object = ids, **parts: object) -> None:
        import json

        text = meta if isinstance(meta, bytes) else json.dumps(meta).encode()
        sections = {"meta": text, "ids": ids, "rows": rows, "tile_norms": norms, **packed, **parts}
        _core.write_container(path, "flat", list(sections.items()))  # type: ignore[arg-type]

    write(good)
    assert len(nf.FlatIndex.load(path)) == 2
    lies: list[object] = [b"", b"[]", b"{", b"[" * 100_000, {}, b"\xff"]
    wrong = {
        "dim": [0, -1, 70000, "3", None, 2**70],
        "metric": ["dot", 1],
        "storage": ["int4"],
        "count": [-1, 3, 2**60, 1.5],
        "ids": ["x", 3],
        "fingerprint": [3],
    }
    lies += [{**good, name: value} for name, values in wrong.items() for value in values]
    for lie in lies:
        write(lie)
        with pytest.raises(nf.FormatError):
            nf.FlatIndex.load(path)
    for norms_lie in (np.full(1, np.nan, np.float32), np.full(1, -1, np.float32), np.zeros(2, np.float32)):
        write(good, norms=norms_lie)
        with pytest.raises(nf.FormatError, match="tile_norms"):
            nf.FlatIndex.load(path)
    for name in packed:
        write(good, **{name: np.zeros(15, np.float32)})
        with pytest.raises(nf.FormatError, match=name):
            nf.FlatIndex.load(path)
    # Codes that say anything at all may spoil an answer, never the process.
    query, hostile = np.ones((1, 3), np.float32), np.full(16, np.nan, np.float32)
    for name in ("code_scales", "code_errors", "code_squares"):
        write(good, **{name: hostile})
        assert nf.FlatIndex.load(path).search(query, 2).ids.shape == (1, 2)
    write(good, ids=np.arange(3))
    with pytest.raises(nf.FormatError, match="ids"):
        nf.FlatIndex.load(path)


def test_saving_replaces_atomically_and_leaves_nothing_behind(tmp_path: Path, small: Path) -> None:
    before = answer(small)
    mapped = nf.FlatIndex.load(small)
    other = nf.FlatIndex(3)
    other.add(np.eye(3, dtype=np.float32))
    other.save(small)
    assert [mapped.search(np.ones(3, np.float32), 3).ids.tolist()] == before[:1]  # the old file lives as long as it is mapped
    assert len(nf.FlatIndex.load(small)) == 3
    assert os.listdir(tmp_path) == ["small.nf"]
    with pytest.raises(nf.InputError, match="cannot be written"):
        other.save(tmp_path / "no folder" / "x.nf")


def test_a_mapped_index_can_be_saved_over_itself_and_grow(small: Path) -> None:
    index = nf.FlatIndex.load(small)
    index.save(small)
    index.add(np.full((1, 3), 50, np.float32), ids=["new"])
    index.delete(["a"])
    index.save(small)
    assert nf.FlatIndex.load(small, mmap=False).ids.tolist() == ["b", "cé", "d", "new"]
