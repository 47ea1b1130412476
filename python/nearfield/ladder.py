"""The ladder: cheap ways to tune before dear ones, and a stop where the next rung is not surely better on dev.

A rung that leaves the documents alone (an adapter, queries alone) spares the encoding of a corpus and keeps every index; one that trains
fewer layers forgets less and takes less time. So each has to be beaten, query by query, before a dearer one is shipped.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nearfield.config import TuneConfig
from nearfield.data.dataset import Dataset
from nearfield.encode.spec import read_json, weights_folder
from nearfield.evaluate.significance import Paired, paired
from nearfield.evaluate.verdict import TINY_GAIN, is_sure
from nearfield.metrics import score_run
from nearfield.types import FloatArray

if TYPE_CHECKING:
    from nearfield.search.encoders import TextEncoder
    from nearfield.tune.train import TrainResult

# Shares of a budget: what is left goes to all layers. The adapter needs seconds, the upper half of the layers half a step's time.
SHARES = {"adapter": 0.1, "query-only": 0.2, "partial": 0.3}
RUNGS = ("adapter", "query-only", "partial", "full")
# Dev queries and documents that rungs are compared on.
QUERIES, DOCUMENTS = 500, 2000


@dataclass(frozen=True)
class Rung:
    """One rung as it was measured.

    Attributes:
        name: "base" or one of ``RUNGS``.
        ndcg: nDCG@10 on the dev sub-corpus.
        change: against the best rung below; None for the base.
        kept: whether it became the best.
        seconds: of training it.
    """

    name: str
    ndcg: float
    change: Paired | None
    kept: bool
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Returns an entry for the run's history."""
        change = None if self.change is None else dataclasses.asdict(self.change)
        return {"kind": "rung", "name": self.name, "dev_ndcg": self.ndcg, "change": change, "kept": self.kept, "seconds": self.seconds}


@dataclass
class Climbed:
    """Where the climb ended.

    Attributes:
        name: the rung that is shipped.
        result: its training; None for the base and the adapter.
        matrix: the adapter's map of queries, where that is it.
        alpha: the share of what was learned that was kept; 0 for the base.
        rungs: all that were measured, from the base up.
        note: why it ended before dev said so; empty otherwise.
    """

    name: str = "base"
    result: TrainResult | None = None
    matrix: FloatArray | None = None
    alpha: float = 0.0
    rungs: list[Rung] = field(default_factory=list)
    note: str = ""

    def sentence(self) -> str:
        """The climb in one line.

        >>> Climbed(rungs=[Rung("base", 0.5, None, True, 0.0)]).sentence()
        'ladder: base 0.500; base it is'
        """
        steps = [f"base {self.rungs[0].ndcg:.3f}"]
        for rung in self.rungs[1:]:
            change = "" if rung.change is None else f" ({rung.change.mean:+.3f} [{rung.change.low:+.3f}, {rung.change.high:+.3f}])"
            steps.append(f"{rung.name} {rung.ndcg:.3f}{change}{'' if rung.kept else ', not surely better'}")
        return f"ladder: {'; '.join(steps)}{self.note and f'; {self.note}'}; {self.name} it is"

    def result_for(self, base: Path) -> TrainResult:
        """The training behind it, with the rungs in its history; for the base and the adapter one that trained no weights."""
        from nearfield.tune.train import TrainResult

        rungs = [rung.to_dict() for rung in self.rungs]
        if self.result is not None:
            return dataclasses.replace(self.result, history=rungs + self.result.history, notes=[self.sentence(), *self.result.notes])
        return TrainResult(
            model=base, alpha=self.alpha, pieces=0.0, history=rungs, dev={"base": self.rungs[0].ndcg, "chosen": self.rungs[-1].ndcg},
            guard=None, steps=0, best_step=0, pairs=0, pairs_seen=0, seconds=sum(rung.seconds for rung in self.rungs),
            pairs_per_second=0.0, dtype="float32", dtype_reason="float32 (no weights of a model were trained)", notes=[self.sentence()],
            begun_with={},
        )  # fmt: skip


Train = Callable[[str, TuneConfig], "TrainResult"]


def climb(
    dataset: Dataset, guard: Dataset | None, base: TextEncoder, folder: Path, config: TuneConfig, *, documents: FloatArray, train: Train,
    open_model: Callable[[Path], Any], guard_documents: Callable[[], FloatArray] | None, clock: Callable[[], float] = time.monotonic,
) -> Climbed:  # fmt: skip
    """Climbs as far as dev says.

    Args:
        dataset: with train and dev splits.
        guard: general knowledge to keep, or None.
        base: the base as an encoder; left open.
        folder: the base's model folder.
        config: "adapter" ends after the first rung; ``budget_seconds`` is shared among the rungs.
        documents: the corpus by the base, ``(documents, dim)``.
        train: runs one training by name and config; rungs begin anew from the base.
        open_model: opens a tuned folder as an encoder that can be closed.
        guard_documents: the guard's corpus by the base; asked once, where an adapter needs it.
        clock: what measures the budget.
    """
    began, budget = clock(), config.budget_seconds
    probe = _Probe(dataset, base, folder, documents, config)
    at_base = probe.values(None)
    climbed = Climbed(rungs=[Rung("base", float(at_base.mean()), None, True, 0.0)])
    best = at_base

    def left() -> float | None:
        return None if budget is None else budget - (clock() - began)

    for name in RUNGS[:1] if config.ladder == "adapter" else RUNGS:
        start, remaining = clock(), left()
        if remaining is not None and remaining < 1:
            climbed.note = f"the budget was over before {name}"
            break
        share = None if budget is None or remaining is None else max(1.0, min(remaining, SHARES.get(name, 1.0) * budget))
        tried = Climbed(name)
        if name == "adapter":
            made = _adapter(dataset, guard, base, documents, guard_documents, config, share, clock)
            tried.matrix, tried.alpha = made.matrix, made.alpha
            values = probe.values(None, made.apply)
        else:
            tried.result = train(name, _config_of(name, config, share, folder))
            tried.alpha = tried.result.alpha
            with open_model(tried.result.model) as encoder:
                values = probe.values(encoder, queries_only=name == "query-only")
        change = paired(best, values, seed=config.seed)
        kept = is_sure(change) and change.mean >= TINY_GAIN
        rungs = [*climbed.rungs, Rung(name, float(values.mean()), change, kept, clock() - start)]
        if not kept and name != "adapter":
            # The adapter alone may fail for what it is, a linear map; each dearer way contains the one below.
            climbed.rungs = rungs
            break
        climbed.rungs = rungs
        if kept:
            climbed, best = dataclasses.replace(tried, rungs=rungs), values
    return climbed


