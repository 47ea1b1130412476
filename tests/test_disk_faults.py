"""Disks that are full and places that cannot be written: one line, exit 2, nothing half-written, and what was there before as it was."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import nearfield as nf
from nearfield.bundle import Bundle
from nearfield.cli import main
from nearfield.search.folder import IndexFolder
from tuned_runs import Inputs, digests, figures

Run = Callable[..., tuple[int, str]]
KB = 1024


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process; returns (exit code, stderr)."""

    def call(*words: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        return int(caught.value.code or 0), capsys.readouterr().err

    return call


class Disk:
    """A small file system in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def resize(self, size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", self.folder], check=True)

    def leave(self, free: int) -> None:
        """Makes the disk so small that ``free`` bytes are left on it."""
        used = os.statvfs(self.folder)
        self.resize((used.f_blocks - used.f_bfree) * used.f_frsize + free)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs ({mounted.stderr.strip()}); the tests with a limit on file sizes run instead")
    yield Disk(folder)
    subprocess.run(["umount", "-l", folder], check=True)


def refused(found: tuple[int, str], *words: str) -> str:
    code, err = found
    lines = err.splitlines()
    assert (code, len(lines)) == (2, 1), err
    assert lines[0].startswith("nearfield: ")
    for word in words:
        assert word in lines[0], lines[0]
    return lines[0]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_bundle_on_a_full_disk(run: Run, disk: Disk, tiny_model: Path, tiny_bundle: Path) -> None:
    """At every place where the space may end, the older bundle stays as it was; with room for both, the new one replaces it."""
    out = disk.folder / "bundle"
    shutil.copytree(tiny_bundle, out)
    (out / "README.md").write_text("the older one")  # a file that only the older one has in this form
    before = contents(disk.folder)
    for free in (8 * KB, 60 * KB, 150 * KB, 300 * KB):
        disk.leave(free)
        refused(run("export", tiny_model, "--out", out, "--quiet"), str(out), "No space left on device")
        assert contents(disk.folder) == before
    disk.leave(32 << 20)
    assert run("export", tiny_model, "--out", out, "--quiet")[0] == 0
    assert Bundle.open(out).read("README.md") != b"the older one"
    assert [path.name for path in disk.folder.iterdir()] == ["bundle"]


def test_a_tuning_run_on_a_full_disk_is_resumed_when_there_is_space(
    run: Run, disk: Disk, run_inputs: Inputs, whole_run: Path, tiny_bundle: Path
) -> None:
    out = disk.folder / "bundle"
    shutil.copytree(tiny_bundle, out)
    before = contents(out)
    from nearfield.tune.threads import torch_threads

    threads = json.loads((whole_run / "run.json").read_text())["threads"]["training"]
    with torch_threads(threads):  # bits are the same for the same number; tests before this one may have changed the process's
        # Room for the best weights and not for a checkpoint beside them; then for training and not for the export.
        for more, free in (((), 100 * KB), (("--resume",), 900 * KB)):
            disk.leave(free)
            refused(run(*run_inputs.tune(out, *more)), str(disk.folder), "No space left on device")
            assert contents(out) == before
        disk.leave(32 << 20)
        assert run(*run_inputs.tune(out, "--resume"))[0] in (0, 1)
    assert digests(out) == digests(whole_run)
    assert figures(out) == figures(whole_run)
    assert [path.name for path in disk.folder.iterdir()] == ["bundle"]


def test_vectors_and_an_index_on_a_full_disk(run: Run, disk: Disk, pairs_file: Path, tiny_bundle: Path) -> None:
    vectors, index = disk.folder / "v.npy", disk.folder / "index"
    encode = ("encode", pairs_file, "--model", tiny_bundle, "--out", vectors, "--quiet")
    build = ("index", pairs_file, "--model", tiny_bundle, "--out", index, "--quiet")
    disk.leave(4 * KB)
    refused(run(*encode), str(vectors), "cannot be written")
    refused(run(*build), str(index), "No space left on device")
    assert list(disk.folder.iterdir()) == []
    disk.leave(1 << 20)
    assert run(*encode)[0] == run(*build)[0] == 0
    before = contents(disk.folder)
    for free in (0, 4 * KB, 12 * KB, 20 * KB):
        disk.leave(free)
        refused(run(*build), str(index), "No space left on device")
        assert contents(disk.folder) == before
    disk.leave(4 * KB)
    refused(run(*encode), str(vectors))
    assert contents(disk.folder) == before
    IndexFolder.open(index)


def test_saving_an_index_on_a_full_disk(disk: Disk) -> None:
    rows = np.random.default_rng(0).standard_normal((500, 16)).astype(np.float32)
    for index in (nf.FlatIndex(16), nf.HNSWIndex(16)):
        path = disk.folder / type(index).__name__
        index.add(rows[:100])
        disk.resize(64 << 20)
        index.save(path)
        index.add(rows[100:])
        for free in (0, 4 * KB, 40 * KB):
            disk.leave(free)
            with pytest.raises(nf.InputError, match="No space left on device"):
                index.save(path)
            assert len(type(index).load(path)) == 100
        assert not list(disk.folder.glob("*.tmp"))
        disk.resize(64 << 20)
        index.save(path)
        assert len(type(index).load(path)) == 500


def test_a_cache_on_a_full_disk(disk: Disk, pairs_file: Path, tiny_bundle: Path) -> None:
    disk.leave(4 * KB)
    with pytest.raises(nf.InputError, match="cannot be written"):
        nf.evaluate(pairs_file, tiny_bundle, cache=disk.folder / "cache")
    assert list((disk.folder / "cache").iterdir()) == []


@pytest.fixture
def file_limit() -> Iterator[Callable[[int], None]]:
    """Limits the size of files that this process writes; Linux refuses the rest as it refuses a write to a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_files_that_may_not_grow(
    run: Run, file_limit: Callable[[int], None], tmp_path: Path, pairs_file: Path, tiny_model: Path, tiny_bundle: Path
) -> None:
    """The same without the right to mount."""
    out = tmp_path / "out"
    for words in (
        ("encode", pairs_file, "--model", tiny_bundle, "--out", out, "--quiet"),
        ("index", pairs_file, "--model", tiny_bundle, "--out", out, "--quiet"),
        ("export", tiny_model, "--out", out, "--quiet"),
        ("tune", pairs_file, "--base", tiny_model, "--out", out, "--quiet"),
    ):
        file_limit(4 * KB)
        refused(run(*words), str(out))
        file_limit(resource.RLIM_INFINITY)
        left = [path.name for path in tmp_path.iterdir() if path.name != pairs_file.name]
        assert left == (["out.work"] if words[0] == "tune" else []), "checkpoints stay for --resume"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_result_that_cannot_be_printed() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "nearfield", "info", "--json"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr == "nearfield: standard output or a temporary file: No space left on device\n"


@pytest.fixture
def read_only(disk: Disk) -> Path:
    subprocess.run(["mount", "-o", "remount,ro", disk.folder], check=True)
    return disk.folder


def commands(out: Path, pairs: Path, model: Path, bundle: Path) -> list[tuple[object, ...]]:
    return [
        ("tune", pairs, "--base", model, "--out", out, "--quiet"),
        ("export", model, "--out", out, "--quiet"),
        ("encode", pairs, "--model", bundle, "--out", out, "--quiet"),
        ("index", pairs, "--model", bundle, "--out", out, "--quiet"),
        ("demo", "--quick", "--out", out),
    ]


def test_a_read_only_disk(run: Run, read_only: Path, pairs_file: Path, tiny_model: Path, tiny_bundle: Path) -> None:
    for words in commands(read_only / "out", pairs_file, tiny_model, tiny_bundle):
        refused(run(*words), "Read-only file system", str(read_only))


def test_places_that_cannot_be_written(run: Run, tmp_path: Path, pairs_file: Path, tiny_model: Path, tiny_bundle: Path) -> None:
    """Below a file, where the kernel makes no folders, and with a name that is too long. (root may write what its modes forbid.)"""
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file / "out", Path("/proc/out"), tmp_path / ("x" * 300)):
        for words in commands(out, pairs_file, tiny_model, tiny_bundle):
            refused(run(*words), str(out))
    assert file.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", pairs_file.name]


