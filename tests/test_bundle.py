"""Opening bundles: what opens, what is refused, and why."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearfield.arrays import read_npz
from nearfield.bundle import FORMAT_VERSION, MANIFEST, MAX_MANIFEST_BYTES, Bundle
from nearfield.errors import FormatError
from nearfield.export.writer import update

pytest.importorskip("onnx")

from bundles import FIELDS, refusal_of, small_onnx, write


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write(tmp_path / "b")


def edit_manifest(bundle: Bundle, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle.path / MANIFEST
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def refusal(path: Path, *, verify: bool = True) -> str:
    text = refusal_of(Bundle.open, path, verify=verify)
    assert text is not None
    assert len(text) < 400 + len(str(path))
    return text


def test_round_trip(bundle: Bundle) -> None:
    again = Bundle.open(str(bundle.path))
    assert (again.fingerprint, again.dim, again.max_tokens, again.pooling, again.normalize) == ("ab" * 32, 3, 8, "mean", True)
    assert again.prompts == {"query": "q: ", "document": ""}
    assert again.read("README.md") == b"# model\n"
    assert again.file("onnx/model.onnx").read_bytes() == again.read_model("onnx/model.onnx") == small_onnx().SerializeToString()
    texts, vectors = again.golden()
    assert texts == ["a", "bc"]
    assert np.array_equal(vectors, np.eye(2, 3))
    assert "onnx/model.onnx" in again
    assert "onnx/other.onnx" not in again
    assert Bundle.is_bundle(bundle.path)
    assert not Bundle.is_bundle(bundle.path.parent)
    assert [entry.name for entry in bundle.path.parent.iterdir()] == ["b"], "temporary folders are gone"


def test_a_link_to_the_whole_bundle_is_fine(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(bundle.path)
    assert Bundle.open(tmp_path / "current").dim == 3


def test_unlisted_files_are_tolerated_and_never_used(bundle: Bundle) -> None:
    (bundle.path / "onnx" / "model.int8.onnx").write_bytes(b"whatever")
    again = Bundle.open(bundle.path)
    for use in (again.file, again.read, again.read_model):
        with pytest.raises(FormatError, match=r"has no file 'onnx/model.int8.onnx'"):
            use("onnx/model.int8.onnx")


def test_every_changed_byte_position_is_noticed(bundle: Bundle) -> None:
    chance = random.Random(0)
    for name in bundle.manifest["files"]:
        path = bundle.path / name
        original = path.read_bytes()
        for place in {0, len(original) - 1, *(chance.randrange(len(original)) for _ in range(3))}:
            path.write_bytes(original[:place] + bytes([original[place] ^ 1]) + original[place + 1 :])
            text = refusal(bundle.path)
            assert name in text
            assert "sha256" in text
            assert Bundle.open(bundle.path, verify=False).dim == 3
        for damaged in (original[:-1], original + b"x", b""):
            path.write_bytes(damaged)
            assert "bytes" in refusal(bundle.path)
            assert "truncated or changed" in refusal(bundle.path, verify=False)
        path.write_bytes(original)
    Bundle.open(bundle.path)


def test_a_missing_file_is_named(bundle: Bundle) -> None:
    for name in list(bundle.manifest["files"]):
        kept = (bundle.path / name).read_bytes()
        (bundle.path / name).unlink()
        assert f"{bundle.path / name}: listed in manifest.json but cannot be read" in refusal(bundle.path, verify=False)
        (bundle.path / name).write_bytes(kept)


def test_links_inside_are_refused_at_every_level(bundle: Bundle, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.move(bundle.path / "onnx", outside)
    (bundle.path / "onnx").symlink_to(outside)
    assert "symbolic link" in refusal(bundle.path, verify=False)
    (bundle.path / "onnx").unlink()
    (bundle.path / "onnx").mkdir()
    (bundle.path / "onnx" / "model.onnx").symlink_to(outside / "model.onnx")
    assert "symbolic link" in refusal(bundle.path, verify=False)
    # A link swapped in after opening is noticed as well.
    (bundle.path / "onnx" / "model.onnx").unlink()
    shutil.copy(outside / "model.onnx", bundle.path / "onnx" / "model.onnx")
    opened = Bundle.open(bundle.path)
    (bundle.path / "onnx" / "model.onnx").unlink()
    (bundle.path / "onnx" / "model.onnx").symlink_to(outside / "model.onnx")
    with pytest.raises(FormatError, match="symbolic link"):
        opened.read_model("onnx/model.onnx")


def test_a_linked_manifest_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    shutil.move(bundle.path / MANIFEST, tmp_path / "m.json")
    (bundle.path / MANIFEST).symlink_to(tmp_path / "m.json")
    assert "not a plain file" in refusal(bundle.path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_special_files_are_refused_without_waiting(bundle: Bundle) -> None:
    (bundle.path / "README.md").unlink()
    os.mkfifo(bundle.path / "README.md")
    assert "not a plain file" in refusal(bundle.path)
    (bundle.path / MANIFEST).unlink()
    os.mkfifo(bundle.path / MANIFEST)
    assert "not a plain file" in refusal(bundle.path)


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "a/../../x",
        "/etc/passwd",
        "a//b",
        "./a",
        "a/.",
        "",
        "a\\..\\b",
        "C:x",
        "a\x00b",
        "a\nb",
        MANIFEST,
        "x" * 1025,
        "\ud800",
        "a/",
    ],
)
def test_paths_that_are_not_plain_are_refused(bundle: Bundle, name: str) -> None:
    edit_manifest(bundle, lambda m: m["files"].update({name: {"sha256": "0" * 64, "size": 0}}))
    assert "not a plain relative one" in refusal(bundle.path, verify=False)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.update(format_version=FORMAT_VERSION + 1), "upgrade nearfield"),
        (lambda m: m.update(format_version="1"), "whole number"),
        (lambda m: m.update(format_version=True), "whole number"),
        (lambda m: m.update(format_version=0), "whole number"),
        (lambda m: m.pop("format_version"), "whole number"),
        (lambda m: m.update(format="other"), "not a nearfield bundle"),
        (lambda m: m.update(kind="reranker"), "kind is 'reranker'"),
        (lambda m: m.update(dim=0), "dim is 0"),
        (lambda m: m.update(dim=3.0), "dim is 3.0"),
        (lambda m: m.update(dim=True), "dim is True"),
        (lambda m: m.update(max_tokens=-1), "max_tokens"),
        (lambda m: m.update(pooling=["mean"]), "pooling"),
        (lambda m: m.update(normalize=1), "normalize"),
        (lambda m: m.update(prompts={"query": 3}), "prompts"),
        (lambda m: m.update(fingerprint="AB" * 32), "fingerprint"),
        (lambda m: m.update(files=[]), "files is []"),
        (lambda m: m["files"].update(x=None), "files['x']"),
        (lambda m: m["files"].update(x={"sha256": "0" * 64, "size": -1}), "files['x']"),
        (lambda m: m["files"].update(x={"sha256": "0" * 63, "size": 1}), "files['x']"),
        (lambda m: m["files"].update({f"f{i}": {"sha256": "0" * 64, "size": 1} for i in range(1001)}), "at most 1,000"),
        (lambda m: m.update(metrics=3), "metrics"),
        *((lambda m, name=name: m.pop(name), f"{name} is missing") for name in FIELDS),
    ],
)
def test_manifests_of_wrong_content(bundle: Bundle, change: Callable[[dict[str, Any]], object], says: str) -> None:
    edit_manifest(bundle, change)
    assert says in refusal(bundle.path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"[]", "not a nearfield bundle"),
        (b"null", "not a nearfield bundle"),
        (b'{"format": "a", "format": "b"}', "twice"),
        (b'{"dim": NaN}', "NaN"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"dim": ' + b"9" * 5000 + b"}", "not JSON"),
        (b" " * (MAX_MANIFEST_BYTES + 1), "more than"),
    ],
)
def test_manifests_that_are_no_json(bundle: Bundle, content: bytes, says: str) -> None:
    (bundle.path / MANIFEST).write_bytes(content)
    assert says in refusal(bundle.path)


def test_truncated_manifests(bundle: Bundle) -> None:
    whole = (bundle.path / MANIFEST).read_bytes()
    for size in range(0, len(whole) - 2, 7):
        (bundle.path / MANIFEST).write_bytes(whole[:size])
        assert "not JSON" in refusal(bundle.path)


def test_what_is_no_bundle(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "missing")
    assert "no manifest.json can be read" in refusal(tmp_path)


def test_mutated_manifests_open_or_are_refused(bundle: Bundle) -> None:
    chance = random.Random(1)
    whole = (bundle.path / MANIFEST).read_bytes()
    opened = 0
    for _ in range(1_000):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(data))
            data[place : place + chance.choice([0, 1, 1, 5])] = chance.randbytes(chance.choice([0, 1, 1, 2]))
        (bundle.path / MANIFEST).write_bytes(data)
        opened += refusal_of(Bundle.open, bundle.path, verify=False) is None
    assert 0 < opened < 500


def test_golden_without_pickles(bundle: Bundle) -> None:
    for arrays in (
        {"texts": np.array([{"a": 1}], object), "vectors": np.eye(1, 3, dtype=np.float32)},
        {"texts": np.array(["a"])},
        {"texts": np.array(["a"]), "vectors": np.eye(1, 4, dtype=np.float32)},
    ):
        np.savez(bundle.path / "new.npz", **arrays)
        changed = update(bundle, files={"golden.npz": (bundle.path / "new.npz").read_bytes()})
        with pytest.raises(FormatError, match=r"golden\.npz"):
            changed.golden()
    with pytest.raises(FormatError, match=r"golden\.npz"):
        update(bundle, files={"golden.npz": b"PK\x03\x04 no archive"}).golden()


def test_an_archive_larger_than_allowed_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, texts=np.zeros(100_000))  # 800 kB in some hundred bytes
    for file in (path, io.BytesIO(path.read_bytes())):
        with pytest.raises(FormatError, match=r"^x\.npz: cannot be read: more than 10,000 bytes unpacked$"):
            read_npz(file, ("texts",), where="x.npz", max_bytes=10_000)
    assert read_npz(path, ("texts",), where="x.npz", max_bytes=1_000_000)[0].shape == (100_000,)


def test_a_flipped_byte_in_an_archive_is_a_format_error() -> None:
    """Compressed, so that zlib has its say too; 12 and 14 ask for other compressions, odd flags for a password."""
    made = io.BytesIO()
    np.savez_compressed(made, texts=np.array(["a", "bc"]), vectors=np.eye(2, 3, dtype=np.float32))
    data, refused = made.getvalue(), 0
    for at in range(len(data)):
        for value in {data[at] ^ 1, data[at] ^ 0xFF, 12, 14}:
            damaged = bytearray(data)
            damaged[at] = value
            try:
                read_npz(io.BytesIO(bytes(damaged)), ("texts", "vectors"), where="x.npz")
            except FormatError as error:
                refused += str(error).startswith("x.npz: ")
    assert refused > len(data)  # the rest flips dates and other bytes that mean nothing
