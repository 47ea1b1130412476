"""The certified search of one chunk on a torch device: maxima of groups, a pool of rows, float64, and the proof that nothing was missed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nearfield.kernels import fused
from nearfield.kernels.cuda_codes import CodedQueries, Frame, stride
from nearfield.kernels.cuda_maxima import FAMILY, GROUP, Maxima, product
from nearfield.types import Metric

if TYPE_CHECKING:
    import torch

    from nearfield.kernels.fused_scan import Scan

# A pool holds k rows and so many more; a query whose pool was too small gets GROWTH times as many more. The bounds of 14 rows at most reach
# the 10th score of 512 real queries among 200,000 rows, and of 108 the 100th.
MORE_ROWS = 16
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
    """Rows on the device. ``codes`` are filled up to whole groups with copies of the last one, which raise no maximum; each row of them
    starts at a line of the device's cache.

    Attributes:
        scan: the fused scan of the codes, where there is one.
        fused: whether the small steps run as kernels of our own.
    """

    first: int
    rows: torch.Tensor
    codes: torch.Tensor
    frame: Frame
    scan: Scan | None
    fused: bool

    @classmethod
    def of(cls, first: int, rows: torch.Tensor, codes: torch.Tensor, frame: Frame) -> Chunk:
        """Fills up the codes (n, width) of rows (n, dim)."""
        room = codes.new_empty(-(-len(codes) // GROUP) * GROUP, stride(codes.shape[1]))
        filled = room[:, : codes.shape[1]]
        filled[: len(codes)], filled[len(codes) :] = codes, codes[-1]
        return cls(first, rows, filled, frame, fused.scan_for(filled, GROUP, FAMILY), fused.pool_runs(filled.device))

    @property
    def groups(self) -> int:
        """How many groups of rows there are."""
        return len(self.codes) // GROUP


@dataclass(frozen=True, slots=True)
class Asked:
    """Queries (nq, dim) float32, their norms (nq,) float64 and their codes."""

    queries: torch.Tensor
    norms: torch.Tensor
    coded: CodedQueries

    def at(self, which: slice | torch.Tensor) -> Asked:
        """Some of the queries."""
        return Asked(self.queries[which], self.norms[which], self.coded.at(which))


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

    def at(self, which: slice | torch.Tensor) -> Best:
        """Some queries' rows: a view for a slice, a copy for indices."""
        return Best(self.positions[which], self.scores[which], self.rescored[which], self.open[which])

    def put(self, which: torch.Tensor, some: Best) -> None:
        """Writes a copy back."""
        self.positions[which], self.scores[which] = some.positions, some.scores
        self.rescored[which], self.open[which] = some.rescored, some.open


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
    asked = Asked(queries, norms, chunk.frame.queries(queries, norms))
    maxima = Maxima.of(asked.coded.codes, chunk.codes, chunk.scan)
    best.open.logical_or_(~asked.coded.usable)
    proven = first_attempt(metric, chunk, asked, maxima, best)
    finish(metric, chunk, asked, maxima, best, proven)


