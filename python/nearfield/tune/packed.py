"""Training on a GPU without padding: the layers of transformers' own BERT, one by one, over texts laid end to end.

It is the model's own modules that compute, so weights, gradients and what is saved stay where they were; only the order of tokens in memory
and the attention between them are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import torch

from nearfield.encode.packed import Packed, lay_out, views
from nearfield.encode.packed_steps import TorchSteps
from nearfield.encode.shape import UnsupportedModelError, read_shape
from nearfield.encode.spec import weights_folder
from nearfield.encode.tower import Tower
from nearfield.errors import FormatError
from nearfield.tune.pairs import TokenIds

# Tokens of one pass: enough to fill the largest GPU, few enough that activations without gradients take about a gigabyte.
TOKENS = 32_768

Attention = Callable[[torch.Tensor, Packed, int, float], torch.Tensor]


def can_pack(tower: Tower) -> bool:
    """Whether the tower is a BERT on a GPU: other models keep their padding, and on a CPU padded chunks fit its caches."""
    if tower.device.type != "cuda" or type(tower.model).__name__ != "BertModel":
        return False
    if any(module._forward_hooks for module in tower.model.modules()):  # LoRA acts in modules that are not called here
        return False
    try:
        read_shape(weights_folder(tower.folder))
    except (UnsupportedModelError, FormatError):
        return False
    return True


def packed_vectors(tower: Tower, ids: Sequence[TokenIds]) -> torch.Tensor:
    """``(n, dim)`` vectors of texts given as token ids, pooled and perhaps normalized as the tower does; gradients flow through."""
    device, lengths = tower.device, [len(row) for row in ids]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = int(offsets[-1])
    laid = torch.empty(3 * tokens + len(ids) + 1, dtype=torch.int32, pin_memory=device.type == "cuda")
    lay_out(np.fromiter(chain.from_iterable(ids), np.int32, tokens), offsets, tokens, len(ids), laid.numpy())
    batch = views(laid.to(device, non_blocking=True), tokens, len(ids), max(lengths))
    return TorchSteps().pool(_hidden(tower.model, batch).float(), batch, tower.spec)


def _hidden(model: Any, batch: Packed) -> Any:
    table = model.embeddings
    place = torch.arange(len(batch.ids), device=batch.ids.device) - batch.first
    x = table.word_embeddings(batch.ids) + table.position_embeddings(place) + table.token_type_embeddings.weight[0]
    x = table.dropout(table.LayerNorm(x))
    for layer in model.encoder.layer:
        own, after = layer.attention.self, layer.attention.output
        weight = torch.cat([own.query.weight, own.key.weight, own.value.weight])
        qkv = torch.nn.functional.linear(x, weight, torch.cat([own.query.bias, own.key.bias, own.value.bias]))
        context = _attend(qkv, batch, model.config.num_attention_heads, own.dropout.p if own.training else 0.0)
        x = after.LayerNorm(after.dropout(after.dense(context)) + x)
        inner, last = layer.intermediate.intermediate_act_fn(layer.intermediate.dense(x)), layer.output
        x = last.LayerNorm(last.dropout(last.dense(inner)) + x)
    return x


def _attend(qkv: torch.Tensor, batch: Packed, heads: int, dropout: float) -> torch.Tensor:
    """torch's attention over texts of different lengths where it runs (16 bits, no dropout), else one that pads inside."""
    flexible = varlen_attention() if qkv.is_cuda and not dropout and qkv.dtype in (torch.float16, torch.bfloat16) else None
    if flexible is None:
        return TorchSteps(dropout).attention(qkv, batch, heads)
    query, key, value = qkv.view(len(qkv), 3, heads, -1).unbind(1)
    mixed: torch.Tensor = flexible(query, key, value, batch.bounds, batch.bounds, batch.longest, batch.longest)
    return mixed.reshape(len(qkv), -1)


@cache
def varlen_attention() -> Callable[..., torch.Tensor] | None:
    """torch's ``varlen_attn`` (from 2.10 on) if it computes and differentiates on this GPU, found out once; else None."""
    try:
        from torch.nn.attention import varlen

        found: Callable[..., torch.Tensor] = varlen.varlen_attn  # type: ignore[assignment]
        rows = torch.randn(3, 5, 2, 32, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        bounds = torch.tensor([0, 2, 5], dtype=torch.int32, device="cuda")
        # Gradients wanted though the caller may have switched them off, as scoring dev does.
        with torch.inference_mode(False), torch.enable_grad():
            found(*rows.unbind(0), bounds, bounds, 3, 3).sum().backward()  # type: ignore[no-untyped-call]
    except (ImportError, RuntimeError, TypeError, NotImplementedError):
        return None
    return found
