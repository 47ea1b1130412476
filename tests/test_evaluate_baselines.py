"""Keywords beside the model: BM25 and the fusion against plain loops, edge cases, the advice, and where it all shows."""

from __future__ import annotations

import json
import logging
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import oracle_bm25
import oracle_metrics
from fake_encoder import BagEncoder
from nearfield.data.dataset import Dataset
from nearfield.errors import MissingExtraError
from nearfield.evaluate.evaluate import evaluate
from nearfield.evaluate.fusion import fuse, fused_run
from nearfield.evaluate.keywords import Keywords, keyword_run, words
from nearfield.evaluate.report.page import render
from nearfield.evaluate.results import EvalReport
from nearfield.evaluate.run import Run, encode_split, rank
from nearfield.evaluate.significance import Paired, paired
from nearfield.evaluate.verdict import advise
from test_evaluate import BAD, DATA, GOOD

# "Straße", "Ünal" and "naïve" are words; "the" and "in" are stop words; few words and many documents make repeats and ties.
VOCABULARY = "the in wind rain Stone river lamp glass Straße Ünal naïve x_1 42 salt".split()  # noqa: SIM905 (quoted words read worse)


def corpus(seed: int, size: int) -> list[str]:
    rng = np.random.default_rng(seed)
    rows = [" ".join(rng.choice(VOCABULARY, rng.integers(0, 12))) for _ in range(size)]
    # equal documents tie exactly; one without words and one of punctuation alone are never found
    return [*rows, rows[0], rows[1], "", "?! -- ..."]


def run_of(lists: list[list[str | None]]) -> Run:
    ranked = np.array(lists, object).reshape(len(lists), -1)
    return Run([f"q{i}" for i in range(len(lists))], [""] * len(lists), ranked, np.zeros(ranked.shape, np.float32), 0, 0, {}, False)


@pytest.mark.parametrize("text", ["Find *.txt, newer than_2 Ünal's!", "", " \n", "ÉTÉ été 2½ b² 日本語", "_a__b_", "\ud800x İ"])
def test_words_are_those_of_a_loop_over_letters(text: str) -> None:
    assert words(text) == oracle_bm25.split_words(text)


@pytest.mark.parametrize(("seed", "size", "depth"), [(0, 60, 100), (1, 60, 7), (2, 3, 2), (3, 200, 100)])
def test_bm25_is_that_of_plain_loops(seed: int, size: int, depth: int) -> None:
    documents = corpus(seed, size)
    rng = np.random.default_rng(100 + seed)
    queries = [" ".join(rng.choice(VOCABULARY, rng.integers(1, 6))) + " unknown?" for _ in range(20)]
    keywords = Keywords(documents)
    for query in [*queries, "wind wind rain", "THE IN", "the wind"]:
        expected = oracle_bm25.bm25(documents, query)
        found, scores = keywords.best(query, depth)
        # sums in another order may differ in the last digit and so break ties; none of these do
        assert found.tolist() == oracle_bm25.ranking([round(score, 12) for score in expected], depth)
        np.testing.assert_allclose(scores, [expected[place] for place in found], rtol=1e-12, atol=0)


def test_ties_keep_the_documents_order_also_at_the_last_place() -> None:
    keywords = Keywords(["rain"] + ["wind"] * 500 + ["wind wind", "snow"])
    assert keywords.best("wind", 4)[0].tolist() == [501, 1, 2, 3]


def test_stop_words_count_only_where_nothing_else_is_asked() -> None:
    keywords = Keywords(["not to be", "wind", "a storm"])
    assert len(keywords.stop_words) == 33
    assert set(oracle_bm25.STOP) == keywords.stop_words
    assert keywords.best("to be or not to be", 9)[0].tolist() == [0]
    assert keywords.best("a wind", 9)[0].tolist() == [1]


@pytest.mark.parametrize(
    ("documents", "query", "expected"),
    [
        (["rain", "wind"], "", []),
        (["rain", "wind"], " ?! ", []),
        (["rain", "wind"], "snow", []),
        (["rain"], "rain", [0]),
        (["rain"], "wind", []),
        (["", "..."], "wind", []),
        ([], "wind", []),
        (["", "wind"], "wind", [1]),
    ],
)
def test_edges(documents: list[str], query: str, expected: list[int]) -> None:
    with np.errstate(all="raise"):
        found, scores = Keywords(documents).best(query, 5)
    assert found.tolist() == expected
    assert scores.shape == (len(expected),)


