"""The steps between the products of a packed BERT as fused Triton kernels: each reads its input once and writes its output once.

Importing this file imports triton. Kernels are compiled when first used (a second in all) and kept by Triton on disk. Their grids depend
on the number of tokens alone, never on the texts' lengths, so that a recorded launch serves every batch of its size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

from nearfield.encode.spec import ModelSpec

if TYPE_CHECKING:
    from nearfield.encode.packed import Norm, Packed

# Up to so many tokens a launch is as long as its slowest block, so blocks are small and many; beyond, larger ones read keys less often.
_FEW_TOKENS = 512
_FEW = {"ROWS": 16, "KEYS": 32, "num_warps": 1}
_MANY = {"ROWS": 64, "KEYS": 64, "num_warps": 4}
_POOLED_AT_ONCE = 16


class TritonSteps:
    """See ``nearfield.encode.packed.Steps``; float16, bfloat16 and float32 on a GPU (in Triton's interpreter on a CPU)."""

    name = "triton"
    pads = False

    def embed(self, batch: Packed, tables: tuple[torch.Tensor, ...], norm: Norm, eps: float) -> torch.Tensor:
        """See ``Steps``."""
        words, positions, kind = tables
        width = words.shape[1]
        out = words.new_empty(len(batch.ids), width)
        _embed[(len(out),)](batch.ids, batch.first, words, positions, kind, *norm, out, eps, WIDTH=width, **_row(width))
        return out

    def attention(self, qkv: torch.Tensor, batch: Packed, heads: int) -> torch.Tensor:
        """See ``Steps``."""
        tokens, width = qkv.shape[0], qkv.shape[1] // 3
        size = width // heads
        out = qkv.new_empty(tokens, width)
        blocks: dict[str, Any] = _FEW if tokens <= _FEW_TOKENS else _MANY
        # log2(e): exp2 is the instruction, exp would multiply by it.
        scale = 1.4426950408889634 / size**0.5
        grid = (triton.cdiv(tokens, blocks["ROWS"]), heads)
        _attention[grid](
            qkv, batch.first, batch.last, out, tokens, scale, WIDTH=width, HEAD=size, HEAD_BLOCK=max(16, triton.next_power_of_2(size)),
            PRECISION="ieee", **blocks,
        )  # fmt: skip
        return out

    def add_norm(self, x: torch.Tensor, y: torch.Tensor, norm: Norm, eps: float) -> torch.Tensor:
        """See ``Steps``."""
        out = torch.empty_like(x)
        width = x.shape[1]
        _add_norm[(len(x),)](x, y, *norm, out, eps, WIDTH=width, **_row(width))
        return out

    def pool(self, x: torch.Tensor, batch: Packed, spec: ModelSpec) -> torch.Tensor:
        """See ``Steps``."""
        texts, width = len(batch.bounds) - 1, x.shape[1]
        out = torch.empty(texts, width, dtype=torch.float32, device=x.device)
        _pool[(texts,)](
            x, batch.bounds, out, WIDTH=width, BLOCK=triton.next_power_of_2(width), POOLING=spec.pooling, NORMALIZE=spec.normalize,
            AT_ONCE=_POOLED_AT_ONCE, num_warps=4,
        )  # fmt: skip
        return out


def _row(width: int) -> dict[str, Any]:
    block = triton.next_power_of_2(width)
    return {"BLOCK": block, "num_warps": max(1, min(8, block // 512))}


@triton.jit  # type: ignore[untyped-decorator]
def _normalized(x, inside, gamma, beta, columns, eps, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    mean = tl.sum(x, 0) / WIDTH
    centred = tl.where(inside, x - mean, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, 0) / WIDTH + eps)
    return centred * scale * tl.load(gamma + columns, inside, 0.0).to(tl.float32) + tl.load(beta + columns, inside, 0.0).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def _embed(ids, first, words, positions, kind, gamma, beta, out, eps, WIDTH: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    inside = columns < WIDTH
    word, place = tl.load(ids + row), row - tl.load(first + row)
    x = tl.load(words + word * WIDTH + columns, inside, 0.0).to(tl.float32)
    x += tl.load(positions + place * WIDTH + columns, inside, 0.0).to(tl.float32)
    x += tl.load(kind + columns, inside, 0.0).to(tl.float32)
    y = _normalized(x, inside, gamma, beta, columns, eps, WIDTH)
    tl.store(out + row * WIDTH + columns, y.to(out.dtype.element_ty), inside)


@triton.jit  # type: ignore[untyped-decorator]
def _add_norm(x, y, gamma, beta, out, eps, WIDTH: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    inside = columns < WIDTH
    both = tl.load(x + row * WIDTH + columns, inside, 0.0).to(tl.float32) + tl.load(y + row * WIDTH + columns, inside, 0.0).to(tl.float32)
    z = _normalized(both, inside, gamma, beta, columns, eps, WIDTH)
    tl.store(out + row * WIDTH + columns, z.to(out.dtype.element_ty), inside)


@triton.jit  # type: ignore[untyped-decorator]
def _attention(  # type: ignore[no-untyped-def]
    qkv, first, last, out, tokens, scale,
    WIDTH: tl.constexpr, HEAD: tl.constexpr, HEAD_BLOCK: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """One head of ROWS tokens that lie side by side, whichever texts they belong to, over the keys of all these texts."""
    begin_row = tl.program_id(0) * ROWS
    rows = begin_row + tl.arange(0, ROWS)
    dims = tl.arange(0, HEAD_BLOCK)
    alive, wide = rows < tokens, dims < HEAD
    low = tl.load(first + rows, alive, 0)
    high = tl.load(last + rows, alive, 0)
    begin, end = tl.load(first + begin_row), tl.load(last + tl.minimum(begin_row + ROWS, tokens) - 1)
    head = qkv + tl.program_id(1) * HEAD
    query = tl.load(head + rows[:, None] * (3 * WIDTH) + dims[None, :], alive[:, None] & wide[None, :], 0.0)
    most = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    mixed = tl.zeros((ROWS, HEAD_BLOCK), tl.float32)
    for at in range(begin, end, KEYS):
        keys = at + tl.arange(0, KEYS)
        there = keys < end
        key = tl.load(head + WIDTH + keys[None, :] * (3 * WIDTH) + dims[:, None], there[None, :] & wide[:, None], 0.0)
        scores = tl.dot(query, key, input_precision=PRECISION) * scale
        own = (keys[None, :] >= low[:, None]) & (keys[None, :] < high[:, None])
        scores = tl.where(own, scores, float("-inf"))
        greatest = tl.maximum(most, tl.max(scores, 1))
        # Rows whose text begins behind these keys have seen none: their greatest is still -inf, and -inf - -inf no number.
        base = tl.where(greatest == float("-inf"), 0.0, greatest)
        weights = tl.exp2(scores - base[:, None])
        kept = tl.exp2(most - base)
        total = total * kept + tl.sum(weights, 1)
        value = tl.load(head + 2 * WIDTH + keys[:, None] * (3 * WIDTH) + dims[None, :], there[:, None] & wide[None, :], 0.0)
        mixed = mixed * kept[:, None] + tl.dot(weights.to(value.dtype), value, input_precision=PRECISION)
        most = greatest
    mixed = mixed / tl.where(total == 0.0, 1.0, total)[:, None]
    place = out + rows[:, None] * WIDTH + tl.program_id(1) * HEAD + dims[None, :]
    tl.store(place, mixed.to(out.dtype.element_ty), alive[:, None] & wide[None, :])


@triton.jit  # type: ignore[untyped-decorator]
def _pool(  # type: ignore[no-untyped-def]
    x, bounds, out, WIDTH: tl.constexpr, BLOCK: tl.constexpr, POOLING: tl.constexpr, NORMALIZE: tl.constexpr, AT_ONCE: tl.constexpr
):
    text = tl.program_id(0)
    begin, end = tl.load(bounds + text), tl.load(bounds + text + 1)
    columns = tl.arange(0, BLOCK)
    inside = columns < WIDTH
    if POOLING == "mean":
        sums = tl.zeros((AT_ONCE, BLOCK), tl.float32)
        for at in range(begin, end, AT_ONCE):
            rows = at + tl.arange(0, AT_ONCE)
            sums += tl.load(x + rows[:, None] * WIDTH + columns[None, :], (rows < end)[:, None] & inside[None, :], 0.0).to(tl.float32)
        vector = tl.sum(sums, 0) / tl.maximum(end - begin, 1).to(tl.float32)
    else:
        row = begin
        if POOLING == "last":
            row = end - 1
        vector = tl.load(x + row * WIDTH + columns, columns < tl.where(end > begin, WIDTH, 0), 0.0).to(tl.float32)
    if NORMALIZE:
        vector = vector / tl.maximum(tl.sqrt(tl.sum(vector * vector, 0)), 1e-12)
    tl.store(out + text * WIDTH + columns, vector, inside)
