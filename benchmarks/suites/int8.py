"""Ways to make an int8 graph of all-MiniLM-L6-v2: what each costs in nDCG@10, its size, the operators onnxruntime fuses, and whether a
text's vector depends on its neighbours in the batch. How fast each is: ``int8_speed``.

The loss is measured on the data of ``--judged`` (several may be given), on a seeded sub-corpus of each: up to QUERIES queries of the dev
split (test where there is none), their relevant documents and random others up to DOCUMENTS. Without ``--judged`` it is left out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.core.peers import set_threads
from benchmarks.core.plan import Plan
from benchmarks.core.results import Row
from benchmarks.core.texts import fingerprint
from benchmarks.suites.int8_graphs import CONTESTANTS, Contestant, Workshop, make_all, row

QUERIES, DOCUMENTS = 300, 500
QUICK_QUERIES, QUICK_DOCUMENTS = 40, 60


def run(plan: Plan) -> list[Row]:
    """All rows of the suite."""
    set_threads(plan.all_cores[-1])
    work = Workshop(plan)
    graphs = make_all(work)
    rows = [_about(work, contestant, graphs[contestant.name]) for contestant in CONTESTANTS]
    for path, data in zip(plan.judged, work.judged, strict=True):
        rows += _losses(work, path.name, data, graphs)
    return rows


def _about(work: Workshop, contestant: Contestant, graph: Path) -> Row:
    """Size, fused nodes, cosine and batch invariance of one graph."""
    from nearfield.export.onnx_graph import GraphRunner, count_nodes
    from nearfield.export.parity import batch_difference

    nodes = count_nodes(graph)
    shown = ("Attention", "QAttention", "MultiHeadAttention", "SkipLayerNormalization", "LayerNormalization", "BiasGelu", "Gelu")
    params = {
        "batch_difference": batch_difference(work.tower, GraphRunner(graph), work.texts),
        "fused": ", ".join(f"{nodes[name]} {name}" for name in shown if name in nodes) + f" of {nodes['total']}",
        "nodes": nodes,
        "float32": work.worst()[: contestant.keep] if contestant.keep else [],
    }
    start = time.perf_counter()
    cosine = work.cosine(graph)
    return row(
        "int8",
        contestant.name,
        "graphs",
        f"{len(work.texts)} documents of API documentation ({fingerprint(work.texts)})",
        1,
        graph.stat().st_size / 1e6,
        "MB",
        params,
        [{"seconds": time.perf_counter() - start, "calls": len(work.texts)}],
        quality=("mean cosine to fp32", cosine),
    )


def _losses(work: Workshop, name: str, data: Any, graphs: Mapping[str, Path]) -> list[Row]:
    """nDCG@10 of every graph on one data set; the standard error is of the paired difference."""
    from nearfield.export.onnx_graph import GraphRunner
    from nearfield.export.parity import RetrievalLoss

    queries, documents = (QUICK_QUERIES, QUICK_DOCUMENTS) if work.plan.quick else (QUERIES, DOCUMENTS)
    work.plan.say(f"int8: {name}, the reference")
    loss = RetrievalLoss(work.tower, GraphRunner(work.fp32), data, queries=queries, documents=documents)
    rows = []
    for contestant in CONTESTANTS:
        if contestant.name.startswith("fp32"):
            continue
        work.plan.say(f"int8: {name}, {contestant.name}")
        start = time.perf_counter()
        found = loss.of(GraphRunner(graphs[contestant.name]))
        half = -found["loss"] - found["low"]
        params = {
            "points_lost": 100 * found["loss"],
            "interval": [100 * (found["loss"] - half), 100 * (found["loss"] + half)],
            "ndcg_fp32": found["ndcg_fp32"],
            "split": found["split"],
        }
        label = f"{name}, {found['split']}: {found['queries']:,} queries, {found['documents']:,} documents, fp32 {found['ndcg_fp32']:.4f}"
        seconds = [{"seconds": time.perf_counter() - start, "calls": found["queries"] + found["documents"]}]
        rows.append(row("int8", contestant.name, f"loss on {name}", label, 1, found["ndcg_int8"], "nDCG@10", params, seconds))
    return rows
