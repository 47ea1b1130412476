"""Batches beyond memory: exactly the gradient of one large batch, for the activations of one chunk and a second forward pass.

Gao, Zhang, Han and Callan, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021, section 3: the loss needs all
vectors but not their graphs, so vectors are made without graphs, the loss gives each its gradient, and each chunk is then encoded again to
carry its part of it back. The chain rule makes this exact, not an approximation; accumulating the losses of small batches is not the same,
for each of these has its own few negatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

Chunk = TypeVar("Chunk")


def cached_backward(
    chunks: Sequence[Chunk], encode: Callable[[Chunk], torch.Tensor], loss_of: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Adds the gradient of ``loss_of(all vectors)`` to the parameters behind ``encode`` and returns the loss.

    Args:
        chunks: what is encoded at a time, at least one.
        encode: a chunk to ``(n, d)`` vectors; the second time with the random state of the first, so that dropout drops the same.
        loss_of: the vectors of all chunks, concatenated in order, to a scalar.

    >>> weight = torch.ones(1, requires_grad=True)
    >>> loss = cached_backward([1.0, 2.0], lambda x: (weight * x)[None], lambda v: (v**2).sum())
    >>> loss.item(), weight.grad.item()
    (5.0, 10.0)
    """
    states, parts = [], []
    with torch.no_grad():
        for chunk in chunks:
            states.append(_random_state())
            parts.append(encode(chunk))
    after = _random_state()
    vectors = torch.cat(parts).requires_grad_()
    loss = loss_of(vectors)
    (gradient,) = torch.autograd.grad(loss, vectors)
    for chunk, state, part in zip(chunks, states, torch.split(gradient, [len(part) for part in parts]), strict=True):
        _set_random_state(state)
        encode(chunk).backward(part)  # type: ignore[no-untyped-call]
    _set_random_state(after)
    return loss.detach()


def _random_state() -> tuple[torch.Tensor, torch.Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None


def _set_random_state(state: tuple[torch.Tensor, torch.Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])
