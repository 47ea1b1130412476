"""How far an exported graph is from the torch model: components for fp32, cosines and retrieval for int8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nearfield.encode.batches import Forward, run_batches
from nearfield.encode.tower import Tower
from nearfield.errors import InputError
from nearfield.metrics import score_run
from nearfield.types import FloatArray, IntArray, Kind

if TYPE_CHECKING:
    from nearfield.data.dataset import Dataset

# float32 sums of some hundred terms in another order differ by about 1e-7 per layer; all-MiniLM-L6-v2 measures 4e-7.
FP32_LIMIT = 1e-5
BATCH_SIZES = (1, 3, 8)
# One text at a time, as the encoder runs a graph whose vectors depend on their neighbours; where they do not, it makes no difference.
_ROWS, _TOKENS = 1, 4_096
# Texts of several lengths; one pass of nine padded texts through a small model takes a second.
_BATCH_TEXTS = 8
# Half the width of a normal 95 % interval in standard errors.
_NORMAL_95 = 1.96
# Ranks that nDCG@10 sees.
_DEPTH = 10


def fp32_parity(tower: Tower, forward: Forward, texts: Sequence[str]) -> dict[str, Any]:
    """Compares a graph with torch on batches of 1, 3 and 8 rows, the longest of 1, 16, 64 and ``max_tokens`` tokens, the others padded.

    Args:
        texts: where the tokens are taken from; at least one.

    Returns:
        ``max_abs_diff`` (of a component; where the model does not normalize, relative to the row's norm if that is above 1), ``limit``,
        ``passed``, and ``cases``: ``[rows, tokens]`` of each batch.
    """
    limit = tower.spec.max_tokens
    stream = [token for row in tower.tokenizer(texts).ids for token in row]
    stream = stream * (1 + BATCH_SIZES[-1] * limit // max(1, len(stream)))
    worst = 0.0
    cases = []
    for tokens in sorted({min(n, limit) for n in (1, 16, 64, limit)}):
        for rows in BATCH_SIZES:
            batch = tower.tokenizer.pad(_rows(stream, rows, tokens))
            expected, found = tower.forward_arrays(*batch), forward(*batch)
            scale = np.maximum(1.0, np.linalg.norm(expected, axis=1, keepdims=True))
            # A NaN must fail, and max() would lose it.
            worst = max(worst, float(np.nan_to_num(np.abs(found - expected) / scale, nan=np.inf).max()))
            cases.append([rows, tokens])
    return {"max_abs_diff": worst, "limit": FP32_LIMIT, "passed": worst <= FP32_LIMIT, "cases": cases}


def _rows(stream: list[int], rows: int, tokens: int) -> list[list[int]]:
    """``rows`` rows of different tokens; the first has ``tokens``, each later one fewer, down to 1."""
    lengths = [max(1, tokens - row * tokens // rows) for row in range(rows)]
    return [stream[row * tokens : row * tokens + length] for row, length in enumerate(lengths)]


def encode(tower: Tower, forward: Forward, texts: Sequence[str], *, kind: Kind = "document", progress: bool = False) -> FloatArray:
    """Encodes texts through a graph with the tower's tokenizer and prompts, unit rows."""
    prompt, spec = tower.spec.prompts[kind], tower.spec
    vectors, _ = run_batches(list(texts), prompt, tower.tokenizer, forward, spec.dim, max_rows=_ROWS, max_tokens=_TOKENS, progress=progress)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1), np.float32)


def cosines(expected: FloatArray, found: FloatArray) -> dict[str, float]:
    """Mean and least cosine between rows of unit length.

    >>> cosines(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32))
    {'mean_cosine': 1.0, 'min_cosine': 1.0}
    """
    values = np.einsum("ij,ij->i", expected.astype(np.float64), found.astype(np.float64))
    return {"mean_cosine": float(values.mean()), "min_cosine": float(values.min())}


