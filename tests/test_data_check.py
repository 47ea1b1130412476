"""Near duplicates against the all-pairs oracle, and every kind of finding of the data check on planted faults."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from nearfield.data.check import check, summarize
from nearfield.data.dataset import Dataset, Finding
from nearfield.data.near import Shingles, join_near, shingles, words
from nearfield.data.union import Union
from oracle_data import components, near_pairs, shingle_set

VOCABULARY = [f"w{i}" for i in range(500)]


def sentences(n: int, rng: random.Random, length: int = 60) -> list[str]:
    return [" ".join(rng.choices(VOCABULARY, k=length)) for _ in range(n)]


def edited(text: str, changes: int, rng: random.Random) -> str:
    parts = text.split()
    for _ in range(changes):
        parts[rng.randrange(len(parts))] = rng.choice(VOCABULARY)
    return " ".join(parts)


def clusters(texts: list[str]) -> list[list[int]]:
    union = Union(len(texts))
    join_near(texts, union)
    return union.clusters()


@pytest.mark.parametrize("seed", range(4))
def test_clusters_are_those_of_the_all_pairs_oracle(seed: int) -> None:
    rng = random.Random(seed)
    texts = [*sentences(120, rng), "", "w1", "W1 !", "w1 w2", "w1 w2 w3"]
    texts += [edited(texts[rng.randrange(120)], changes, rng) for changes in (0, 1, 1, 2, 2, 3, 4) for _ in range(12)]
    rng.shuffle(texts)
    wanted = components(len(texts), near_pairs(texts, 0.8))
    assert len(wanted) > 20
    assert clusters(texts) == wanted


def test_all_copies_in_one_large_bucket_are_found() -> None:
    rng = random.Random(1)
    base = sentences(1, rng, 200)[0]
    texts = [edited(base, 1, rng) for _ in range(300)]
    assert clusters(texts) == [list(range(300))]


def test_exact_jaccard_and_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(2)
    texts = sentences(20, rng, 30)
    texts += [edited(text, 2, rng) for text in texts]
    whole = shingles(texts)
    for i, j in ((0, 20), (3, 23), (3, 4), (7, 7)):
        a, b = shingle_set(texts[i]), shingle_set(texts[j])
        assert whole.jaccard(i, j) == len(a & b) / len(a | b)
    monkeypatch.setattr("nearfield.data.near._CHUNK", 50)
    parts: Shingles = shingles(texts)
    np.testing.assert_array_equal(parts.values, whole.values)
    np.testing.assert_array_equal(parts.starts, whole.starts)
    assert clusters(texts) == components(40, near_pairs(texts, 0.8))


def test_words_of_scripts_without_spaces() -> None:
    assert words("東京タワー は tall") == ["東", "京", "タ", "ワ", "ー", "は", "tall"]
    assert clusters(["機械学習は面白い分野ですが難しいこともあります。", "機械学習は面白い分野ですが難しいこともあります！", "料理"]) == [
        [0, 1]
    ]


def test_four_thousand_documents_take_seconds() -> None:
    texts = sentences(4000, random.Random(3), 150)
    start = time.process_time()
    assert clusters(texts) == []
    # 0.8 s where this was written. The promise is 20,000 in 20 s, so 4 s; twice that leaves room for a slower machine.
    assert time.process_time() - start < 8


def planted() -> Dataset:
    rng = random.Random(5)
    long, near, near_query = sentences(3, rng)
    docs = {
        "a": "The same text", "b": "the  SAME text", "near1": near, "near2": edited(near, 1, rng), "long": "word " * 600, "empty": " ",
        "query": "is this a document?", "other": long,
    }  # fmt: skip
    queries = {
        "q1": "one and only", "q2": "Is this a  document?", "q3": near_query, "q4": edited(near_query, 1, rng), "q5": "One and ONLY",
    }  # fmt: skip
    qrels = {
        "train": {"q1": {"a": 1}, "q2": {"near1": 1}, "q3": {"other": 2}},
        "test": {"q4": {"near2": 1}, "q5": {"long": 1, "query": 1}, "q3": {"other": 1}},
    }
    return Dataset(
        "planted", "test", list(docs), list(docs.values()), list(queries), list(queries.values()), qrels, {"q1": ["b"], "q5": ["long"]}
    )


def test_every_planted_fault_is_found_and_nothing_else() -> None:
    found = [(f.kind, f.where) for f in check(planted())]
    assert sorted(found) == sorted([
        ("empty-text", "document empty"), ("over-long", "document long"), ("duplicate-document", "documents a, b"),
        ("near-duplicate-document", "documents near1, near2"), ("query-is-document", "query q2"), ("unjudged-duplicate", "query q1"),
        ("contradictory-judgement", "query q1"), ("contradictory-judgement", "query q5"), ("contradictory-judgement", "query q3"),
        ("leaked-query", "splits train and test"), ("leaked-query", "splits train and test"),
        ("leaked-document", "splits train and test"), ("leaked-document", "splits train and test"),
    ])  # fmt: skip
    (unjudged,) = [f.message for f in check(planted()) if f.kind == "unjudged-duplicate"]
    assert unjudged.endswith(": b")
    told = {f.message for f in check(planted()) if f.kind.startswith("leaked")}
    assert told == {
        "query q1 of train and q5 of test are the same", "query q3 of train and q3 of test are the same",
        "document other is relevant in both", "documents near1 and near2 (nearly the same) are relevant in both",
    }  # fmt: skip


def test_a_nearly_leaked_query_is_told() -> None:
    data = planted()
    del data.qrels["test"]["q3"]
    assert [f.message for f in check(data) if f.kind == "nearly-leaked-query"] == ["query q3 of train and q4 of test are nearly the same"]


def test_clean_data_has_no_findings_and_checking_changes_nothing() -> None:
    texts = sentences(50, random.Random(6), 30)
    ids = [str(i) for i in range(50)]
    data = Dataset("clean", "test", ids, texts, ids, [f"what is number {i}" for i in ids], {"train": {i: {i: 1} for i in ids}})
    before = Dataset(**{k: v for k, v in vars(data).items() if not k.startswith("_")}).fingerprint
    assert check(data) == []
    assert data.fingerprint == before
    assert [f.kind for f in check(data, max_tokens=10)] == ["over-long"] * 21


def test_summary_counts_what_is_not_listed() -> None:
    data = Dataset("many", "test", [str(i) for i in range(1030)], [""] * 1030)
    lines = summarize([*check(data), Finding("x", "here", "for the record", "info")]).splitlines()
    assert lines[0] == "error   empty-text: 1,030"
    assert lines[-2:] == ["info    x: 1", "        here: for the record"]
    assert len(lines) == 6
    assert summarize([]) == "nothing to report"
