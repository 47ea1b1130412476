"""From a model folder to the native engine's packed model, through the cache where there is one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from nearfield import _core
from nearfield.encode.cache import cached
from nearfield.encode.checkpoint import Checkpoint
from nearfield.encode.shape import Shape, UnsupportedModelError, read_shape
from nearfield.encode.spec import ModelSpec, weights_folder
from nearfield.encode.weights import expected_tensors, find_weights, read_weights
from nearfield.errors import FormatError
from nearfield.types import FloatArray

# Token ids of texts to rows, one for each.
EncodeIds = Callable[[Sequence[Sequence[int]]], FloatArray]


def open_native_model(
    folder: Path, spec: ModelSpec, precision: str, plan: Sequence[str] = (), *, weights_sha256: str | None = None
) -> tuple[_core.EncoderModel, str]:
    """Packs a model's weights for the native encoder, or finds them packed.

    Args:
        folder: a model folder in the sentence-transformers layout, or a plain one.
        spec: as ``read_spec`` gives it for the folder.
        precision: ``"fp32"``, ``"bf16"`` or ``"int8"``.
        plan: a kind for each linear layer, four for each transformer layer; empty (default): the engine's own.
        weights_sha256: of ``model.safetensors``, where a bundle's manifest has said it and it has been checked; otherwise the file is
            hashed (0.2 s for 90 MB) to find its packed form.

    Returns:
        the model, and the path of the file that it is mapped from, or ``""`` where it was packed in memory.

    Raises:
        UnsupportedModelError: a sound model that the engine does not compute.
        InputError: a missing file, or a plan that does not fit.
        FormatError: a damaged file, or files that do not belong together.
    """
    inner = weights_folder(folder)
    shape = _supported(inner, spec)
    said = _as_said(shape, spec)
    with Checkpoint(inner) as checkpoint:
        find_weights(checkpoint, shape)
        single = weights_sha256 is not None and (inner / "model.safetensors").is_file()
        weights = hashlib.sha256(bytes.fromhex(weights_sha256 or "")).hexdigest() if single else checkpoint.sha256()
        key = {"weights": weights, "shape": said, "precision": precision, "plan": list(plan), "layout": _core.EncoderModel.layout_version}

        def pack() -> _core.EncoderModel:
            # What is packed is kept under its hash for later starts: it has to be what was hashed.
            if single and checkpoint.sha256() != weights:
                raise FormatError(f"{inner / 'model.safetensors'}: it changed after it was checked; open the bundle again")
            return _core.EncoderModel(said, read_weights(checkpoint, shape), precision, list(plan))

        return cached(key, pack, lambda blob: _core.EncoderModel.from_blob(blob.data))


def packer(folder: Path, spec: ModelSpec) -> Callable[[str, Sequence[str]], _core.EncoderModel]:
    """Reads a model's weights once, to pack them in memory several times: ``packer(folder, spec)(precision, plan)``.

    Raises:
        UnsupportedModelError, InputError, FormatError: as ``open_native_model``.
    """
    inner = weights_folder(folder)
    shape = _supported(inner, spec)
    with Checkpoint(inner) as checkpoint:
        weights = read_weights(checkpoint, shape)
    return lambda precision, plan: _core.EncoderModel(_as_said(shape, spec), weights, precision, list(plan))


def ids_encoder(
    folder: Path, spec: ModelSpec, precision: str, threads: int
) -> tuple[tuple[str, ...], Callable[[Mapping[str, FloatArray]], EncodeIds]]:
    """For weights that are in memory: the names of those that take part, and what packs float32 arrays of these names.

    Args:
        folder: a model folder of the same shape; its weights are not read.
        spec: as ``read_spec`` gives it for the folder.
        precision: ``"fp32"``, ``"bf16"`` or ``"int8"``.
        threads: of one call.

    Returns:
        names, and a function from the arrays to one that gives float32 rows for token ids with special tokens.

    Raises:
        UnsupportedModelError, InputError, FormatError: as ``open_native_model``.
    """
    shape = _supported(weights_folder(folder), spec)
    said = _as_said(shape, spec)

    def packed(tensors: Mapping[str, FloatArray]) -> EncodeIds:
        model = _core.EncoderModel(said, dict(tensors), precision, [])

        def encode(ids: Sequence[Sequence[int]]) -> FloatArray:
            offsets = np.zeros(len(ids) + 1, np.int64)
            np.cumsum([len(row) for row in ids], out=offsets[1:])
            return model.encode(np.fromiter(chain.from_iterable(ids), np.int32, int(offsets[-1])), offsets, threads)

        return encode

    return tuple(expected_tensors(shape)), packed


def _supported(inner: Path, spec: ModelSpec) -> Shape:
    shape = read_shape(inner)
    if shape.activation != "gelu":
        raise UnsupportedModelError(
            f"{inner / 'config.json'}: hidden_act {shape.activation}; the native encoder computes gelu by erf alone"
        )
    if spec.dim != shape.width:
        raise FormatError(f"{inner / 'config.json'}: hidden_size {shape.width}, but vectors of {spec.dim} columns are expected")
    return shape


def _as_said(shape: Shape, spec: ModelSpec) -> dict[str, Any]:
    """The shape as the engine takes it."""
    return {
        "layers": shape.layers, "width": shape.width, "heads": shape.heads, "ffn": shape.ffn, "vocab": shape.vocab,
        "positions": shape.positions, "types": shape.types, "eps": shape.eps, "pooling": spec.pooling, "normalize": spec.normalize,
    }  # fmt: skip
