"""A short tuning without labels that brings a model nearer to its own float vectors once its products are in int8.

The gate of the export may find that int8 costs too much whatever products are given back to float32. Then the float model is its own
teacher: its vectors of training texts are the targets, and a copy learns to meet them while weights and activations pass through the
rounding that the export will apply (Jacob et al., CVPR 2018, section 3, https://arxiv.org/abs/1712.05877; gradients go straight through).
The copy has to meet them without the rounding too: its float weights, left to themselves, went their own way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch

from nearfield.config import TuneConfig
from nearfield.encode.tower import Tower
from nearfield.errors import InputError
from nearfield.progress import Bar
from nearfield.tune.embed import embed
from nearfield.tune.freeze import LAYER
from nearfield.tune.loop import make_optimizer
from nearfield.tune.losses import drift
from nearfield.tune.pairs import TokenIds
from nearfield.tune.schedule import rate_at

Scheme = Literal["rows", "dynamic", "static", "nbits"]
Fake = Callable[[torch.Tensor], torch.Tensor]

# 40 steps of 24 texts see each of some 1,000 texts once: under a minute on two cores. At a rate of 5e-5 a weight may move by half of one
# step of its 7 bits, which is what there is to decide.
STEPS, TEXTS = 40, 24
# As nearfield.export.int8_products: the codes of weights and activations, and the block of "nbits".
_WEIGHT_CODES, _NBITS_CODES, _STEPS, _BLOCK = 63, 127, 255, 32
_TINY = float(np.finfo(np.float32).tiny)


def fake_weight(weight: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """Weights ``(out, in)`` as the int8 graph has them: a scale for each output (and block of 32 for "nbits"); gradients go straight
    through.

    >>> fake_weight(torch.tensor([[63.0, 0.4, 1.6]]), "rows").tolist()
    [[63.0, 0.0, 2.0]]
    """
    if scheme == "nbits":
        return _straight(weight, _by_block(weight.detach(), _NBITS_CODES))
    held = weight.detach()
    scale = held.abs().amax(dim=1, keepdim=True) / _WEIGHT_CODES
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return _straight(weight, torch.round(held / scale) * scale)


def fake_rows(x: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """Activations ``(..., in)`` as the int8 graph codes them: by row ("rows"), by tensor ("dynamic", and "static", whose calibrated range
    stands for the batch's), or by row and block ("nbits"); gradients go straight through.

    >>> fake_rows(torch.tensor([[0.0, 0.4, 255.0]]), "rows").tolist()
    [[0.0, 0.0, 255.0]]
    """
    held = x.detach()
    if scheme == "nbits":
        return _straight(x, _by_block(held, _NBITS_CODES))
    if scheme == "rows":
        low, high = held.amin(dim=-1, keepdim=True), held.amax(dim=-1, keepdim=True)
        step = (high - low).clamp(min=_STEPS * _TINY) / _STEPS
        return _straight(x, torch.round((held - low) / step) * step + low)
    # One scale with a whole zero point, so that 0 is kept exactly.
    low, high = held.amin().clamp(max=0), held.amax().clamp(min=0)
    step = (high - low).clamp(min=_STEPS * _TINY) / _STEPS
    zero = torch.round(-low / step)
    return _straight(x, (torch.clamp(torch.round(held / step) + zero, 0, _STEPS) - zero) * step)


def _by_block(x: torch.Tensor, most: int) -> torch.Tensor:
    inner = x.shape[-1]
    padded = torch.nn.functional.pad(x, (0, -inner % _BLOCK)).reshape(*x.shape[:-1], -1, _BLOCK)
    scale = padded.abs().amax(dim=-1, keepdim=True) / most
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (torch.round(padded / scale) * scale).flatten(-2)[..., :inner]


def _straight(x: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
    return x + (rounded - x).detach()


@contextmanager
def rounded_products(model: torch.nn.Module, scheme: Scheme) -> Iterator[list[str]]:
    """Within the block the linear layers of the numbered layers compute on rounded weights and activations; yields their names.

    Raises:
        InputError: a model whose layers are not found.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and LAYER.search(f"{name}.")}
    if not layers:
        raise InputError(f"int8_aware: {type(model).__name__} has no linear layers in numbered layers; int8_aware: false expected")

    def forward_of(layer: torch.nn.Linear) -> Fake:
        return lambda x: torch.nn.functional.linear(fake_rows(x, scheme), fake_weight(layer.weight, scheme), layer.bias)

    for layer in layers.values():
        layer.__dict__["forward"] = forward_of(layer)  # hides the method of the class for this block
    try:
        yield list(layers)
    finally:
        for layer in layers.values():
            del layer.__dict__["forward"]


def teach_rounding(tower: Tower, texts: Sequence[TokenIds], config: TuneConfig, scheme: Scheme, *, bar: Bar) -> dict[str, Any]:
    """Tunes ``tower`` in place towards its own float vectors, under rounded products and without. A pure function of its arguments.

    Args:
        tower: the float model; in evaluation mode, for dropout would be part of the targets.
        texts: token ids of training texts, at least one; each is used once where there are enough.
        config: rate, clipping, warmup, chunk and seed are the run's.
        scheme: the int8 method of the export.
        bar: advanced by one for every step.

    Returns:
        ``steps``, ``texts``, and ``cosine_before`` and ``cosine_after``: the mean cosine of the rounded model's vectors to the float
        targets, on the texts of the first step.

    Raises:
        InputError: the loss is not finite; or a model without layers that can be found.
    """
    order = np.random.default_rng((config.seed, 3)).permutation(len(texts))
    chosen = [texts[i] for i in np.resize(order, STEPS * min(TEXTS, len(texts))).tolist()]
    size = len(chosen) // STEPS

    def vectors(ids: Sequence[TokenIds]) -> torch.Tensor:
        return embed(tower, ids, chunk_rows=config.chunk_rows, dtype="float32")

    with torch.no_grad():
        targets = torch.cat([vectors(chosen[start : start + size]) for start in range(0, len(chosen), size)])

    def cosine() -> float:
        with torch.no_grad(), rounded_products(tower.model, scheme):
            return float(torch.nn.functional.cosine_similarity(vectors(chosen[:size]), targets[:size]).mean())

    parameters = dict(tower.model.named_parameters())
    optimizer = make_optimizer(parameters, config)
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0  # the float model is what is to be met
    before = cosine()
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, STEPS, peak=config.learning_rate, warmup_fraction=config.warmup_fraction, decay=config.decay)
        optimizer.zero_grad(set_to_none=True)
        part = slice(step * size, (step + 1) * size)
        with rounded_products(tower.model, scheme):
            rounded = vectors(chosen[part])
        loss = drift(rounded, targets[part]) + drift(vectors(chosen[part]), targets[part])
        if not torch.isfinite(loss):
            raise InputError(f"int8_aware: the loss at step {step + 1} of {STEPS} is {loss.item()}; int8_aware: false leaves it out")
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters.values(), config.max_grad_norm)
        optimizer.step()
        bar.advance(1, note=f"loss {loss.item():.5f}")
    after = cosine()
    return {"steps": STEPS, "texts": len(set(map(tuple, chosen))), "cosine_before": before, "cosine_after": after}
