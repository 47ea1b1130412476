"""The Numba twin of the walk through a compact frozen graph: the native engine's nodes and scores, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nearfield as nf
from nearfield.errors import InputError
from oracle_hnsw import METRICS, clustered

pytest.importorskip("numba")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dim", [7, 96])
def test_the_twin_finds_the_same_nodes_with_the_same_scores(metric: str, dim: int, tmp_path: Path) -> None:
    from nearfield.kernels.numba_graph import CompactGraph

    rows, queries = clustered(1500, dim, 1), clustered(100, dim, 2)
    index = nf.HNSWIndex(dim, metric, M=6, ef_construction=40)
    for deleted in (False, True):
        if deleted:
            index.delete(list(range(0, 1500, 5)))
        else:
            index.add(rows, threads=1)
        frozen = index._graph.freeze(compact=True)  # with its tombstones
        frozen.save(str(tmp_path / "i.bin"), [])
        graph = CompactGraph.read(tmp_path / "i.bin")
        for k, ef in ((1, 1), (10, 10), (10, 64), (30, 50)):
            native = frozen.search(queries, k, frozen.slots, ef, mode="walk", threads=1)
            twin = graph.walk(queries, k, ef)
            assert twin[0].tolist() == native[0].tolist()
            assert np.array_equal(twin[1], native[1], equal_nan=True)
            assert twin[2].tolist() == native[2].tolist()
        assert len(set(twin[0].ravel().tolist())) > 500  # the walks went to many places


def test_a_graph_that_is_not_compact_is_refused(tmp_path: Path) -> None:
    from nearfield.kernels.numba_graph import CompactGraph

    index = nf.HNSWIndex(4)
    index.add(clustered(20, 4, 1))
    index.freeze().save(tmp_path / "i.bin")
    with pytest.raises(InputError, match="compact one expected"):
        CompactGraph.read(tmp_path / "i.bin")
