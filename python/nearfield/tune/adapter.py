"""A linear adapter on the queries' side of vectors that somebody else makes: no model, no re-encoding, no new index.

The vectors of documents stay what they are; a query's vector q becomes the unit form of q + q A, and A is learned from judged pairs by the
softmax over *all* cached documents. It works for any provider's vectors, at 4 d^2 bytes, and serves by one small product. What it can learn
is what a linear map of the query space can: a shift of emphasis between directions, not words that the model has never seen.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from nearfield.arrays import read_npz
from nearfield.encode.bundled import mapped
from nearfield.errors import FormatError, InputError
from nearfield.files import whole_file
from nearfield.metrics import score_run
from nearfield.tune.evidence import paired_bounds
from nearfield.types import FloatArray

# Shares of what was learned that dev may choose; 0 is the identity, and legal.
ALPHAS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0)
# Passes at least, where time is short.
LEAST_EPOCHS = 3
# A file of more bytes is not one of ours: 16,384 dimensions are 1 GiB.
MAX_BYTES = 1 << 31


@dataclass(frozen=True)
class Adapter:
    """A map of query vectors.

    Attributes:
        matrix: float32 ``(d, d)``: what is added to the identity.
        dev: nDCG@10 on dev by share of what was learned; empty where there was no dev.
        alpha: the share that was chosen.
    """

    matrix: FloatArray
    dev: Mapping[float, float]
    alpha: float

    def apply(self, queries: FloatArray) -> FloatArray:
        """Returns unit float32 rows for ``(n, d)`` query vectors, which need not be normalized.

        Raises:
            InputError: vectors of another shape.
        """
        rows = np.asarray(queries, np.float32)
        if rows.ndim != 2 or rows.shape[1] != len(self.matrix):
            raise InputError(f"queries: shape {rows.shape} given, (n, {len(self.matrix)}) expected, as the adapter was trained")
        return mapped(rows, self.matrix)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a .npz file, which appears only when it is complete."""
        with whole_file(Path(path)) as file:
            np.savez(file, matrix=self.matrix, alpha=np.float64(self.alpha))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Adapter:
        """Reads what ``save`` wrote.

        Raises:
            FormatError: not such a file; nothing in it is ever unpickled.
        """
        with Path(path).open("rb") as file:
            matrix, alpha = read_npz(file, ("matrix", "alpha"), where=str(path), max_bytes=MAX_BYTES)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.dtype != np.float32 or not np.isfinite(matrix).all():
            raise FormatError(f"{path}: a matrix of shape {matrix.shape}, {matrix.dtype}; a finite square one in float32 expected")
        return cls(matrix, {}, float(alpha))


