"""Measuring a tuned model: nDCG@10 query by query on the test split and on the guard, by exact search over the whole corpus."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nearfield.data.dataset import Dataset
from nearfield.metrics import score_run

# Queries whose scores are in memory at once: 256 x 16,000 float32 are 16 MB.
BLOCK = 256
# Values are kept to this many digits: a table of some hundred cells stays below a few megabytes.
DIGITS = 4


class TextVectors(Protocol):
    """What encodes."""

    def encode(self, texts: list[str], *, kind: Any) -> npt.NDArray[np.float32]:
        """Returns unit rows."""


def open_model(folder: Path, device: str) -> TextVectors:
    """Opens a model for measuring: on the GPU in float32, on the CPU in the precision that is fast there (native bf16, else fp32)."""
    if device == "cuda":
        from nearfield.encode.tower import Tower

        return _OnDevice(Tower.load(folder, device=device, attention="sdpa"))
    from nearfield.evaluate.precision import open_for_evaluation

    return open_for_evaluation(folder, "auto")


class _OnDevice:
    """A torch tower with batches that fill a GPU."""

    def __init__(self, tower: Any) -> None:
        self.tower = tower

    def encode(self, texts: list[str], *, kind: Any) -> npt.NDArray[np.float32]:
        vectors: npt.NDArray[np.float32] = self.tower.encode(texts, kind=kind, max_rows=512, max_tokens=65_536)
        return vectors


def ndcg_by_query(
    data: Dataset, split: str, model: TextVectors, adapt: Callable[[Any], Any] | None = None, asking: TextVectors | None = None
) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Returns the ids of the split's queries that have a relevant document, and nDCG@10 of each; ``asking`` encodes queries if given."""
    ids, texts = data.queries_of(split)
    documents, queries = model.encode(data.doc_texts, kind="document"), (asking or model).encode(texts, kind="query")
    queries = queries if adapt is None else adapt(queries)
    ranked: list[list[str]] = []
    for start in range(0, len(queries), BLOCK):
        scores = queries[start : start + BLOCK] @ documents.T
        best = np.argpartition(-scores, min(10, scores.shape[1] - 1), axis=1)[:, :10]
        order = np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable"), axis=1)
        ranked += [[data.doc_ids[place] for place in row] for row in order]
    scored = score_run(ids, ranked, data.qrels[split], k=10, depth=10)
    return scored.query_ids, scored.values["ndcg@10"]


def measure(
    folder: Path, data: Dataset, guard: Dataset | None, device: str, adapt: Callable[[Any], Any] | None = None, queries: Path | None = None
) -> dict[str, Any]:  # fmt: skip
    """Returns for ``test`` and ``guard``: the mean, the values by query, and a digest of the queries' ids that they belong to."""
    model = open_model(folder, device)
    asking = None if queries is None else open_model(queries, device)
    out: dict[str, Any] = {}
    for name, target in (("test", data), ("guard", guard)):
        if target is not None:
            ids, values = ndcg_by_query(target, "test", model, adapt, asking)
            digest = hashlib.sha256("\0".join(ids).encode()).hexdigest()[:16]
            out[name] = {"ndcg": float(values.mean()), "queries": digest, "values": [round(float(v), DIGITS) for v in values]}
    return out
