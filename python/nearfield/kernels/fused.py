"""Which of our own GPU kernels run on a device: each is tried once on a small example, and left alone where anything is wrong.

Triton compiles them on the machine they run on, in whatever version torch brought. Where it is missing, cannot compile them, or a result
is not what it should be, torch's own operations answer; then only the speed differs.
"""

from __future__ import annotations

import os
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from nearfield.kernels.fused_scan import Scan

VARIABLE = "NEARFIELD_CUDA_FUSED"
# Hopper's products of warp groups are no part of other GPUs, older or newer.
SCAN_CAPABILITY = (9, 0)
# The example: rows of several tiles and one unfinished, queries of two blocks and one unfinished.
ROWS, QUERIES, WIDTH, DIM = 64 * 9 + 16, 64 * 5 + 3, 112, 96
# Between float32 sums of 112 products below 1/2 in different orders, rounded to float16.
TOLERANCE = 2.0**-8


def wanted() -> bool:
    """Whether ``NEARFIELD_CUDA_FUSED`` allows kernels of our own; ``0`` leaves all to torch's operations."""
    return os.environ.get(VARIABLE, "1") != "0"


@cache
def pool_runs(device: torch.device) -> bool:
    """Whether ``fused_pool`` gives right results on this device."""
    return device.type == "cuda" and wanted() and _tried("pool products and exact scores", device, _pool_is_right)


@cache
def scan_runs(device: torch.device) -> bool:
    """Whether ``fused_scan`` gives right results on this device."""
    import torch

    if device.type != "cuda" or not wanted() or torch.cuda.get_device_capability(device) != SCAN_CAPABILITY:
        return False
    return _tried("the fused scan", device, _scan_is_right)


def scan_for(codes: torch.Tensor, group: int, family: int) -> Scan | None:
    """The fused scan of these codes, where it runs and their width suits it. group: rows; family: groups."""
    if not scan_runs(codes.device):
        return None
    from nearfield.kernels import fused_scan

    return fused_scan.Scan(codes, group, family * group // fused_scan.TILE) if fused_scan.fits(codes.shape[1]) else None


def _tried(what: str, device: torch.device, check: Any) -> bool:
    try:
        right = bool(check(device))
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    else:
        if right:
            return True
        reason = "its results are wrong"
    warnings.warn(f"{what}: not used on {device} ({reason}); torch's own operations answer, more slowly", RuntimeWarning, stacklevel=3)
    return False


def _example(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    draw = torch.Generator().manual_seed(0)
    queries, rows = (torch.randn(n, WIDTH, generator=draw) / WIDTH**0.5 for n in (QUERIES, ROWS))
    return queries.half().to(device), rows.half().to(device)


def _scan_is_right(device: torch.device) -> bool:
    import torch

    from nearfield.kernels.cuda_maxima import FAMILY, GROUP, Maxima
    from nearfield.kernels.fused_scan import TILE, Scan

    queries, rows = _example(device)
    room = rows.new_zeros(ROWS, WIDTH + 16)
    codes = room[:, :WIDTH]
    codes.copy_(rows)
    for count in (1, 64, QUERIES):
        expected = Maxima.of(queries[:count], codes, None)
        found = Maxima(torch.full_like(expected.fine, -torch.inf), torch.full_like(expected.coarse, 7.0), expected.groups)
        Scan(codes, GROUP, FAMILY * GROUP // TILE).maxima(queries[:count], found.fine, found.coarse)
        for ours, theirs in ((found.fine, expected.fine), (found.coarse, expected.coarse)):
            if not bool(((ours == theirs) | ((ours.float() - theirs.float()).abs() <= TOLERANCE)).all()):
                return False
    return True


def _pool_is_right(device: torch.device) -> bool:
    import torch

    from nearfield.kernels import fused_pool
    from nearfield.kernels.cuda_pool import exact_scores

    queries, rows = _example(device)
    groups = torch.arange(QUERIES * 3, device=device).view(QUERIES, 3) % (ROWS // 16)
    room = rows.new_zeros(ROWS, WIDTH + 16)
    codes = room[:, :WIDTH]
    codes.copy_(rows)
    found = fused_pool.pool_products(queries, codes, groups, 16, ROWS)
    members = (groups[:, :, None] * 16 + torch.arange(16, device=device)).flatten(1)
    expected = (queries.float()[:, None] @ rows.float()[members].mT)[:, 0]
    if not bool(((found.float() - expected).abs() <= TOLERANCE).all()):
        return False
    wide, asked = rows[:, :DIM].float() * 3.7, queries[:, :DIM].float() * 1.3
    lengths = fused_pool.norms(asked)
    for metric in ("ip", "cosine", "l2"):
        exact = exact_scores(metric, asked, lengths, wide[members])
        if not torch.equal(fused_pool.exact_scores(metric, asked, lengths, wide, members), exact):
            return False
    return True
