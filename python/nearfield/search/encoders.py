"""What search and evaluation ask of an encoder, and how a path or a name becomes one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

from nearfield.types import FloatArray, Kind


class TextEncoder(Protocol):
    """Any object that turns texts into vectors and knows its vector space; `nearfield.Encoder` is one."""

    @property
    def dim(self) -> int:
        """Columns of every vector."""

    @property
    def fingerprint(self) -> str:
        """What identifies the vector space of documents."""

    @property
    def backend(self) -> str:
        """What computes, for example ``"onnx"``."""

    @property
    def precision(self) -> str:
        """In which numbers, for example ``"fp32"``."""

    @property
    def truncated(self) -> int:
        """Texts cut to the model's length in this thread's last call."""

    def encode(self, texts: Sequence[str], *, kind: Kind = "document", progress: bool = False) -> FloatArray:
        """Returns float32 ``(n, dim)``."""


# What a caller may name a model by.
Model = str | os.PathLike[str] | TextEncoder


def open_encoder(model: Model, *, threads: int | None = None) -> TextEncoder:
    """Returns ``model`` itself where it encodes, else `nearfield.Encoder` of the bundle, the model folder or the name.

    Raises:
        InputError, FormatError: what `nearfield.Encoder` raises for a path that holds no model.
    """
    if isinstance(model, (str, os.PathLike)):
        from nearfield.encode.encoder import Encoder

        return Encoder(os.fspath(model), threads=threads)
    return model


def model_name(model: Model) -> str:
    """How messages and reports call it: the path or name as given, or the fingerprint's first digits.

    >>> model_name("bundle")
    'bundle'
    """
    if isinstance(model, (str, os.PathLike)):
        return os.fspath(model)
    return str(getattr(model, "name", "") or f"model {model.fingerprint[:12]}")
