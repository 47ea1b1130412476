"""The index folder: an index, the texts of its documents, and which model it belongs to.

index.json          format version; the model's path and fingerprint; kind of index; sizes and sha256 of the two files of texts
index.bin           a FlatIndex or HNSWIndex as its ``save`` writes it, with its own checksums
documents.jsonl     one {"_id", "text"} a line, in the order of the index's rows
documents.offsets   little-endian int64, one more than documents: where each line begins, so that one text costs one seek
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nearfield._version import __version__
from nearfield.arrays import as_matrix
from nearfield.errors import FormatError, InputError
from nearfield.files import building, put_in_place, sync_folder, whole_file
from nearfield.progress import progress as show_progress
from nearfield.types import FloatArray

if TYPE_CHECKING:
    from nearfield.index.flat import FlatIndex
    from nearfield.index.hnsw import HNSWIndex

FORMAT = "nearfield-index"
FORMAT_VERSION = 1
INFO, INDEX, TEXTS, OFFSETS = "index.json", "index.bin", "documents.jsonl", "documents.offsets"
# A hostile index.json must not fill memory; an honest one is under a kilobyte.
MAX_INFO_BYTES = 1 << 20

# Exact search over 20,000 rows of 384 float32 reads 31 MB, about 3 ms at 10 GB/s: less than encoding the query takes. Below that a graph
# would save nothing that a user notices, and would give up exactness.
FLAT_BELOW = 20_000
# Rows added between two steps of the bar: about a second of graph building on two cores.
ADD_BLOCK = 4_096


@dataclass(frozen=True)
class IndexFolder:
    """An opened index folder.

    Attributes:
        path: the folder.
        info: the parsed ``index.json``.
        index: the FlatIndex or HNSWIndex.
    """

    path: Path
    info: dict[str, Any] = field(repr=False)
    index: FlatIndex | HNSWIndex = field(repr=False)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, verify: bool = True) -> IndexFolder:
        """Opens an index folder.

        Args:
            path: the folder.
            verify: True hashes the texts and checks the index's checksums; False checks sizes only and opens at once.

        Raises:
            FormatError: no index folder, made by a newer version, or a file missing, truncated or changed.
        """
        folder = Path(path)
        info = read_info(folder)
        for name in (TEXTS, OFFSETS):
            _check_file(folder / name, info["files"][name], verify)
        expected = 8 * (info["documents"] + 1)
        if info["files"][OFFSETS]["size"] != expected:
            raise FormatError(f"{folder / OFFSETS}: {info['files'][OFFSETS]['size']:,} bytes, {expected:,} expected: build the index again")
        index = _index_class(info["kind"]).load(folder / INDEX, verify=verify)
        if len(index) != info["documents"] or (index.fingerprint or "") != info["fingerprint"]:
            raise FormatError(f"{folder / INDEX}: belongs to another {INFO} (documents or model differ): build the index again")
        return cls(folder, info, index)

    @property
    def model(self) -> str:
        """The path or name of the model it was built with."""
        return str(self.info["model"])

    @property
    def fingerprint(self) -> str:
        """The vector space of the rows."""
        return str(self.info["fingerprint"])

    def __len__(self) -> int:
        return int(self.info["documents"])

    def text(self, document: str) -> str:
        """Returns the text of one document: one lookup, one seek, one line.

        Raises:
            InputError: no such document.
            FormatError: the line does not hold it.
        """
        row = self._rows.get(document)
        if row is None:
            raise InputError(f"{self.path}: no document {document!r} in this index")
        begin, end = int(self._offsets[row]), int(self._offsets[row + 1])
        where = self.path / TEXTS
        if not 0 <= begin < end <= self.info["files"][TEXTS]["size"]:
            raise FormatError(f"{self.path / OFFSETS}: document {row} is said to be at bytes {begin} to {end}: build the index again")
        with where.open("rb") as file:
            file.seek(begin)
            line = file.read(end - begin)
        try:
            entry = json.loads(line)
            if entry["_id"] == document and isinstance(entry["text"], str):
                return str(entry["text"])
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        raise FormatError(f"{where}:{row + 1}: does not hold document {document!r}: build the index again")

    @cached_property
    def _offsets(self) -> npt.NDArray[np.int64]:
        return np.fromfile(self.path / OFFSETS, "<i8").astype(np.int64, copy=False)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {str(document): row for row, document in enumerate(self.index.ids)}


def write_index_folder(
    out: str | os.PathLike[str],
    doc_ids: Sequence[str],
    doc_texts: Sequence[str],
    vectors: FloatArray,
    *,
    model: str | os.PathLike[str],
    fingerprint: str,
    threads: int | None = None,
    progress: bool = False,
) -> IndexFolder:
    """Builds the index that fits the number of documents and writes the folder.

    Below 20,000 documents the index is a FlatIndex (exact, and still faster than encoding the query), from there an HNSWIndex. The folder
    appears complete or not at all; an index folder that stands there is replaced, anything else is refused.

    Args:
        out: the folder to make.
        doc_ids: unique ids, ``n`` of them.
        doc_texts: aligned with ``doc_ids``.
        vectors: float32 ``(n, dim)``, aligned with ``doc_ids``.
        model: what made the vectors: an existing path (kept as an absolute one) or a name.
        fingerprint: the model's, kept so that no other model searches the index.
        threads: of the index; None takes the library's default.
        progress: whether building shows itself on stderr.

    Raises:
        InputError: no documents, ids that are not unique, numbers that differ, ``out`` is something else, or it cannot be written.
    """
    out = Path(out).resolve()
    check_replaceable(out)
    vectors = as_matrix(vectors, dim=None, what="vectors")
    if not len(doc_ids):
        raise InputError("documents: none given, at least one expected")
    if not len(doc_ids) == len(doc_texts) == len(vectors):
        raise InputError(
            f"documents: {len(doc_ids)} ids, {len(doc_texts)} texts and {len(vectors)} vectors given, as many of each expected"
        )
    if len(set(doc_ids)) != len(doc_ids):
        raise InputError(f"documents: {len(doc_ids) - len(set(doc_ids))} ids stand twice, unique ids expected")
    kind = "flat" if len(doc_ids) < FLAT_BELOW else "hnsw"
    index = _index_class(kind)(vectors.shape[1], metric="cosine", threads=threads, fingerprint=fingerprint)
    with show_progress(f"indexing {len(doc_ids):,} documents", len(doc_ids), enabled=progress) as bar:
        for start in range(0, len(doc_ids), ADD_BLOCK):
            index.add(vectors[start : start + ADD_BLOCK], list(doc_ids[start : start + ADD_BLOCK]))
            bar.advance(min(ADD_BLOCK, len(doc_ids) - start))
    with building(out) as folder:
        index.save(folder / INDEX)
        texts = _write_texts(folder, doc_ids, doc_texts)
        info = {
            "format": FORMAT, "format_version": FORMAT_VERSION, "made_by": f"nearfield {__version__}", "kind": kind,
            "model": os.path.abspath(model) if Path(model).exists() else os.fspath(model), "fingerprint": fingerprint,
            "dim": vectors.shape[1], "documents": len(doc_ids), "files": {TEXTS: texts, OFFSETS: _describe(folder / OFFSETS)},
        }  # fmt: skip
        _write(folder / INFO, (json.dumps(info, indent=1) + "\n").encode("ascii"))
        sync_folder(folder)
        put_in_place(folder, out)
    return IndexFolder(out, info, index)


def read_info(folder: Path) -> dict[str, Any]:
    """Returns the checked ``index.json`` of a folder, or raises FormatError."""
    where = folder / INFO
    try:
        with where.open("rb") as file:
            data = file.read(MAX_INFO_BYTES + 1)
    except OSError as error:
        raise FormatError(f"{folder}: no {INFO} can be read ({error.strerror}); a folder made by `nearfield index` expected") from None
    try:
        info = json.loads(data[:MAX_INFO_BYTES])
    except (ValueError, RecursionError):
        raise FormatError(f"{where}: is not JSON: build the index again") from None
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise FormatError(f'{where}: not an index folder ("format": "{FORMAT}" expected)')
    version = info.get("format_version")
    if type(version) is not int or version < 1:
        raise FormatError(f"{where}: format_version {version!r:.80} given, a whole number from 1 expected")
    if version > FORMAT_VERSION:
        raise FormatError(
            f"{where}: format version {version}, this nearfield ({__version__}) opens up to {FORMAT_VERSION}: upgrade nearfield"
        )
    for name, kind in (("kind", str), ("model", str), ("fingerprint", str), ("dim", int), ("documents", int), ("files", dict)):
        if type(info.get(name)) is not kind:
            raise FormatError(f"{where}: {name} is {info.get(name)!r:.80}, {kind.__name__} expected: build the index again")
    if info["kind"] not in ("flat", "hnsw") or info["documents"] < 1:
        raise FormatError(f'{where}: kind {info["kind"]!r:.80} of {info["documents"]} documents; "flat" or "hnsw" of at least one expected')
    for name in (TEXTS, OFFSETS):
        entry = info["files"].get(name)
        if not isinstance(entry, dict) or type(entry.get("size")) is not int or not isinstance(entry.get("sha256"), str):
            raise FormatError(f"{where}: size and sha256 of {name} are missing: build the index again")
    return info


def _index_class(kind: str) -> type[FlatIndex | HNSWIndex]:
    if kind == "flat":
        from nearfield.index.flat import FlatIndex

        return FlatIndex
    from nearfield.index.hnsw import HNSWIndex

    return HNSWIndex


def _check_file(path: Path, entry: dict[str, Any], verify: bool) -> None:
    try:
        size = path.stat().st_size
        digest = _describe(path)["sha256"] if verify and size == entry["size"] else None
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}): build the index again") from None
    if size != entry["size"]:
        raise FormatError(f"{path}: {size:,} bytes, {entry['size']:,} expected; truncated or changed: build the index again")
    if verify and digest != entry["sha256"]:
        raise FormatError(f"{path}: sha256 {digest[:16] if digest else ''}..., {entry['sha256'][:16]}... expected; changed or damaged")


def check_replaceable(out: str | os.PathLike[str]) -> None:
    """Raises InputError unless ``out`` is absent, an empty folder or an index folder; for a caller that is about to do long work for it."""
    out = Path(out)
    if out.is_dir() and any(out.iterdir()):
        try:
            read_info(out)
        except FormatError as error:
            # an index of a newer version or with a damaged index.json is still somebody's
            raise InputError(f"{out}: stands there and is not an index folder that can be replaced ({error}): name another") from None
    elif out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file, a folder to make expected: name another")


def _write_texts(folder: Path, ids: Sequence[str], texts: Sequence[str]) -> dict[str, Any]:
    offsets = np.zeros(len(ids) + 1, "<i8")
    with whole_file(folder / TEXTS) as file:
        for row, (document, text) in enumerate(zip(ids, texts, strict=True)):
            # ASCII escapes keep line separators and lone surrogates out of the file
            line = json.dumps({"_id": document, "text": text}).encode("ascii") + b"\n"
            offsets[row + 1] = offsets[row] + file.write(line)
    _write(folder / OFFSETS, offsets.tobytes())
    return _describe(folder / TEXTS)


def _write(path: Path, data: bytes) -> None:
    with whole_file(path) as file:
        file.write(data)


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"size": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