def test_a_file_where_a_folder_is_expected_and_the_other_way_round(
    run: Run, tmp_path: Path, pairs_file: Path, tiny_model: Path, tiny_bundle: Path
) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("mine")
    folder.mkdir()
    (folder / "letter").write_text("mine")
    for out in (file, folder):
        for words in commands(out, pairs_file, tiny_model, tiny_bundle):
            if (words[0], out) != ("encode", file):  # a file for vectors may be replaced
                refused(run(*words), str(out))
    for words in (
        ("encode", folder, "--model", tiny_bundle, "--out", tmp_path / "v.npy"),
        ("encode", pairs_file, "--model", file, "--out", tmp_path / "v.npy"),
        ("tune", pairs_file, "--base", file, "--out", tmp_path / "b", "--quiet"),
        ("tune", pairs_file, "--base", tiny_model, "--config", folder, "--out", tmp_path / "b", "--quiet"),
        ("tune", pairs_file, "--base", tiny_model, "--guard", folder, "--out", tmp_path / "b", "--quiet"),
        ("search", file, "query"),
        ("search", folder, "query"),
        ("eval", pairs_file, "--model", folder, "--quiet"),
    ):
        refused(run(*words), str(folder) if folder in words else str(file))
    assert contents(tmp_path) == {"file": b"mine", "folder/letter": b"mine", pairs_file.name: pairs_file.read_bytes()}


def test_a_work_folder_that_is_a_file(run: Run, tmp_path: Path, pairs_file: Path, tiny_model: Path) -> None:
    (tmp_path / "b.work").write_text("mine")
    refused(run("tune", pairs_file, "--base", tiny_model, "--out", tmp_path / "b", "--quiet"), "b.work", "cannot be used as a work folder")
    assert (tmp_path / "b.work").read_text() == "mine"
