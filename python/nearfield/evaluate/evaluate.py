"""`nearfield.evaluate`: one model on held-out queries, or two models side by side with a verdict."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np

from nearfield.arrays import check_k
from nearfield.data.dataset import Dataset
from nearfield.errors import InputError
from nearfield.evaluate.baselines import measure_baselines
from nearfield.evaluate.results import EvalReport, GuardResult, QueryChange, SystemResult, metric_label
from nearfield.evaluate.run import Run, encode_split, rank
from nearfield.evaluate.significance import RESAMPLES, Paired, bootstrap_columns, paired, paired_columns
from nearfield.evaluate.study.gather import Gathering
from nearfield.evaluate.verdict import GUARD_LIMIT, Verdict, judge
from nearfield.metrics import DEPTH, QueryMetrics, score_run
from nearfield.search.encoders import Model, TextEncoder, model_name, open_encoder

__all__ = ["EvalReport", "evaluate"]

# As many changed queries as one reads; and about three lines of each document.
SHOWN = 10
SNIPPET = 240


@dataclass(frozen=True)
class _Scored:
    """One model on one dataset: its ranked lists, its metrics, and what the report says of it."""

    run: Run
    metrics: QueryMetrics
    result: SystemResult


def evaluate(
    data: str | os.PathLike[str] | Dataset,
    model: Model,
    *,
    split: str = "test",
    k: int = 10,
    compare: Model | None = None,
    guard: str | os.PathLike[str] | Dataset | None = None,
    guard_limit: float = GUARD_LIMIT,
    cache: str | os.PathLike[str] | None = None,
    seed: int = 0,
    threads: int | None = None,
    study: bool = False,
    progress: bool = False,
) -> EvalReport:
    """Measures how well a model finds the relevant documents, by exact search over the whole corpus.

    Keywords (BM25), alone and fused with the model, are measured beside it where ``nearfield[baselines]`` is installed; the report says how
    to get them where it is not.

    Args:
        data: a dataset, or the path of one (JSONL, CSV, Parquet or a BEIR folder).
        model: a bundle, a model folder or name, or an encoder.
        split: whose queries. Where the data has no such split it is made from its training pairs with ``seed``, as `nearfield.tune` does
            (same seed, same split), and a note says so.
        k: the cut-off of nDCG and MRR; 10 is what most published results state.
        compare: the model to replace. With it the report holds paired differences, wins, losses and a verdict.
        guard: a second dataset, of general questions; a drop of nDCG@k above ``guard_limit`` there makes the verdict "do not ship".
        guard_limit: the largest drop accepted; 0.01 is one point.
        cache: a folder that keeps corpus vectors, so that a base model's need computing only once.
        seed: of the split and of the statistics.
        threads: of encoding and search; None takes the library's default.
        study: also measures what the report shows beside the verdict: slices of the queries, fewer columns and other storage, latency on
            this machine, and a map of the corpus; half a minute at most beside the encoding.
        progress: whether long steps show themselves on stderr.

    Raises:
        InputError: data or models that cannot be used, no queries in the split, or none of them with a relevant document.
    """
    start = time.perf_counter()
    k = check_k(k)
    if not 0 <= guard_limit <= 1:
        raise InputError(f"guard_limit: {guard_limit} given, a drop between 0 and 1 expected; 0.01 is one point")
    dataset, notes = _with_split(data, split, seed)
    guard_data, guard_notes = (None, []) if guard is None else _with_split(guard, split, seed)
    guard_split = "" if guard_data is None else _guard_split(guard_data, split)
    scored: list[_Scored] = []
    guarded: list[_Scored] = []
    measure = partial(_measure, k=k, cache=cache, seed=seed, threads=threads, progress=progress)
    gathering = Gathering(dataset, split=split, k=k, seed=seed, threads=threads, show=progress) if study else None
    for which in (model,) if compare is None else (model, compare):
        with _opened(which, threads) as encoder:
            for target, where, out, look in ((dataset, split, scored, gathering), (guard_data, guard_split, guarded, None)):
                if target is not None:
                    out.append(measure(encoder, model_name(which), target, where, look))
    guard_result = None if guard_data is None else _guard_result(guard_data, guard_split, guarded, k, seed)
    after, before = scored[0], scored[1] if compare is not None else None
    change = {} if before is None else _changes(before, after, seed)
    wins, losses, counts = ([], [], (0, 0, 0)) if before is None else _query_changes(dataset, split, before, after, k)
    baselines, advice = measure_baselines(dataset, after.run, after.metrics, split=split, k=k, seed=seed, show=progress)
    verdict = None if before is None else _verdict(before, after, change, guard_result, k, guard_limit)
    if verdict is not None:
        verdict = replace(verdict, sentence=f"{verdict.sentence} {advice}")
    return EvalReport(
        data=dataset.name, data_fingerprint=dataset.fingerprint, split=split, k=k, depth=after.metrics.depth,
        documents=len(dataset.doc_ids), queries=len(after.metrics.query_ids), without_relevant=after.metrics.without_relevant,
        model=after.result, compare=None if before is None else before.result, change=change,
        better=counts[0], worse=counts[1], same=counts[2], wins=wins, losses=losses,
        baselines=baselines, advice=advice, guard=guard_result, verdict=verdict,
        study=None if gathering is None else gathering.finish(after.metrics, None if before is None else before.metrics, wins, losses),
        notes=notes + guard_notes, findings=[asdict(finding) for finding in dataset.findings],
        resamples=RESAMPLES, seed=seed, seconds=time.perf_counter() - start,
    )  # fmt: skip


def _with_split(data: str | os.PathLike[str] | Dataset, split: str, seed: int) -> tuple[Dataset, list[str]]:
    from nearfield.data.read import read
    from nearfield.data.split import split as make_splits

    dataset = read(data)
    if split in dataset.qrels or not dataset.qrels.get("train"):
        return dataset, []
    made = make_splits(dataset, seed=seed)
    if split not in made.qrels:
        return dataset, []
    return made, [f"{dataset.name} has no {split} split; one was made from its pairs with seed {seed}, as tune makes it."]


def _guard_split(data: Dataset, split: str) -> str:
    """Nothing is tuned on a guard set, so any split of it serves where it lacks the one asked for."""
    return next((name for name in (split, "test", "dev", "train") if data.qrels.get(name)), split)


@contextmanager
def _opened(model: Model, threads: int | None) -> Iterator[TextEncoder]:
    """Closes what it opened, so that two models are never in memory at once unless the caller holds them."""
    encoder = open_encoder(model, threads=threads)
    try:
        yield encoder
    finally:
        close = getattr(encoder, "close", None)
        if encoder is not model and close is not None:
            close()


def _measure(
    encoder: TextEncoder, name: str, data: Dataset, split: str, gathering: Gathering | None, *, k: int,
    cache: str | os.PathLike[str] | None, seed: int, threads: int | None, progress: bool,
) -> _Scored:  # fmt: skip
    """Runs and scores one model on one dataset; its vectors are let go of at the end, so that two models' are never in memory at once."""
    encoded = encode_split(data, encoder, split=split, cache=cache, show=progress)
    run = rank(encoded, data.doc_ids, depth=max(DEPTH, k), show=progress, threads=threads, label=name)
    metrics = score_run(run.query_ids, run.ranked, data.qrels[split], k=k)
    if not metrics.query_ids:
        raise InputError(f"{data.name}: none of the {len(run.query_ids):,} queries of split {split!r} has a relevant document")
    intervals = bootstrap_columns(np.stack(list(metrics.values.values()), axis=1), seed=seed)
    result = SystemResult(
        name, encoder.fingerprint, encoder.backend, encoder.precision, dict(zip(metrics.values, intervals, strict=True)),
        run.truncated_documents, run.truncated_queries, run.seconds, run.cached,
    )  # fmt: skip
    if gathering is not None:
        gathering.look(encoder, encoded, metrics)
    return _Scored(run, metrics, result)