def fit_adapter(
    queries: FloatArray,
    documents: FloatArray,
    relevant: Sequence[Sequence[int]],
    *,
    dev: tuple[FloatArray, Sequence[Sequence[int]]] | None = None,
    guard: tuple[FloatArray, FloatArray, Sequence[Sequence[int]]] | None = None,
    allowed_drop: float = 0.01,
    epochs: int = 20,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.1,
    temperature: float = 0.05,
    seed: int = 0,
    limit: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Adapter:
    """Learns an adapter. The same arguments give the same one.

    Args:
        queries: ``(n, d)`` float, the training queries' vectors by any provider.
        documents: ``(m, d)`` the documents' vectors by the same; all of them, for each is a negative.
        relevant: for each query the rows of ``documents`` that answer it, one at least.
        dev: other queries and their answers among the same documents; they choose how much of what was learned is kept. None keeps all.
        guard: queries, documents and answers of something else, by the same provider, on which nDCG@10 may fall by ``allowed_drop``; shares
            under which the lower end of the paired 95 % interval lies further down are not chosen. None: dev alone decides.
        allowed_drop: 0.01: the verdict's limit. It is held against the interval's end, for a mean of 500 queries that just passed on
            one split fell by half a point more on another (docs/log.md).
        epochs: passes. 20: a product of n x d by d x m each, seconds for 10,000 of both.
        batch_size: queries a step. 64.
        learning_rate: of AdamW. 1e-3: the entries of A are about 0.01 in the end.
        weight_decay: pulls A to 0, and so the adapter to doing nothing. 0.1.
        temperature: cosines are divided by it before the softmax. 0.05, as in tuning.
        seed: the order of the queries.
        limit: seconds for all passes: after the first, their number is cut to what fits, ``LEAST_EPOCHS`` at least. None: ``epochs``, and
            the same bits in every run.
        clock: what measures them.

    Raises:
        InputError: shapes that do not fit, values that are not finite, a query without an answer, an answer that is not there.

    >>> rng = np.random.default_rng(0)
    >>> docs = rng.normal(size=(50, 8)).astype(np.float32)
    >>> adapter = fit_adapter(np.roll(docs, 1, axis=1), docs, [[i] for i in range(50)], epochs=300, learning_rate=0.01, weight_decay=0.0)
    >>> float((np.argmax(adapter.apply(np.roll(docs, 1, axis=1)) @ docs.T, axis=1) == np.arange(50)).mean()) > 0.5
    True
    """
    asked, answers = _checked(queries, "queries"), _checked(documents, "documents")
    if asked.shape[1] != answers.shape[1]:
        raise InputError(f"documents: {answers.shape[1]} dimensions given, {asked.shape[1]} expected, as the queries have")
    _check_relevant(relevant, len(asked), len(answers), "relevant")
    rows, table = torch.from_numpy(_unit(asked)), torch.from_numpy(_unit(answers))
    with torch.random.fork_rng(devices=[]):
        added = torch.nn.Parameter(torch.zeros(rows.shape[1], rows.shape[1]))
        optimizer = torch.optim.AdamW([added], lr=learning_rate, weight_decay=weight_decay)
        epoch, began = 0, clock()
        while epoch < epochs:
            order = np.random.default_rng((seed, epoch)).permutation(len(rows))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * (1 - epoch / epochs)
            for part in np.array_split(order, -(-len(order) // batch_size)):
                loss = _softmax_loss(rows[torch.from_numpy(part)], added, table, [relevant[i] for i in part], temperature)
                if not bool(loss.isfinite()):
                    raise InputError(
                        f"adapter: the loss is {loss.item()} in pass {epoch + 1} of {epochs}: lower learning_rate ({learning_rate:g})"
                    )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            epoch += 1
            if epoch == 1 and limit is not None:
                epochs = min(epochs, max(LEAST_EPOCHS, int(limit / max(clock() - began, 1e-9))))
    learned: FloatArray = added.detach().numpy()
    if dev is None:
        return Adapter(learned, {}, 1.0)
    others = _checked(dev[0], "dev")
    _check_relevant(dev[1], len(others), len(answers), "dev")
    scores = {alpha: _ndcg(Adapter(alpha * learned, {}, alpha).apply(others), _unit(answers), dev[1]) for alpha in ALPHAS}
    held = set(ALPHAS) if guard is None else _within(guard, learned, allowed_drop)
    best = max(held, key=lambda alpha: (scores[alpha], -alpha))
    return Adapter((best * learned).astype(np.float32), scores, best)


def _within(guard: tuple[FloatArray, FloatArray, Sequence[Sequence[int]]], learned: FloatArray, drop: float) -> set[float]:
    """The shares under which the guard surely falls by ``drop`` at most; 0 is always one."""
    queries, documents = _checked(guard[0], "guard"), _unit(_checked(guard[1], "guard"))
    _check_relevant(guard[2], len(queries), len(documents), "guard")
    values = {alpha: _values(Adapter(alpha * learned, {}, alpha).apply(queries), documents, guard[2]) for alpha in ALPHAS}
    return {0.0} | {alpha for alpha in ALPHAS if paired_bounds(values[0.0], values[alpha])[1] >= -drop}


def _softmax_loss(
    rows: torch.Tensor, added: torch.Tensor, table: torch.Tensor, relevant: Sequence[Sequence[int]], temperature: float
) -> torch.Tensor:
    """The mean over (query, answer) of the cross-entropy over all documents, its other answers left out."""
    scores = functional.normalize(rows + rows @ added, dim=-1) @ table.T / temperature
    place = torch.tensor([i for i, answers in enumerate(relevant) for _ in answers])
    answer = torch.tensor([a for answers in relevant for a in answers])
    own = scores[place, answer]
    others = torch.zeros_like(scores, dtype=torch.bool)
    others[place, answer] = True
    rest = scores.masked_fill(others, float("-inf")).logsumexp(dim=1)[place]
    return (torch.logaddexp(own, rest) - own).mean()


def _ndcg(queries: FloatArray, documents: FloatArray, relevant: Sequence[Sequence[int]]) -> float:
    return float(_values(queries, documents, relevant).mean())


def _values(queries: FloatArray, documents: FloatArray, relevant: Sequence[Sequence[int]]) -> FloatArray:
    order = np.argsort(-(queries @ documents.T), axis=1, kind="stable")[:, :10]
    ids = [str(i) for i in range(len(queries))]
    qrels = {str(i): {str(d): 1 for d in answers} for i, answers in enumerate(relevant)}
    return np.asarray(score_run(ids, [[str(d) for d in row] for row in order], qrels, k=10, depth=10).values["ndcg@10"], np.float64)


def _checked(values: FloatArray, name: str) -> FloatArray:
    rows = np.asarray(values, np.float32)
    if rows.ndim != 2 or not len(rows):
        raise InputError(f"{name}: shape {rows.shape} given, (n, d) with n of at least 1 expected")
    wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(wrong):
        raise InputError(f"{name}: row {wrong[0]} holds NaN or infinity, finite numbers expected")
    return rows


def _check_relevant(relevant: Sequence[Sequence[int]], queries: int, documents: int, name: str) -> None:
    if len(relevant) != queries:
        raise InputError(f"{name}: answers of {len(relevant)} queries given, {queries} expected, a list for each query")
    for i, answers in enumerate(relevant):
        if not len(answers):
            raise InputError(f"{name}: query {i} has no answer, one document row at least expected")
        if not all(0 <= answer < documents for answer in answers):
            raise InputError(f"{name}: query {i} names document row {max(answers)}, rows from 0 to {documents - 1} expected")


def _unit(rows: FloatArray) -> FloatArray:
    unit: FloatArray = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype(np.float32)
    return unit
