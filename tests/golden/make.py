"""Writes the golden index files of the layout that this version writes, and what they answer.

    python tests/golden/make.py

Run it once when a layout gets a new number, and keep the files of the earlier ones while they can be read.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nearfield as nf

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from oracle_hnsw import clustered, walked  # noqa: E402


def make_hnsw(name: str, alpha: float) -> None:
    rows, queries = clustered(60, 5, 1), clustered(4, 5, 2)
    index = nf.HNSWIndex(5, "cosine", M=3, ef_construction=12, seed=9, fingerprint="golden", alpha=alpha)
    index.add(rows, ids=[f"row {i}" for i in range(60)], threads=1)
    index.delete(["row 7", "row 31"], threads=1)
    index.add(rows[:1] + 1, ids=["row 12"], threads=1)
    index.save(HERE / f"{name}.bin")
    found = index.search(queries, 5, ef=8)
    expected = {
        "alpha": index.alpha,
        "settings": [index.dim, index.metric, index.M, index.ef_construction, index.seed, index.fingerprint],
        "ids": list(index.ids),
        "queries": queries.tolist(),
        "found": [found.ids.tolist(), found.scores.tolist()],
        "walked": walked(index, queries, 5, 8).tolist(),
        "rows": index.get(list(index.ids)).tobytes().hex(),
    }
    (HERE / f"{name}.json").write_text(json.dumps(expected, indent=1) + "\n")


def make_frozen(name: str, compact: bool) -> None:
    rows, queries = clustered(70, 20, 1), clustered(4, 20, 2)
    index = nf.HNSWIndex(20, "l2", M=4, ef_construction=20, seed=9, fingerprint="golden")
    index.add(rows, ids=[f"row {i}" for i in range(70)], threads=1)
    frozen = index.freeze(compact=compact, threads=1)
    frozen.save(HERE / f"{name}.bin")
    found = frozen.search(queries, 5, ef=8)
    expected = {
        "settings": [frozen.dim, frozen.metric, frozen.M, frozen.ef_construction, frozen.seed, frozen.fingerprint, frozen.compact],
        "ids": list(frozen.ids),
        "queries": queries.tolist(),
        "found": [found.ids.tolist(), found.scores.tolist()],
        "walked": frozen._graph.search(queries, 5, 70, 8, mode="walk", threads=1)[0].tolist(),
        "rows": frozen.get(list(frozen.ids)).tobytes().hex(),
    }
    (HERE / f"{name}.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    make_hnsw("hnsw-3", 1)
    make_hnsw("hnsw-4", 1.25)  # layout 4 is 3 with alpha
    make_frozen("frozen-1", compact=False)
    make_frozen("frozen-1-compact", compact=True)
