"""The identity of a document vector space: two models with the same fingerprint may share an index.

It depends on contents, not on how files spell them: saving a model again, in one file or in shards, keeps its fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from nearfield.encode.checkpoint import Checkpoint
from nearfield.encode.spec import ModelSpec, read_json, weights_folder


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
    with Checkpoint(folder) as checkpoint:
        for name, entry in sorted(checkpoint.entries.items()):
            if name.split(".")[0] == "pooler" or "F" not in entry.dtype:  # F32, F16, BF16, F8_E4M3 ...; not I64, U8, BOOL
                continue
            digest.update(_canonical([name, entry.dtype, entry.shape]))
            for chunk in checkpoint.chunks(name):
                digest.update(chunk)
