"""Splits without leaks: whatever belongs together, by judgement, by group or by likeness, stays on one side."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from nearfield.data.dataset import SPLITS, Dataset, Finding, Qrels
from nearfield.data.near import BANDS, join_near
from nearfield.data.union import Union
from nearfield.errors import InputError
from nearfield.progress import progress as show

# 2,000 queries give nDCG@10 to about one point at 95 %, paired differences far tighter; more serve better as training data.
MAX_DEV, MAX_TEST = 1000, 2000

# Up to here chains of near duplicates may run through documents that no query has, as they do in the data check; beyond it that would
# cost more than a minute, and only relevant documents are compared.
CHAIN_LIMIT = 100_000


def split(dataset: Dataset, *, seed: int = 0, dev: float = 0.1, test: float = 0.2, progress: bool = False) -> Dataset:
    """Returns ``dataset`` with the splits dev and test made out of train where they are missing; those that exist are kept.

    Two queries go to the same side where they share a relevant document, where relevant documents of theirs share a key of
    ``dataset.groups``, or where they or relevant documents of theirs are near duplicates (Jaccard similarity of word 3-shingles of
    at least 0.8). Such clusters are taken in the order of a hash of ``seed`` and their content; each goes to test where it still
    fits, else to dev, else to train, so one giant cluster ends in train and the shares are met by the others.

    Args:
        dataset: with judgements in ``"train"``, or only in splits of other names than train, dev and test, which together
            become train. Without judgements, or with dev or test but no train, it is returned as it is: nothing is taken out of them.
        seed: another seed gives another split; the same one the same, whatever the order of queries and documents.
        dev: share of train's queries, in [0, 1); at most 1,000 queries; 0 makes none.
        test: the same, at most 2,000 queries. Queries beyond the caps stay in train; none is dropped.
        progress: a bar on stderr; 16,000 documents take about 10 seconds.

    Raises:
        InputError: shares that leave nothing for train, or fewer clusters than splits asked for.

    >>> texts = [f"document number {i}" for i in range(10)]
    >>> ids = [str(i) for i in range(10)]
    >>> data = Dataset("tiny", "memory", ids, texts, ids, [f"what is {i}?" for i in range(10)], {"train": {i: {i: 1} for i in ids}})
    >>> {name: len(qrels) for name, qrels in split(data).qrels.items()}
    {'train': 7, 'dev': 1, 'test': 2}
    """
    if not (0 <= dev < 1 and 0 <= test < 1 and dev + test < 1):
        raise InputError(f"split: dev={dev}, test={test} given, shares of at least 0 that add up to less than 1 expected")
    pool = _pool(dataset)
    wanted = {name: share for name, share in (("test", test), ("dev", dev)) if name not in dataset.qrels and share > 0}
    if not pool or not wanted:
        return dataset
    clusters = _clusters(dataset, pool, seed, progress=progress)
    if len(clusters) < len(wanted) + 1:
        raise InputError(
            f"{dataset.name}: {len(pool):,} queries form {len(clusters)} cluster(s) that share documents or are nearly equal, "
            f"{len(wanted) + 1} expected to make train, {' and '.join(wanted)} without leaks: give more data or splits of your own"
        )
    caps = {"test": MAX_TEST, "dev": MAX_DEV}
    room = {name: min(caps[name], max(1, round(share * len(pool)))) for name, share in wanted.items()}
    sides = _assign(clusters, room)
    qrels: dict[str, Qrels] = {name: {} for name in SPLITS}
    qrels |= {name: kept for name, kept in dataset.qrels.items() if name in SPLITS and name != "train"}
    for query, judged in pool.items():
        qrels[sides[query]][query] = judged
    made = ", ".join(f"{name} {len(qrels[name]):,}" for name in SPLITS if qrels[name])
    largest = max(len(cluster) for cluster in clusters)
    how = f"{' and '.join(wanted)} made from train, {len(clusters):,} clusters, the largest of {largest:,} queries, seed {seed}"
    message = f"queries: {made}; {how}"
    finding = Finding("split-made", dataset.name, message, "info")
    return replace(dataset, qrels={name: q for name, q in qrels.items() if q}, findings=[*dataset.findings, finding])


def _pool(dataset: Dataset) -> Qrels:
    """Returns the judgements that may be divided: train, or where none of the three splits exists all of them together."""
    if any(name in dataset.qrels for name in SPLITS):
        return dataset.qrels.get("train", {})
    pool: Qrels = {}
    for _, qrels in sorted(dataset.qrels.items()):
        for query, judged in qrels.items():
            pool[query] = pool.get(query, {}) | judged
    return pool


def _clusters(dataset: Dataset, pool: Qrels, seed: int, *, progress: bool) -> list[list[str]]:
    """Returns the pool's queries in the clusters that must stay together, in the order of their hashes."""
    known_docs, known_queries = set(dataset.doc_ids), set(dataset.query_ids)
    for query, judged in pool.items():
        if query not in known_queries or not judged.keys() <= known_docs:
            raise InputError(
                f"{dataset.name}: the judgements of query {query[:60]!r} refer to a query or document that the dataset does not have"
            )
    compared = list(dict.fromkeys(doc for judged in pool.values() for doc in judged))
    if len(dataset.doc_ids) <= CHAIN_LIMIT:
        compared = dataset.doc_ids
    doc_at = {doc: i for i, doc in enumerate(compared)}
    text_of_doc = dict(zip(dataset.doc_ids, dataset.doc_texts, strict=True))
    text_of_query = dict(zip(dataset.query_ids, dataset.query_texts, strict=True))
    documents, queries = Union(len(compared)), Union(len(pool))
    with show("looking for near duplicates before splitting", 2 * BANDS, enabled=progress) as bar:
        join_near([text_of_doc[doc] for doc in compared], documents, advance=bar.advance)
        join_near([text_of_query[query] for query in pool], queries, advance=bar.advance)
    together = Union(len(compared) + len(pool))
    for union, offset in ((documents, 0), (queries, len(compared))):
        for cluster in union.clusters():
            _join_all(together, (offset + i for i in cluster))
    first_of: dict[str, int] = {}
    for doc, i in doc_at.items():
        if doc in dataset.groups:
            together.join(i, first_of.setdefault(dataset.groups[doc], i))
    for i, judged in enumerate(pool.values()):
        _join_all(together, (len(compared) + i, *(doc_at[doc] for doc in judged)))
    members: dict[int, list[str]] = {}
    for i, query in enumerate(pool):
        members.setdefault(together.find(len(compared) + i), []).append(query)
    return sorted(members.values(), key=lambda cluster: hashlib.sha256(f"{seed}\0{min(cluster)}".encode("utf-8", "surrogatepass")).digest())


def _join_all(union: Union, members: Iterable[int]) -> None:
    first, *rest = members
    for other in rest:
        union.join(first, other)


def _assign(clusters: list[list[str]], room: dict[str, int]) -> dict[str, str]:
    """Returns query -> split. A split in which no cluster fits gets the smallest one, so that it is never empty."""
    left = dict(room)
    side_of = ["train"] * len(clusters)
    for i, cluster in enumerate(clusters):
        side = next((name for name, space in left.items() if len(cluster) <= space), "train")
        side_of[i] = side
        left[side] = left.get(side, 0) - len(cluster)
    for name in (*room, "train"):
        if name not in side_of:
            donors = [i for i, side in enumerate(side_of) if side_of.count(side) > 1]
            side_of[min(donors, key=lambda i: (side_of[i] != "train", len(clusters[i])))] = name
    return {query: side for side, cluster in zip(side_of, clusters, strict=True) for query in cluster}
