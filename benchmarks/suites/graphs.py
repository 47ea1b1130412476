"""The graph engines behind one interface: 32 links on the bottom layer, 200 candidates while building, inner product over unit vectors."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

import nearfield
from benchmarks.core.peers import Engine, present
from benchmarks.core.plan import Plan
from benchmarks.suites import graph_peers as peers
from benchmarks.suites import svs_peers
from benchmarks.suites.graph_peers import Shape


class Setting(NamedTuple):
    """What decides between recall and speed.

    Attributes:
        ef: width of the walk, whatever the engine calls it (efSearch, expansion, search window).
        refine: candidates per result whose float32 rows are scored again, where the engine leaves that to its caller.
    """

    ef: int
    refine: int = 1

    @property
    def shown(self) -> str:
        """``"ef=80"``, ``"ef=80, x2"``."""
        return f"ef={self.ef}" + (f", x{self.refine}" if self.refine > 1 else "")


class Graph(Protocol):
    """What the suites need of an engine."""

    refines: ClassVar[tuple[int, ...]]  # the values of Setting.refine to choose from

    def __init__(self, shape: Shape) -> None: ...

    def add(self, vectors: np.ndarray, threads: int) -> None:
        """Builds the whole graph; ids are row numbers."""

    def search(self, queries: np.ndarray, k: int, at: Setting, threads: int) -> np.ndarray:
        """Row numbers ``(nq, k)``, -1 where nothing was found."""

    def save(self, path: Path) -> None:
        """Writes a file or a folder at ``path``, which does not exist."""


class OurGraph:
    """nearfield.HNSWIndex."""

    refines: ClassVar = (1,)
    index: Any

    def __init__(self, shape: Shape) -> None:
        self.index = nearfield.HNSWIndex(shape.dim, metric=shape.metric, M=peers.M, ef_construction=shape.ef_construction)

    def add(self, vectors: np.ndarray, threads: int) -> None:
        self.index.add(vectors, threads=threads)

    def search(self, queries: np.ndarray, k: int, at: Setting, threads: int) -> np.ndarray:
        return self.index.search(queries, k, ef=at.ef, threads=threads).ids

    def save(self, path: Path) -> None:
        self.index.save(path)


class FrozenGraph(OurGraph):
    """nearfield.FrozenIndex: builds an HNSWIndex and keeps only what ``freeze`` makes of it."""

    options: ClassVar[dict[str, Any]] = {}

    def add(self, vectors: np.ndarray, threads: int) -> None:
        super().add(vectors, threads)
        self.index = self.index.freeze(**self.options)


class CompactGraph(FrozenGraph):
    """The same in the layout that needs the least memory."""

    options: ClassVar = {"compact": True}


OURS = Engine("nearfield HNSWIndex", OurGraph)
FROZEN = Engine("nearfield FrozenIndex", FrozenGraph)
COMPACT = Engine("nearfield FrozenIndex, compact", CompactGraph)
HNSWLIB = Engine("hnswlib", peers.Hnswlib, "hnswlib", ("hnswlib",))
FAISS = Engine("faiss IndexHNSWFlat", peers.FaissFlat, "faiss-cpu", ("faiss",))
NGT = Engine("NGT ANNG", peers.Ngt, "ngt", ("ngtpy",))
USEARCH = Engine("usearch f32", peers.Usearch, "usearch", ("usearch",))

# The order of the tables. What ``make bench`` does not install says how to get it.
ENGINES = (
    OURS,
    FROZEN,
    COMPACT,
    HNSWLIB,
    FAISS,
    Engine("faiss HNSW SQ8 + refine", peers.FaissSq8, "faiss-cpu", ("faiss",)),
    USEARCH,
    Engine("usearch i8", peers.UsearchInt8, "usearch", ("usearch",)),
    Engine("rabitqlib SymphonyQG f32", peers.Symphony, "rabitqlib", ("rabitqlib",), unable=peers.without_avx2),
    Engine("rabitqlib SymphonyQG 8-bit", peers.SymphonyInt8, "rabitqlib", ("rabitqlib",), unable=peers.without_avx2),
    Engine("voyager", peers.Voyager, "voyager", ("voyager",)),
    NGT,
    Engine("vsag HGraph SQ8 + reorder", peers.Vsag, "pyvsag", ("pyvsag",)),
    Engine("SVS Vamana f32", svs_peers.Svs, "scalable-vs", ("svs",), extra="bench-svs"),
    Engine("SVS Vamana LVQ4x8", svs_peers.SvsLvq, "scalable-vs", ("svs",), unable=svs_peers.not_intel, extra="bench-svs"),
)


def engines_wanted(engines: Sequence[Engine], plan: Plan) -> list[Engine]:
    """The engines of the graph suites that only run when named: in a quick run without ``--only`` those of ours and two peers."""
    brief = plan.quick and plan.only is None
    return present([engine for engine in engines if not brief or engine.ours or engine in (HNSWLIB, FAISS)], plan)


def saved_bytes(graph: Graph) -> int:
    """The bytes that ``graph.save`` writes, all files together."""
    with tempfile.TemporaryDirectory() as folder:
        graph.save(Path(folder) / "graph")
        return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
