"""The certified search of one chunk on a torch device: maxima of groups, a pool of rows, float64, and the proof that nothing was missed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nearfield.kernels.cuda_codes import CodedQueries, Frame
from nearfield.types import Metric

if TYPE_CHECKING:
    import torch

# Rows whose largest bound is kept as one number: the second pass reads GROUP rows for each group that a query's pool takes.
GROUP = 16
# Values of one tile of products. 2^24 of two bytes are 32 MiB: the maxima are taken from the GPU's cache (H200: 60 MB), and one query
# against a million rows is still one launch.
TILE_VALUES = 2**24
# A pool holds k rows and so many more; a query whose pool was too small gets GROWTH times as many more.
MORE_ROWS = 24
GROWTH = 8
# A pool of more rows than this is not tried: then the codes tell nothing, and the native engine answers.
MOST_POOL_ROWS = 2**16
# Values gathered at a time: 64 MB of float16, 256 MB of float64.
GATHERED_VALUES = 2**25
# Up to so many rows are summed on the host: the dim / 8 dependent steps of a sum would take longer to launch than to compute.
HOST_ROWS = 1024
LANES = 8


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows on the device. ``codes`` are filled up to whole groups with copies of the last one, which raise no maximum."""

    first: int
    rows: torch.Tensor
    codes: torch.Tensor
    frame: Frame

    @classmethod
    def of(cls, first: int, rows: torch.Tensor, codes: torch.Tensor, frame: Frame) -> Chunk:
        """Fills up the codes (n, width) of rows (n, dim)."""
        import torch

        return cls(first, rows, torch.cat([codes, codes[-1:].expand(-len(codes) % GROUP, -1)]), frame)


@dataclass(frozen=True, slots=True)
class Best:
    """The best rows so far: ``positions`` (nq, k), ``scores`` (nq, k) in float64, descending, -inf where missing; ``rescored`` (nq,);
    ``open`` (nq,), true where a proof failed."""

    positions: torch.Tensor
    scores: torch.Tensor
    rescored: torch.Tensor
    open: torch.Tensor

    @classmethod
    def empty(cls, queries: int, k: int, device: torch.device) -> Best:
        """Nothing found yet."""
        import torch

        return cls(
            torch.full((queries, k), -1, dtype=torch.int64, device=device),
            torch.full((queries, k), -math.inf, dtype=torch.float64, device=device),
            torch.zeros(queries, dtype=torch.int64, device=device),
            torch.zeros(queries, dtype=torch.bool, device=device),
        )

    def block(self, part: slice) -> Best:
        """A view of some queries."""
        return Best(self.positions[part], self.scores[part], self.rescored[part], self.open[part])


def lane_sum(terms: torch.Tensor) -> torch.Tensor:
    """Sums float64 terms (..., dim) in the order of csrc/score/door.h, so that every score has the native engine's bits.

    >>> import torch
    >>> lane_sum(torch.arange(10.0, dtype=torch.float64)).item()
    45.0
    """
    lanes = terms.new_zeros((*terms.shape[:-1], LANES))
    for start in range(0, terms.shape[-1], LANES):
        part = terms[..., start : start + LANES]
        lanes[..., : part.shape[-1]] += part
    pairs = lanes[..., :4] + lanes[..., 4:]
    return (pairs[..., 0] + pairs[..., 1]) + (pairs[..., 2] + pairs[..., 3])


