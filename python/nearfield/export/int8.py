"""The int8 graph of a bundle: embeddings, products, what they cost, and which products had to stay in float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nearfield.config import ExportConfig
from nearfield.encode.batches import Forward
from nearfield.encode.tower import Tower
from nearfield.export.calibrate import activation_ranges, calibration_texts
from nearfield.export.gate import sentence, settle
from nearfield.export.onnx_graph import GraphRunner, count_nodes
from nearfield.export.parity import FP32_LIMIT, RetrievalLoss, batch_difference, cosines, encode
from nearfield.export.parts import EMBEDDINGS
from nearfield.export.products import products
from nearfield.export.quantize import SETTINGS, Ranges, quantize, quantize_embeddings
from nearfield.types import FloatArray

if TYPE_CHECKING:
    from nearfield.data.dataset import Dataset

# Quantized embedding tables are taken when they leave at least this mean cosine to fp32; all-MiniLM-L6-v2 measures 0.9997.
EMBEDDING_COSINE = 0.998
# Sensitivities only have to rank: 16 texts for each of some 25 products take a quarter of a minute.
SENSITIVITY_TEXTS = 16
NAME = "model.int8.onnx"


@dataclass(frozen=True)
class Int8Graph:
    """What was made.

    Attributes:
        graph: the manifest's ``graphs`` entry: nodes, quantization.
        parity: the manifest's ``parity`` entry: cosines, retrieval, ``passed`` (None: unmeasured), and ``note`` where the gate acted.
    """

    graph: dict[str, Any]
    parity: dict[str, Any]


def make_int8(
    tower: Tower, folder: Path, texts: Sequence[str], settings: ExportConfig, *, all_texts: Sequence[str], data: Dataset | None,
    corpus: tuple[Tower, Forward] | None = None, progress: bool = False,
) -> Int8Graph:  # fmt: skip
    """Writes ``folder/model.int8.onnx`` from ``folder/model.onnx`` and measures it.

    Args:
        tower: the torch model, for its tokenizer and prompts.
        texts: what cosines and batch invariance are measured on.
        settings: the method, anything but "none", and the limits of the gate.
        all_texts: what a static method is calibrated on where there are no data.
        data: with a dev or test split: the gate measures on it. None leaves the gate out.
        corpus: for a tower of queries: the tower and the fp32 graph of the documents.
    """
    maker = _Maker(tower, folder, texts, settings, all_texts, data)
    try:
        if data is None:
            keep: tuple[str, ...] = ()
            parity: dict[str, Any] = {"passed": None}
        else:
            keep, parity = maker.gate(data, corpus, progress)
        return maker.finish(keep, parity)
    finally:
        maker.clean()


class _Maker:
    def __init__(
        self, tower: Tower, folder: Path, texts: Sequence[str], settings: ExportConfig, all_texts: Sequence[str], data: Dataset | None
    ) -> None:
        import onnx

        self.tower, self.texts, self.settings = tower, texts, settings
        self.fp32, self.target, self.small = folder / "model.onnx", folder / NAME, folder / "embeddings.onnx"
        self.reference = encode(tower, GraphRunner(self.fp32), texts)
        self.products = [product.name for product in products(onnx.load_model(str(self.fp32)))]
        # Quantized tables where they cost next to nothing; the gate may still give them back.
        self.embeddings = self._cosine(quantize_embeddings(self.fp32, self.small)) >= EMBEDDING_COSINE
        self.parts = [*self.products, *([EMBEDDINGS] if self.embeddings else [])]
        self.ranges: Ranges | None = None
        if settings.int8 == "static":
            self.ranges = activation_ranges(self.fp32, tower, calibration_texts(data, all_texts))

    def gate(self, data: Dataset, corpus: tuple[Tower, Forward] | None, progress: bool) -> tuple[tuple[str, ...], dict[str, Any]]:
        """Returns the products (and perhaps ``EMBEDDINGS``) that stay in float32, and what the manifest says of retrieval."""
        settings = self.settings
        loss = RetrievalLoss(
            self.tower, GraphRunner(self.fp32), data, queries=settings.int8_queries, documents=settings.int8_documents, corpus=corpus,
            progress=progress,
        )  # fmt: skip
        found = settle(
            lambda keep: loss.of(GraphRunner(self._write(keep))),
            lambda: worst_first(self.parts, lambda keep: self._cosine(self._write(keep), SENSITIVITY_TEXTS)),
            settings,
        )
        parity: dict[str, Any] = {"retrieval": found.loss, "passed": found.loss["passed"]}
        if note := sentence(found):
            parity |= {"note": note, "rounds": list(found.rounds)}
        return found.keep, parity

    def finish(self, keep: tuple[str, ...], parity: dict[str, Any]) -> Int8Graph:
        """Writes the chosen graph and measures the rest."""
        runner = GraphRunner(self._write(keep))
        difference = batch_difference(self.tower, runner, self.texts)
        quantization = {
            "method": self.settings.int8,
            **SETTINGS[self.settings.int8],
            "embeddings": self.embeddings and EMBEDDINGS not in keep,
            "float32": list(keep),
            "products": len(self.products),
            "batch_difference": difference,
            "batch_invariant": difference <= FP32_LIMIT,
        }
        cosine = cosines(self.reference, encode(self.tower, runner, self.texts))
        return Int8Graph({"nodes": count_nodes(self.target), "quantization": quantization}, {**cosine, "texts": len(self.texts), **parity})

    def clean(self) -> None:
        self.small.unlink(missing_ok=True)

    def _write(self, keep: Sequence[str]) -> Path:
        source = self.fp32 if EMBEDDINGS in keep or not self.embeddings else self.small
        return quantize(source, self.target, self.settings.int8, keep=keep, ranges=self.ranges)

    def _cosine(self, path: Path, most: int | None = None) -> float:
        found: FloatArray = encode(self.tower, GraphRunner(path), self.texts[:most])
        return cosines(self.reference[:most], found)["mean_cosine"]


def worst_first(names: Sequence[str], cosine: Callable[[Sequence[str]], float]) -> list[str]:
    """Products by how far int8 in each alone moves the vectors, the worst first, ties in the order given.

    Args:
        names: the products.
        cosine: mean cosine to fp32 of the graph that keeps the named products in float32.
    """
    alone = {name: cosine([other for other in names if other != name]) for name in names}
    return sorted(names, key=lambda name: np.nan_to_num(alone[name], nan=-1.0))
