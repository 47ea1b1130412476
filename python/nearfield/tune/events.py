"""What a run writes for TensorBoard, through torch's own writer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from nearfield.errors import MissingExtraError


class Events(Protocol):
    """Takes the figures of a run as it goes."""

    def scalar(self, name: str, value: float, step: int) -> None:
        """One figure at one step."""


class Nobody:
    """Where nobody watches."""

    def scalar(self, name: str, value: float, step: int) -> None:
        """Does nothing."""


class _Board:
    def __init__(self, folder: Path, first: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtraError("writing events", "train", "tensorboard", "tensorboard") from None
        # A resumed run hides what an earlier session wrote behind its last checkpoint: those steps come again.
        make: Any = SummaryWriter  # neither typed nor, without tensorboard, there
        self.writer = make(str(folder), purge_step=first + 1 if first else 0)

    def scalar(self, name: str, value: float, step: int) -> None:
        self.writer.add_scalar(name, value, step)


@contextmanager
def open_events(folder: Path | None, first: int) -> Iterator[Events]:
    """Gives a place for figures; closed, and so on disk, at the end of the block whatever ends it.

    Args:
        folder: where the event files go; None: nowhere.
        first: finished steps that the run goes on from, 0 at its beginning.

    Raises:
        MissingExtraError: a folder is given and tensorboard is not installed.
    """
    if folder is None:
        yield Nobody()
        return
    board = _Board(folder, first)
    try:
        yield board
    finally:
        board.writer.close()
