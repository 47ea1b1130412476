"""float16 codes of rows and queries whose plain matrix product is an upper bound of every score (the proof: docs/cuda.md).

Beside its values a row keeps a few columns more: what rounding left out of it, its length and, for l2, half its square. A query's columns
hold the factors these are to be weighed with. So the bound of a pair costs no pass of its own: it is one more term of the product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nearfield.types import Metric

if TYPE_CHECKING:
    import torch

# A step of the tensor cores multiplies 16 columns, and the fused scan takes a row in at most so many blocks, each a power of two wide.
ALIGN = 16
MOST_BLOCKS = 3
# float16 values of a line of a GPU's cache.
LINE = 64
# Columns beyond the values: what rounding left out, the length, and for l2 half the square in three parts and what these leave out.
BESIDE = {"cosine": 2, "ip": 2, "l2": 6}
# A query so far from all rows (in units of the farthest row's distance from their mean) that float16 has no factor for it is not coded.
MIN_FACTOR = 2.0**-14
# Relative error of a norm or a difference in float64, for any dimension allowed.
FINE = 2.0**-34


def width(dim: int, metric: Metric) -> int:
    """Columns of a code: a multiple of 16 and a sum of at most three powers of two.

    >>> width(384, "cosine"), width(384, "l2"), width(366, "ip")
    (400, 400, 384)
    """
    steps = -(-(dim + BESIDE[metric]) // ALIGN)
    while steps.bit_count() > MOST_BLOCKS:
        steps += 1
    return steps * ALIGN


def stride(columns: int) -> int:
    """How far apart rows of so many columns are kept: whole lines of 128 bytes, or each piece of a row would touch two lines.

    >>> stride(400)
    448
    """
    return -(-columns // LINE) * LINE


def sum_error(columns: int) -> float:
    """Bound of a tensor core's float32 sum of exact products, relative to the sum of their absolute values.

    A step of s products cuts each of them, the running sum and the result at 2^-23 of the largest (Fasi, Higham, Mikaitis and Pranesh,
    "Numerical behavior of NVIDIA tensor cores", PeerJ Computer Science 2021): (1 + 2/s) * columns * 2^-23 in all, for s = 4, the shortest
    step, 1.5 * columns * 2^-23. Twice columns * 2^-23 is allowed for; float32 sums rounded to nearest stay below that in any order.

    >>> sum_error(400) < 1e-4
    True
    """
    return (columns + 16) * 2.0**-22


def rounded_up(values: torch.Tensor) -> torch.Tensor:
    """float16 values at least (1 + 2^-10) times as large as the float64 ones >= 0 given."""
    import torch

    # To nearest loses 2^-11 of a normal number and 2^-25 of a subnormal one.
    return (values * (1 + 2.0**-9) + 2.0**-23).to(torch.float16)


@dataclass(frozen=True, slots=True)
class Frame:
    """How the rows of one chunk are moved and scaled before they are coded.

    Attributes:
        shift: (dim,) float64, subtracted from rows and queries; zero except for l2, whose distances do not change by it.
        scale: a power of two that brings the longest row to a length in [0.5, 1).
        peak: the length of the longest row after the shift, before the scale.
    """

    metric: Metric
    dim: int
    shift: torch.Tensor
    scale: float
    peak: float

    @classmethod
    def of(cls, metric: Metric, dim: int, shift: torch.Tensor, peak: float) -> Frame:
        """The frame of rows whose longest, after the shift, has this length."""
        return cls(metric, dim, shift, math.ldexp(1.0, -math.frexp(peak)[1]) if peak else 1.0, peak)

    def rows(self, given: torch.Tensor) -> torch.Tensor:
        """The codes (n, width) of rows (n, dim)."""
        import torch

        values = (given.double() - self.shift) * self.scale
        codes = values.to(torch.float16)
        kept = codes.double()
        left = (values - kept).norm(dim=1) + FINE * values.norm(dim=1)
        columns = [codes, *self._halved_square(values), rounded_up(left), rounded_up(kept.norm(dim=1))]
        return self._joined(columns)

    def _halved_square(self, values: torch.Tensor) -> list[torch.Tensor]:
        """For l2: minus half the square in three float16 parts, and what they and the sum's own error on them leave out."""
        import torch

        if self.metric != "l2":
            return []
        half = (values * values).sum(dim=1) / 2
        left, parts = -half, []
        for _ in range(3):
            parts.append(left.to(torch.float16))
            left = left - parts[-1].double()
        return [*parts, rounded_up(left.abs() + (FINE + 1.01 * sum_error(width(self.dim, self.metric))) * half)]

    def queries(self, given: torch.Tensor, norms: torch.Tensor) -> CodedQueries:
        """The codes of queries (nq, dim) with their norms (nq,) in float64."""
        import torch

        doubt = sum_error(width(self.dim, self.metric))
        moved = given.double() - self.shift
        size = moved.norm(dim=1) if self.metric == "l2" else norms
        one = torch.ones_like(size)
        if self.metric == "l2":
            # The columns of the halved square are weighed with this factor too, so it must itself be a float16 number.
            factor = torch.minimum(one, 1 / (size * self.scale)).to(torch.float16).double()
            usable = factor >= MIN_FACTOR
            values = moved * (self.scale * factor)[:, None]
            gain, offset = 2 / (factor * self.scale**2), -size * size
            reach = (size + self.peak) ** 2
        else:
            usable = size > 0
            factor = 1 / torch.where(usable, size, one)
            values = moved * factor[:, None]
            gain = 1 / (factor * self.scale) if self.metric == "ip" else one / self.scale
            offset = torch.zeros_like(size)
            reach = size * self.peak if self.metric == "ip" else one * self.peak
        codes = values.to(torch.float16)
        kept = codes.double()
        left = (values - kept).norm(dim=1) + FINE * values.norm(dim=1) + doubt * kept.norm(dim=1)
        weights = [factor.to(torch.float16)] * 3 + [rounded_up(factor * (1 + 4 * doubt))] if self.metric == "l2" else []
        columns = [codes, *weights, rounded_up(values.norm(dim=1) * (1 + 4 * doubt)), rounded_up(left * (1 + 4 * doubt))]
        coded = self._joined(columns)
        coded.masked_fill_(~usable[:, None], 0)  # never a mask as an index: that waits for the device
        return CodedQueries(coded, usable, gain, offset, (self.dim + 8) * 2.0**-50 * reach)

    def _joined(self, columns: list[torch.Tensor]) -> torch.Tensor:
        import torch

        blocks = [column if column.ndim == 2 else column[:, None] for column in columns]
        missing = width(self.dim, self.metric) - sum(block.shape[1] for block in blocks)
        return torch.cat([*blocks, blocks[0].new_zeros(len(blocks[0]), missing)], dim=1)


@dataclass(frozen=True, slots=True)
class CodedQueries:
    """Codes of queries, and how a product with a row's code becomes an upper bound of the exact score."""

    codes: torch.Tensor
    usable: torch.Tensor
    gain: torch.Tensor
    offset: torch.Tensor
    margin: torch.Tensor

    def at(self, which: slice | torch.Tensor) -> CodedQueries:
        """Some of the queries."""
        return CodedQueries(self.codes[which], self.usable[which], self.gain[which], self.offset[which], self.margin[which])

    def upper(self, product: torch.Tensor) -> torch.Tensor:
        """The largest exact score that a row with this float16 product (nq,) can have, in float64; infinity where nothing is known."""
        value = product.double()
        # The product was rounded to float16; the margin covers float64, here and in the exact score.
        highest = value + value.abs() * 2.0**-10 + 2.0**-24
        bound = highest * self.gain + self.offset + self.margin
        return bound.masked_fill(~self.usable, math.inf)
