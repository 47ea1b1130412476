"""Training one cell: ours through ``nearfield.tune.train``, and what both sides have in common."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nearfield.config import TuneConfig
from nearfield.data.dataset import Dataset
from nearfield.data.split import split
from nearfield.data.structure import with_pairs

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.monotonic, "cpu": time.process_time}
# Passes over the pairs where only the budget ends a run.
ENDLESS = 1000


@dataclasses.dataclass
class Trained:
    """A tuned model and what it took.

    Attributes:
        model: a sentence-transformers folder.
        pairs_seen: training pairs over all steps; ``steps`` of them.
        pairs_per_second: by the cell's clock, training steps alone, without loading, scoring or merging.
        how: what trained, for example "trainer", and whatever is worth knowing.
        details: figures of one side only.
        adapt: what query vectors of ``model`` go through, None: nothing.
        queries: a model folder for queries alone, None: ``model`` encodes them.
    """

    model: Path
    pairs_seen: int
    steps: int
    pairs_per_second: float
    how: str
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    adapt: Callable[[Any], Any] | None = None
    queries: Path | None = None


def fewer_pairs(data: Dataset, count: int | None, seed: int) -> Dataset:
    """Returns ``data`` with ``count`` of its training pairs, chosen by ``seed``; both sides are given the same ones."""
    pairs = [(query, doc) for query, judged in data.qrels["train"].items() for doc in judged]
    if count is None or len(pairs) <= count:
        return data
    chosen = np.random.default_rng(seed).choice(len(pairs), count, replace=False)
    kept: dict[str, dict[str, int]] = {}
    for place in np.sort(chosen):
        query, doc = pairs[place]
        kept.setdefault(query, {})[doc] = data.qrels["train"][query][doc]
    return dataclasses.replace(data, qrels=data.qrels | {"train": kept})


def documents_alone(data: Dataset, seed: int) -> Dataset:
    """Returns ``data`` as somebody has it who has no judgements: train and dev are questions made of the documents' structure."""
    bare = dataclasses.replace(data, query_ids=[], query_texts=[], qrels={}, hard_negatives={})
    return split(with_pairs(bare, seed), seed=seed, test=0.0)


def train_ours(
    data: Dataset, base: Path, work: Path, options: Mapping[str, Any], *, seed: int, seconds: float | None, clock: str, device: str,
    guard: Dataset | None, epochs: int | None,
) -> Trained:  # fmt: skip
    """Trains with nearfield. Everything is inside the budget: loading, dev scores, pieces, merge, saving.

    With queries alone the documents' vectors count as there already, for an index has them; what making them took stands in the details.
    """
    from benchmarks.quality.measure import open_model
    from nearfield.tune.train import train

    fixed: dict[str, Any] = {"seed": seed, "device": device, "budget_seconds": seconds, "checkpoint_minutes": 1e6}
    if seconds is not None:
        fixed |= {"max_pairs": None, "epochs": epochs or ENDLESS}
    elif epochs is not None:
        fixed |= {"epochs": epochs}
    config = TuneConfig.from_dict({**fixed, **options})
    documents, began = None, CLOCKS[clock]()
    if config.query_only:
        documents = open_model(base, device).encode(data.doc_texts, kind="document")
    encoding = CLOCKS[clock]() - began
    made = train(data, base, config, work=work, guard=guard, progress=False, clock=CLOCKS[clock], documents=documents)
    curve = [[entry["step"], entry["dev_ndcg"]] for entry in made.history if entry["kind"] == "train"]
    details = {
        "alpha": made.alpha, "pieces": made.pieces, "dev": made.dev, "guard_dev": made.guard, "best_step": made.best_step,
        "dev_curve": curve, "merge": [entry for entry in made.history if entry["kind"] == "merge"], "notes": made.notes,
    }  # fmt: skip
    if config.query_only:
        how, details = f"{made.dtype}, queries alone", details | {"documents_seconds": round(encoding, 1)}
        return Trained(base, made.pairs_seen, made.steps, made.pairs_per_second, how, details, queries=made.model)
    return Trained(made.model, made.pairs_seen, made.steps, made.pairs_per_second, made.dtype, details)


def train_adapter(
    data: Dataset, base: Path, options: Mapping[str, Any], *, seed: int, clock: str, device: str, guard: Dataset | None
) -> Trained:
    """Fits a linear adapter of the queries over the base's vectors; encoding all documents once is inside the time."""
    from benchmarks.quality.measure import open_model
    from nearfield.tune.adapter import fit_adapter

    model = open_model(base, device)

    def side(of: Dataset, name: str) -> tuple[Any, list[list[int]]]:
        place = {doc: row for row, doc in enumerate(of.doc_ids)}
        ids, texts = of.queries_of(name)
        return model.encode(texts, kind="query"), [[place[doc] for doc in of.qrels[name][query]] for query in ids]

    documents = model.encode(data.doc_texts, kind="document")
    sides = {name: side(data, name) for name in ("train", "dev")}
    held = None
    if guard is not None and options.get("guarded", False):
        asked, answers = side(guard, "dev")
        held = (asked, model.encode(guard.doc_texts, kind="document"), answers)
    options = {name: value for name, value in options.items() if name != "guarded"}
    began = CLOCKS[clock]()
    adapter = fit_adapter(sides["train"][0], documents, sides["train"][1], dev=sides["dev"], guard=held, seed=seed, **options)
    seen = len(sides["train"][1]) * options.get("epochs", 20)
    spent = max(CLOCKS[clock]() - began, 1e-9)
    details = {"alpha": adapter.alpha, "dev": {str(alpha): score for alpha, score in adapter.dev.items()}}
    return Trained(base, seen, 0, seen / spent, "linear adapter over the base's vectors", details, adapter.apply)