class RetrievalLoss:
    """What another graph of the same model costs in nDCG@10 against fp32, queries and documents both through it, on a fixed sub-corpus.

    The fp32 side is encoded once, here.

    Args:
        data: a dataset with a ``dev`` split (used if there is one) or a ``test`` split.
        queries: most queries taken.
        documents: size of the sub-corpus: the relevant documents of these queries, and random others up to this number.
        seed: which ones.
        corpus: another tower and its fp32 graph, which encodes the documents once and for all: what is measured is a tower of queries.

    Raises:
        InputError: the dataset has judgements in neither split.
    """

    def __init__(
        self, tower: Tower, fp32: Forward, data: Dataset, *, queries: int, documents: int, seed: int = 0,
        corpus: tuple[Tower, Forward] | None = None, progress: bool = False,
    ) -> None:  # fmt: skip
        self.split, self._query_ids, self._doc_ids = _sample(data, queries, documents, seed)
        text_of_doc = dict(zip(data.doc_ids, data.doc_texts, strict=True))
        text_of_query = dict(zip(data.query_ids, data.query_texts, strict=True))
        self._documents = [text_of_doc[i] for i in self._doc_ids]
        self._queries = [text_of_query[i] for i in self._query_ids]
        self._tower, self._qrels, self._progress = tower, data.qrels[self.split], progress
        self._rows = None if corpus is None else encode(*corpus, self._documents, progress=progress)
        self._before = self._ndcg(fp32)

    def of(self, graph: Forward) -> dict[str, Any]:
        """Measures one graph.

        Returns:
            ``split``, ``queries``, ``documents``, ``ndcg_fp32``, ``ndcg_int8``, ``loss`` (fp32 - int8, 0 to 1), its ``standard_error``
            over the queries, and ``low``, the lower end of the paired 95 % interval of int8 - fp32.
        """
        after = self._ndcg(graph)
        loss = self._before - after
        error = float(loss.std(ddof=1) / len(loss) ** 0.5) if len(loss) > 1 else 0.0
        return {
            "split": self.split,
            "queries": len(self._query_ids),
            "documents": len(self._doc_ids),
            "ndcg_fp32": float(self._before.mean()),
            "ndcg_int8": float(after.mean()),
            "loss": float(loss.mean()),
            "standard_error": error,
            "low": float(-loss.mean() - _NORMAL_95 * error),
        }

    def _ndcg(self, graph: Forward) -> npt.NDArray[np.float64]:
        rows = encode(self._tower, graph, self._documents, progress=self._progress) if self._rows is None else self._rows
        asked = encode(self._tower, graph, self._queries, kind="query")
        ranked = [[self._doc_ids[place] for place in row] for row in _top(asked @ rows.T)]
        values = score_run(self._query_ids, ranked, self._qrels, k=_DEPTH, depth=_DEPTH).values[f"ndcg@{_DEPTH}"]
        return np.asarray(values, np.float64)


def batch_difference(tower: Tower, graph: Forward, texts: Sequence[str]) -> float:
    """The largest change of a component of a text's vector between the text alone and beside a text of full length, padded to it.

    Args:
        texts: up to 8 of them are tried, each cut to at most half the model's tokens, so that there is padding.
    """
    limit = tower.spec.max_tokens
    rows = [row[: max(1, limit // 2)] for row in tower.tokenizer(list(texts[:_BATCH_TEXTS])).ids]
    stream = [token for row in rows for token in row]
    long = (stream * (1 + limit // len(stream)))[:limit]
    together = graph(*tower.tokenizer.pad([*rows, long]))
    alone = np.concatenate([graph(*tower.tokenizer.pad([row])) for row in rows])
    return float(np.nan_to_num(np.abs(together[: len(rows)] - alone), nan=np.inf).max())


def _top(scores: FloatArray) -> IntArray:
    return np.argsort(-scores, axis=1, kind="stable")[:, :_DEPTH]


def held_out(data: Dataset) -> str:
    """The split that the loss is measured on: dev, or test where there is no dev; InputError where there is neither."""
    split = next((name for name in ("dev", "test") if data.qrels.get(name)), None)
    if split is None:
        raise InputError(f"{data.name}: no judgements in a dev or test split to measure the loss of int8 on; split the dataset first")
    return split


def _sample(data: Dataset, queries: int, documents: int, seed: int) -> tuple[str, list[str], list[str]]:
    """The split, the queries and the sub-corpus; relevant documents first claim their places, in the order of a seeded shuffle."""
    split = held_out(data)
    random = np.random.default_rng(seed)
    known = set(data.doc_ids)
    chosen: list[str] = []
    positives: set[str] = set()
    names = data.queries_of(split)[0]
    for place in random.permutation(len(names)):
        relevant = {doc for doc in data.qrels[split][names[place]] if doc in known}
        if relevant and len(positives | relevant) <= documents and len(chosen) < queries:
            chosen.append(names[place])
            positives |= relevant
    if not chosen:
        raise InputError(f"{data.name}: no query of split {split!r} has at most {documents:,} relevant documents that are in the corpus")
    others = [doc for doc in data.doc_ids if doc not in positives]
    extra = random.permutation(len(others))[: max(0, documents - len(positives))]
    kept = positives | {others[place] for place in extra}
    return split, chosen, [doc for doc in data.doc_ids if doc in kept]
