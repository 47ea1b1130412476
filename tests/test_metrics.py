"""Metrics against trec_eval's own code and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle_metrics as oracle
from nearfield.errors import InputError
from nearfield.metrics import ndcg_at, score_run

DOCUMENTS = [f"d{i}" for i in range(140)]
# grades below 1 are judged but not relevant, and must change nothing
qrels_of_one_query = st.dictionaries(st.sampled_from(DOCUMENTS), st.integers(-1, 4), max_size=30)
ranking = st.lists(st.sampled_from(DOCUMENTS), unique=True, max_size=120)
runs = st.lists(st.tuples(ranking, qrels_of_one_query), min_size=1, max_size=6)


def trec_eval(query_ids: list[str], ranked: list[list[str]], qrels: dict[str, dict[str, int]]) -> dict[str, dict[str, float]]:
    """trec_eval sorts by score itself, so each rank gets its own score; it knows no run without documents."""
    run = {q: {d: float(1000 - i) for i, d in enumerate(row[:100])} for q, row in zip(query_ids, ranked, strict=True) if row}
    measures = {"ndcg_cut.1,5,10", "recip_rank", "recall.1,10,100", "map"}
    return pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)


@settings(max_examples=150, deadline=None)
@given(runs)
def test_agrees_with_trec_eval(queries: list[tuple[list[str], dict[str, int]]]) -> None:
    query_ids = [f"q{i}" for i in range(len(queries))]
    ranked = [row for row, _ in queries]
    qrels = {q: judged for q, (_, judged) in zip(query_ids, queries, strict=True)}
    theirs = trec_eval(query_ids, ranked, qrels)
    ours = score_run(query_ids, ranked, qrels)
    names = {"ndcg@10": "ndcg_cut_10", "recall@1": "recall_1", "recall@10": "recall_10", "recall@100": "recall_100", "map@100": "map"}
    for place, query in enumerate(ours.query_ids):
        for name, their_name in names.items():
            expected = theirs[query][their_name] if query in theirs else 0.0
            assert ours.values[name][place] == pytest.approx(expected, abs=1e-9), (name, query)
        reciprocal = theirs[query]["recip_rank"] if query in theirs else 0.0
        assert ours.values["mrr@10"][place] == pytest.approx(reciprocal if reciprocal >= 0.1 else 0.0, abs=1e-9)
    have_relevant = [q for q in query_ids if any(grade > 0 for grade in qrels[q].values())]
    assert ours.query_ids == have_relevant
    assert ours.without_relevant == len(query_ids) - len(have_relevant)


@settings(max_examples=100, deadline=None)
@given(runs, st.integers(1, 130))
def test_agrees_with_plain_loops(queries: list[tuple[list[str], dict[str, int]]], k: int) -> None:
    query_ids = [f"q{i}" for i in range(len(queries))]
    qrels = {q: judged for q, (_, judged) in zip(query_ids, queries, strict=True)}
    ours = score_run(query_ids, [row for row, _ in queries], qrels, k=k)
    assert ours.depth == max(100, k)
    for place, position in enumerate(ours.positions):
        row, judged = queries[position]
        row = row[: ours.depth]
        assert ours.values[f"ndcg@{k}"][place] == pytest.approx(oracle.ndcg(row, judged, k), abs=1e-12)
        assert ours.values[f"mrr@{k}"][place] == pytest.approx(oracle.mrr(row, judged, k), abs=1e-12)
        assert ours.values[f"map@{ours.depth}"][place] == pytest.approx(oracle.average_precision(row, judged), abs=1e-12)
        for cut in (1, 10, 100, k):
            assert ours.values[f"recall@{cut}"][place] == pytest.approx(oracle.recall(row, judged, cut), abs=1e-12)
        assert ndcg_at(row, judged, k) == pytest.approx(oracle.ndcg(row, judged, k), abs=1e-12)


def test_hand_computed() -> None:
    scores = score_run(["q"], [["x", "a", "y", "b"]], {"q": {"a": 1, "b": 2, "never": 1}})
    got = scores.means()
    ideal = 2 / 1 + 1 / np.log2(3) + 1 / np.log2(4)
    assert got["ndcg@10"] == pytest.approx((1 / np.log2(3) + 2 / np.log2(5)) / ideal)
    assert got["mrr@10"] == 0.5
    assert got["recall@1"] == 0.0
    assert got["recall@10"] == pytest.approx(2 / 3)
    assert got["map@100"] == pytest.approx((1 / 2 + 2 / 4) / 3)


def test_missing_places_and_empty_rankings_score_zero_but_count() -> None:
    scores = score_run(["q1", "q2"], [[None, "a"], []], {"q1": {"a": 1}, "q2": {"a": 1}})
    assert scores.query_ids == ["q1", "q2"]
    assert scores.values["mrr@10"].tolist() == [0.5, 0.0]


def test_nothing_judged_gives_nan_means_and_a_count() -> None:
    scores = score_run(["q1"], [["a"]], {"q1": {"a": 0}})
    assert scores.without_relevant == 1
    assert np.isnan(scores.means()["ndcg@10"])


def test_object_arrays_of_ids_are_taken_as_they_come_from_a_search() -> None:
    ids = np.array([["a", "b"], ["b", None]], object)
    assert score_run(["q1", "q2"], ids, {"q1": {"b": 1}, "q2": {"b": 1}}).values["mrr@10"].tolist() == [0.5, 1.0]


def test_ndcg_at_takes_positions_and_sets() -> None:
    assert ndcg_at(np.array([4, 2, 9]), {9, 4}, k=10) == pytest.approx((1 + 1 / 2) / (1 + 1 / np.log2(3)))
    assert ndcg_at([1, 2], set(), k=10) == 0.0
    assert ndcg_at([], {1}, k=10) == 0.0


def test_refusals_say_what_is_wrong() -> None:
    with pytest.raises(InputError, match="twice in the list of query 'q'"):
        score_run(["q"], [["a", "a"]], {"q": {"a": 1}})
    with pytest.raises(InputError, match="1 lists given, 2 expected"):
        score_run(["q", "r"], [["a"]], {})
    with pytest.raises(InputError, match="k: 0"):
        score_run(["q"], [["a"]], {}, k=0)
