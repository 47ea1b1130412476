"""The bundle: one folder that holds a model, its exports and what was measured about it.

It opens only when every byte is what its manifest says. Reading needs numpy and the standard library alone; making and updating bundles is
``nearfield.export.writer``'s job. Nothing is pickled, and no listed file may leave the folder.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nearfield._version import __version__
from nearfield.arrays import read_npz
from nearfield.errors import FormatError
from nearfield.modelfiles import check_onnx, check_safetensors, load_json, safetensors_head_bytes
from nearfield.types import FloatArray

FORMAT = "nearfield-bundle"
# 2: with a query side. A bundle without one is written as 1, so that earlier versions open it; they would encode queries of a 2 wrongly.
FORMAT_VERSION = 2
MANIFEST = "manifest.json"

# A manifest with full metrics is some ten kilobytes; the limit keeps a hostile one from filling memory.
MAX_MANIFEST_BYTES = 4 << 20
MAX_FILES = 1_000
MAX_GOLDEN_BYTES = 64 << 20
# 4,096 dimensions in float32.
MAX_MAP_BYTES = 64 << 20
QUERY_MAP = "query-map.npz"
_CHUNK = 1 << 20
_OPEN_FLAGS = (
    os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
)


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        path: the folder.
        manifest: the parsed ``manifest.json``; see docs/formats.md for its fields.
        verify: whether contents were checked against their hashes.

    Every refusal is a FormatError of one line that names the file.
    """

    path: Path
    manifest: dict[str, Any] = field(repr=False)
    verify: bool = True

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, verify: bool = True) -> Bundle:
        """Opens a bundle folder and checks it.

        Args:
            path: the folder; it may be reached through a link, what is inside may not be one.
            verify: True (the default: a damaged weight gives plausible, wrong vectors) hashes every listed file and walks the ONNX and
                safetensors structure, about 0.1 s per 100 MB; False checks manifest, presence, kind and size only.

        Raises:
            FormatError: no bundle, made by a newer version, or anything missing, changed, linked, or leading out of the folder.
        """
        folder = Path(path)
        bundle = cls(folder, read_manifest(folder), verify)
        for name in bundle.manifest["files"]:
            if verify:
                bundle._check_content(name)
            else:
                bundle.file(name)
        return bundle

    @staticmethod
    def is_bundle(path: str | os.PathLike[str]) -> bool:
        """Says whether ``path`` is a folder with a manifest, so that opening it as a bundle makes sense."""
        return (Path(path) / MANIFEST).is_file()

    def __contains__(self, name: str) -> bool:
        return name in self.manifest["files"]

    def file(self, name: str) -> Path:
        """Returns the path of a listed file after checking that it is a plain file of the stated size, reached through no link.

        >>> Bundle(Path("b"), {"files": {}}).file("onnx/model.onnx")
        Traceback (most recent call last):
        nearfield.errors.FormatError: b: the bundle has no file 'onnx/model.onnx'
        """
        if name not in self.manifest["files"]:
            raise FormatError(f"{self.path}: the bundle has no file {name!r}")
        path = self.path
        parts = name.split("/")
        for i, part in enumerate(parts):
            path = path / part
            try:
                info = os.lstat(path)
            except OSError as error:
                raise FormatError(f"{path}: listed in {MANIFEST} but cannot be read: {error.strerror}; make the bundle again") from None
            self._check_kind(path, info, folder=i + 1 < len(parts))
        self._check_size(name, info.st_size)
        return path

    def read(self, name: str) -> bytes:
        """Returns the bytes of a listed file; with ``verify``, the very bytes returned are the ones hashed."""
        with self._open_checked(name) as handle:
            data = handle.read(self.manifest["files"][name]["size"] + 1)
        self._check_size(name, len(data))
        if self.verify:
            self._check_hash(name, hashlib.sha256(data).hexdigest())
        return data

    def read_model(self, name: str) -> bytes:
        """Returns the bytes of an ONNX model that is well-formed and refers to no other file; for ``onnxruntime.InferenceSession``."""
        data = self.read(name)
        check_onnx(data, str(self.path / name))
        return data

    def golden(self, name: str = "golden.npz") -> tuple[list[str], FloatArray]:
        """Returns the golden texts and their float32 vectors, shape ``(n, dim)``, computed in torch when the bundle was made.

        ``"golden-query.npz"`` has those of a query side, as queries.
        """
        data, where = self.read(name), self.path / name
        texts, vectors = read_npz(io.BytesIO(data), ("texts", "vectors"), where=str(where), max_bytes=MAX_GOLDEN_BYTES)
        if texts.dtype.kind != "U" or texts.ndim != 1 or vectors.dtype != np.float32 or vectors.shape != (len(texts), self.dim):
            raise FormatError(f"{where}: texts {texts.shape} and vectors {vectors.shape} do not belong to {self.dim} dimensions")
        return [str(text) for text in texts], vectors

    @property
    def query(self) -> dict[str, Any] | None:
        """What the manifest says of the query side; None where queries go the way of documents.

        ``tower``: whether ``query/`` holds a second model; ``map``: whether a matrix is applied to the queries' vectors.
        """
        return self.manifest.get("query")

    def query_map(self) -> FloatArray | None:
        """Returns the matrix A by which a query's unit vector q becomes q + q A, float32 ``(dim, dim)``; None where there is none."""
        if self.query is None or not self.query["map"]:
            return None
        data, where = self.read(QUERY_MAP), self.path / QUERY_MAP
        (matrix,) = read_npz(io.BytesIO(data), ("matrix",), where=str(where), max_bytes=MAX_MAP_BYTES)
        if matrix.dtype != np.float32 or matrix.shape != (self.dim, self.dim) or not np.isfinite(matrix).all():
            raise FormatError(f"{where}: {matrix.dtype} of shape {matrix.shape}; finite float32 ({self.dim}, {self.dim}) expected")
        return matrix

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the document vector space."""
        return str(self.manifest["fingerprint"])

    @property
    def dim(self) -> int:
        """Columns of every vector."""
        return int(self.manifest["dim"])

    @property
    def max_tokens(self) -> int:
        """Tokens after which a text is cut, special tokens included."""
        return int(self.manifest["max_tokens"])

    @property
    def pooling(self) -> str:
        """``"mean"``, ``"cls"`` or ``"last"``."""
        return str(self.manifest["pooling"])

    @property
    def normalize(self) -> bool:
        """Whether the model ends in normalization to unit length."""
        return bool(self.manifest["normalize"])

    @property
    def prompts(self) -> dict[str, str]:
        """What is put before a text, by kind (``"query"``, ``"document"``)."""
        return dict(self.manifest["prompts"])

    def _open_checked(self, name: str) -> io.BufferedReader:
        path = self.file(name)
        try:
            handle = os.fdopen(os.open(path, _OPEN_FLAGS), "rb")
        except OSError as error:
            raise FormatError(f"{path}: cannot be opened: {error.strerror}") from None
        self._check_kind(path, os.fstat(handle.fileno()), folder=False)
        return handle

    def _check_kind(self, path: Path, info: os.stat_result, *, folder: bool) -> None:
        if stat.S_ISLNK(info.st_mode):
            raise FormatError(f"{path}: a symbolic link inside a bundle; copy the file instead of linking it")
        if not (stat.S_ISDIR(info.st_mode) if folder else stat.S_ISREG(info.st_mode)):
            raise FormatError(f"{path}: not a plain {'folder' if folder else 'file'}")

    def _check_size(self, name: str, size: int) -> None:
        expected = self.manifest["files"][name]["size"]
        if size != expected:
            raise FormatError(f"{self.path / name}: {size:,} bytes, {expected:,} expected; truncated or changed: make the bundle again")

    def _check_hash(self, name: str, digest: str) -> None:
        expected = self.manifest["files"][name]["sha256"]
        if digest != expected:
            raise FormatError(f"{self.path / name}: sha256 {digest[:16]}..., {expected[:16]}... expected; the file was changed or damaged")

    def _check_content(self, name: str) -> None:
        """Hashes one listed file and checks the structure of model files."""
        if name.endswith(".onnx"):
            self.read_model(name)
            return
        size = self.manifest["files"][name]["size"]
        with self._open_checked(name) as handle:
            self._check_hash(name, sha256(handle))
            if name.endswith(".safetensors"):
                handle.seek(0)
                where = str(self.path / name)
                head = handle.read(8)
                head += handle.read(safetensors_head_bytes(head, size, where) - 8)
                check_safetensors(head, size, where)


def read_manifest(folder: Path) -> dict[str, Any]:
    where = folder / MANIFEST
    try:
        if not stat.S_ISREG(os.lstat(where).st_mode):
            raise FormatError(f"{where}: not a plain file")
        with os.fdopen(os.open(where, _OPEN_FLAGS), "rb") as handle:
            data = handle.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        made_by = "a bundle folder, as `nearfield tune` and `nearfield export` make it, expected"
        raise FormatError(f"{folder}: no {MANIFEST} can be read ({error.strerror}); {made_by}") from None
    if len(data) > MAX_MANIFEST_BYTES:
        raise FormatError(f"{where}: more than {MAX_MANIFEST_BYTES:,} bytes; not a bundle's manifest")
    manifest = load_json(data, str(where))
    check_manifest(manifest, str(where))
    return dict(manifest)


def check_manifest(manifest: Any, where: str) -> None:
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise FormatError(f'{where}: not a nearfield bundle ("format": "{FORMAT}" expected)')
    version = manifest.get("format_version")
    if type(version) is not int or version < 1:
        raise FormatError(f"{where}: format_version {version!r:.80} given, a whole number from 1 expected")
    if version > FORMAT_VERSION:
        raise FormatError(
            f"{where}: format version {version}, this nearfield ({__version__}) opens up to {FORMAT_VERSION}; upgrade nearfield"
        )
    for name, (expected, holds) in _FIELDS.items():
        if name not in manifest:
            raise FormatError(f"{where}: {name} is missing, {expected} expected")
        if not holds(manifest[name]):
            raise FormatError(f"{where}: {name} is {manifest[name]!r:.80}, {expected} expected")
    _check_query(manifest, version, where)
    if len(manifest["files"]) > MAX_FILES:
        raise FormatError(f"{where}: {len(manifest['files']):,} files listed, at most {MAX_FILES:,} expected")
    for name, entry in manifest["files"].items():
        _check_name(name, where)
        if not _is_entry(entry):
            raise FormatError(f"{where}: files[{name!r:.80}] is not a table of sha256 (64 hex digits) and size (bytes)")


def _check_query(manifest: dict[str, Any], version: int, where: str) -> None:
    """A query side is what it says, and a bundle with one says so in its format version, so that no earlier reader leaves it out."""
    query = manifest.get("query")
    if (query is not None) != (version >= 2):
        has = "with" if query is not None else "without"
        raise FormatError(f"{where}: format version {version} {has} a query side; 1 is without, 2 with")
    if query is None:
        return
    if not isinstance(query, dict) or not all(isinstance(query.get(name), bool) for name in ("tower", "map")):
        raise FormatError(f"{where}: query is {query!r:.80}, a table with tower and map, true or false, expected")
    if not (query["tower"] or query["map"]):
        raise FormatError(f"{where}: query says neither tower nor map; leave it out where queries go the way of documents")
    needed = ["query/model.safetensors"] * query["tower"] + [QUERY_MAP] * query["map"]
    for name in needed:
        if name not in manifest["files"]:
            raise FormatError(f"{where}: query needs {name}, which is not among the files")


def _check_name(name: str, where: str) -> None:
    """Refuses a listed path that could mean anything but a file inside the folder, on any operating system."""
    parts = name.split("/")
    plain = 0 < len(name) <= 1024 and name.isprintable() and not any(c in name for c in "\\:") and name != MANIFEST
    if not plain or any(part in ("", ".", "..") for part in parts):
        raise FormatError(f"{where}: the listed path {name!r:.80} is not a plain relative one inside the bundle")


def _is_hex(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def _is_entry(value: object) -> bool:
    return isinstance(value, dict) and _is_hex(value.get("sha256")) and type(value.get("size")) is int and 0 <= value["size"] < 1 << 62


def _is_texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _is_table_or_null(value: object) -> bool:
    return value is None or isinstance(value, dict)


_FIELDS: dict[str, tuple[str, Any]] = {
    "kind": ('"encoder" (other kinds need a newer nearfield)', lambda v: v == "encoder"),
    "fingerprint": ("64 hex digits", _is_hex),
    "dim": ("a whole number from 1 to 65,536", lambda v: type(v) is int and 1 <= v <= 65_536),
    "max_tokens": ("a whole number from 1 to 1,048,576", lambda v: type(v) is int and 1 <= v <= 1 << 20),
    "pooling": ('"mean", "cls" or "last"', lambda v: v in ("mean", "cls", "last")),
    "normalize": ("true or false", lambda v: isinstance(v, bool)),
    "prompts": ("a table of texts", _is_texts),
    "files": ("a table of files", lambda v: isinstance(v, dict)),
    "parity": ("a table", lambda v: isinstance(v, dict)),
    "metrics": ("a table or null", _is_table_or_null),
    "verdict": ("a table or null", _is_table_or_null),
}


def sha256(handle: io.BufferedReader) -> str:
    digest = hashlib.sha256()
    while chunk := handle.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
