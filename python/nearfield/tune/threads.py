"""torch's thread count for the length of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def default_threads() -> int:
    """How many threads torch takes where nobody says: the physical cores it may use, or ``OMP_NUM_THREADS``.

    >>> default_threads() >= 1
    True
    """
    return torch.get_num_threads()


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Holds torch to ``threads`` (>= 1) threads within one operation and gives it its own number back afterwards.

    >>> with torch_threads(1):
    ...     torch.get_num_threads()
    1
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
