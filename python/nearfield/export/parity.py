"""How far an exported graph is from the torch model: components for fp32, cosines and retrieval for int8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nearfield.encode.batches import Forward, run_batches
from nearfield.encode.tower import Tower
from nearfield.errors import InputError
from nearfield.metrics import score_run
from nearfield.types import FloatArray, IntArray, Kind

if TYPE_CHECKING:
    from nearfield.data.dataset import Dataset

# float32 sums of some hundred terms in another order differ by about 1e-7 per layer; all-MiniLM-L6-v2 measures 4e-7.
FP32_LIMIT = 1e-5
# Half a point of nDCG@10: about one standard error of the paired difference on 300 queries (0.0047 measured for all-MiniLM-L6-v2 on
# medical questions), so that passing means no loss that could be seen, not proof of none.
INT8_MAX_LOSS = 0.005
BATCH_SIZES = (1, 3, 8)
# int8 activations take one scale over a batch. The encoder gives the graph one text at a time, so that a vector never depends on its
# neighbours; what is measured here is what is served.
_ROWS, _TOKENS = 1, 4_096
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


def retrieval_loss(
    tower: Tower,
    fp32: Forward,
    int8: Forward,
    data: Dataset,
    *,
    queries: int = 300,
    documents: int = 1_000,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Any]:
    """nDCG@10 of the fp32 and the int8 graph, queries and documents both in that precision, on a fixed sub-corpus.

    Args:
        data: a dataset with a ``dev`` split (used if there is one) or a ``test`` split.
        queries: most queries taken; 300 give a standard error of about half a point.
        documents: size of the sub-corpus: the relevant documents of these queries, and random others up to this number.
        seed: which ones.

    Returns:
        ``split``, ``queries``, ``documents``, ``ndcg_fp32``, ``ndcg_int8``, ``loss`` (fp32 - int8, 0 to 1), its ``standard_error`` over the
        queries, ``max_loss`` and ``passed`` (loss <= max_loss).

    Raises:
        InputError: the dataset has judgements in neither split.
    """
    split, query_ids, doc_ids = _sample(data, queries, documents, seed)
    texts_of = dict(zip(data.doc_ids, data.doc_texts, strict=True)), dict(zip(data.query_ids, data.query_texts, strict=True))
    qrels = data.qrels[split]
    values = []
    for forward in (fp32, int8):
        rows = encode(tower, forward, [texts_of[0][i] for i in doc_ids], progress=progress)
        asked = encode(tower, forward, [texts_of[1][i] for i in query_ids], kind="query")
        ranked = [[doc_ids[place] for place in row] for row in _top(asked @ rows.T)]
        values.append(score_run(query_ids, ranked, qrels, k=_DEPTH, depth=_DEPTH).values[f"ndcg@{_DEPTH}"])
    loss = values[0] - values[1]
    error = float(loss.std(ddof=1) / len(loss) ** 0.5) if len(loss) > 1 else 0.0
    return {
        "split": split,
        "queries": len(query_ids),
        "documents": len(doc_ids),
        "ndcg_fp32": float(values[0].mean()),
        "ndcg_int8": float(values[1].mean()),
        "loss": float(loss.mean()),
        "standard_error": error,
        "max_loss": INT8_MAX_LOSS,
        "passed": bool(loss.mean() <= INT8_MAX_LOSS),
    }


def _top(scores: FloatArray) -> IntArray:
    return np.argsort(-scores, axis=1, kind="stable")[:, :_DEPTH]


def _sample(data: Dataset, queries: int, documents: int, seed: int) -> tuple[str, list[str], list[str]]:
    """The split, the queries and the sub-corpus; relevant documents first claim their places, in the order of a seeded shuffle."""
    split = next((name for name in ("dev", "test") if data.qrels.get(name)), None)
    if split is None:
        raise InputError(f"{data.name}: no judgements in a dev or test split to measure the loss of int8 on; split the dataset first")
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
