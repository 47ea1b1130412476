"""A file of texts to a file of vectors, or to an index folder, in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nearfield.config import EvaluationPrecision
from nearfield.data.dataset import Dataset, Finding
from nearfield.data.read import read
from nearfield.files import whole_file
from nearfield.record import check_file
from nearfield.types import Kind

if TYPE_CHECKING:
    from nearfield.encode.encoder import PrecisionName

OnFindings = Callable[[list[Finding]], None]


def encode_file(
    texts: str | Path, model: str, out: Path, *, kind: Kind = "document", precision: PrecisionName = "auto",
    device: str = "cpu", columns: Mapping[str, str] | None = None,
    threads: int | None = None, progress: bool = True, on_findings: OnFindings | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Encodes the documents of a file into a .npy file, which appears only when it is complete.

    Args:
        precision, device: as ``Encoder`` takes them.

    Returns:
        ``rows``, ``dim``, ``truncated`` (texts cut to ``max_tokens``), ``max_tokens``, ``backend``, ``precision``.
        Where rows had to be left out, ``on_findings`` is told, and the vectors follow the rows that were kept.

    Raises:
        InputError: unreadable texts or model, or an ``out`` that cannot be written.
    """
    from nearfield.encode.encoder import Encoder

    check_file(out, ".npy")
    dataset = _read(texts, columns, on_findings)
    with Encoder(model, precision=precision, threads=threads, device=device) as encoder:
        vectors = encoder.encode(dataset.doc_texts, kind=kind, progress=progress)
        done = {
            "rows": len(vectors), "dim": encoder.dim, "truncated": encoder.truncated, "max_tokens": encoder.max_tokens,
            "backend": encoder.backend, "precision": encoder.precision,
        }  # fmt: skip
    with whole_file(out) as file:
        np.save(file, vectors, allow_pickle=False)
    return done


def index_file(
    data: str | Path | Dataset, model: str, out: Path, *, columns: Mapping[str, str] | None = None, threads: int | None = None,
    progress: bool = True, cache: str | Path | None = None, on_findings: OnFindings | None = None,
    precision: EvaluationPrecision = "fp32",
) -> dict[str, Any]:  # fmt: skip
    """Encodes documents and writes an index folder that ``nearfield search`` and ``Searcher`` open.

    Args:
        precision: of the documents' vectors, as ``TuneConfig.evaluation``; the one whose vectors ``cache`` holds.

    Returns:
        ``documents``, ``index`` (what kind was built), ``truncated``.

    Raises:
        InputError: unreadable data or model, or an ``out`` that is something else.
    """
    from nearfield.evaluate.precision import open_for_evaluation
    from nearfield.evaluate.run import corpus_vectors
    from nearfield.search.folder import check_replaceable, write_index_folder

    check_replaceable(out)
    dataset = _read(data, columns, on_findings)
    with open_for_evaluation(model, precision, threads=threads) as encoder:
        vectors, truncated, _ = corpus_vectors(dataset.doc_texts, encoder, cache=cache, show=progress)
        opened = write_index_folder(
            out,
            dataset.doc_ids,
            dataset.doc_texts,
            vectors,
            model=model,
            fingerprint=encoder.fingerprint,
            threads=threads,
            progress=progress,
        )
    return {"documents": len(dataset.doc_ids), "index": type(opened.index).__name__, "truncated": truncated}


def _read(data: str | Path | Dataset, columns: Mapping[str, str] | None, on_findings: OnFindings | None) -> Dataset:
    dataset = read(data, columns=columns)
    if dataset.findings and on_findings is not None:
        on_findings(dataset.findings)
    return dataset