def exact_scores(metric: Metric, queries: torch.Tensor, norms: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The float64 scores (nq, m) of each query (nq, dim) with its own rows (nq, m, dim), as csrc/score/scan.h defines them."""
    import torch

    if metric == "l2":
        gaps = queries[:, None].double() - rows.double()
        return -lane_sum(gaps * gaps)
    dots = lane_sum(queries[:, None].double() * rows.double())
    if metric == "ip":
        return dots
    return torch.where(norms[:, None] > 0, dots / norms[:, None], 0.0)


def search_chunk(metric: Metric, chunk: Chunk, queries: torch.Tensor, norms: torch.Tensor, best: Best) -> None:
    """Brings ``best`` up to date with a chunk whose rows come after all rows seen so far.

    A pool of the most promising rows is scored exactly. If the bound of everything outside lies below the k-th exact score, the pool held
    every row of the answer; otherwise the query tries again with a larger pool, and is left open in the end.
    """
    import torch

    k = best.scores.shape[1]
    coded = chunk.frame.queries(queries, norms)
    maxima = _group_maxima(coded.codes, chunk.codes)
    best.open.logical_or_(~coded.usable)
    waiting, more = torch.nonzero(~best.open)[:, 0], MORE_ROWS
    while len(waiting):
        groups = min(k + more, maxima.shape[1])
        if groups * GROUP > MOST_POOL_ROWS:
            best.open[waiting] = True
            return
        top = (maxima if len(waiting) == len(maxima) else maxima[waiting]).topk(min(groups + 1, maxima.shape[1]), dim=1)
        outside = top.values[:, -1] if groups < maxima.shape[1] else torch.full_like(top.values[:, 0], -math.inf)
        step = max(1, GATHERED_VALUES // (groups * GROUP * chunk.codes.shape[1]))
        parts = [slice(i, i + step) for i in range(0, len(waiting), step)]
        asked = (queries, norms, coded)
        proven = [_rescore(metric, chunk, asked, best, waiting[part], top.indices[part, :groups], outside[part], more) for part in parts]
        waiting, more = waiting[~torch.cat(proven)], more * GROWTH


def _product(queries: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Products of codes, (nq, w) x (m, w) or (nq, 1, w) x (nq, m, w), summed in float32 and rounded to float16."""
    if queries.device.type == "cuda":
        return queries @ codes.mT  # to nearest: the float32 sum is rounded once
    return (queries.float() @ codes.float().mT).half()  # torch does not say how a CPU sums float16


def _group_maxima(queries: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """The largest product of each query (nq, w) with each group's rows: (nq, groups). One tile of products exists at a time."""
    import torch

    maxima = queries.new_empty(len(queries), len(codes) // GROUP)
    tile = max(1, TILE_VALUES // len(queries) // GROUP) * GROUP
    for start in range(0, len(codes), tile):
        products = _product(queries, codes[start : start + tile])
        grouped = products.view(len(queries), -1, GROUP)
        torch.amax(grouped, dim=2, out=maxima[:, start // GROUP : start // GROUP + grouped.shape[1]])
    return maxima


def _rescore(
    metric: Metric,
    chunk: Chunk,
    asked: tuple[torch.Tensor, torch.Tensor, CodedQueries],
    best: Best,
    which: torch.Tensor,
    groups: torch.Tensor,
    outside: torch.Tensor,
    more: int,
) -> torch.Tensor:
    """Scores the most promising rows of some queries' groups exactly and returns for which queries (m,) that is proven to be enough.

    Args:
        asked: all queries of the block, their norms and their codes.
        which: the queries (m,) worked on.
        groups: (m, g) their groups.
        outside: (m,) the largest product of any other group.
        more: how many rows beyond k are scored.
    """
    import torch

    queries, norms, coded = asked
    k, count = best.scores.shape[1], len(chunk.rows)
    members = (groups[:, :, None] * GROUP + torch.arange(GROUP, device=groups.device)).flatten(1)
    products = _product(coded.codes[which, None], chunk.codes[members])[:, 0]
    products.masked_fill_(members >= count, -math.inf)  # the copies would take places in the pool
    pool = min(k + more, members.shape[1])
    top = products.topk(min(pool + 1, members.shape[1]), dim=1)
    if pool < members.shape[1]:
        outside = torch.maximum(outside, top.values[:, -1])
    rows = members.gather(1, top.indices[:, :pool]).sort(dim=1).values  # rising, so that a stable sort breaks ties by position
    scores = _exact_in_steps(metric, chunk, queries[which], norms[which], rows.clamp(max=count - 1))
    scores.masked_fill_(rows >= count, -math.inf)
    merged, order = torch.cat([best.scores[which], scores], dim=1).sort(dim=1, descending=True, stable=True)
    positions = torch.cat([best.positions[which], rows + chunk.first], dim=1).gather(1, order[:, :k])
    proven = (coded.upper(outside, which) < merged[:, k - 1]) | (outside == -math.inf)
    best.rescored[which] += (rows < count).sum(dim=1)
    done = which[proven]
    best.scores[done], best.positions[done] = merged[proven, :k], positions[proven]
    return proven


def _exact_in_steps(metric: Metric, chunk: Chunk, queries: torch.Tensor, norms: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The exact scores (m, p) of queries (m, dim) with chosen rows (m, p), in steps that bound the memory."""
    import torch

    if rows.numel() <= HOST_ROWS:
        return exact_scores(metric, queries.cpu(), norms.cpu(), chunk.rows[rows].cpu()).to(rows.device)
    step = max(1, GATHERED_VALUES // (rows.shape[1] * queries.shape[1]))
    parts = [slice(i, i + step) for i in range(0, len(rows), step)]
    return torch.cat([exact_scores(metric, queries[part], norms[part], chunk.rows[rows[part]]) for part in parts])
