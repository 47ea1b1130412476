"""Products of codes and the largest of each group in one kernel for Hopper's tensor cores: no tile of products ever leaves the chip.

Written in Gluon, Triton's language for explicit layouts; imported late, because importing it imports Triton. Why it looks as it does stands
in docs/cuda.md: a block keeps its queries in registers for good, rows stream through shared memory by the bulk copy engine, and the maxima
of one tile are taken while the next one is multiplied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language._layouts import NVMMASharedLayout
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma, warpgroup_mma, warpgroup_mma_wait
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

if TYPE_CHECKING:
    import torch

# Rows of a tile: 64 x 400 codes are 50 KB, and four of them fit into a multiprocessor's 227 KB beside nothing else.
TILE = 64
# A warp group multiplies 64 queries; two of them share the rows they read.
WARP_GROUP = 64
# Bytes of shared memory that tiles may take, and most tiles on their way.
SHARED_BYTES = 224 * 1024
MOST_STAGES = 4
# A thread holds columns / 4 registers of queries beside 2 x 32 sums, of the 255 there are.
MOST_COLUMNS = 528


@gluon.jit  # type: ignore[untyped-decorator]
def _piece(queries, count, start: gl.constexpr, columns: gl.constexpr, WIDTH: gl.constexpr, QUERIES: gl.constexpr, layout: gl.constexpr):  # type: ignore[no-untyped-def]
    """Some columns of this block's queries, as the left operand of products; zero beyond the last query."""
    query = gl.program_id(0) * QUERIES + gl.arange(0, QUERIES, gl.SliceLayout(1, layout))
    column = start + gl.arange(0, columns, gl.SliceLayout(0, layout))
    return gl.load(queries + query[:, None] * WIDTH + column[None, :], mask=(query < count)[:, None], other=0.0)


