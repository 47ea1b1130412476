"""Evaluation: figures against plain loops, wins and losses, guard, cache, refusals."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

import oracle_metrics as oracle
from fake_encoder import BagEncoder
from nearfield.data.dataset import Dataset
from nearfield.errors import InputError
from nearfield.evaluate.evaluate import evaluate
from nearfield.evaluate.report.page import render
from nearfield.evaluate.run import corpus_vectors, encode_split, rank

WORDS = [
    "wind",
    "rain",
    "stone",
    "river",
    "lamp",
    "glass",
    "wheel",
    "bread",
    "salt",
    "north",
    "cloud",
    "paper",
    "iron",
    "leaf",
    "bird",
    "song",
]


def make_data(name: str = "weather", *, queries: int = 40, documents: int = 150, seed: int = 0) -> Dataset:
    """Queries are three words of their document, so that a bag of words finds most of them and noise loses them."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, 8)) + f" {name}{i}" for i in range(documents)]
    asked = [" ".join(rng.choice(texts[i].split()[:8], 3, replace=False)) + (f" {name}{i}" if i % 2 else "") for i in range(queries)]
    qrels = {f"q{i}": {f"d{i}": 1 + i % 2, f"d{i + queries}": 1} for i in range(queries)}
    return Dataset(name, "memory", [f"d{i}" for i in range(documents)], texts, [f"q{i}" for i in range(queries)], asked, {"test": qrels})


DATA = make_data()
GOOD, BAD = BagEncoder("good"), BagEncoder("bad", blur=2.0)


def brute_force(data: Dataset, encoder: BagEncoder, depth: int) -> list[list[str]]:
    documents = encoder.encode(data.doc_texts).astype(np.float64)
    scores = encoder.encode(data.query_texts, kind="query").astype(np.float64) @ documents.T
    return [[data.doc_ids[i] for i in np.argsort(-row, kind="stable")[:depth]] for row in scores]


def test_figures_are_those_of_plain_loops() -> None:
    report = evaluate(DATA, GOOD, compare=BAD)
    for system, encoder in ((report.model, GOOD), (report.compare, BAD)):
        assert system is not None
        ranked = brute_force(DATA, encoder, 100)
        judged = [DATA.qrels["test"][q] for q in DATA.query_ids]
        expected = {
            "ndcg@10": [oracle.ndcg(r, j, 10) for r, j in zip(ranked, judged, strict=True)],
            "mrr@10": [oracle.mrr(r, j, 10) for r, j in zip(ranked, judged, strict=True)],
            "recall@1": [oracle.recall(r, j, 1) for r, j in zip(ranked, judged, strict=True)],
            "recall@10": [oracle.recall(r, j, 10) for r, j in zip(ranked, judged, strict=True)],
            "recall@100": [oracle.recall(r, j, 100) for r, j in zip(ranked, judged, strict=True)],
            "map@100": [oracle.average_precision(r, j) for r, j in zip(ranked, judged, strict=True)],
        }
        assert list(system.metrics) == list(expected)
        for name, values in expected.items():
            assert system.metrics[name].mean == pytest.approx(np.mean(values), abs=1e-9), name
            assert system.metrics[name].low <= np.mean(values) <= system.metrics[name].high
    change = report.change["ndcg@10"]
    assert change.mean == pytest.approx(report.model.metrics["ndcg@10"].mean - report.compare.metrics["ndcg@10"].mean)
    assert change.p < 0.01
    assert report.verdict is not None
    assert report.verdict.answer == "ship"


def test_wins_and_losses_tell_the_ranks() -> None:
    report = evaluate(DATA, GOOD, compare=BAD)
    assert report.better + report.worse + report.same == report.queries == 40
    assert report.better > report.worse
    gains = [win.after - win.before for win in report.wins]
    assert len(gains) == 10
    assert gains == sorted(gains, reverse=True)
    assert all(gain > 0 for gain in gains)
    assert all(loss.after < loss.before for loss in report.losses)
    before, after = (dict(zip(DATA.query_ids, brute_force(DATA, encoder, 100), strict=True)) for encoder in (BAD, GOOD))
    for change in [*report.wins, *report.losses]:
        assert change.document_id in DATA.qrels["test"][change.query_id]
        assert change.document == DATA.doc_texts[DATA.doc_ids.index(change.document_id)]
        for found, lists in ((change.rank_before, before), (change.rank_after, after)):
            row = lists[change.query_id]
            assert found == (row.index(change.document_id) + 1 if change.document_id in row else None)


