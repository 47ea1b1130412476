"""The loss of one step: contrastive over the documents of the step, at every length asked for, with a teacher's and the base's part."""

from __future__ import annotations

import torch
from torch.nn import functional

from nearfield.config import TuneConfig
from nearfield.tune.batches import Batch
from nearfield.tune.distill import listwise_kl, margin_mse
from nearfield.tune.losses import drift, info_nce


def step_loss(vectors: torch.Tensor, batch: Batch, config: TuneConfig, held: torch.Tensor | None = None) -> torch.Tensor:
    """Returns the scalar loss of a step.

    The mean over the lengths of ``config.matryoshka`` and the whole vector of: (1 - distill) times the contrastive loss, plus distill times
    the teacher's where there is one (columns without a score are left out; rows whose positive has none as well). Then anchor times the
    drift from the base.

    Args:
        vectors: ``(queries + documents, dim)``, the step's queries first; need not be normalized.
        batch: the step.
        config: what to ask for.
        held: the base's vectors of the same texts; needed where ``config.anchor`` is above 0.
    """
    total = vectors.new_zeros((), dtype=torch.float32)
    lengths = dict.fromkeys(dim for dim in (vectors.shape[1], *config.matryoshka) if dim <= vectors.shape[1])
    for dim in lengths:
        total = total + _at(vectors[:, :dim], batch, config) / len(lengths)
    if config.anchor and held is not None:
        total = total + config.anchor * drift(vectors, held)
    return total


def _at(vectors: torch.Tensor, batch: Batch, config: TuneConfig) -> torch.Tensor:
    device, count = vectors.device, len(batch.queries)
    queries, documents = vectors[:count][torch.from_numpy(batch.query_of).to(device)], vectors[count:]
    target, relevant = torch.from_numpy(batch.target).to(device), torch.from_numpy(batch.relevant).to(device)
    # With queries alone every document is a negative already, and none of them moves: the other direction has nothing to add.
    both = config.symmetric and not config.query_only
    loss = info_nce(queries, documents, target, relevant, temperature=config.temperature, symmetric=both)
    teacher = torch.from_numpy(batch.teacher).to(device)
    taught = ~teacher[:, 0].isnan()
    if not config.distill or not bool(taught.any()):
        return loss
    columns = torch.from_numpy(batch.candidates).to(device).clamp_min(0)
    mine = functional.normalize(documents.float(), dim=-1)[columns]
    scores = torch.einsum("bd,bmd->bm", functional.normalize(queries.float(), dim=-1), mine)
    if config.distill_loss == "kl":
        learned = listwise_kl(
            scores[taught], teacher[taught], temperature=config.temperature, teacher_temperature=config.teacher_temperature
        )
    else:
        learned = margin_mse(scores[taught], teacher[taught] / config.teacher_temperature, scale=1 / config.temperature)
    return (1 - config.distill) * loss + config.distill * learned
