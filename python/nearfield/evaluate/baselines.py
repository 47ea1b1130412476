"""What needs no training, measured on the same queries as the model: keywords (BM25), and keywords fused with the model."""

from __future__ import annotations

import numpy as np

from nearfield.data.dataset import Dataset
from nearfield.errors import MissingExtraError
from nearfield.evaluate.fusion import RRF_K, fused_run
from nearfield.evaluate.keywords import keyword_run, settings
from nearfield.evaluate.results import BaselineResult, metric_label
from nearfield.evaluate.run import Run
from nearfield.evaluate.significance import bootstrap_columns, paired_columns
from nearfield.evaluate.verdict import advise
from nearfield.metrics import QueryMetrics, score_run


def measure_baselines(
    data: Dataset, model: Run, metrics: QueryMetrics, *, split: str, k: int, seed: int, show: bool = False
) -> tuple[list[BaselineResult], str]:
    """Returns the baselines and one or two sentences on what they say of the model.

    Without bm25s there are none, and the sentence says how to get it.

    Args:
        data: what the model was measured on.
        model: the model's run; the fusion takes its ranked lists.
        metrics: the model's metrics, which the baselines are compared with query by query.
        split, k, seed: as for `nearfield.evaluate`.
        show: whether progress is shown.
    """
    try:
        keywords = keyword_run(data, split=split, depth=model.ranked.shape[1], show=show)
    except MissingExtraError as missing:
        return [], f"The model was not compared with keywords: {missing}."
    fusion = f"reciprocal-rank fusion, k {RRF_K}, of the first {model.ranked.shape[1]} documents of BM25 and of the model"
    runs = (("BM25", settings(), keywords), ("BM25 + model", fusion, fused_run(keywords, model, data.doc_ids)))
    made = [_result(name, how, run, data, metrics, split=split, k=k, seed=seed) for name, how, run in runs]
    decisive = f"ndcg@{k}"
    means = [result.metrics[decisive].mean for result in made]
    changes = [result.change[decisive] for result in made]
    return made, advise(means[0], changes[0], means[1], changes[1], metric=metric_label(decisive))


def _result(name: str, how: str, run: Run, data: Dataset, model: QueryMetrics, *, split: str, k: int, seed: int) -> BaselineResult:
    metrics = score_run(run.query_ids, run.ranked, data.qrels[split], k=k)
    own, others = (np.stack(list(scored.values.values()), axis=1) for scored in (metrics, model))
    unanswered = int(sum(run.ranked[position, 0] is None for position in metrics.positions))
    return BaselineResult(
        name, how, dict(zip(metrics.values, bootstrap_columns(own, seed=seed), strict=True)),
        dict(zip(metrics.values, paired_columns(own - others, seed=seed), strict=True)), unanswered, run.seconds,
    )  # fmt: skip
