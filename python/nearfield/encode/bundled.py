"""What an encoder takes from a bundle's manifest, and what it does to vectors after a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nearfield.bundle import Bundle
from nearfield.encode.spec import ModelSpec, read_spec
from nearfield.errors import FormatError
from nearfield.types import FloatArray


def mapped(vectors: FloatArray, matrix: FloatArray) -> FloatArray:
    """Unit rows of ``q + q A`` for the unit forms q of ``(n, d)`` rows: a linear adapter's work (``nearfield.tune.adapter``).

    A row at a time, so that a text has the same bits in any batch: BLAS sums a product of many rows in another order than that of one.
    """
    rows = unit_rows(vectors)
    return unit_rows(rows + np.stack([row @ matrix for row in rows])) if len(rows) else rows


def bundle_spec(bundle: Bundle, folder: Path) -> ModelSpec:
    """The spec of a tower of the bundle; FormatError where its files and the manifest say different things."""
    spec = read_spec(folder)
    prompts = {"query": "", "document": ""} | bundle.prompts
    stated = ModelSpec(bundle.dim, bundle.max_tokens, spec.pooling, bundle.normalize, prompts)
    if bundle.pooling != spec.pooling or stated != spec:
        raise FormatError(f"{bundle.path}: the manifest and {folder.name}/ disagree ({stated} and {spec}); export the bundle again")
    return spec


def is_batch_invariant(about: Mapping[str, Any], tower: str) -> bool:
    """Whether the int8 graph was measured to give a text the same vector in any batch; bundles that do not say so count as not."""
    found: Any = about.get("graphs")
    for key in (f"{tower}.int8.onnx", "quantization", "batch_invariant"):
        found = found.get(key) if isinstance(found, dict) else None
    return found is True


def unit_rows(vectors: FloatArray) -> FloatArray:
    """Rows divided by their Euclidean norm; a zero row stays zero."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return (vectors / np.where(norms == 0, 1.0, norms)).astype(np.float32)
