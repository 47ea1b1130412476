"""One workload in a process of its own, run by its path with the ``nearfield`` of some commit: public names only, as old as possible.

``worker.py turns NAME THREADS``: says ``ready`` (and, where a search may miss, its recall), then makes as many calls as each line on
stdin says; their seconds go to stdout.
``worker.py count NAME CALLS``: prepares and makes so many calls, for callgrind.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

import nearfield as nf

DIM, K = 384, 10
# Rows under callgrind, which is fifty times slower: of a scan, of which Python's part should be small, and of a graph.
SCANNED, WALKED = 20_000, 1_000
GRAPH_ROWS = 20_000
# Calls of which the recall is taken.
RECALLED = 32
TEXT = "how do I open a file and read its lines one after the other without keeping all of them in memory "

Call = Callable[[int], object]


def vectors(rows: int, seed: int) -> np.ndarray:
    """Unit rows in clusters of a hundred."""
    draw = np.random.default_rng(seed)
    centres = draw.standard_normal((max(1, rows // 100), DIM), np.float32)
    out = draw.standard_normal((rows, DIM), np.float32) + centres[draw.integers(0, len(centres), rows)]
    return out / np.linalg.norm(out, axis=1, keepdims=True)


def _search(index: object, nq: int, threads: int, **options: int) -> Call:
    asked = vectors(2_048, 2)
    return lambda i: index.search(asked[i * nq % 1_024 :][:nq], K, threads=threads, **options)  # type: ignore[attr-defined]


def flat(rows: int, nq: int, threads: int) -> Call:
    index = nf.FlatIndex(DIM, metric="ip")
    index.add(vectors(rows, 1))
    return _search(index, nq, threads)


def graph(rows: int, nq: int, threads: int, frozen: bool) -> Call:
    index = nf.HNSWIndex(DIM, metric="ip")
    index.add(vectors(rows, 1))
    return _search(index.freeze() if frozen else index, nq, threads, ef=64)


def recall(name: str, call: Call, rows: int) -> str:
    """What a graph finds of the true neighbours of the first queries: a commit may be slower because its walks go farther."""
    if "graph" not in name:
        return ""
    table, found = vectors(rows, 1), [call(i).ids for i in range(RECALLED)]  # type: ignore[attr-defined]
    asked = np.concatenate([vectors(2_048, 2)[i * len(ids) % 1_024 :][: len(ids)] for i, ids in enumerate(found)])
    true = np.argpartition(-(asked @ table.T), K, axis=1)[:, :K]
    hits = sum(len(np.intersect1d(a, b)) for a, b in zip(np.concatenate(found), true, strict=True))
    return f"recall {hits / true.size:.3f}"


def build(rows: int, threads: int) -> Call:
    given = vectors(rows, 1)
    return lambda i: nf.HNSWIndex(DIM, metric="ip").add(given, threads=threads)


def topk(rows: int, nq: int) -> Call:
    table, asked = vectors(rows, 1), vectors(2_048, 2)
    return lambda i: nf.topk(asked[i * nq % 1_024 :][:nq], table, K, metric="ip")


def encode(texts: int, threads: int, precision: str) -> Call:
    from nearfield.encode.models import resolve_model

    encoder = nf.Encoder(resolve_model(None), backend="native", precision=precision, threads=threads)
    return lambda i: encoder.encode([f"{TEXT} {i + place}" for place in range(texts)])


# Name -> (call of given threads, the same for callgrind or None).
WORKLOADS: dict[str, tuple[Callable[[int], Call], Callable[[], Call] | None]] = {
    "exact, one query": (lambda threads: flat(100_000, 1, threads), lambda: flat(SCANNED, 1, 1)),
    "exact, 256 queries": (lambda threads: flat(100_000, 256, threads), lambda: flat(SCANNED, 64, 1)),
    "topk, 64 queries": (lambda threads: topk(50_000, 64), lambda: topk(SCANNED, 16)),
    "graph, one query": (lambda threads: graph(GRAPH_ROWS, 1, threads, False), lambda: graph(WALKED, 1, 1, False)),
    "frozen graph, 256 queries": (lambda threads: graph(GRAPH_ROWS, 256, threads, True), lambda: graph(WALKED, 16, 1, True)),
    "build, 4,000 rows": (lambda threads: build(4_000, threads), lambda: build(300, 1)),
    "encode int8, one text": (lambda threads: encode(1, threads, "int8"), lambda: encode(1, 1, "int8")),
    "encode int8, 32 texts": (lambda threads: encode(32, threads, "int8"), None),
    "encode fp32, one text": (lambda threads: encode(1, threads, "fp32"), None),
}


def turns(name: str, threads: int) -> None:
    """Answers the orders on stdin."""
    call = WORKLOADS[name][0](threads)
    call(0)
    print("ready", recall(name, call, GRAPH_ROWS), flush=True)
    done = 1
    for line in sys.stdin:
        taken = []
        for _ in range(int(line)):
            start = time.perf_counter()
            call(done)
            taken.append(time.perf_counter() - start)
            done += 1
        print(*taken, flush=True)


def count(name: str, calls: int) -> None:
    """Prepares, and makes so many calls."""
    prepare = WORKLOADS[name][1]
    if prepare is None:
        raise SystemExit(f"{name}: not counted")
    call = prepare()
    for i in range(calls):
        call(i)


if __name__ == "__main__":
    mode, which, number = sys.argv[1:]
    {"turns": turns, "count": count}[mode](which, int(number))
