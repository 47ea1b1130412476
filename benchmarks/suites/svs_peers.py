"""Intel's SVS among the peers of the graph suites (`graph_peers.py`): Vamana in float32 and over LVQ codes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from benchmarks.core.machine import is_intel
from benchmarks.core.plan import usable_cores
from benchmarks.suites.graph_peers import LINKS, Shape

if TYPE_CHECKING:
    from benchmarks.suites.graphs import Setting

# Vamana's pruning for similarities and for distances, as the documentation of SVS advises.
SVS_ALPHA, SVS_ALPHA_L2 = 0.95, 1.2


class Svs:
    """svs.Vamana over float32 rows."""

    refines: ClassVar[tuple[int, ...]] = (1,)
    index: Any

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def _distance(self) -> Any:
        import svs

        return svs.DistanceType.MIP if self.shape.ip else svs.DistanceType.L2

    def table(self, vectors: np.ndarray, folder: Path) -> Any:
        """What the index is built from; files in ``folder`` are there until it is."""
        return vectors

    def saved_table(self, folder: Path) -> Any:
        """What was saved of it."""
        import svs

        return svs.VectorDataLoader(str(folder), svs.DataType.float32, self.shape.dim)

    def add(self, vectors: np.ndarray, threads: int) -> None:
        import svs

        alpha = SVS_ALPHA if self.shape.ip else SVS_ALPHA_L2
        how = svs.VamanaBuildParameters(alpha=alpha, graph_max_degree=LINKS, window_size=self.shape.ef_construction)
        with tempfile.TemporaryDirectory() as folder:
            self.index = svs.Vamana.build(how, self.table(vectors, Path(folder)), self._distance(), num_threads=threads)

    def search(self, queries: np.ndarray, k: int, at: Setting, threads: int) -> np.ndarray:
        if self.index.num_threads != threads:  # setting it starts new threads
            self.index.num_threads = threads
        self.index.search_window_size = at.ef
        return self.index.search(queries, k)[0].astype(np.int64)

    def save(self, path: Path) -> None:
        path.mkdir()
        self.index.save(*(str(path / name) for name in ("config", "graph", "data")))

    def load(self, path: Path, vectors: np.ndarray) -> None:
        import svs

        config, graph = str(path / "config"), svs.GraphLoader(str(path / "graph"))
        self.index = svs.Vamana(config, graph, self.saved_table(path / "data"), self._distance(), num_threads=usable_cores())


class SvsLvq(Svs):
    """The same over rows of 4 bits a value for the walk and 8 more for the order of what it found (LVQ4x8); on Intel CPUs alone."""

    def table(self, vectors: np.ndarray, folder: Path) -> Any:
        import svs

        path = str(folder / "rows.fvecs")  # it compresses what it reads from a file
        svs.write_vecs(np.ascontiguousarray(vectors, np.float32), path)
        return svs.LVQLoader(svs.VectorDataLoader(path, svs.DataType.float32, self.shape.dim), primary=4, residual=8)

    def saved_table(self, folder: Path) -> Any:
        import svs

        return svs.LVQLoader(str(folder))


def not_intel() -> str | None:
    """Why LVQ cannot run here, or None."""
    return None if is_intel() else "LVQ runs on Intel CPUs alone"
