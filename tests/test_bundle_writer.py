"""Writing bundles: all or nothing, whatever interrupts it, and never over anything else."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from nearfield import files
from nearfield.bundle import Bundle
from nearfield.errors import FormatError, InputError
from nearfield.export.writer import BundleWriter, update

pytest.importorskip("onnx")

from bundles import external_tensor, refusal_of, small_onnx, write


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write(tmp_path / "b")


def test_update_adds_files_and_fields(bundle: Bundle) -> None:
    changed = update(bundle, files={"report.html": b"<p>", "README.md": b"# new"}, metrics={"ndcg@10": 0.5}, verdict={"answer": "ship"})
    assert changed.read("report.html") == b"<p>"
    again = Bundle.open(bundle.path)
    assert again.read("README.md") == b"# new"
    assert again.manifest["metrics"] == {"ndcg@10": 0.5}
    assert again.manifest["verdict"] == {"answer": "ship"}
    assert set(again.manifest["files"]) == set(bundle.manifest["files"]) | {"report.html"}


def test_figures_that_are_no_numbers_become_null(bundle: Bundle) -> None:
    update(bundle, metrics={"a": float("nan"), "b": [float("inf"), 1.5, "NaN"], "c": (1, None, True)})
    assert Bundle.open(bundle.path).manifest["metrics"] == {"a": None, "b": [None, 1.5, "NaN"], "c": [1, None, True]}


def test_update_keeps_the_model(bundle: Bundle) -> None:
    with pytest.raises(InputError, match="cannot be changed"):
        update(bundle, files={"onnx/model.onnx": b""})
    with pytest.raises(InputError, match="cannot be changed"):
        update(bundle, fingerprint="cd" * 32)


def test_an_interrupted_update_leaves_a_bundle_that_opens(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.replace
    for stop in range(4):
        calls = 0

        def replace(source: Any, target: Any, stop: int = stop) -> None:
            nonlocal calls
            if calls == stop:
                raise KeyboardInterrupt
            calls += 1
            real(source, target)

        monkeypatch.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            update(bundle, files={"README.md": b"# changed", "report.html": b"<p>"}, metrics={})
        monkeypatch.setattr(os, "replace", real)
        Bundle.open(bundle.path)
    assert (
        Bundle.open(update(bundle, files={"README.md": b"# changed", "report.html": b"<p>"}, metrics={}).path).read("report.html") == b"<p>"
    )


@pytest.mark.parametrize(
    ("call", "existing"),
    [("fsync", False), ("fsync", True), ("rename", False), ("rename", True), ("replace", False), ("replace", True), ("_exchange", True)],
)
def test_an_interrupted_write_changes_nothing(tmp_path: Path, existing: bool, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C at the n-th call of a system function, for every n that a write reaches."""
    if call == "rename":  # the way without an exchange, as on NFS
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    home: Any = files if call == "_exchange" else os
    real = getattr(home, call)
    for stop in range(100):
        folder = tmp_path / str(stop)
        if existing:
            write(folder / "b", dim=3)
        calls = 0

        def fail(*args: Any, stop: int = stop) -> Any:
            nonlocal calls
            calls += 1
            if calls == stop + 1:
                raise KeyboardInterrupt
            return real(*args)

        interrupted = False
        with monkeypatch.context() as patch:
            patch.setattr(home, call, fail)
            try:
                write(folder / "b", dim=5)
            except KeyboardInterrupt:
                interrupted = True
        left = [entry.name for entry in folder.iterdir()]
        assert left in ([], ["b"]), "nothing temporary is left"
        if not interrupted:
            assert stop > 0
            assert Bundle.open(folder / "b").dim == 5
            return
        assert not existing or left, "the old bundle is there"
        # The very last sync comes after the new bundle is in place.
        assert not left or Bundle.open(folder / "b").dim in ((3, 5) if existing else (5,))
    pytest.fail("a write of a small bundle takes fewer calls")


@pytest.mark.parametrize(
    ("call", "moment"), [("_exchange", "before"), ("_exchange", "after"), ("rmtree", "before"), ("rmtree", "half-way"), ("rmtree", "after")]
)
def test_a_kill_at_the_publication_leaves_the_old_or_the_new_bundle(tmp_path: Path, call: str, moment: str) -> None:
    """A child is killed at the system call that replaces, or while the old bundle is removed."""
    write(tmp_path / "b", dim=3)
    home: Any = files if call == "_exchange" else files.shutil
    real = getattr(home, call)

    def killed(*args: Any, **options: Any) -> Any:
        if moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        if moment == "half-way":
            (Path(args[0]) / "manifest.json").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        real(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        setattr(home, call, killed)
        write(tmp_path / "b", dim=5)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert Bundle.open(tmp_path / "b").dim == (3 if (call, moment) == ("_exchange", "before") else 5)
    assert write(tmp_path / "b", dim=7).dim == 7, "what is left over is in nobody's way"


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        assert "no manifest.json" in str(refusal_of(Bundle.open, folder))
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write(tmp_path / "b", fail)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_replaced_whole(bundle: Bundle) -> None:
    update(bundle, files={"report.html": b"<p>"})
    assert write(bundle.path, dim=7).dim == 7
    assert not (bundle.path / "report.html").exists()
    assert [entry.name for entry in bundle.path.parent.iterdir()] == ["b"]


def test_nothing_else_is_replaced(bundle: Bundle, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write(other)  # an empty folder is fine
    (other / "notes.txt").write_text("mine")
    file = tmp_path / "file"
    file.write_text("mine")
    (tmp_path / "link").symlink_to(bundle.path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("mine")
    (tmp_path / "nested" / "empty").mkdir(parents=True)
    for out, says in (
        (other, "notes.txt"),
        (file, "a file"),
        (tmp_path / "link", "a link"),
        (tmp_path / "photos", "not a bundle"),
        (tmp_path / "nested", "not a bundle"),
    ):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(InputError, match=says):
            BundleWriter(out).__enter__()
        assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "b"

    def meanwhile(_: Path) -> None:
        out.mkdir()
        (out / "mine.txt").write_text("mine")

    with pytest.raises(InputError, match="not a bundle"):
        write(out, meanwhile)
    assert (out / "mine.txt").read_text() == "mine"
    assert [entry.name for entry in tmp_path.iterdir()] == ["b"]


def test_models_with_external_data_never_enter_a_bundle(tmp_path: Path) -> None:
    def spoil(folder: Path) -> None:
        model = small_onnx()
        model.graph.initializer.append(external_tensor())
        (folder / "onnx" / "model.onnx").write_bytes(model.SerializeToString())

    with pytest.raises(FormatError, match="external data"):
        write(tmp_path / "b", spoil)
    assert list(tmp_path.iterdir()) == []
