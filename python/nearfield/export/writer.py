"""Writing bundles: a new one in one rename, additions to an existing one in atomic steps; nothing that is not a bundle is ever replaced."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from nearfield._version import __version__
from nearfield.bundle import FORMAT, FORMAT_VERSION, MANIFEST, Bundle, check_manifest, read_manifest, sha256
from nearfield.errors import FormatError, InputError
from nearfield.files import building, is_partial, put_in_place, sync_folder, whole_file

# Files a bundle may carry besides the model: a bundle may hold them unlisted after an interrupted update.
_OWN_EXTRAS = {"README.md", "run.json", "report.html", "golden.npz"}
# What describes the format and the model.
_FIXED = {
    *("format", "format_version", "kind", "fingerprint", "dim", "max_tokens", "pooling", "normalize", "prompts", "files", "query"),
}


class BundleWriter:
    """Makes a bundle in a temporary folder beside ``out`` and moves it into place in one step.

    Put files under ``writer.folder``, then call ``finish(fields)``. Leaving the ``with`` block without ``finish`` (an error, Ctrl-C)
    removes the temporary folder and leaves ``out`` as it was. An existing bundle at ``out`` is replaced; any other non-empty folder, or
    a bundle with files of somebody else's in it, is refused before work starts.

    Raises:
        InputError: ``out`` exists and is not a bundle, or its parent cannot be written.
    """

    def __init__(self, out: str | os.PathLike[str]) -> None:
        self.out = Path(os.path.abspath(out))
        self._stack = ExitStack()

    def __enter__(self) -> BundleWriter:
        check_replaceable(self.out)
        self.folder = self._stack.enter_context(building(self.out))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)

    def finish(self, fields: Mapping[str, Any]) -> Bundle:
        """Hashes and syncs every file, writes the manifest last, moves the folder to ``out`` and opens it."""
        version = FORMAT_VERSION if fields.get("query") is not None else 1
        manifest: dict[str, Any] = {"format": FORMAT, "format_version": version, "nearfield": __version__, **fields}
        manifest["files"] = {name: _describe(self.folder / name) for name in _names(self.folder) if name != MANIFEST}
        _write_manifest(self.folder, manifest)
        for folder, _, _ in os.walk(self.folder):
            sync_folder(Path(folder))
        Bundle.open(self.folder)
        return _place(self.folder, self.out)


def publish(bundle: Bundle, out: str | os.PathLike[str]) -> Bundle:
    """Moves a finished bundle to ``out`` on the same disk in one step and opens it; ``out`` may hold what ``BundleWriter`` replaces."""
    return _place(bundle.path, Path(os.path.abspath(out)))


def _place(folder: Path, out: Path) -> Bundle:
    check_replaceable(out)
    put_in_place(folder, out)
    return Bundle.open(out, verify=False)


def update(bundle: Bundle, *, files: Mapping[str, bytes] | None = None, **fields: Any) -> Bundle:
    """Adds or replaces top-level files (report.html, run.json, README.md) and manifest fields of a bundle, and opens the result.

    Three steps, each atomic: a manifest without the changed files, the files, the final manifest. Whatever interrupts it, the bundle opens.
    The model itself, its exports and what describes the format cannot be changed.

    Args:
        bundle: the bundle to change.
        files: name -> content.
        fields: manifest fields, for example ``metrics=...``, ``verdict=...``; values as JSON has them.

    Raises:
        InputError: a field or file that must not change.
    """
    fixed = _FIXED & set(fields)
    contents = dict(files or {})
    if fixed or not set(contents) <= _OWN_EXTRAS:
        raise InputError(f"{bundle.path}: {sorted(fixed) or sorted(set(contents) - _OWN_EXTRAS)} cannot be changed in a finished bundle")
    manifest = read_manifest(bundle.path)
    if contents:
        kept = {name: entry for name, entry in manifest["files"].items() if name not in contents}
        _write_manifest(bundle.path, {**manifest, "files": kept})
        for name, content in contents.items():
            _write_atomically(bundle.path / name, content)
        manifest["files"] = kept | {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)} for name, content in contents.items()
        }
    _write_manifest(bundle.path, {**manifest, **fields})
    sync_folder(bundle.path)
    return Bundle.open(bundle.path, verify=bundle.verify)


def _names(folder: Path) -> Iterator[str]:
    """Yields the files below ``folder`` as "/"-separated relative names, in a fixed order."""
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            yield (Path(parent) / name).relative_to(folder).as_posix()


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as handle:
        entry = {"sha256": sha256(handle), "size": handle.tell()}
        os.fsync(handle.fileno())
    return entry


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    text = json.dumps(_plain(manifest), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    check_manifest(json.loads(text), str(folder / MANIFEST))
    _write_atomically(folder / MANIFEST, text.encode("utf-8"))


def _plain(value: Any) -> Any:
    """The value as strict JSON has it: a figure that is not a number, such as the mean over no queries, becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_atomically(path: Path, content: bytes) -> None:
    with whole_file(path) as file:
        file.write(content)


def check_replaceable(out: Path) -> None:
    """Refuses to write over anything that is not a bundle with nothing but a bundle's files in it."""
    if out.is_symlink():
        raise InputError(f"{out}: a link; name the folder it points to, or another one")
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out}: a file is in the way; a folder that does not exist yet, or a bundle to replace, expected")
    # What a killed update left unfinished is nobody's.
    names = {name for name in _names(out) if not is_partial(name)}
    if not names and not any(out.iterdir()):
        return
    try:
        listed = set(read_manifest(out)["files"])
    except FormatError:
        raise InputError(f"{out}: exists and is not a bundle that could be replaced; name another folder, or remove it") from None
    foreign = sorted(names - listed - _OWN_EXTRAS - {MANIFEST})
    if foreign:
        raise InputError(
            f"{out}: holds {foreign[0]!r}, which is not part of the bundle there and would be lost; move it or name another folder"
        )