def finish(metric: Metric, chunk: Chunk, asked: Asked, maxima: Maxima, best: Best, proven: torch.Tensor) -> None:
    """Tries again, with larger and larger pools, for the queries that the first attempt has not proven."""
    import torch

    k, more = best.scores.shape[1], MORE_ROWS * GROWTH
    waiting = torch.nonzero(~best.open & ~proven)[:, 0]
    while len(waiting):
        groups = min(k + more, chunk.groups)
        if groups * GROUP > MOST_POOL_ROWS:
            best.open[waiting] = True
            return
        step = max(1, GATHERED_VALUES // (groups * GROUP * chunk.codes.shape[1]))
        done = []
        for start in range(0, len(waiting), step):
            which = waiting[start : start + step]
            chosen, outside = maxima.at(which).best(groups)
            some = best.at(which)
            done.append(_rescore(metric, chunk, asked.at(which), some, chosen, outside, more))
            best.put(which, some)
        waiting, more = waiting[~torch.cat(done)], more * GROWTH


def first_attempt(metric: Metric, chunk: Chunk, asked: Asked, maxima: Maxima, best: Best) -> torch.Tensor:
    """Tries a small pool for every query and returns for which (nq,) it was enough. Never waits for the device: it can be captured."""
    import torch

    k = best.scores.shape[1]
    groups = min(k + MORE_ROWS, chunk.groups)
    if groups * GROUP > MOST_POOL_ROWS:
        return torch.zeros_like(best.open)
    count = len(asked.queries)
    step = count if chunk.fused else max(1, GATHERED_VALUES // (groups * GROUP * chunk.codes.shape[1]))
    done = []
    for start in range(0, count, step):
        part = slice(start, start + step)
        chosen, outside = maxima.at(part).best(groups)
        done.append(_rescore(metric, chunk, asked.at(part), best.at(part), chosen, outside, MORE_ROWS))
    return torch.cat(done)


def _rescore(
    metric: Metric, chunk: Chunk, asked: Asked, best: Best, groups: torch.Tensor, outside: torch.Tensor, more: int
) -> torch.Tensor:
    """Scores the most promising rows of the queries' groups exactly and returns for which queries (nq,) that is proven to be enough.

    Args:
        groups: (nq, g) each query's groups.
        outside: (nq,) the largest product of any other group.
        more: how many rows beyond k are scored.
    """
    import torch

    k, count = best.scores.shape[1], len(chunk.rows)
    members = (groups[:, :, None] * GROUP + torch.arange(GROUP, device=groups.device)).flatten(1)
    if chunk.fused:
        from nearfield.kernels import fused_pool

        products = fused_pool.pool_products(asked.coded.codes, chunk.codes, groups, GROUP, count)
    else:
        products = product(asked.coded.codes[:, None], chunk.codes[members])[:, 0]
        products.masked_fill_(members >= count, -math.inf)  # the copies would take places in the pool
    pool = min(k + more, members.shape[1])
    top = products.topk(min(pool + 1, members.shape[1]), dim=1)
    if pool < members.shape[1]:
        outside = torch.maximum(outside, top.values[:, -1])
    rows = members.gather(1, top.indices[:, :pool]).sort(dim=1).values  # rising, so that a stable sort breaks ties by position
    scores = _exact_in_steps(metric, chunk, asked, rows.clamp(max=count - 1))
    scores.masked_fill_(rows >= count, -math.inf)
    merged, order = torch.cat([best.scores, scores], dim=1).sort(dim=1, descending=True, stable=True)
    positions = torch.cat([best.positions, rows + chunk.first], dim=1).gather(1, order[:, :k])
    proven = (asked.coded.upper(outside) < merged[:, k - 1]) | (outside == -math.inf)
    best.rescored.add_((rows < count).sum(dim=1))
    best.scores.copy_(torch.where(proven[:, None], merged[:, :k], best.scores))
    best.positions.copy_(torch.where(proven[:, None], positions, best.positions))
    return proven


def _exact_in_steps(metric: Metric, chunk: Chunk, asked: Asked, rows: torch.Tensor) -> torch.Tensor:
    """The exact scores (nq, p) of queries with chosen rows (nq, p), in steps that bound the memory."""
    import torch

    queries, norms = asked.queries, asked.norms
    if chunk.fused:
        from nearfield.kernels import fused_pool

        return fused_pool.exact_scores(metric, queries, norms, chunk.rows, rows)
    if rows.numel() <= HOST_ROWS:
        return exact_scores(metric, queries.cpu(), norms.cpu(), chunk.rows[rows].cpu()).to(rows.device)
    step = max(1, GATHERED_VALUES // (rows.shape[1] * queries.shape[1]))
    parts = [slice(i, i + step) for i in range(0, len(rows), step)]
    return torch.cat([exact_scores(metric, queries[part], norms[part], chunk.rows[rows[part]]) for part in parts])
