"""Ranges of activations on the user's own texts, for int8 with fixed scales."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nearfield.encode.tower import Tower
from nearfield.export.products import products
from nearfield.types import FloatArray, Kind

if TYPE_CHECKING:
    from nearfield.data.dataset import Dataset

# Documents and queries; ranges of all-MiniLM-L6-v2 hardly move beyond some hundred texts.
CALIBRATION_TEXTS = 256
# Share of the values beyond each end of a range. 0 is the least and the largest value seen (docs/quantization.md).
OUTSIDE = 0.0


def calibration_texts(data: Dataset | None, texts: Sequence[str], *, seed: int = 0) -> list[tuple[str, Kind]]:
    """Documents and queries to calibrate on.

    Args:
        data: its documents and the queries of its train split (of any split where it has none); no judgement is read.
        texts: taken as documents where there are no data.
        seed: which of them.
    """
    random = np.random.default_rng(seed)

    def some(items: Sequence[str]) -> list[str]:
        return [items[place] for place in random.permutation(len(items))[:CALIBRATION_TEXTS]]

    if data is None:
        return [(text, "document") for text in some(texts)]
    split = next((name for name in ("train", "dev", "test") if data.qrels.get(name)), None)
    asked = set(data.qrels[split]) if split else set()
    queries = [text for name, text in zip(data.query_ids, data.query_texts, strict=True) if name in asked]
    return [(text, "document") for text in some(data.doc_texts)] + [(text, "query") for text in some(queries)]


def activation_ranges(
    graph: Path, tower: Tower, texts: Sequence[tuple[str, Kind]], *, outside: float = OUTSIDE
) -> dict[str, tuple[float, float]]:
    """Runs texts through an fp32 graph and returns, for each product's source, the range of its values.

    Args:
        graph: the fp32 graph.
        tower: its tokenizer and prompts are used.
        texts: texts and their kinds.
        outside: share of the values left out at each end, 0 to 0.5; exact, not by histogram.
    """
    import onnx

    from nearfield.export.onnx_graph import INPUTS, make_session

    model = onnx.load_model(str(graph))
    sources = list(dict.fromkeys(product.source for product in products(model)))
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in sources)
    session = make_session(model.SerializeToString())
    rows = [tower.tokenizer([tower.spec.prompts[kind] + text]).ids[0] for text, kind in texts]
    tokens = sum(len(row) for row in rows)
    ends: dict[str, _Ends] = {}
    for row in rows:
        found = session.run(sources, dict(zip(INPUTS, tower.tokenizer.pad([row]), strict=True)))
        for name, values in zip(sources, found, strict=True):
            ends.setdefault(name, _Ends(tokens * values.shape[-1], outside)).add(values.ravel())
    return {name: found.range() for name, found in ends.items()}


class _Ends:
    """The smallest and the largest values of a stream, as many as lie outside."""

    def __init__(self, total: int, outside: float) -> None:
        self.count = int(total * outside) + 1
        self.low, self.high = np.empty(0, np.float32), np.empty(0, np.float32)

    def add(self, values: FloatArray) -> None:
        self.low = _least(np.concatenate([self.low, values]), self.count)
        self.high = -_least(np.concatenate([-self.high, -values]), self.count)

    def range(self) -> tuple[float, float]:
        return float(self.low.max()), float(self.high.min())


def _least(values: FloatArray, count: int) -> FloatArray:
    return values if len(values) <= count else np.partition(values, count - 1)[:count]
