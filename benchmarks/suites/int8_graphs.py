"""The graphs that the suites ``int8`` and ``int8_speed`` compare: all-MiniLM-L6-v2 in float32, and in int8 in every way we know."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import nearfield
from benchmarks.core.plan import Plan
from benchmarks.core.results import Row
from benchmarks.core.texts import harvested

# Texts that cosines and sensitivities are measured on.
TEXTS = 32
# Products of the mixed graph that stay in float32, the worst by measured sensitivity.
KEPT = 4
# Share of the values cut at each end by the second static graph.
CUT = 1e-5


@dataclass(frozen=True)
class Contestant:
    """A graph: its name in the tables and how to make it from the fp32 one."""

    name: str
    make: Callable[[Workshop, Path], Path]
    keep: int = 0


@dataclass
class Workshop:
    """The model, its fp32 graphs and what the methods need to know about it, made once."""

    plan: Plan

    def __post_init__(self) -> None:
        import onnx

        from nearfield.data.dataset import Dataset
        from nearfield.data.read import read
        from nearfield.encode.models import resolve_model
        from nearfield.encode.tower import Tower
        from nearfield.export.onnx_graph import GraphRunner, export_graph, fuse
        from nearfield.export.parity import encode
        from nearfield.export.products import products
        from nearfield.export.quantize import quantize_embeddings

        self.folder = self.plan.cache / "int8"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tower = Tower.load(resolve_model(None))
        self.plain, self.fp32, self.small = (self.folder / f"{name}.onnx" for name in ("plain", "fp32", "embeddings"))
        config: Any = self.tower.model.config
        export_graph(self.tower, self.plain)
        fuse(self.plain, self.fp32, heads=config.num_attention_heads, hidden=self.tower.spec.dim)
        quantize_embeddings(self.fp32, self.small)
        self.judged: list[Dataset] = [read(path) for path in self.plan.judged]
        self.documents = sorted(set(harvested(self.plan)))
        self.texts = [self.documents[place] for place in np.random.default_rng(0).permutation(len(self.documents))[:TEXTS]]
        self.names = [product.name for product in products(onnx.load_model(str(self.small)))]
        self.reference = encode(self.tower, GraphRunner(self.fp32), self.texts)
        self._ranges: dict[float, Mapping[str, tuple[float, float]]] = {}
        self._worst: list[str] | None = None

    def cosine(self, graph: Path) -> float:
        from nearfield.export.onnx_graph import GraphRunner
        from nearfield.export.parity import cosines, encode

        return cosines(self.reference, encode(self.tower, GraphRunner(graph), self.texts))["mean_cosine"]

    def ranges(self, outside: float) -> Mapping[str, tuple[float, float]]:
        """Calibrated on documents and training queries of the first judged data, else on documentation found here."""
        from nearfield.export.calibrate import activation_ranges, calibration_texts

        if outside not in self._ranges:
            texts = [item for data in self.judged for item in calibration_texts(data, ())] or calibration_texts(None, self.documents)
            self._ranges[outside] = activation_ranges(self.fp32, self.tower, texts, outside=outside)
        return self._ranges[outside]

    def worst(self) -> list[str]:
        """Products by the damage that "rows" does in each alone."""
        from nearfield.export.int8 import worst_first
        from nearfield.export.quantize import quantize

        path = self.folder / "worst.json"
        if self._worst is None and path.is_file():
            self._worst = json.loads(path.read_text(encoding="utf-8"))
        if self._worst is None:
            self.plan.say("int8: sensitivity of each product (once)")
            target = self.folder / "alone.onnx"
            self._worst = worst_first(self.names, lambda keep: self.cosine(quantize(self.small, target, "rows", keep=keep)))
            path.write_text(json.dumps(self._worst), encoding="utf-8")
        return self._worst


def _quantized(method: Any, work: Workshop, target: Path, *, bits: int = 7, outside: float | None = None, kept: int = 0) -> Path:
    from nearfield.export.quantize import quantize

    ranges = None if outside is None else work.ranges(outside)
    return quantize(work.small, target, method, bits=bits, ranges=ranges, keep=work.worst()[:kept] if kept else ())


CONTESTANTS = (
    Contestant("fp32, fused", lambda work, _: work.fp32),
    Contestant("fp32, as torch wrote it", lambda work, _: work.plain),
    Contestant("dynamic, 8-bit weights", partial(_quantized, "dynamic", bits=8)),
    Contestant("dynamic, 7-bit weights", partial(_quantized, "dynamic")),
    Contestant("static, least to greatest", partial(_quantized, "static", outside=0.0)),
    Contestant(f"static, {100 * CUT:g} % cut at each end", partial(_quantized, "static", outside=CUT)),
    Contestant("nbits, blocks of 32", partial(_quantized, "nbits")),
    Contestant("rows, 8-bit weights", partial(_quantized, "rows", bits=8)),
    Contestant("rows, 7-bit weights", partial(_quantized, "rows")),
    Contestant(f"rows, {KEPT} products in float32", partial(_quantized, "rows", kept=KEPT), keep=KEPT),
)


def make_all(work: Workshop) -> dict[str, Path]:
    """Every contestant's graph."""
    return {one.name: one.make(work, work.folder / f"graph-{number}.onnx") for number, one in enumerate(CONTESTANTS)}


def row(
    suite: str, name: str, group: str, label: str, threads: int, value: float, unit: str, params: dict[str, Any],
    rounds: Sequence[dict[str, float]], *, quality: tuple[str, float] | None = None, spread: float | None = None,
) -> Row:  # fmt: skip
    return Row(
        suite=suite, group=group, brief="", engine=name, version=nearfield.__version__, ours=True, data=label, threads=threads,
        params=params, value=value, unit=unit, spread=spread, quality_name=quality[0] if quality else None,
        quality=quality[1] if quality else None, rounds=list(rounds),
    )  # fmt: skip
