"""Losses and gradient norms of a run, looked at late on a GPU: reading one makes the CPU wait for all that the GPU was asked."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

# Steps between two looks on a GPU: a wait of a millisecond or so for each is lost, and a run goes on for so long after a bad loss.
EVERY = 16


@dataclass(frozen=True)
class Seen:
    """A step's number from 1, its loss and the norm of its gradient before clipping."""

    step: int
    loss: float
    norm: float

    def wrong(self) -> str | None:
        """What is not finite, with its value, or None."""
        for name, value in (("loss", self.loss), ("gradient norm", self.norm)):
            if not math.isfinite(value):
                return f"{name} is {value}"
        return None


class Watch:
    """Keeps the figures of some steps on their device and says when to look.

    On a GPU the optimizer is told to leave the weights alone after a step that is not finite (``hold``), so that nothing is spoilt until
    somebody looks. On a CPU each step is looked at before its update.
    """

    def __init__(self, device: torch.device) -> None:
        self.late = device.type == "cuda"
        self._waiting: list[tuple[int, torch.Tensor]] = []

    def add(self, step: int, loss: torch.Tensor, norm: torch.Tensor) -> None:
        """Takes a step's figures, scalars on the device."""
        self._waiting.append((step, torch.stack([loss.detach().float(), norm.detach().float()])))

    def due(self) -> bool:
        """Whether to look now, on a GPU."""
        return self.late and len(self._waiting) >= EVERY

    def look(self) -> list[Seen]:
        """The figures since the last look, in order."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return []
        figures = torch.stack([figure for _, figure in waiting]).cpu().tolist()
        return [Seen(step, *figure) for (step, _), figure in zip(waiting, figures, strict=True)]


def hold(optimizer: torch.optim.Optimizer, loss: torch.Tensor, norm: torch.Tensor) -> None:
    """Tells a fused optimizer, without reading anything, to skip this step if loss or norm is not finite."""
    found = ~(torch.isfinite(loss.detach()) & torch.isfinite(norm.detach()))
    optimizer.found_inf = found.float().reshape(())  # type: ignore[attr-defined]