def test_swapped_models_swap_everything() -> None:
    one, other = evaluate(DATA, GOOD, compare=BAD), evaluate(DATA, BAD, compare=GOOD)
    assert other.change["ndcg@10"].mean == pytest.approx(-one.change["ndcg@10"].mean)
    assert (other.better, other.worse) == (one.worse, one.better)
    assert [w.query_id for w in one.wins] == [w.query_id for w in other.losses]
    assert other.verdict is not None
    assert other.verdict.answer == "do not ship"


def test_the_same_model_twice_is_not_better() -> None:
    report = evaluate(DATA, GOOD, compare=GOOD)
    assert report.verdict is not None
    assert report.verdict.answer == "do not ship"
    assert (report.better, report.worse) == (0, 0)
    assert report.change["ndcg@10"].p == 1.0


def test_guard_blocks_the_verdict() -> None:
    guard = make_data("general", seed=5)

    class Forgetful(BagEncoder):
        """Good on the domain, lost on the guard's words."""

        def encode(self, texts, *, kind="document", progress=False):  # type: ignore[no-untyped-def]
            self.blur = 4.0 if any("general" in text for text in texts) else 0.0
            return super().encode(texts, kind=kind, progress=progress)

    report = evaluate(DATA, Forgetful("forgetful"), compare=BagEncoder("worse", blur=8.0), guard=guard)
    assert report.guard is not None
    assert report.guard.change is not None
    # against the bad model nothing is lost; against a good one the guard falls
    assert report.verdict is not None
    assert report.verdict.answer == "ship"
    fallen = evaluate(DATA, Forgetful("forgetful"), compare=BagEncoder("fair", blur=0.8), guard=guard)
    assert fallen.guard is not None
    assert fallen.guard.change is not None
    assert fallen.guard.change.mean < -0.01
    assert fallen.change["ndcg@10"].mean > 0
    assert fallen.verdict is not None
    assert fallen.verdict.answer == "do not ship"
    assert "guard falls" in fallen.verdict.sentence
    relaxed = evaluate(DATA, Forgetful("forgetful"), compare=BagEncoder("fair", blur=0.8), guard=guard, guard_limit=1.0)
    assert relaxed.verdict is not None
    assert relaxed.verdict.answer != "do not ship"


def test_one_model_alone_has_intervals_and_no_verdict() -> None:
    report = evaluate(DATA, GOOD)
    assert report.verdict is None
    assert report.compare is None
    assert report.change == {}
    assert "nDCG@10" in str(report)
    assert "before" not in str(report)


def test_table_and_json_hold_the_figures() -> None:
    report = evaluate(DATA, GOOD, compare=BAD, guard=make_data("general", seed=5))
    text = str(report)
    for name in ("nDCG@10", "MRR@10", "recall@1 ", "recall@10 ", "recall@100", "MAP@100"):
        assert name in text
    assert f"{report.model.metrics['ndcg@10'].mean:.3f}" in text
    assert "guard general" in text
    assert report.verdict is not None
    assert text.endswith(report.verdict.sentence)
    back = json.loads(report.to_json())
    assert back == report.to_dict()
    assert back["model"]["metrics"]["ndcg@10"]["mean"] == report.model.metrics["ndcg@10"].mean
    assert back["verdict"]["answer"] == "ship"


def test_one_query_gives_null_bounds_not_nan() -> None:
    data = Dataset("one", "memory", ["a", "b"], ["wind", "rain"], ["q"], ["wind"], {"test": {"q": {"a": 1}}})
    report = evaluate(data, GOOD, compare=BAD)
    assert json.loads(report.to_json())["model"]["metrics"]["ndcg@10"]["low"] is None
    assert "nan" not in str(report)
    ET.fromstring(render(report).partition("\n")[2])


def test_corpus_smaller_than_the_depth_and_truncation_are_counted() -> None:
    data = Dataset("small", "memory", ["a", "b"], ["wind " * 60, "rain"], ["q", "r"], ["wind", "stone"], {"test": {"q": {"a": 1}, "r": {}}})
    report = evaluate(data, GOOD, k=200)
    assert report.depth == 200
    assert (report.queries, report.without_relevant) == (1, 1)
    assert report.model.truncated_documents == 1
    assert report.model.metrics["ndcg@200"].mean == 1.0
    run = rank(encode_split(data, GOOD), data.doc_ids, depth=5)
    assert run.ranked[0].tolist()[2:] == [None] * 3
    assert np.isnan(run.scores[0, 2:]).all()


