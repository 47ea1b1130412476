"""The small steps of a search on a GPU as one kernel each: products with chosen groups of rows, and exact scores of chosen rows.

Imported late, because importing it imports Triton; runs in Triton's interpreter (``TRITON_INTERPRET=1``) on the CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from nearfield.types import Metric

if TYPE_CHECKING:
    import torch

# Rows of one query that a block scores: with eight lanes each they fill four warps.
ROWS = 16


@triton.jit  # type: ignore[untyped-decorator]
def _pool(queries, codes, groups, out, rows, stride, WIDTH: tl.constexpr, COLUMNS: tl.constexpr, GROUP: tl.constexpr):  # type: ignore[no-untyped-def]
    query, place, pool = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    column = tl.arange(0, COLUMNS)
    asked = tl.load(queries + query * WIDTH + column, mask=column < WIDTH, other=0.0).to(tl.float32)
    row = tl.load(groups + query * pool + place) * GROUP + tl.arange(0, GROUP)
    values = tl.load(codes + row[:, None] * stride + column[None, :], mask=(column < WIDTH)[None, :], other=0.0).to(tl.float32)
    products = tl.sum(values * asked[None, :], axis=1)
    products = tl.where(row < rows, products, float("-inf"))
    tl.store(out + (query * pool + place) * GROUP + tl.arange(0, GROUP), products.to(tl.float16))


@triton.jit  # type: ignore[untyped-decorator]
def _exact(  # type: ignore[no-untyped-def]
    queries, norms, rows, chosen, out, pool, DIM: tl.constexpr, SQUARED_GAPS: tl.constexpr, DIVIDED: tl.constexpr, ROWS: tl.constexpr
):
    query = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    row = tl.load(chosen + query * pool + place, mask=place < pool, other=0)
    lane = tl.arange(0, 8)
    sums = tl.zeros((ROWS, 8), tl.float64)
    for start in tl.range(0, DIM, 8, loop_unroll_factor=4):
        inside = start + lane < DIM
        a = tl.load(queries + query * DIM + start + lane, mask=inside, other=0.0).to(tl.float64)[None, :]
        b = tl.load(rows + row[:, None] * DIM + (start + lane)[None, :], mask=inside[None, :], other=0.0).to(tl.float64)
        sums += (a - b) * (a - b) if SQUARED_GAPS else a * b
    # Lane j and lane j + 4, then neighbours: the order of csrc/score/door.h. A sum of two has no order.
    pairs = tl.sum(tl.reshape(sums, (ROWS, 2, 4)), axis=1)
    scores = tl.sum(tl.sum(tl.reshape(pairs, (ROWS, 2, 2)), axis=2), axis=1)
    if SQUARED_GAPS:
        scores = -scores
    if DIVIDED:
        norm = tl.load(norms + query)
        scores = tl.where(norm > 0, scores / norm, 0.0)
    tl.store(out + query * pool + place, scores, mask=place < pool)


def pool_products(queries: torch.Tensor, codes: torch.Tensor, groups: torch.Tensor, group: int, rows: int) -> torch.Tensor:
    """Products (nq, g * group) in float16 of each query (nq, width) with the rows of its groups (nq, g); -inf for rows from ``rows`` on."""
    count, pool = groups.shape
    out = queries.new_empty(count, pool * group)
    width = codes.shape[1]
    _pool[(count, pool)](
        queries.contiguous(), codes, groups.contiguous(), out, rows, codes.stride(0), width, triton.next_power_of_2(width), group
    )
    return out


def exact_scores(metric: Metric, queries: torch.Tensor, norms: torch.Tensor, rows: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """The float64 scores (nq, p) of each query (nq, dim) with its chosen rows (nq, p), bit for bit those of csrc/score/scan.h."""
    import torch

    count, pool = chosen.shape
    out = torch.empty((count, pool), dtype=torch.float64, device=chosen.device)
    # A square and its sum must stay two roundings: no fused multiply-add.
    _exact[(count, triton.cdiv(pool, ROWS))](
        queries.contiguous(),
        norms.contiguous(),
        rows,
        chosen.contiguous(),
        out,
        pool,
        queries.shape[1],
        metric == "l2",
        metric == "cosine",
        ROWS,
        enable_fp_fusion=False,
    )
    return out


def norms(queries: torch.Tensor) -> torch.Tensor:
    """Euclidean norms (nq,) in float64 of queries (nq, dim), the sum in the order of csrc/score/door.h."""
    import torch

    own = torch.arange(len(queries), device=queries.device)[:, None]
    return exact_scores("ip", queries, queries, queries, own)[:, 0].sqrt()