@gluon.jit  # type: ignore[untyped-decorator]
def _fetch(  # type: ignore[no-untyped-def]
    a, b, c, rows_a, rows_b, rows_c, ready, tile, first, last,
    A: gl.constexpr, B: gl.constexpr, C: gl.constexpr, TILE: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """Starts to bring a tile of rows, unless it lies beyond this block's last."""
    wanted = tile < last
    stage = (tile - first) % STAGES
    barrier = ready.index(stage)
    mbarrier.expect(barrier, TILE * (A + B + C) * 2, pred=wanted)
    tma.async_copy_global_to_shared(a, [tile * TILE, 0], barrier, rows_a.index(stage), pred=wanted)
    if B > 0:
        tma.async_copy_global_to_shared(b, [tile * TILE, A], barrier, rows_b.index(stage), pred=wanted)
    if C > 0:
        tma.async_copy_global_to_shared(c, [tile * TILE, A + B], barrier, rows_c.index(stage), pred=wanted)


@gluon.jit  # type: ignore[untyped-decorator]
def _keep(  # type: ignore[no-untyped-def]
    sums, running, fine, coarse, count, groups, tile, last,
    QUERIES: gl.constexpr, TILE: gl.constexpr, GROUP: gl.constexpr, TILES: gl.constexpr, layout: gl.constexpr,
):  # fmt: skip
    """Writes the largest sum of each group of a tile, and of each family at its last tile, rounded to float16.

    A tile's maxima of all queries lie side by side: 8 bytes a query, written in whole lines.
    """
    best = gl.convert_layout(gl.max(gl.reshape(sums, [QUERIES, TILE // GROUP, GROUP]), axis=2), layout, assert_trivial=True)
    query = gl.program_id(0) * QUERIES + gl.arange(0, QUERIES, gl.SliceLayout(1, layout))
    place = gl.arange(0, TILE // GROUP, gl.SliceLayout(0, layout))
    best = gl.where((tile * (TILE // GROUP) + place < groups)[None, :], best, float("-inf"))
    at = fine + tile.to(gl.int64) * count * (TILE // GROUP) + query[:, None] * (TILE // GROUP) + place[None, :]
    gl.store(at, best.to(gl.float16), mask=(query < count)[:, None])
    running = gl.maximum(running, gl.max(best, axis=1))
    if (tile % TILES == TILES - 1) | (tile == last - 1):
        gl.store(coarse + (tile // TILES).to(gl.int64) * count + query, running.to(gl.float16), mask=query < count)
        running = gl.full([QUERIES], float("-inf"), gl.float32, gl.SliceLayout(1, layout))
    return running


@gluon.jit  # type: ignore[untyped-decorator]
def _scan(  # type: ignore[no-untyped-def]
    queries, a, b, c, fine, coarse, count, rows, groups,
    A: gl.constexpr, B: gl.constexpr, C: gl.constexpr,
    QUERIES: gl.constexpr, TILE: gl.constexpr, STAGES: gl.constexpr, GROUP: gl.constexpr, TILES: gl.constexpr, kept: gl.constexpr,
):  # fmt: skip
    products: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [gl.num_warps(), 1], [16, TILE, 16])
    left: gl.constexpr = gl.DotOperandLayout(0, products, 2)
    WIDTH: gl.constexpr = A + B + C
    query_a = _piece(queries, count, 0, A, WIDTH, QUERIES, left)
    rows_a = gl.allocate_shared_memory(gl.float16, [STAGES, TILE, A], a.layout)
    rows_b = rows_a
    rows_c = rows_a
    if B > 0:
        query_b = _piece(queries, count, A, B, WIDTH, QUERIES, left)
        rows_b = gl.allocate_shared_memory(gl.float16, [STAGES, TILE, B], b.layout)
    if C > 0:
        query_c = _piece(queries, count, A + B, C, WIDTH, QUERIES, left)
        rows_c = gl.allocate_shared_memory(gl.float16, [STAGES, TILE, C], c.layout)
    ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for slot in gl.static_range(STAGES):
        mbarrier.init(ready.index(slot), count=1)
    tiles = gl.cdiv(rows, TILE)
    families = gl.cdiv(tiles, TILES).to(gl.int64)
    first = (families * gl.program_id(1) // gl.num_programs(1)).to(gl.int32) * TILES
    last = gl.minimum((families * (gl.program_id(1) + 1) // gl.num_programs(1)).to(gl.int32) * TILES, tiles)
    for slot in gl.static_range(STAGES):
        _fetch(a, b, c, rows_a, rows_b, rows_c, ready, first + slot, first, last, A, B, C, TILE, STAGES)
    zero = gl.zeros([QUERIES, TILE], gl.float32, products)
    sums = zero
    running = gl.full([QUERIES], float("-inf"), gl.float32, gl.SliceLayout(1, kept))
    for tile in range(first, last):
        stage = (tile - first) % STAGES
        mbarrier.wait(ready.index(stage), ((tile - first) // STAGES) & 1)
        product = warpgroup_mma(query_a, rows_a.index(stage).permute((1, 0)), zero, use_acc=False, is_async=True)
        if B > 0:
            product = warpgroup_mma(query_b, rows_b.index(stage).permute((1, 0)), product, is_async=True)
        if C > 0:
            product = warpgroup_mma(query_c, rows_c.index(stage).permute((1, 0)), product, is_async=True)
        if tile > first:
            # All warps have waited for the tile before: its place is free, and its sums are nobody's but ours.
            gl.thread_barrier()
            _fetch(a, b, c, rows_a, rows_b, rows_c, ready, tile - 1 + STAGES, first, last, A, B, C, TILE, STAGES)
            running = _keep(sums, running, fine, coarse, count, groups, tile - 1, last, QUERIES, TILE, GROUP, TILES, kept)
        sums = warpgroup_mma_wait(0, deps=(product,))
    if last > first:
        _keep(sums, running, fine, coarse, count, groups, last - 1, last, QUERIES, TILE, GROUP, TILES, kept)


def pieces(width: int) -> tuple[int, int, int]:
    """A width as the sum of up to three powers of two of at least 16 (the kernel's blocks), largest first; zeros where fewer do.

    >>> pieces(400), pieces(256)
    ((256, 128, 16), (256, 0, 0))
    """
    found = [1 << bit for bit in reversed(range(width.bit_length())) if width >> bit & 1]
    if len(found) > 3 or found[-1] < 16:
        raise ValueError(f"width: {width} given, a sum of at most three powers of two from 16 on expected")
    a, b, c = (*found, 0, 0, 0)[:3]
    return a, b, c


def fits(width: int) -> bool:
    """Whether the kernel can search codes of this width."""
    return 64 <= width <= MOST_COLUMNS and width % 16 == 0 and width.bit_count() <= 3


class Scan:
    """The kernel for the codes (n, width) of one chunk, n a multiple of ``group``, on a Hopper GPU.

    Args:
        codes: float16; rows may lie farther apart than they are wide.
        group: rows whose largest product is kept.
        tiles: tiles of a family, whose largest product is kept too.
    """

    def __init__(self, codes: torch.Tensor, group: int, tiles: int) -> None:
        import torch

        self.codes, self.group, self.tiles = codes, group, tiles
        self.pieces = pieces(codes.shape[1])
        self.stages = min(MOST_STAGES, SHARED_BYTES // (TILE * codes.shape[1] * 2))
        self.blocks = torch.cuda.get_device_properties(codes.device).multi_processor_count
        # Absent pieces are never read, but the kernel takes three descriptors.
        self._descriptors = [_descriptor(codes, piece or self.pieces[0]) for piece in self.pieces]

    def maxima(self, queries: torch.Tensor, fine: torch.Tensor, coarse: torch.Tensor) -> None:
        """Fills in the largest products of queries (nq, width), float16, with the rows of each group and of each family.

        Args:
            fine: (at least n / TILE, nq, TILE / group); the last tile's missing groups become -inf.
            coarse: (families, nq).
        """
        n = len(self.codes)
        warp_groups = 1 if len(queries) <= WARP_GROUP else 2
        block = WARP_GROUP * warp_groups
        side = -(-len(queries) // block)
        splits = max(1, min(self.blocks // side, len(coarse)))
        _scan[(side, splits)](
            queries, *self._descriptors, fine, coarse, len(queries), n, n // self.group,
            *self.pieces, block, TILE, self.stages, self.group, self.tiles, _kept_layout(block), num_warps=4 * warp_groups,
        )  # fmt: skip


def _kept_layout(queries: int) -> Any:
    """How threads hold the maxima (queries, TILE / group = 4) that a product's layout leaves them with, in the order that stores want.

    A thread has the four maxima of queries q and q + 8, as have the three beside it; four warps have 64 queries.
    """
    warps = [[16, 0], [32, 0], [64, 0]][: (queries // 16).bit_length() - 1]
    return gl.DistributedLinearLayout([[0, 1], [0, 2], [8, 0]], [[0, 0], [0, 0], [1, 0], [2, 0], [4, 0]], warps, [], [queries, 4])


def _descriptor(codes: torch.Tensor, columns: int) -> Any:
    block = [TILE, columns]
    return TensorDescriptor.from_tensor(codes, block, NVMMASharedLayout.get_default_for(block, gl.float16))