def test_cache_saves_the_corpus_and_only_that_of_the_same_model(tmp_path: Path) -> None:
    first, second, other = BagEncoder("a"), BagEncoder("b"), BagEncoder("c", blur=1.0)
    one = evaluate(DATA, first, cache=tmp_path)
    two = evaluate(DATA, second, cache=tmp_path)
    assert [kind for kind, _ in second.calls] == ["query"]
    assert (one.model.cached, two.model.cached) == (False, True)
    assert two.model.metrics == one.model.metrics
    evaluate(DATA, other, cache=tmp_path)
    assert ("document", 150) in other.calls
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-30])
    again = BagEncoder("d")
    assert evaluate(DATA, again, cache=tmp_path).model.metrics == one.model.metrics
    assert ("document", 150) in again.calls


def test_cache_refuses_bytes_that_were_changed(tmp_path: Path) -> None:
    vectors, _, _ = corpus_vectors(DATA.doc_texts, GOOD, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(bytes(raw))
    again, _, cached = corpus_vectors(DATA.doc_texts, GOOD, cache=tmp_path)
    assert not cached
    np.testing.assert_array_equal(again, vectors)


def test_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        evaluate(DATA, GOOD, cache=tmp_path / "file")


def test_a_missing_split_is_made_with_a_note() -> None:
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(WORDS, 6)) + f" item{i}" for i in range(60)]
    train = {f"q{i}": {f"d{i}": 1} for i in range(60)}
    data = Dataset(
        "pairs",
        "memory",
        [f"d{i}" for i in range(60)],
        texts,
        [f"q{i}" for i in range(60)],
        [f"item{i} where" for i in range(60)],
        {"train": train},
    )
    report = evaluate(data, GOOD)
    assert 0 < report.queries < 60
    assert "no test split" in report.notes[0]


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        (DATA, {"split": "dev"}, "split 'dev' asked for"),
        (DATA, {"k": 0}, "k: 0 given"),
        (DATA, {"guard_limit": 1.5}, "0.01 is one point"),
        (Dataset("bare", "memory", ["a"], ["wind"]), {}, "documents alone"),
        (Dataset("empty", "memory", [], [], ["q"], ["wind"], {"test": {"q": {"a": 1}}}), {}, "no documents"),
        (Dataset("idle", "memory", ["a"], ["wind"], ["q"], ["wind"], {"test": {"q": {"a": 0}}}), {}, "none of the 1 queries"),
        (Dataset("none", "memory", ["a"], ["wind"], ["q"], ["wind"], {"test": {}}), {}, "has no queries"),
    ],
)
def test_refusals(data: Dataset, options: dict[str, float], words: str) -> None:
    with pytest.raises(InputError) as caught:
        evaluate(data, GOOD, **options)  # type: ignore[arg-type]
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_models_opened_here_are_closed_and_the_callers_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from nearfield.evaluate import evaluate as module

    opened = BagEncoder("opened")
    monkeypatch.setattr(module, "open_encoder", lambda model, threads: opened if model == "path" else model)
    mine = BagEncoder("mine")
    assert evaluate(DATA, "path", compare=mine).model.name == "path"
    assert opened.closed
    assert not mine.closed


def test_a_real_model_from_its_folder(tiny_model: Path, tmp_path: Path) -> None:
    from nearfield.data.write import write_beir

    write_beir(DATA, tmp_path / "data")
    report = evaluate(tmp_path / "data", str(tiny_model), compare=GOOD, threads=1)
    assert report.model.backend == "torch"
    assert len(report.model.fingerprint) == 64
    assert 0 < report.model.metrics["recall@100"].mean <= 1
    assert report.queries == 40


def test_the_function_keeps_its_name_whatever_was_imported_before() -> None:
    lines = [
        "import nearfield.evaluate.run, nearfield.info",
        "import nearfield as nf",
        "assert nf.evaluate.__module__ == 'nearfield.evaluate.evaluate'",
    ]
    lines += [
        "import nearfield.evaluate.report.page",
        "from nearfield.evaluate import results",
        "assert callable(nf.evaluate) and callable(nf.info)",
    ]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, timeout=60)
