"""Tensors of a model folder's safetensors, read with numpy alone: no torch, no safetensors package.

Nothing is mapped: a file that is cut short while it is mapped ends the process, while one that is read ends in an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from nearfield.encode.spec import read_json
from nearfield.errors import FormatError, InputError
from nearfield.modelfiles import check_safetensors, load_json, safetensors_head_bytes
from nearfield.types import AnyArray, FloatArray

# The types that weights come in, with what numpy reads them as: it has no bfloat16.
FLOATS: dict[str, np.dtype[Any]] = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a tensor lies.

    Attributes:
        dtype: as safetensors names it: ``"F32"``, ``"BF16"``, ``"I64"`` ...
        shape: extents, slowest first.
        file: which of the checkpoint's files.
        begin, end: its bytes in that file.
    """

    dtype: str
    shape: tuple[int, ...]
    file: int
    begin: int
    end: int


class Checkpoint:
    """The open weight files of a folder: ``model.safetensors``, or the shards that ``model.safetensors.index.json`` lists.

    Attributes:
        entries: every tensor by its name; each lies inside its file, at the size its shape and type say.

    Raises:
        InputError: a file is missing or cannot be read.
        FormatError: a header that does not describe its file, or a tensor that two shards hold.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: dict[str, Entry] = {}
        self._files: list[BinaryIO] = []
        try:
            for path in weight_files(folder):
                self._add(path)
        except OSError as error:
            self.close()
            raise InputError(
                f"{error.filename}: cannot be read ({error.strerror}); a model folder holds tokenizer.json and model.safetensors"
            ) from None
        except BaseException:
            self.close()
            raise

    def _add(self, path: Path) -> None:
        handle = path.open("rb")
        self._files.append(handle)
        size = path.stat().st_size
        head = handle.read(8)
        start = safetensors_head_bytes(head, size, str(path))
        head += handle.read(start - 8)
        check_safetensors(head, size, str(path))
        table: dict[str, Any] = load_json(head[8:], str(path))
        for name, said in table.items():
            if name == "__metadata__":
                continue
            if name in self.entries:
                raise FormatError(f"{path}: tensor {name!r:.80} lies in another shard too; save the model again")
            begin, end = said["data_offsets"]
            self.entries[name] = Entry(said["dtype"], tuple(said["shape"]), len(self._files) - 1, start + begin, start + end)

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yields the bytes of a tensor, a MiB at a time."""
        entry = self.entries[name]
        handle = self._files[entry.file]
        handle.seek(entry.begin)
        left = entry.end - entry.begin
        while left > 0:
            chunk = handle.read(min(_CHUNK, left))
            if not chunk:
                raise FormatError(f"{handle.name}: it became shorter while it was read")
            yield chunk
            left -= len(chunk)

    def read(self, name: str) -> FloatArray:
        """One tensor as float32, C-contiguous and writable; float16 and bfloat16 are widened exactly, float64 is rounded.

        Raises:
            FormatError: a type that holds no weights (integers, 8-bit floats), NaN, infinity, or a value beyond float32.
        """
        entry = self.entries[name]
        where = f"{self._files[entry.file].name}: tensor {name!r:.80}"
        dtype = FLOATS.get(entry.dtype)
        if dtype is None:
            raise FormatError(f"{where} is of type {entry.dtype}; F32, F16, BF16 or F64 expected")
        values: AnyArray = np.empty(entry.shape, dtype)
        into, at = values.reshape(-1).view(np.uint8), 0
        for chunk in self.chunks(name):
            into[at : at + len(chunk)] = np.frombuffer(chunk, np.uint8)
            at += len(chunk)
        with np.errstate(over="ignore"):
            weights: FloatArray = (values.astype("<u4") << 16).view("<f4") if entry.dtype == "BF16" else values.astype("<f4", copy=False)
        if not np.isfinite(weights).all():
            raise FormatError(f"{where} holds NaN, infinity or a value beyond float32: it is damaged, take another copy")
        return weights

    def sha256(self) -> str:
        """sha256 (hex) over the bytes of every file, in their order: the identity of these weights as they are saved."""
        digest = hashlib.sha256()
        for handle in self._files:
            handle.seek(0)
            part = hashlib.sha256()
            while chunk := handle.read(_CHUNK):
                part.update(chunk)
            digest.update(part.digest())
        return digest.hexdigest()

    def close(self) -> None:
        """Closes the files. Closing twice is fine."""
        for handle in self._files:
            handle.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def weight_files(folder: Path) -> list[Path]:
    """``model.safetensors``, or its shards in the order of their names; none of them outside the folder.

    Raises:
        FormatError: an index that is no table of names.
    """
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not index.is_file():
        return [folder / "model.safetensors"]
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise FormatError(f"{index}: weight_map: an object of tensor names and file names expected")
    return [folder / Path(name).name for name in sorted(set(shards.values()))]
