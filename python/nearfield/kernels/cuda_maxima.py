"""The largest products of queries with groups of rows, and with families of groups: all that is kept of a scan."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from nearfield.kernels.fused_scan import Scan

# Rows whose largest bound is kept as one number: the second pass reads GROUP rows for each group that a query's pool takes.
GROUP = 16
# Groups of a tile, whose maxima are kept side by side, and of a family, 256 rows: a million rows are 3,907 families, few enough to select
# among.
TILE = 4
FAMILY = 16
# Values of one tile of products where torch multiplies. 2^24 of two bytes are 32 MiB: the maxima are taken from the GPU's cache (H200:
# 60 MB), and one query against a million rows is still one launch.
TILE_VALUES = 2**24


def product(queries: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Products of codes, (nq, w) x (m, w) or (nq, 1, w) x (nq, m, w), summed in float32 and rounded to float16."""
    if queries.device.type == "cuda":
        return queries @ codes.mT  # to nearest: the float32 sum is rounded once
    return (queries.float() @ codes.float().mT).half()  # torch does not say how a CPU sums float16


@dataclass(frozen=True, slots=True)
class Maxima:
    """The largest products of queries; -inf where there are no rows.

    Attributes:
        fine: (tiles, nq, TILE), with each group.
        coarse: (families, nq), with each family.
        groups: how many groups there are.
    """

    fine: torch.Tensor
    coarse: torch.Tensor
    groups: int

    @classmethod
    def of(cls, queries: torch.Tensor, codes: torch.Tensor, scan: Scan | None) -> Maxima:
        """The maxima of queries (nq, w) with codes (n, w), n a multiple of GROUP. Never waits for the device."""
        groups = len(codes) // GROUP
        families = -(-groups // FAMILY)
        fine = queries.new_empty(families * FAMILY // TILE, len(queries), TILE)
        fine[groups // TILE :] = -math.inf
        if scan is not None:
            coarse = queries.new_empty(families, len(queries))
            scan.maxima(queries, fine, coarse)
            return cls(fine, coarse, groups)
        step = max(1, TILE_VALUES // len(queries) // GROUP // TILE) * TILE
        for first in range(0, groups, step):
            part = codes[first * GROUP : (first + step) * GROUP]
            best = product(queries, part).view(len(queries), -1, GROUP).amax(dim=2)
            whole = best.shape[1] // TILE * TILE
            start = first // TILE
            fine[start : start + whole // TILE] = best[:, :whole].view(len(queries), -1, TILE).transpose(0, 1)
            if whole < best.shape[1]:
                fine[start + whole // TILE, :, : best.shape[1] - whole] = best[:, whole:]
        return cls(fine, fine.view(families, FAMILY // TILE, len(queries), TILE).amax(dim=(1, 3)), groups)

    def at(self, which: slice | torch.Tensor) -> Maxima:
        """Those of some queries."""
        return Maxima(self.fine[:, which], self.coarse[:, which], self.groups)

    def best(self, wanted: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The ``wanted`` groups (nq, wanted) with the largest maxima, and the largest maximum (nq,) of any other; -inf where there is none.

        A selection reads its values several times: it is made among the families first, and then among the groups of the best ones alone.
        """
        import torch

        queries = self.coarse.shape[1]
        if wanted * FAMILY >= self.groups:
            every = self.fine.transpose(0, 1).reshape(queries, -1)[:, : self.groups]
            top = every.topk(min(wanted + 1, self.groups), dim=1)
            outside = top.values[:, -1] if wanted < self.groups else torch.full_like(top.values[:, 0], -math.inf)
            return top.indices[:, :wanted].contiguous(), outside
        best = self.coarse.mT.contiguous().topk(wanted + 1, dim=1)
        tiles = best.indices[:, :wanted, None] * (FAMILY // TILE) + torch.arange(FAMILY // TILE, device=best.indices.device)
        tiles = tiles.flatten(1)
        own = torch.arange(queries, device=tiles.device)[:, None]
        top = self.fine[tiles, own].flatten(1).topk(wanted + 1, dim=1)
        chosen = (tiles[:, :, None] * TILE + torch.arange(TILE, device=tiles.device)).flatten(1)
        outside = torch.maximum(best.values[:, -1], top.values[:, -1])
        return chosen.gather(1, top.indices[:, :wanted]), outside
