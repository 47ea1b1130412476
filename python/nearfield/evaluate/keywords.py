"""BM25: the ranking by keywords alone that a model must beat to be worth its cost.

The variant is Lucene's, computed by bm25s in float64: each word of the query adds
``idf * tf / (tf + k1 * (1 - b + b * length / average))`` with ``idf = ln(1 + (N - df + 0.5) / (df + 0.5))``
(Robertson and Zaragoza 2009, section 3; the variants in use: Kamphuis et al., ECIR 2020).
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nearfield.data.dataset import Dataset
from nearfield.errors import MissingExtraError
from nearfield.evaluate.run import Run
from nearfield.metrics import DEPTH
from nearfield.progress import progress

# Lucene's defaults. On dev queries bm25s' own k1 of 1.5 loses 0.7 points of nDCG@10 on medquad, 0.9 with b = 0.4 (usual for long
# passages) 2.0 on nl2bash, and nothing tried gains for sure anywhere (docs/verdict.md).
K1, B = 1.2, 0.75
# Runs of letters, digits and underscores in any script.
WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words that BM25 compares: runs of letters, digits and underscores, lower-cased; no stems.

    Scripts that put no spaces between words (Chinese, Japanese, Thai) give whole phrases, which seldom match: BM25 is weak there.

    >>> words("Find *.txt, newer than Ünal's backup_2")
    ['find', 'txt', 'newer', 'than', 'ünal', 's', 'backup_2']
    """
    return WORD.findall(text.lower())


class Keywords:
    """The documents of a corpus as BM25 sees them. Needs ``nearfield[baselines]``.

    Raises:
        MissingExtraError: bm25s is not installed.

    >>> Keywords(["a red stone", "rain", "the red red lamp"]).best("the red one", 10)[0]
    array([2, 0])
    """

    def __init__(self, documents: Sequence[str]) -> None:
        try:
            from bm25s import BM25
            from bm25s.stopwords import STOPWORDS_EN
        except ImportError:
            raise MissingExtraError("BM25", "baselines", "bm25s") from None
        # bm25s lets its logger through at every level, which would fill the log of a caller who configured one.
        logging.getLogger("bm25s").setLevel(logging.WARNING)
        self.stop_words = frozenset(STOPWORDS_EN)
        self.vocabulary: dict[str, int] = {}
        place = self.vocabulary.setdefault
        rows = [[place(word, len(self.vocabulary)) for word in words(document)] for document in documents]
        self._bm25 = BM25(k1=K1, b=B, method="lucene", dtype="float64")
        # bm25s divides by the average length, which is 0 where no document has a word.
        if self.vocabulary:
            self._bm25.index((rows, self.vocabulary), create_empty_token=False, show_progress=False)

    def terms(self, query: str) -> list[int]:
        """The query's words that occur in the corpus, repetitions kept, as positions in ``vocabulary``.

        Lucene's 33 English stop words are left out of queries that hold any other word: 7 points of nDCG@10 on nl2bash, where "the" stands
        in most questions and in few commands, so that its idf is high; no sure difference on medquad and squad (docs/verdict.md).
        """
        asked = words(query)
        kept = [word for word in asked if word not in self.stop_words] or asked
        return [self.vocabulary[word] for word in kept if word in self.vocabulary]

    def best(self, query: str, depth: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Returns ``(positions, scores)`` of at most ``depth`` documents, best first, ties in the documents' order.

        Only documents that share a word with the query are retrieved: an empty query, or one without known words, retrieves none.
        """
        terms = self.terms(query)
        if not terms:
            return np.empty(0, np.int64), np.empty(0, np.float64)
        scores = np.asarray(self._bm25.get_scores_from_ids(terms), np.float64)
        found = np.flatnonzero(scores > 0)
        if len(found) > depth:
            # everything that ties with the last place stays, so that the sort below decides by the documents' order
            found = found[scores[found] >= np.partition(scores[found], len(found) - depth)[len(found) - depth]]
        order = found[np.argsort(-scores[found], kind="stable")[:depth]]
        return order, scores[order]


def keyword_run(data: Dataset, *, split: str = "test", depth: int = DEPTH, show: bool = False) -> Run:
    """Ranks the whole corpus by BM25 for each query of a split.

    Args:
        data: documents, queries and judgements.
        split: whose queries.
        depth: documents kept for each query; fewer where fewer share a word with it.
        show: whether progress is shown.

    Raises:
        InputError: no such split.
        MissingExtraError: bm25s is not installed.
    """
    query_ids, query_texts = data.queries_of(split)
    start = time.perf_counter()
    keywords = Keywords(data.doc_texts)
    indexed = time.perf_counter()
    names = np.array([*data.doc_ids, None], object)
    ranked = np.full((len(query_ids), depth), None, object)
    scores = np.full((len(query_ids), depth), np.nan, np.float32)
    with progress("searching, BM25", len(query_ids), enabled=show) as bar:
        for row, query in enumerate(query_texts):
            found, values = keywords.best(query, depth)
            ranked[row, : len(found)] = names[found]
            scores[row, : len(found)] = values
            bar.advance()
    seconds = {"index": indexed - start, "search": time.perf_counter() - indexed}
    return Run(query_ids, query_texts, ranked, scores, 0, 0, seconds, False)


def settings() -> str:
    """How the figures of BM25 came about, in one line for reports."""
    from bm25s import __version__

    return (
        f"Lucene's BM25, k1 {K1}, b {B}, by bm25s {__version__}; lower-cased words without stemming, English stop words "
        "left out of the queries"
    )
