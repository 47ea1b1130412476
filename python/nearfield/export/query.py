"""A bundle's query side: a second tower, a map of query vectors, or both; the documents' vectors stay those of ``model/``."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nearfield.bundle import QUERY_MAP, Bundle
from nearfield.config import ExportConfig
from nearfield.encode.bundled import mapped
from nearfield.encode.fingerprint import space_fingerprint
from nearfield.encode.tower import Tower
from nearfield.errors import InputError
from nearfield.export.copy import copy_model
from nearfield.export.fp32 import write_fp32
from nearfield.export.int8 import NAME, make_int8
from nearfield.export.onnx_graph import GraphRunner, count_nodes
from nearfield.types import FloatArray, Kind

if TYPE_CHECKING:
    from nearfield.data.dataset import Dataset

GOLDEN_TEXTS = 8
# A golden text is checked at load; a long one would only make that slow.
GOLDEN_CHARACTERS = 2_000


def query_side(
    documents: Tower, folder: Path, model: str | Path | None, matrix: FloatArray | None, texts: Sequence[str], settings: ExportConfig, *,
    all_texts: Sequence[str], data: Dataset | None, exporter: str, progress: bool,
) -> dict[str, Any]:  # fmt: skip
    """Writes ``query/``, ``onnx/query*.onnx``, ``query-map.npz`` and ``golden-query.npz`` as far as they are asked for.

    Args:
        documents: the tower of ``folder/model``, whose graph is ``folder/onnx/model.onnx`` already.
        folder: of the bundle.
        model: the model folder of the second tower, or None.
        matrix: float32 ``(dim, dim)``, or None.
        texts, settings, all_texts, data, exporter, progress: as ``export_bundle`` has them.

    Returns:
        ``{"query": ...}`` for the manifest; nothing where neither is given.

    Raises:
        InputError: a model whose vectors cannot be compared with the documents', or a map of another shape.
    """
    if model is None and matrix is None:
        return {}
    said: dict[str, Any] = {"tower": model is not None, "map": matrix is not None}
    tower = documents
    if model is not None:
        copy_model(Path(model), folder / "query")
        tower = Tower.load(folder / "query")
        tower.folder = Path(model)  # errors name what the caller gave
        _check_same_space(documents, tower)
        said |= {"fingerprint": space_fingerprint(folder / "query", tower.spec)}
        said |= _graphs(documents, tower, folder, texts, settings, all_texts=all_texts, data=data, exporter=exporter, progress=progress)
    if matrix is not None:
        _write_map(matrix, tower.spec.dim, folder / QUERY_MAP)
    said["golden"] = write_golden(tower, texts, folder / "golden-query.npz", kind="query", matrix=matrix)
    return {"query": said}


def query_side_of(checkpoint: str | Path) -> dict[str, Any]:
    """``query_model`` and ``query_map`` for ``export_bundle`` as a bundle has them, so that exporting it again loses neither; else nothing.

    Raises:
        FormatError: a damaged bundle.
    """
    if not Bundle.is_bundle(checkpoint):
        return {}
    bundle = Bundle.open(checkpoint)
    if bundle.query is None:
        return {}
    return {"query_model": bundle.path / "query" if bundle.query["tower"] else None, "query_map": bundle.query_map()}


def _graphs(
    documents: Tower, tower: Tower, folder: Path, texts: Sequence[str], settings: ExportConfig, *, all_texts: Sequence[str],
    data: Dataset | None, exporter: str, progress: bool,
) -> dict[str, Any]:  # fmt: skip
    """The tower's fp32 and int8 graphs, checked as the documents' are; int8 is measured on queries against fp32 documents."""
    onnx = folder / "onnx"
    work = onnx / "query"
    work.mkdir()
    fp32 = write_fp32(tower, texts, work, exporter)
    made_by = {"exporter": fp32.exporter, "fused_offline": fp32.fused_offline}
    graphs: dict[str, Any] = {"query.onnx": {**made_by, "nodes": count_nodes(work / "model.onnx")}}
    parity: dict[str, Any] = {"fp32": fp32.parity}
    native: dict[str, Any] = {}
    if settings.int8 != "none":
        made = make_int8(
            tower, work, texts, settings, all_texts=all_texts, data=data, corpus=(documents, GraphRunner(onnx / "model.onnx")),
            progress=progress,
        )  # fmt: skip
        graphs["query.int8.onnx"], parity["int8"] = {**graphs["query.onnx"], **made.graph}, made.parity
        (work / NAME).replace(onnx / "query.int8.onnx")
        native = native_plan(tower, folder / "query", texts)
    (work / "model.onnx").replace(onnx / "query.onnx")
    work.rmdir()
    return {"graphs": graphs, "parity": parity, **native}


def _check_same_space(documents: Tower, tower: Tower) -> None:
    if dataclasses.asdict(documents.spec) != dataclasses.asdict(tower.spec):
        raise InputError(
            f"{tower.folder}: {tower.spec} given for queries, {documents.spec} expected, as the documents' tower {documents.folder} has it"
        )


def _write_map(matrix: FloatArray, dim: int, path: Path) -> None:
    if matrix.shape != (dim, dim) or matrix.dtype != np.float32 or not np.isfinite(matrix).all():
        raise InputError(f"query map: {matrix.dtype} of shape {matrix.shape} given, finite float32 ({dim}, {dim}) expected")
    buffer = io.BytesIO()
    np.savez(buffer, matrix=matrix)
    path.write_bytes(buffer.getvalue())


def write_golden(
    tower: Tower, texts: Sequence[str], path: Path, *, kind: Kind = "document", matrix: FloatArray | None = None
) -> dict[str, int]:
    """Writes the first texts and their vectors in torch, which ``Encoder.self_check`` compares; returns what the manifest says of them."""
    golden = [text[:GOLDEN_CHARACTERS] for text in texts[:GOLDEN_TEXTS]]
    vectors = tower.encode(golden, kind=kind)
    buffer = io.BytesIO()
    np.savez(buffer, texts=np.array(golden), vectors=vectors if matrix is None else mapped(vectors, matrix))
    path.write_bytes(buffer.getvalue())
    return {"texts": len(golden)}


def native_plan(tower: Tower, folder: Path, texts: Sequence[str]) -> dict[str, Any]:
    """What the native encoder's int8 keeps in bf16, for the manifest; nothing for a model or on a CPU where that cannot be said."""
    from nearfield.encode.native_plan import can_measure, measure_plan
    from nearfield.encode.shape import UnsupportedModelError

    if not can_measure():
        return {}
    try:
        return {"native": measure_plan(folder, tower.spec, tower.tokenizer(list(texts)).ids)}
    except UnsupportedModelError:
        return {}