def test_a_run_has_none_where_nothing_is_retrieved() -> None:
    data = Dataset(
        "d", "memory", ["a", "b"], ["wind", "rain"], ["q", "r", "s"], ["rain", "", "snow"], {"test": {q: {"a": 1} for q in "qrs"}}
    )
    run = keyword_run(data, depth=3)
    assert run.ranked.tolist() == [["b", None, None], [None] * 3, [None] * 3]
    assert np.isnan(run.scores).tolist() == [[False, True, True], [True] * 3, [True] * 3]
    assert run.query_ids == ["q", "r", "s"]


def test_the_library_writes_no_log(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        Keywords(["wind", "rain"]).best("wind", 2)
    assert not [record for record in caplog.records if record.name.startswith("bm25s")]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("seed", range(5))
def test_fusion_is_that_of_exact_fractions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    documents = [f"d{i}" for i in rng.permutation(40)]
    depth = int(rng.integers(1, 30))
    lists: list[list[list[str | None]]] = [[], []]
    for _ in range(30):
        for side in lists:
            held = int(rng.integers(0, depth + 1))
            side.append([*rng.permutation(documents)[:held].tolist(), *[None] * (depth - held)])
    run = fused_run(run_of(lists[0]), run_of(lists[1]), documents)
    for row, pair in enumerate(zip(*lists, strict=True)):
        expected = oracle_bm25.fused([[d for d in one if d is not None] for one in pair], documents, depth)
        assert [document for document in run.ranked[row] if document is not None] == expected
        assert all(document is None for document in run.ranked[row, len(expected) :])


def test_fusion_of_mirrored_lists_keeps_the_documents_order() -> None:
    run = fused_run(run_of([["a", "b"]]), run_of([["b", "a"]]), ["b", "a"])
    assert run.ranked.tolist() == [["b", "a"]]
    assert fuse(["a", None], []) == {"a": 1 / 61}


def test_the_report_holds_what_the_loops_give() -> None:
    report = evaluate(DATA, GOOD, compare=BAD)
    plain = [oracle_bm25.ranking(oracle_bm25.bm25(DATA.doc_texts, text), 100) for text in DATA.query_texts]
    keywords = [[DATA.doc_ids[i] for i in row] for row in plain]
    dense = [[d for d in row if d is not None] for row in rank(encode_split(DATA, GOOD), DATA.doc_ids).ranked]
    both = [oracle_bm25.fused([one, two], DATA.doc_ids, 100) for one, two in zip(keywords, dense, strict=True)]
    judged = [DATA.qrels["test"][query] for query in DATA.query_ids]
    model = [oracle_metrics.ndcg(row, j, 10) for row, j in zip(dense, judged, strict=True)]
    assert [baseline.name for baseline in report.baselines] == ["BM25", "BM25 + model"]
    for baseline, lists in zip(report.baselines, (keywords, both), strict=True):
        values = [oracle_metrics.ndcg(row, j, 10) for row, j in zip(lists, judged, strict=True)]
        assert baseline.metrics["ndcg@10"].mean == pytest.approx(np.mean(values), abs=1e-9)
        assert baseline.metrics["map@100"].mean == pytest.approx(
            np.mean([oracle_metrics.average_precision(row, j) for row, j in zip(lists, judged, strict=True)]), abs=1e-9
        )
        assert list(baseline.metrics) == list(baseline.change) == list(report.model.metrics)
        against, expected = baseline.change["ndcg@10"], paired(model, values)
        assert (against.mean, against.low, against.high) == pytest.approx((expected.mean, expected.low, expected.high), abs=1e-9)
        assert against.p == pytest.approx(expected.p, abs=0.02)


def test_a_model_that_loses_to_keywords_is_told_so_and_may_still_ship() -> None:
    report = evaluate(DATA, BagEncoder("poor", blur=2.0), compare=BagEncoder("worse", blur=8.0))
    assert report.verdict is not None
    assert report.verdict.answer == "ship"
    assert report.advice.startswith("Keywords beat the model: BM25 reaches nDCG@10 ")
    assert report.advice.endswith("Search by keywords instead.")
    assert report.verdict.sentence.endswith(report.advice)
    assert str(report).endswith(report.advice)
    assert json.loads(report.to_json())["advice"] == report.advice


def test_a_model_alone_is_compared_as_well() -> None:
    report = evaluate(DATA, GOOD)
    assert report.verdict is None
    assert str(report).endswith(report.advice)
    assert "BM25 + model" in str(report)
    assert json.loads(report.to_json())["baselines"][0]["metrics"].keys() == report.model.metrics.keys()


def test_table_page_and_json_hold_the_figures() -> None:
    report = evaluate(DATA, GOOD, compare=BAD)
    lines = str(report).splitlines()
    page = " ".join(ET.fromstring(render(report).partition("\n")[2]).itertext())
    for baseline, back in zip(report.baselines, json.loads(report.to_json())["baselines"], strict=True):
        mean, change = baseline.metrics["ndcg@10"].mean, baseline.change["ndcg@10"].mean
        (row,) = [line for line in lines if line.startswith("nDCG@10") and f"{mean:.3f} [" in line and f"{change:+.3f} [" in line]
        assert len(row) <= 120
        assert f"{mean:.3f} [" in page
        assert f"{change:+.3f} [" in page
        assert baseline.how in page
        assert back["change"]["ndcg@10"]["mean"] == change
    assert report.advice in page


def test_unanswered_queries_are_counted_and_score_zero() -> None:
    data = Dataset(
        "d",
        "memory",
        ["a", "b"],
        ["wind", "rain"],
        ["q", "r", "s"],
        ["wind", "snow", "?"],
        {"test": {q: {"a": 1} for q in "qr"} | {"s": {}}},
    )
    report = evaluate(data, GOOD)
    keywords, both = report.baselines
    assert (keywords.unanswered, both.unanswered) == (1, 0)
    assert keywords.metrics["ndcg@10"].mean == 0.5
    # where BM25 finds nothing, the model's own order stands
    assert both.metrics["recall@100"].mean == 1.0
    assert "BM25 retrieved nothing for 1 queries." in render(report)


def without_bm25s(monkeypatch: pytest.MonkeyPatch) -> EvalReport:
    for name in [name for name in sys.modules if name.split(".")[0] == "bm25s"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "bm25s", None)
    return evaluate(DATA, GOOD, compare=BAD)


def test_without_the_extra_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    report = without_bm25s(monkeypatch)
    notice = "BM25 needs bm25s, which is not installed: pip install 'nearfield[baselines]'"
    assert report.baselines == []
    assert report.verdict is not None
    assert report.verdict.answer == "ship"
    assert notice in report.verdict.sentence
    assert sum(notice in line for line in str(report).splitlines()) == 1
    assert notice in " ".join(ET.fromstring(render(report).partition("\n")[2]).itertext())
    with pytest.raises(MissingExtraError, match="baselines"):
        Keywords(["wind"])


UP, TINY, DOWN = Paired(0.06, 0.04, 0.08, 0.0001), Paired(0.003, 0.001, 0.005, 0.01), Paired(-0.06, -0.08, -0.04, 0.0001)
EVEN, ONE = Paired(0.004, -0.01, 0.02, 0.5), Paired(0.5, float("nan"), float("nan"), 1.0)
HALF_SURE = Paired(0.06, 0.001, 0.12, 0.051)  # the interval leaves out zero, the other test does not agree


@pytest.mark.parametrize(
    ("keywords", "fused", "start", "middle", "end"),
    [
        (DOWN, DOWN, "The model beats keywords:", "worse than the model alone", "Keywords need not be added."),
        (DOWN, EVEN, "The model beats keywords:", "which may be chance", "Keywords need not be added."),
        (DOWN, TINY, "The model beats keywords:", "too little to pay for a second search", "Keywords need not be added."),
        (DOWN, UP, "The model beats keywords:", "better than the model alone", "Search by keywords as well and fuse the two."),
        (EVEN, UP, "The model is not shown to beat", "better than the model alone", "Search by keywords as well and fuse the two."),
        (EVEN, EVEN, "The model is not shown to beat", "which may be chance", "Keywords cost less to serve; only more queries"),
        (ONE, ONE, "The model is not shown to beat", "too few queries for an interval", "Keywords cost less to serve; only more queries"),
        (HALF_SURE, EVEN, "The model is not shown to beat", "which may be chance", "Keywords cost less to serve; only more queries"),
        (UP, EVEN, "Keywords beat the model:", "which may be chance", "Search by keywords instead."),
        (UP, UP, "Keywords beat the model:", "better than the model alone", "Search by keywords instead."),
        (UP, Paired(0.07, 0.05, 0.09, 0.0001), "Keywords beat the model:", "better than the model", "Search by keywords as well and fuse"),
    ],
)
def test_advice_rules(keywords: Paired, fused: Paired, start: str, middle: str, end: str) -> None:
    text = advise(0.7 + keywords.mean, keywords, 0.7 + fused.mean, fused, metric="nDCG@5")
    assert text.startswith(start)
    assert middle in text
    assert end in text
    assert f"BM25 reaches nDCG@5 {0.7 + keywords.mean:.3f} ({keywords.mean:+.3f}" in text
    assert f"reciprocal rank {0.7 + fused.mean:.3f} ({fused.mean:+.3f}" in text
    assert "nan" not in text
    assert "\n" not in text
