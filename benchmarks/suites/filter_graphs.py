"""Graphs asked for the best among a part of the rows: half of them, 10, 1 and 0.1 %, scattered or all from one region.

The rows of a region are those nearest to one of them, as all texts about one subject; most queries are about other subjects, so that the
walk ends far from every row it may return. nearfield runs as it does without further arguments. A peer runs at the smallest of EFS that
reaches TARGET on the first queries, or at the largest where none does; the recall beside the rate is that of the timed answers. hnswlib
asks a Python function about every row that it meets, which is how it takes a filter from Python; faiss takes a bitmap. FlatIndex scans the
kept rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import nearfield
from benchmarks.core import data
from benchmarks.core.answers import Answers
from benchmarks.core.ceilings import threads_text
from benchmarks.core.peers import Engine, present, set_threads
from benchmarks.core.plan import Plan, usable_cores
from benchmarks.core.quality import exact_topk, recall_at_k
from benchmarks.core.results import Row
from benchmarks.core.timing import interleave
from benchmarks.suites.filter_exact import mask_of
from benchmarks.suites.graph_peers import Shape
from benchmarks.suites.graphs import COMPACT, FAISS, FROZEN, HNSWLIB, OURS, Graph
from benchmarks.suites.scans import FLAT

K = 10
TARGET = 0.95
KEPT = (0.5, 0.1, 0.01, 0.001)
EFS = (16, 32, 64, 128, 256, 512, 1_024)
ROWS, QUICK_ROWS = 200_000, 4_000
# Queries per round: where few rows are kept, hnswlib asks about all of the others, 0.2 s for each query.
BATCH = 32
BUDGET_S = 3.0
SEED = 5

# Queries and ``ef`` (None: the engine's own choice) to ids (nq, K).
Masked = Callable[..., np.ndarray]


def region(vectors: np.ndarray, kept: float) -> np.ndarray:
    """A boolean mask of the ``round(n * kept)`` rows that are nearest to one of them, drawn with SEED."""
    n = len(vectors)
    scores = vectors @ vectors[np.random.default_rng(SEED).integers(n)]
    out = np.zeros(n, bool)
    out[np.argsort(-scores, kind="stable")[: max(1, round(n * kept))]] = True
    return out


def _ours(graph: Any, mask: np.ndarray, threads: int) -> Masked:
    return lambda queries, ef: graph.index.search(queries, K, ef=ef, filter=mask, threads=threads).ids


def _flat(graph: Any, mask: np.ndarray, threads: int) -> Masked:
    return lambda queries, ef: graph.index.search(queries, K, filter=mask, threads=threads).ids


def _hnswlib(graph: Any, mask: np.ndarray, threads: int) -> Masked:
    allowed = mask.tolist().__getitem__  # the cheapest function there is; one thread, as hnswlib advises for a filter in Python

    def some(queries: np.ndarray) -> np.ndarray:
        try:
            return graph.index.knn_query(queries, k=K, num_threads=1, filter=allowed)[0].astype(np.int64)
        except RuntimeError:  # a query found fewer than K: none is answered
            alone = len(queries) == 1
            return np.full((1, K), -1, np.int64) if alone else np.concatenate([some(query[None]) for query in queries])

    def search(queries: np.ndarray, ef: int | None) -> np.ndarray:
        graph.index.set_ef(ef)
        return some(queries)

    return search


def _faiss(graph: Any, mask: np.ndarray, threads: int) -> Masked:
    import faiss

    selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))

    def search(queries: np.ndarray, ef: int | None) -> np.ndarray:
        chosen = faiss.SearchParametersHNSW(sel=selector, efSearch=ef)
        return graph.index.search(queries, K, params=chosen)[1]

    return search


class _Flat:
    """nearfield.FlatIndex, built as the graphs are."""

    def __init__(self, shape: Shape) -> None:
        self.index = nearfield.FlatIndex(shape.dim, metric="ip")

    def add(self, vectors: np.ndarray, threads: int) -> None:
        self.index.add(vectors)


ENGINES: dict[Engine, Callable[[Any, np.ndarray, int], Masked]] = {
    OURS: _ours,
    FROZEN: _ours,
    COMPACT: _ours,
    Engine(FLAT.name, _Flat): _flat,
    HNSWLIB: _hnswlib,
    FAISS: _faiss,
}


@dataclass(frozen=True)
class Work:
    """One filter: which rows, and the float64 scores of the K best of them for each query."""

    kind: str
    kept: float
    mask: np.ndarray
    true_scores: np.ndarray


def run(plan: Plan, *, rows: int | None = None) -> list[Row]:
    """All rows of the suite. ``rows`` replaces the real vectors by that many synthetic ones (tests)."""
    wanted = (plan.rounds + 1) * BATCH
    vectors, queries, label = data.clustered(rows, wanted) if rows else data.real_vectors(plan, QUICK_ROWS if plan.quick else ROWS, wanted)
    set_threads(usable_cores())
    graphs: dict[Engine, Graph] = {}
    for engine in present(list(ENGINES), plan):
        plan.say(f"filter: graphs, building {engine.name}, {len(vectors):,} rows")
        graphs[engine] = engine.make(Shape(vectors.shape[1], len(vectors)))
        graphs[engine].add(vectors, usable_cores())
    out = []
    for kind, kept, mask in _masks(vectors):
        work = Work(kind, kept, mask, exact_topk(queries, vectors[mask], K)[1])
        for threads in plan.threads or (1,):
            set_threads(threads)
            out += _filtered(plan, graphs, work, vectors, queries, label, threads)
    return out


def _masks(vectors: np.ndarray) -> list[tuple[str, float, np.ndarray]]:
    scattered = [("scattered", kept, mask_of(len(vectors), kept, False)) for kept in KEPT]
    return scattered + [("region", kept, region(vectors, kept)) for kept in KEPT]


def _filtered(
    plan: Plan, graphs: dict[Engine, Graph], work: Work, vectors: np.ndarray, queries: np.ndarray, label: str, threads: int
) -> list[Row]:
    plan.say(f"filter: graphs, {work.kind}, {100 * work.kept:g} %, {threads_text(threads)}")
    recall = partial(_recall, work, vectors, queries)
    answers: dict[str, Answers] = {}
    efs: dict[str, int | None] = {}
    for engine, graph in graphs.items():
        search = ENGINES[engine](graph, work.mask, threads)
        efs[engine.name] = None if engine.ours else width(lambda ef, search=search: recall(search(queries[:BATCH], ef)))
        answers[engine.name] = Answers(partial(search, ef=efs[engine.name]))
    timed = interleave(answers, [[queries[i * BATCH : (i + 1) * BATCH]] for i in range(plan.rounds + 1)], budget_s=BUDGET_S)
    return [
        Row(
            suite="filter",
            group=f"top-{K} of the kept part of {len(vectors):,} rows, {work.kind}, {threads_text(threads)}, batches of {BATCH}",
            brief="",
            engine=engine.name,
            version=engine.version,
            ours=engine.ours,
            data=label,
            threads=threads,
            params={"n": len(vectors), "k": K, "nq": BATCH, "kept": work.kept, "region": work.kind == "region"} | _shown(efs[engine.name]),
            value=BATCH / timed[engine.name].median,
            unit="queries / s",
            spread=timed[engine.name].spread,
            quality_name=f"recall@{K}",
            quality=recall(answers[engine.name].ids(len(queries))),
            rounds=timed[engine.name].raw(),
        )
        for engine in graphs
    ]


def _shown(ef: int | None) -> dict[str, Any]:
    return {} if ef is None else {"ef": ef, "shown": f"ef={ef}"}


def _recall(work: Work, vectors: np.ndarray, queries: np.ndarray, found: np.ndarray) -> float:
    """Recall among the kept rows of the first queries; a row that is not kept is no answer."""
    kept = np.where((found >= 0) & work.mask[found], found, -1)
    return recall_at_k(kept, queries[: len(found)], vectors, work.true_scores[: len(found)])


def width(recall: Callable[[int], float]) -> int:
    """The first of EFS that reaches TARGET, or the last."""
    return next((ef for ef in EFS if recall(ef) >= TARGET), EFS[-1])
