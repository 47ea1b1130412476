"""Splits: nothing that belongs together is divided, the shares are met, and the same data gives the same split."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfield.data.check import check
from nearfield.data.dataset import Dataset, Qrels
from nearfield.data.split import split
from nearfield.errors import InputError
from oracle_data import components, near_pairs


def dataset(n: int, seed: int, groups: int = 0, shared: int = 0) -> Dataset:
    """``n`` queries with one document each; some judge another's document too, some documents are near copies of others."""
    rng = random.Random(seed)
    vocabulary = [f"w{i}" for i in range(400)]
    texts = [" ".join(rng.choices(vocabulary, k=40)) for _ in range(n)]
    for i in range(1, n, 7):
        texts[i] = texts[i - 1] + " more"
    queries = [" ".join(rng.choices(vocabulary, k=10)) for _ in range(n)]
    for i in range(3, n, 11):
        queries[i] = queries[rng.randrange(i)].upper()
    qrels: Qrels = {f"q{i}": {f"d{i}": 1} for i in range(n)}
    for _ in range(shared):
        qrels[f"q{rng.randrange(n)}"][f"d{rng.randrange(n)}"] = 1
    keys = {f"d{i}": f"g{rng.randrange(groups)}" for i in range(n)} if groups else {}
    return Dataset("made", "test", [f"d{i}" for i in range(n)], texts, [f"q{i}" for i in range(n)], queries, {"train": qrels}, groups=keys)


def true_clusters(data: Dataset) -> list[list[int]]:
    """Clusters of query positions by brute force."""
    n = len(data.query_ids)
    pairs = near_pairs(data.query_texts, 0.8)
    near = components(len(data.doc_ids), near_pairs(data.doc_texts, 0.8))
    key = {data.doc_ids[i]: f"cluster {c}" for c, cluster in enumerate(near) for i in cluster}
    holders: dict[str, list[int]] = defaultdict(list)
    for i, query in enumerate(data.query_ids):
        for doc in data.qrels["train"][query]:
            for name in {doc, key.get(doc, doc), "group " + data.groups.get(doc, doc)}:
                holders[name].append(i)
    # Near copies chain groups too: a copy's group belongs to the original's cluster.
    for cluster in near:
        together = [i for d in cluster for i in holders["group " + data.groups.get(data.doc_ids[d], data.doc_ids[d])]]
        pairs += [(together[0], other) for other in together[1:]]
    pairs += [(members[0], other) for members in holders.values() for other in members[1:]]
    return components(n, pairs)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), groups=st.sampled_from([0, 60]), shared=st.integers(0, 15))
def test_no_cluster_is_divided(seed: int, groups: int, shared: int) -> None:
    data = dataset(120, seed, groups, shared)
    made = split(data, seed=seed)
    side = {query: name for name, qrels in made.qrels.items() for query in qrels}
    assert sorted(side) == sorted(data.query_ids)
    assert set(made.qrels) == {"train", "dev", "test"}
    for cluster in true_clusters(data):
        assert len({side[f"q{i}"] for i in cluster}) == 1
    assert [f for f in check(made) if "leaked" in f.kind] == []


def test_shares_are_met_and_judgements_kept() -> None:
    data = dataset(400, 1, shared=20)
    made = split(data, dev=0.15, test=0.25)
    assert {name: len(q) for name, q in made.qrels.items()} == {"train": 240, "dev": 60, "test": 100}
    assert {query: judged for qrels in made.qrels.values() for query, judged in qrels.items()} == data.qrels["train"]
    assert made.findings[-1].kind == "split-made"
    assert set(data.qrels) == {"train"}


def test_one_giant_cluster_stays_in_train() -> None:
    data = dataset(300, 2)
    data.groups = {f"d{i}": "giant" for i in range(180)}
    made = split(data)
    assert {name: len(q) for name, q in made.qrels.items()} == {"train": 210, "dev": 30, "test": 60}
    assert all(f"q{i}" in made.qrels["train"] for i in range(180))


def test_three_clusters_larger_than_the_shares_make_three_splits() -> None:
    data = dataset(90, 3)
    for i in range(90):
        data.doc_texts[i] = f"document {i} " * 5
        data.query_texts[i] = f"query number {i}"
    data.groups = {f"d{i}": str(i % 3) for i in range(90)}
    assert {name: len(q) for name, q in split(data).qrels.items()} == {"train": 30, "dev": 30, "test": 30}
    data.groups = dict.fromkeys(data.doc_ids, "one")
    with pytest.raises(InputError, match="90 queries form 1 cluster"):
        split(data)


def test_deterministic_whatever_the_order_and_different_by_seed() -> None:
    data = dataset(200, 4)
    first = split(data, seed=1)
    order = list(range(200))
    random.Random(0).shuffle(order)
    shuffled = Dataset(
        "made", "test", [data.doc_ids[i] for i in order], [data.doc_texts[i] for i in order], [data.query_ids[i] for i in order],
        [data.query_texts[i] for i in order], {"train": {f"q{i}": data.qrels["train"][f"q{i}"] for i in order}},
    )  # fmt: skip
    again = split(shuffled, seed=1)
    assert {name: sorted(q) for name, q in again.qrels.items()} == {name: sorted(q) for name, q in first.qrels.items()}
    assert set(split(data, seed=2).qrels["test"]) != set(first.qrels["test"])


def test_existing_splits_are_kept() -> None:
    made = split(dataset(100, 5))
    assert split(made) is made
    without_dev = Dataset(
        **{k: v for k, v in vars(made).items() if not k.startswith("_")}
        | {"qrels": {"train": made.qrels["train"], "test": made.qrels["test"]}}
    )
    again = split(without_dev)
    assert again.qrels["test"] == made.qrels["test"]
    assert len(again.qrels["dev"]) == 7
    guard = Dataset(**{k: v for k, v in vars(made).items() if not k.startswith("_")} | {"qrels": {"test": made.qrels["test"]}})
    assert split(guard) is guard
    documents = Dataset("documents", "test", ["d"], ["text"])
    assert split(documents) is documents


def test_splits_of_other_names_are_the_pool() -> None:
    data = dataset(100, 6)
    data.qrels = {"all": data.qrels["train"]}
    assert {name: len(q) for name, q in split(data).qrels.items()} == {"train": 70, "dev": 10, "test": 20}


def test_large_data_is_capped_and_nothing_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nearfield.data.split.MAX_DEV", 8)
    monkeypatch.setattr("nearfield.data.split.MAX_TEST", 16)
    assert {name: len(q) for name, q in split(dataset(200, 7)).qrels.items()} == {"train": 176, "dev": 8, "test": 16}


@pytest.mark.parametrize(("dev", "test"), [(0.5, 0.5), (-0.1, 0.2), (0.1, 1.0), (float("nan"), 0.1)])
def test_shares_that_leave_nothing(dev: float, test: float) -> None:
    with pytest.raises(InputError, match="shares"):
        split(dataset(20, 8), dev=dev, test=test)


def test_judgements_of_unknown_documents_are_refused() -> None:
    data = dataset(20, 9)
    data.qrels["train"]["q3"]["nowhere"] = 1
    with pytest.raises(InputError, match="'q3'"):
        split(data)