def _changes(before: _Scored, after: _Scored, seed: int) -> dict[str, Paired]:
    old, new = (np.stack(list(scored.metrics.values.values()), axis=1) for scored in (before, after))
    return dict(zip(after.metrics.values, paired_columns(new - old, seed=seed), strict=True))


def _guard_result(data: Dataset, split: str, scored: list[_Scored], k: int, seed: int) -> GuardResult:
    metric = f"ndcg@{k}"
    before = scored[1] if len(scored) > 1 else None
    return GuardResult(
        data=data.name, split=split, queries=len(scored[0].metrics.query_ids), documents=len(data.doc_ids), metric=metric,
        model=scored[0].result.metrics[metric], compare=None if before is None else before.result.metrics[metric],
        change=None if before is None else paired(before.metrics.values[metric], scored[0].metrics.values[metric], seed=seed),
    )  # fmt: skip


def _verdict(before: _Scored, after: _Scored, change: dict[str, Paired], guard: GuardResult | None, k: int, limit: float) -> Verdict:
    metric = f"ndcg@{k}"
    means = before.result.metrics[metric].mean, after.result.metrics[metric].mean
    return judge(*means, change[metric], guard=None if guard is None else guard.change, metric=metric_label(metric), guard_limit=limit)


def _query_changes(
    data: Dataset, split: str, before: _Scored, after: _Scored, k: int
) -> tuple[list[QueryChange], list[QueryChange], tuple[int, int, int]]:
    """The largest changes of nDCG@k each way, and how many queries rose, fell and stayed."""
    old, new = before.metrics.values[f"ndcg@{k}"], after.metrics.values[f"ndcg@{k}"]
    delta = new - old
    texts = dict(zip(data.doc_ids, data.doc_texts, strict=True))

    def describe(place: int) -> QueryChange:
        position = int(after.metrics.positions[place])
        query = after.run.query_ids[position]
        lists = [list(scored.run.ranked[position]) for scored in (before, after)]
        ranks = [{document: rank for rank, document in enumerate(row, start=1)} for row in lists]
        best = ranks[1] if delta[place] > 0 else ranks[0]
        relevant = [document for document, grade in data.qrels[split][query].items() if grade > 0]
        shown = min(relevant, key=lambda document: best.get(document, len(lists[0]) + 1))
        document = _snippet(texts.get(shown, ""))
        values = float(old[place]), float(new[place])
        instead = lists[0][0] if delta[place] > 0 else lists[1][0]
        instead = "" if instead in relevant else instead
        return QueryChange(
            query, after.run.query_texts[position], shown, document, ranks[0].get(shown), ranks[1].get(shown), *values, instead,
            _snippet(texts.get(instead, "")),
        )  # fmt: skip

    order = np.argsort(delta, kind="stable")
    losses = [describe(int(place)) for place in order[:SHOWN] if delta[place] < 0]
    wins = [describe(int(place)) for place in np.argsort(-delta, kind="stable")[:SHOWN] if delta[place] > 0]
    rose, fell = int((delta > 0).sum()), int((delta < 0).sum())
    return wins, losses, (rose, fell, len(delta) - rose - fell)


def _snippet(text: str) -> str:
    """One line of at most `SNIPPET` characters, cut at a word where there is one.

    >>> _snippet("two\\n lines")
    'two lines'
    """
    line = " ".join(text[: 4 * SNIPPET].split())
    if len(line) <= SNIPPET:
        return line
    return line[: SNIPPET - 3].rsplit(" ", 1)[0] + "..."