def _config_of(name: str, config: TuneConfig, seconds: float | None, folder: Path) -> TuneConfig:
    """The rung's own options. Queries alone cannot take what changes documents; a whole run takes everything."""
    common = dataclasses.replace(config, ladder="none", budget_seconds=seconds)
    if name == "query-only":
        return dataclasses.replace(common, query_only=True, mined_negatives=0, distill=0.0, teacher=None, gradcache=False)
    if name == "partial":
        layers = read_json(weights_folder(folder) / "config.json").get("num_hidden_layers")
        return dataclasses.replace(
            common, lora_rank=0, frozen_layers=max(common.frozen_layers, layers // 2 if isinstance(layers, int) else 0)
        )
    return common


def _adapter(
    dataset: Dataset, guard: Dataset | None, base: TextEncoder, documents: FloatArray,
    guard_documents: Callable[[], FloatArray] | None, config: TuneConfig, seconds: float | None, clock: Callable[[], float],
) -> Any:  # fmt: skip
    from nearfield.tune.adapter import fit_adapter

    asked, answers = _side(dataset, "train", base)
    dev = _side(dataset, "dev", base)
    held = None
    if guard is not None and guard.qrels.get("dev") and guard_documents is not None:
        queries, relevant = _side(guard, "dev", base)
        held = (queries, guard_documents(), relevant)
    return fit_adapter(
        asked, documents, answers, dev=dev, guard=held, allowed_drop=config.guard_max_drop, temperature=config.temperature,
        seed=config.seed, limit=seconds, clock=clock,
    )  # fmt: skip


def _side(data: Dataset, split: str, encoder: TextEncoder) -> tuple[FloatArray, list[list[int]]]:
    """The split's queries that have an answer among the documents: their vectors, and the answers' rows."""
    place = {doc: row for row, doc in enumerate(data.doc_ids)}
    ids, texts = data.queries_of(split)
    answers = [[place[doc] for doc, grade in data.qrels[split][query].items() if grade > 0 and doc in place] for query in ids]
    kept = [i for i, rows in enumerate(answers) if rows]
    return encoder.encode([texts[i] for i in kept], kind="query"), [answers[i] for i in kept]


class _Probe:
    """The dev queries and the sub-corpus on which rungs are compared.

    Its wrong documents are look-alikes by their words and random ones, which no rung has chosen: those that the base puts high would count
    against the base alone.
    """

    def __init__(self, dataset: Dataset, base: TextEncoder, folder: Path, documents: FloatArray, config: TuneConfig) -> None:
        from nearfield.tune.devset import choose_devset
        from nearfield.tune.train import tokenizers

        query_ids_of, doc_ids_of = tokenizers(folder, config)
        sizes = dataclasses.replace(config, dev_queries=QUERIES, dev_documents=DOCUMENTS)
        chosen = choose_devset(dataset, sizes, query_ids_of=query_ids_of, doc_ids_of=doc_ids_of)
        place = {doc: row for row, doc in enumerate(dataset.doc_ids)}
        texts = dict(zip(dataset.query_ids, dataset.query_texts, strict=True))
        self.dataset, self.query_ids, self.doc_ids, self.qrels = dataset, chosen.query_ids, chosen.doc_ids, chosen.qrels
        self.query_texts = [texts[query] for query in chosen.query_ids]
        self.rows = [place[doc] for doc in chosen.doc_ids]
        self.vectors = documents[self.rows]
        self.asked = base.encode(self.query_texts, kind="query")

    def values(
        self, encoder: TextEncoder | None, adapt: Callable[[FloatArray], FloatArray] | None = None, *, queries_only: bool = False
    ) -> FloatArray:
        """nDCG@10 of each query; None stands for the base, whose vectors are known."""
        asked = self.asked if encoder is None else encoder.encode(self.query_texts, kind="query")
        asked = asked if adapt is None else adapt(asked)
        fixed = encoder is None or queries_only
        documents = self.vectors if fixed else encoder.encode([self.dataset.doc_texts[row] for row in self.rows], kind="document")  # type: ignore[union-attr]
        order = np.argsort(-(asked @ documents.T), axis=1, kind="stable")[:, :10]
        ranked = [[self.doc_ids[j] for j in row] for row in order]
        return np.asarray(score_run(self.query_ids, ranked, self.qrels, k=10, depth=10).values["ndcg@10"], np.float64)
