"""Which base to begin with: candidates on the same dev queries and sub-corpus, each with its own prompts, compared query by query.

The choice of the base is often worth more than tuning it, and it costs one encoding of a sub-corpus each.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nearfield.data.dataset import Dataset
from nearfield.errors import InputError
from nearfield.evaluate.significance import Paired, paired
from nearfield.evaluate.verdict import is_sure
from nearfield.metrics import score_run
from nearfield.search.encoders import Model, model_name, open_encoder

# 300 queries show a paired difference of about a point; 2,000 documents keep a candidate of 22 M parameters at half a minute on two cores.
QUERIES, DOCUMENTS = 300, 2000

# Encoding the same texts twice differs by a tenth on a busy machine; candidates of one shape must not be told apart by that.
CLEARLY_FASTER = 1.25


@dataclass(frozen=True, slots=True)
class Candidate:
    """One base in the comparison.

    Attributes:
        name: as it was given.
        ndcg: mean nDCG@10 on the sub-corpus, 0 to 1; higher than on the whole corpus, for there is less to confuse.
        behind: the paired difference to the best candidate, at most 0 in the mean; None for the best itself.
        dim: columns of its vectors.
        texts_per_second: of encoding documents here.
    """

    name: str
    ndcg: float
    behind: Paired | None
    dim: int
    texts_per_second: float


def bake_off(
    data: Dataset, models: Sequence[Model], *, split: str = "dev", queries: int = QUERIES, documents: int = DOCUMENTS, seed: int = 0,
    threads: int | None = None, show: bool = False,
) -> list[Candidate]:  # fmt: skip
    """Measures candidates; the first of the list is the one to take.

    The list is in the order of the means, but for one rule: a candidate that encodes at least 1.25 times faster than the best and is not
    surely worse comes first, the fastest of these.

    Args:
        data: with judgements in ``split``.
        models: paths, names or encoders, two at least.
        split: whose queries; never test's, which has to stay unseen.
        queries, documents: of the sub-corpus at most: every relevant document of these queries, and random others.
        seed: of the choice.
        threads: of encoding.
        show: progress on stderr.

    Raises:
        InputError: fewer than two candidates, no such split, no query with a relevant document, or a model that cannot be opened.
    """
    if len(models) < 2:
        raise InputError(f"bake-off: {len(models)} candidate(s) given, two at least expected")
    query_ids, query_texts, doc_ids, doc_texts = _sub_corpus(data, split, queries, documents, seed)
    scores, about = [], []
    for model in models:
        encoder = open_encoder(model, threads=threads)
        asked = encoder.encode(query_texts, kind="query", progress=show)
        began = time.perf_counter()
        answers = encoder.encode(doc_texts, kind="document", progress=show)
        speed = len(doc_texts) / max(time.perf_counter() - began, 1e-9)
        order = np.argsort(-(asked @ answers.T), axis=1, kind="stable")[:, :10]
        ranked = [[doc_ids[place] for place in row] for row in order]
        scores.append(score_run(query_ids, ranked, data.qrels[split], k=10, depth=10).values["ndcg@10"])
        about.append((model_name(model), encoder.dim, speed))
        close = getattr(encoder, "close", None)
        if encoder is not model and close is not None:
            close()
    best = int(np.argmax([values.mean() for values in scores]))
    made = [
        Candidate(name, float(values.mean()), None if i == best else paired(scores[best], values, seed=seed), dim, speed)
        for i, (values, (name, dim, speed)) in enumerate(zip(scores, about, strict=True))
    ]
    made.sort(key=lambda candidate: -candidate.ndcg)
    enough = CLEARLY_FASTER * made[0].texts_per_second
    level = [c for c in made[1:] if c.texts_per_second >= enough and c.behind is not None and not is_sure(c.behind)]
    first = max(level, key=lambda candidate: candidate.texts_per_second, default=made[0])
    return [first, *(candidate for candidate in made if candidate is not first)]


def describe(candidates: Sequence[Candidate]) -> str:
    """One line for people: the chosen base and how far the others are from the best.

    >>> describe([Candidate("a", 0.5, None, 384, 100.0), Candidate("b", 0.4, Paired(-0.1, -0.12, -0.08, 0.001), 384, 90.0)])
    'base: a of 2 candidates (nDCG@10 on dev: a 0.500; b 0.400, -0.100 [-0.120, -0.080])'
    """
    parts = [
        f"{c.name} {c.ndcg:.3f}" + ("" if c.behind is None else f", {c.behind.mean:+.3f} [{c.behind.low:+.3f}, {c.behind.high:+.3f}]")
        for c in candidates
    ]
    return f"base: {candidates[0].name} of {len(candidates)} candidates (nDCG@10 on dev: {'; '.join(parts)})"


def named(base: str | os.PathLike[str]) -> list[str]:
    """The candidates of ``A,B,C``; one name, or a path with a comma in it that exists, is one candidate.

    >>> named("a,b"), named("a")
    (['a', 'b'], ['a'])
    """
    text = os.fspath(base)
    return [text] if os.path.exists(text) else [part.strip() for part in text.split(",") if part.strip()]


def _sub_corpus(data: Dataset, split: str, queries: int, documents: int, seed: int) -> tuple[list[str], list[str], list[str], list[str]]:
    ids, texts = data.queries_of(split)
    place = {doc: row for row, doc in enumerate(data.doc_ids)}
    usable = [i for i, query in enumerate(ids) if any(grade > 0 and doc in place for doc, grade in data.qrels[split][query].items())]
    if not usable:
        raise InputError(f"{data.name}: no query of {split} has a relevant document: candidates cannot be compared")
    rng = np.random.default_rng(seed)
    kept = sorted(rng.permutation(usable)[:queries].tolist())
    needed = {place[doc] for i in kept for doc in data.qrels[split][ids[i]] if doc in place}
    others = [row for row in rng.permutation(len(place)).tolist() if row not in needed]
    rows = sorted(needed | set(others[: max(documents - len(needed), 0)]))
    return [ids[i] for i in kept], [texts[i] for i in kept], [data.doc_ids[row] for row in rows], [data.doc_texts[row] for row in rows]
