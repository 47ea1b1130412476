"""A fixed, small corpus to score a model on while it trains: dev queries, their documents, plausible wrong ones, and random ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nearfield.config import TuneConfig
from nearfield.data.dataset import Dataset, Qrels
from nearfield.errors import InputError
from nearfield.metrics import score_run
from nearfield.tune.mining import lexical_neighbours
from nearfield.tune.pairs import TokenIds, Tokenize
from nearfield.types import FloatArray

# Wrong documents are looked for among this many random ones at most: tokenizing them takes some 3 s.
POOL = 20_000
# Of the places left by the relevant documents, this share goes to look-alikes and the rest to random documents.
MINED_SHARE = 0.75


@dataclass(frozen=True)
class DevSet:
    """The sub-corpus.

    Attributes:
        query_ids: ids of the chosen queries; ``queries`` their token ids.
        doc_ids: ids of the chosen documents; ``documents`` their token ids.
        qrels: judgements of the chosen queries.
        fixed: the documents' vectors where training leaves them alone (``nearfield.tune.queryside``); None: they are encoded every time.
    """

    query_ids: list[str]
    queries: list[TokenIds]
    doc_ids: list[str]
    documents: list[TokenIds]
    qrels: Qrels
    fixed: FloatArray | None = None

    def tokens(self) -> int:
        """How many tokens a score encodes."""
        return sum(map(len, self.queries)) + (0 if self.fixed is not None else sum(map(len, self.documents)))

    def values(self, queries: FloatArray, documents: FloatArray) -> FloatArray:
        """Returns nDCG@10 (0 to 1) of each query, ranked by inner product, in the order of ``query_ids``.

        Args:
            queries: ``(len(query_ids), dim)`` normalized rows.
            documents: ``(len(doc_ids), dim)`` normalized rows.
        """
        order = np.argsort(-(queries @ documents.T), axis=1, kind="stable")[:, :10]
        ranked = [[self.doc_ids[j] for j in row] for row in order]
        return np.asarray(score_run(self.query_ids, ranked, self.qrels, k=10, depth=10).values["ndcg@10"], np.float64)

    def ndcg(self, queries: FloatArray, documents: FloatArray) -> float:
        """Returns the mean of ``values``."""
        return float(self.values(queries, documents).mean())


def choose_devset(dataset: Dataset, config: TuneConfig, *, query_ids_of: Tokenize, doc_ids_of: Tokenize) -> DevSet:
    """Chooses the sub-corpus of the ``dev`` split; the same dataset, config and tokenizer give the same one.

    Args:
        dataset: with a ``dev`` split.
        config: ``dev_queries``, ``dev_documents`` and ``seed`` count here.
        query_ids_of: texts -> token ids, cut and with the query prompt.
        doc_ids_of: the same for documents.

    Raises:
        InputError: no ``dev`` split, or no dev query with text and a document with text.
    """
    if not dataset.qrels.get("dev"):
        raise InputError(
            f"{dataset.name}: no dev split: it decides when to stop and how much of the base to keep; "
            "add dev judgements (qrels/dev.tsv) or divide the pairs with nearfield.data.split"
        )
    ids, texts = dataset.queries_of("dev")
    place = {doc: i for i, doc in enumerate(dataset.doc_ids) if dataset.doc_texts[i].strip()}
    judged = dataset.qrels["dev"]
    usable = [
        (i, text) for i, text in zip(ids, texts, strict=True) if text.strip() and any(g > 0 and d in place for d, g in judged[i].items())
    ]
    if not usable:
        raise InputError(f"{dataset.name}: no dev query has both text and a relevant document with text")
    rng = np.random.default_rng(config.seed)
    kept = [usable[i] for i in np.sort(rng.permutation(len(usable))[: config.dev_queries])]
    qrels = {i: {d: g for d, g in judged[i].items() if g > 0 and d in place} for i, _ in kept}
    queries = query_ids_of([text for _, text in kept])
    positives = list(dict.fromkeys(d for i, _ in kept for d in qrels[i]))
    others = _others(sorted(place.keys() - set(positives), key=place.__getitem__), rng)
    extra = _fill(queries, doc_ids_of([dataset.doc_texts[place[d]] for d in others]), config.dev_documents - len(positives))
    chosen = sorted([*positives, *(others[i] for i in extra)], key=place.__getitem__)
    return DevSet([i for i, _ in kept], queries, chosen, doc_ids_of([dataset.doc_texts[place[d]] for d in chosen]), qrels)


def _others(doc_ids: Sequence[str], rng: np.random.Generator) -> list[str]:
    """The pool in random order: its first rows are the random documents."""
    return [doc_ids[i] for i in rng.permutation(len(doc_ids))[:POOL]]


def _fill(queries: Sequence[TokenIds], pool: Sequence[TokenIds], room: int) -> list[int]:
    """Rows of the pool that fill ``room`` places: look-alikes of every query in turn, then the pool's first rows."""
    room = min(max(room, 0), len(pool))
    if room in (0, len(pool)):
        return list(range(room))
    neighbours = lexical_neighbours(queries, pool, k=10)
    by_rank = [int(rows[rank]) for rank in range(10) for rows in neighbours if rank < len(rows)]
    mined = list(dict.fromkeys(by_rank))[: int(room * MINED_SHARE)]
    taken = set(mined)
    rest = [i for i in range(len(pool)) if i not in taken]
    return mined + rest[: room - len(mined)]
