"""Text to the ten best ids, in one process: encoder and graph together, one query at a time.

The rows are embeddings of sentences in float32. Every graph walks at the smallest width that finds 95 % of the true ten with float32
queries; the recall shown is of the whole way: what the engine found for the text, against the exact ten of its float32 vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
from benchmarks.core.texts import fingerprint, sentences
from benchmarks.core.timing import interleave
from benchmarks.encoders.engines import Maker, engines_named, no_native
from benchmarks.encoders.models import AS_SHIPPED, bundle
from benchmarks.suites import graph_peers
from benchmarks.suites.graph_peers import Shape
from benchmarks.suites.graphs import Graph, Setting

ROWS, QUICK_ROWS = 250_000, 4_096
K, TARGET = 10, 0.95
WIDTHS = (10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 192, 256, 384, 512)
# Queries that the width is chosen on, and those asked in a round.
CHOSEN_ON, CALLS, QUICK_CALLS = 512, 300, 20

# One text to (1, K) ids.
Find = Callable[[str], np.ndarray]


@dataclass(frozen=True)
class Pair(Engine):
    """An encoder and a graph.

    Attributes:
        encoder: its name among the engines of the encoder suites.
        graph: makes the peer's graph; None for nearfield's Searcher over a FrozenIndex.
    """

    encoder: str = ""
    graph: Callable[[Shape], Graph] | None = None


PAIRS = (
    Pair("nearfield Searcher, native int8 + FrozenIndex", dict, unable=no_native, encoder="nearfield native int8"),
    Pair("nearfield Searcher, onnx int8 + FrozenIndex", dict, encoder="nearfield onnx int8"),
    Pair(
        "onnxruntime int8 + hnswlib", dict, "onnxruntime", ("onnxruntime", "hnswlib"), encoder="onnxruntime int8", graph=graph_peers.Hnswlib
    ),
    Pair(
        "sentence-transformers f32 + faiss HNSW", dict, "sentence-transformers", ("sentence_transformers", "torch", "faiss"),
        encoder="sentence-transformers torch f32", graph=graph_peers.FaissFlat,
    ),
)  # fmt: skip


def run(plan: Plan) -> list[Row]:
    """All rows of the suite."""
    wanted = QUICK_ROWS if plan.quick else ROWS
    calls = QUICK_CALLS if plan.quick else CALLS
    asked = (plan.rounds + 1) * calls
    set_threads(usable_cores())
    vectors, queries, label = data.real_vectors(plan, wanted, max(CHOSEN_ON, asked))
    texts = sentences(plan)[0][: len(queries)]
    truth = exact_topk(queries, vectors, K)[1]
    pairs: list[Pair] = present(PAIRS, plan)  # type: ignore[assignment]
    graphs = _graphs(plan, pairs, vectors)
    rows = []
    for threads in plan.all_cores:
        set_threads(threads)
        maker = Maker(plan, AS_SHIPPED, threads, engines_named([pair.encoder for pair in pairs]))
        finds: dict[str, Find] = {}
        params: dict[str, dict[str, Any]] = {}
        for pair in pairs:
            walk = graphs[pair.name]
            width = smallest_width(lambda ef, walk=walk: _recall(walk, ef, queries, vectors, truth))
            finds[pair.name] = _finder(pair, maker, walk, width)
            params[pair.name] = {"k": K, "n": len(vectors), "ef": width, "shown": f"ef={width}"}
        plan.say(f"end_to_end: one query at a time, {threads_text(threads)}")
        answers = {name: Answers(find) for name, find in finds.items()}
        timed = interleave(answers, [texts[start : start + calls] for start in range(0, asked, calls)])
        for pair in pairs:
            found, series = answers[pair.name].ids(asked), timed[pair.name]
            rows.append(
                Row(
                    suite="end_to_end", group=f"text to top-{K} ids, one query at a time, {threads_text(threads)}", brief="text to ids",
                    engine=pair.name, version=pair.version, ours=pair.ours, data=f"{label} ({fingerprint(texts)})", threads=threads,
                    params=params[pair.name], value=1000 * series.percentile(50), unit="ms / query", spread=series.spread,
                    p50=1000 * series.percentile(50), p95=1000 * series.percentile(95), p99=1000 * series.percentile(99),
                    quality_name="recall of the whole way",
                    quality=recall_at_k(found, queries[: len(found)], vectors, truth[: len(found)]), rounds=series.raw(),
                )
            )  # fmt: skip
        maker.close()
    return rows


def smallest_width(recall: Callable[[int], float]) -> int:
    """The first of WIDTHS that reaches TARGET, else the last."""
    return next((width for width in WIDTHS if recall(width) >= TARGET), WIDTHS[-1])


class _Frozen:
    """nearfield's graph as the peers' are called."""

    def __init__(self, index: nearfield.FrozenIndex) -> None:
        self.index = index

    def search(self, queries: np.ndarray, k: int, at: Setting, threads: int) -> np.ndarray:
        return np.asarray(self.index.search(queries, k, ef=at.ef, threads=threads).ids, np.int64)


def _graphs(plan: Plan, pairs: list[Pair], vectors: np.ndarray) -> dict[str, Any]:
    """One graph for each pair; both of ours share theirs."""
    out: dict[str, Any] = {}
    ours: _Frozen | None = None
    for pair in pairs:
        plan.say(f"end_to_end: the graph of {pair.name}, {len(vectors):,} rows")
        if pair.graph is not None:
            out[pair.name] = pair.graph(Shape(vectors.shape[1], len(vectors)))
            out[pair.name].add(vectors, usable_cores())
            continue
        if ours is None:
            with nearfield.Encoder(bundle(plan, AS_SHIPPED), backend="onnx") as encoder:
                made = nearfield.HNSWIndex(vectors.shape[1], metric="ip", M=graph_peers.M, fingerprint=encoder.fingerprint)
            made.add(vectors)
            ours = _Frozen(made.freeze())
        out[pair.name] = ours
    return out


def _recall(graph: Any, ef: int, queries: np.ndarray, vectors: np.ndarray, truth: np.ndarray) -> float:
    found = graph.search(queries[:CHOSEN_ON], K, Setting(ef), usable_cores())
    return recall_at_k(found, queries[:CHOSEN_ON], vectors, truth[:CHOSEN_ON])


def _finder(pair: Pair, maker: Maker, graph: Any, ef: int) -> Find:
    (engine,) = (engine for engine in maker.engines if engine.name == pair.encoder)
    encode = maker.encode(engine, engine.settings(maker.threads, 1)[0])
    if pair.graph is not None:
        return lambda text: graph.search(encode([text]), K, Setting(ef), 1)
    searcher = nearfield.Searcher(encode.__self__, graph.index)  # type: ignore[attr-defined]
    return lambda text: np.asarray(searcher.search(text, K, ef=ef, threads=1).ids)
