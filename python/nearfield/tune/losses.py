"""The training loss: a softmax over the documents of the step, without its relevant ones among the negatives; and the pull to the base."""

from __future__ import annotations

import torch
from torch.nn import functional


def info_nce(
    queries: torch.Tensor,
    documents: torch.Tensor,
    target: torch.Tensor,
    relevant: torch.Tensor,
    *,
    temperature: float,
    symmetric: bool = False,
) -> torch.Tensor:
    """Returns the mean cross-entropy of finding each query's document among the documents of the step (InfoNCE,
    https://arxiv.org/abs/1807.03748).

    With s(i, j) the cosine of query i and document j, row i contributes
    ``-log(exp(s(i, target_i) / t) / sum_j exp(s(i, j) / t))``, where j runs over the target and every document that is *not* relevant to
    the query. The paper draws negatives independently; here they are the other rows' documents, so relevant ones must be left out by
    hand.

    Args:
        queries: ``(B, d)`` floating; need not be normalized (cosines are taken here, in float32).
        documents: ``(C, d)``, distinct documents: the rows' own first or anywhere, labelled hard negatives among them.
        target: ``(B,)`` int64, the column of each row's own document, 0 <= target < C.
        relevant: ``(B, C)`` bool, True where the document is relevant to the query (the target itself may be True or False).
        temperature: > 0; cosines are divided by it.
        symmetric: adds the opposite direction (each row's document among the queries, those it is relevant to left out) and halves the sum.

    Returns:
        A scalar float32 tensor >= 0; 0 where no negative is left.

    >>> eye = torch.eye(2)
    >>> loss = info_nce(eye, eye, torch.arange(2), torch.eye(2, dtype=torch.bool), temperature=1.0)
    >>> round(loss.item(), 4)  # log(1 + exp(-1))
    0.3133
    """
    scores = functional.normalize(queries.float(), dim=-1) @ functional.normalize(documents.float(), dim=-1).T / temperature
    rows = torch.arange(len(target), device=target.device)
    own = torch.zeros_like(relevant)
    own[rows, target] = True
    loss = functional.cross_entropy(scores.masked_fill(relevant & ~own, float("-inf")), target)
    if not symmetric:
        return loss
    # Column k of row i: query k, asked for by document target_i. A query that this document answers too is no negative.
    answers = (relevant | own)[:, target].T
    same = torch.eye(len(target), dtype=torch.bool, device=target.device)
    opposite = functional.cross_entropy(scores[:, target].T.masked_fill(answers & ~same, float("-inf")), rows)
    return (loss + opposite) / 2


def drift(vectors: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """Returns the mean of 1 - cosine between what the model in training and the base say of the same texts: 0 is where it started.

    Added to the loss it holds back forgetting: directions that the training pairs do not need stay where the base has them. The teacher of
    an embedding distillation is used the same way (LEAF, https://arxiv.org/abs/2509.12539); here it is the model's own start.

    Args:
        vectors: ``(n, d)`` floating, with gradient; need not be normalized.
        base: ``(n, d)``, the base's vectors of the same texts, without gradient.

    >>> round(drift(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])).item(), 4)
    0.5
    """
    return (1 - functional.cosine_similarity(vectors.float(), base.float(), dim=-1)).mean()
