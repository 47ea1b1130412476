"""The identity of a document vector space: two models with the same fingerprint may share an index.

It depends on contents, not on how files spell them: saving a model again, in one file or in shards, keeps its fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, BinaryIO

from nearfield.encode.spec import ModelSpec, read_json, weights_folder
from nearfield.errors import InputError
from nearfield.modelfiles import check_safetensors, load_json, safetensors_head_bytes

_CHUNK = 1 << 20


def space_fingerprint(model_folder: str | Path, spec: ModelSpec) -> str:
    """sha256 (hex) over weights, tokenizer and what the spec says about documents.

    The query prompt, the backend and the precision take no part: they do not move stored document vectors out of their space. Nor do
    tensors that pooling never sees: the head over the first token (``pooler.*``) and integer buffers such as ``position_ids``.

    Args:
        model_folder: holds ``tokenizer.json`` and ``model.safetensors`` (or its shards).
        spec: as ``read_spec`` gives it.

    Raises:
        InputError: one of the files is missing.
        FormatError: one of the files is damaged.
    """
    folder = weights_folder(Path(model_folder))
    digest = hashlib.sha256(b"nearfield document vector space 1\n")
    said = {
        "dim": spec.dim,
        "max_tokens": spec.max_tokens,
        "normalize": spec.normalize,
        "pooling": spec.pooling,
        "prompt": spec.prompts["document"],
    }
    digest.update(_canonical(said))
    tokenizer = read_json(folder / "tokenizer.json")
    # Padding and truncation are ours, whatever the file says.
    digest.update(_canonical({key: value for key, value in tokenizer.items() if key not in ("padding", "truncation")}))
    _add_weights(digest, folder)
    return digest.hexdigest()


def _canonical(value: object) -> bytes:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")).digest()


def _add_weights(digest: Any, folder: Path) -> None:
    """Feeds name, type, shape and bytes of every tensor that counts, in the order of the names."""
    handles: list[BinaryIO] = []
    try:
        tensors: dict[str, tuple[BinaryIO, int, dict[str, Any]]] = {}
        for path in _weight_files(folder):
            handle = path.open("rb")
            handles.append(handle)
            start, header = _header(handle, path)
            tensors |= {name: (handle, start, entry) for name, entry in header.items() if name != "__metadata__"}
        for name in sorted(tensors):
            source, start, entry = tensors[name]
            if name.split(".")[0] == "pooler" or "F" not in entry["dtype"]:  # F32, F16, BF16, F8_E4M3 ...; not I64, U8, BOOL
                continue
            digest.update(_canonical([name, entry["dtype"], entry["shape"]]))
            _add_bytes(digest, source, start + entry["data_offsets"][0], start + entry["data_offsets"][1])
    except OSError as error:
        raise InputError(
            f"{error.filename}: cannot be read ({error.strerror}); a model folder holds tokenizer.json and model.safetensors"
        ) from None
    finally:
        for opened in handles:
            opened.close()


def _weight_files(folder: Path) -> list[Path]:
    if (folder / "model.safetensors").is_file() or not (folder / "model.safetensors.index.json").is_file():
        return [folder / "model.safetensors"]
    shards = read_json(folder / "model.safetensors.index.json").get("weight_map", {})
    return [folder / Path(str(name)).name for name in sorted(set(shards.values()))]


def _header(handle: BinaryIO, path: Path) -> tuple[int, dict[str, Any]]:
    """Where the tensors start, and the table that describes them."""
    size = path.stat().st_size
    head = handle.read(8)
    start = safetensors_head_bytes(head, size, str(path))
    head += handle.read(start - 8)
    check_safetensors(head, size, str(path))
    table: dict[str, Any] = load_json(head[8:], str(path))
    return start, table


def _add_bytes(digest: Any, handle: BinaryIO, begin: int, end: int) -> None:
    handle.seek(begin)
    while begin < end:
        chunk = handle.read(min(_CHUNK, end - begin))
        if not chunk:
            raise OSError(5, "truncated while being read", handle.name)
        digest.update(chunk)
        begin += len(chunk)
