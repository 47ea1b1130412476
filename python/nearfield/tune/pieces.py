"""A second, short change of the base against forgetting: documents learn to be found again by pieces of themselves.

What tuning on question and answer pairs costs elsewhere is lost on the documents' side: their vectors keep what such questions ask for and
let go of other details (docs/log.md). A random run of a document's tokens asks for just these, and needs no labels: the inverse cloze task
(Lee, Chang and Toutanova, ACL 2019, section 4, https://arxiv.org/abs/1906.00300), here without the removal of the piece from its document.
The base is tuned on it for some steps; the difference to the base, a task vector (https://arxiv.org/abs/2212.04089), is then added to the
weights that the pairs have made, by the share that the merge chooses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from nearfield.config import TuneConfig
from nearfield.encode.tower import Tower
from nearfield.progress import Bar
from nearfield.tune.checkpoints import Tensors
from nearfield.tune.embed import embed
from nearfield.tune.loop import make_optimizer
from nearfield.tune.losses import drift, info_nce
from nearfield.tune.pairs import TokenIds
from nearfield.tune.schedule import rate_at

# 24 steps of 24 documents take under a minute on two AVX2 cores, and gave back what 3,000 pairs had cost (docs/log.md).
STEPS, DOCUMENTS = 24, 24
# Documents are cut to this many tokens, pieces are this many, ends included: as long as a short question.
TOKENS, SHORTEST, LONGEST = 64, 4, 8
# Weight of the drift from the base: the change is to add one ability and to leave the rest alone.
DRIFT = 5.0


def tune_on_pieces(
    tower: Tower, reference: Tower, documents: Sequence[TokenIds], config: TuneConfig, *, dtype: str, bar: Bar, steps: int = STEPS
) -> None:
    """Tunes ``tower``, which holds the base's weights, in place. A pure function of its arguments.

    Args:
        tower: the base, to be changed.
        reference: the base, left alone.
        documents: token ids with special tokens; two at least, or nothing is done.
        config: rate, clipping, temperature, warmup and seed are the run's.
        dtype: as for ``embed``.
        bar: advanced by one for every step.
        steps: made of the ``STEPS`` of the schedule; fewer only to measure how long they take.
    """
    if len(documents) < 2:
        return
    parameters = {name: p for name, p in tower.model.named_parameters() if p.requires_grad}
    optimizer = make_optimizer(parameters, config)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, STEPS, peak=config.learning_rate, warmup_fraction=config.warmup_fraction, decay=config.decay)
        texts = pieces_and_documents(documents, config.seed, step)
        count = len(texts) // 2
        optimizer.zero_grad(set_to_none=True)
        vectors = embed(tower, texts, chunk_rows=config.chunk_rows, dtype=dtype)
        with torch.no_grad():
            held = embed(reference, texts, chunk_rows=config.chunk_rows, dtype=dtype)
        own = torch.arange(count, device=vectors.device)
        nothing_else = torch.zeros((count, count), dtype=torch.bool, device=vectors.device)
        loss = info_nce(vectors[:count], vectors[count:], own, nothing_else, temperature=config.temperature) + DRIFT * drift(vectors, held)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters.values(), config.max_grad_norm)
        optimizer.step()
        bar.advance(1, note=f"loss {loss.item():.3f}")


def pieces_and_documents(documents: Sequence[TokenIds], seed: int, step: int) -> list[TokenIds]:
    """The texts of a step: a piece of each of some different documents, then these documents, in the same order.

    >>> pieces_and_documents([[1, 7, 8, 2], [1, 9, 2]], seed=0, step=0)[2:]
    [[1, 7, 8, 2], [1, 9, 2]]
    """
    rng = np.random.default_rng((seed, step, 2))
    chosen = rng.choice(len(documents), min(DOCUMENTS, len(documents)), replace=False)
    # The last token ends the text for most tokenizers: a shortened document keeps it.
    whole = [[*documents[i][: TOKENS - 1], *documents[i][TOKENS - 1 :][-1:]] for i in chosen]
    pieces = []
    for ids in whole:
        body = ids[1:-1]
        size = int(rng.integers(SHORTEST, LONGEST + 1))
        start = int(rng.integers(0, max(1, len(body) - size + 1)))
        pieces.append([ids[0], *body[start : start + size], *ids[1:][-1:]])
    return pieces + whole


def add_change(tuned: Tensors, base: Tensors, changed: Tensors, share: float) -> Tensors:
    """Returns ``tuned + share * (changed - base)`` for floating tensors, the tuned one for others; share 0 is an exact copy.

    >>> one = torch.ones(1)
    >>> add_change({"w": one}, {"w": 0 * one}, {"w": 4 * one}, 0.5)["w"].item()
    3.0
    """
    if share == 0:
        return {name: tensor.clone() for name, tensor in tuned.items()}
    return {
        name: tensor + share * (changed[name] - base[name]) if tensor.is_floating_point() else tensor.clone()
        for name, tensor in tuned.items()
    }
