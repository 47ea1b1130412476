"""Learning a teacher's scores of a query's own candidates: their distribution, or the margins between them."""

from __future__ import annotations

import torch
from torch.nn import functional


def listwise_kl(scores: torch.Tensor, teacher: torch.Tensor, *, temperature: float, teacher_temperature: float = 1.0) -> torch.Tensor:
    """Returns the mean over rows of KL(teacher's softmax || the student's) over each row's candidates.

    Unlike a hard label it lets a negative that the teacher finds nearly right stay near: false negatives do the least harm here
    (https://arxiv.org/abs/2502.19712 finds gains where plain contrastive tuning loses).

    Args:
        scores: ``(B, m)`` cosines of the student.
        teacher: ``(B, m)`` the teacher's scores, NaN where a row has fewer candidates; column 0 is the positive and never NaN.
        temperature: the student's scores are divided by it.
        teacher_temperature: the teacher's, > 0; a bi-encoder's cosines need about the student's, a cross-encoder's logits 1.

    >>> same = torch.tensor([[1.0, 0.0]])
    >>> listwise_kl(same, same, temperature=1.0).item()
    0.0
    """
    missing = teacher.isnan()
    target = functional.softmax((teacher.float() / teacher_temperature).masked_fill(missing, float("-inf")), dim=-1)
    own = functional.log_softmax((scores.float() / temperature).masked_fill(missing, float("-inf")), dim=-1)
    # 0 * log 0 counts as 0: at missing places both are replaced before they meet.
    own = own.masked_fill(missing, 0.0)
    each = torch.where(target > 0, target * (target.clamp_min(1e-38).log() - own), torch.zeros_like(target))
    return each.sum(dim=-1).mean()


def margin_mse(scores: torch.Tensor, teacher: torch.Tensor, *, scale: float = 1.0) -> torch.Tensor:
    """Returns the mean squared error of the margins positive minus negative, student against teacher
    (https://arxiv.org/abs/2010.02666).

    Args:
        scores: ``(B, m)`` cosines of the student, column 0 the positive's.
        teacher: ``(B, m)`` the teacher's scores, NaN where a row has fewer candidates.
        scale: the student's margins are multiplied by it: what a cosine is worth on the teacher's scale.

    Returns:
        A scalar; 0 where no row has a negative.
    """
    known = ~teacher[:, 1:].isnan()
    if not bool(known.any()):
        return scores.sum() * 0.0
    wanted = (teacher[:, :1] - teacher[:, 1:]).float()
    own = scale * (scores[:, :1] - scores[:, 1:]).float()
    return ((own - torch.where(known, wanted, own)) ** 2).sum() / known.sum()
