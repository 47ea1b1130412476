"""The steps between the products of a packed BERT in torch's own operations: on any device, in any type, the oracle of the fused ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from nearfield.encode.spec import ModelSpec

if TYPE_CHECKING:
    from nearfield.encode.packed import Norm, Packed


class TorchSteps:
    """See ``nearfield.encode.packed.Steps``.

    Attention pads: texts of one batch should be of like length. Everything else runs over the tokens as they lie.
    """

    name = "torch"
    pads = True

    def __init__(self, dropout: float = 0.0) -> None:
        self.dropout = dropout  # of attention weights, in training

    def embed(self, batch: Packed, tables: tuple[torch.Tensor, ...], norm: Norm, eps: float) -> torch.Tensor:
        """See ``Steps``."""
        words, positions, kind = tables
        place = torch.arange(len(batch.ids), device=batch.ids.device) - batch.first
        x = _wide(words[batch.ids]) + _wide(positions[place]) + _wide(kind)
        return _layer_norm(x, norm, eps).to(words.dtype)

    def attention(self, qkv: torch.Tensor, batch: Packed, heads: int) -> torch.Tensor:
        """See ``Steps``."""
        tokens, width = qkv.shape[0], qkv.shape[1] // 3
        texts, longest = len(batch.bounds) - 1, max(1, batch.longest)
        every = torch.arange(tokens, device=qkv.device)
        row = torch.searchsorted(batch.bounds, every, right=True, out_int32=True).long() - 1
        place = every - batch.first
        padded = qkv.new_zeros(texts, longest, 3, heads, width // heads)
        padded[row, place] = qkv.view(tokens, 3, heads, width // heads)
        query, key, value = padded.permute(2, 0, 3, 1, 4)
        there = torch.arange(longest, device=qkv.device) < batch.bounds.diff().clamp(min=1)[:, None]
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=there[:, None, None, :], dropout_p=self.dropout)
        return mixed.transpose(1, 2)[row, place].reshape(tokens, width)

    def add_norm(self, x: torch.Tensor, y: torch.Tensor, norm: Norm, eps: float) -> torch.Tensor:
        """See ``Steps``."""
        return _layer_norm(_wide(x) + _wide(y), norm, eps).to(x.dtype)

    def pool(self, x: torch.Tensor, batch: Packed, spec: ModelSpec) -> torch.Tensor:
        """See ``Steps``."""
        begin, end = batch.bounds[:-1].long(), batch.bounds[1:].long()
        x, filled = _wide(x), (end > begin)[:, None]
        if spec.pooling == "mean":
            # index_add over the texts: a running sum over all tokens would lose digits in a long batch.
            row = torch.searchsorted(batch.bounds, torch.arange(len(x), device=x.device), right=True) - 1
            sums = x.new_zeros(len(begin) + 1, x.shape[1]).index_add_(0, row, x)[:-1]
            rows = sums / (end - begin).clamp(min=1)[:, None]
        else:
            rows = x[(begin if spec.pooling == "cls" else end - 1).clamp(min=0, max=len(x) - 1)]
        rows = torch.where(filled, rows, torch.zeros_like(rows))
        return functional.normalize(rows, dim=-1) if spec.normalize else rows


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _layer_norm(x: torch.Tensor, norm: Norm, eps: float) -> torch.Tensor:
    gamma, beta = norm
    return functional.layer_norm(x, x.shape[-1:], gamma.to(x.dtype), beta.to(x.dtype), eps)
