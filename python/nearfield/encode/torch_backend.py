"""Vectors from a model folder through torch: what a plain model runs on, and the reference that exports are compared with."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from nearfield.errors import InputError, MissingExtraError
from nearfield.types import FloatArray, IntArray

if TYPE_CHECKING:
    from nearfield.encode.tower import Tower


class TorchBackend:
    """A tower in evaluation mode.

    torch's thread count belongs to the process: it is set only where the caller or ``NEARFIELD_THREADS`` asks for one. In a forked
    child torch runs on one thread, because its OpenMP pool does not survive the fork and waiting for it never ends.

    Args:
        folder: the model folder.
        precision: ``"fp32"``, ``"bf16"`` or, on a GPU, ``"fp16"`` (products in 16 bits, pooling and norm in float32).
        threads: for torch, or None to leave its setting.
        device: ``"cpu"``, ``"cuda"`` ...

    Raises:
        MissingExtraError: torch or transformers is not installed.
        InputError: bf16 where the hardware has none, or a device that is not there.
    """

    def __init__(self, folder: Path, precision: str, threads: int | None, device: str) -> None:
        check_torch_device(device)
        import torch

        try:
            from nearfield.encode.tower import Tower
        except ImportError as error:
            raise MissingExtraError("the torch backend (a plain model folder)", "train", error.name or "torch") from None
        from nearfield.encode.dtype import best_dtype

        if precision == "bf16":
            dtype, reason = best_dtype(device)
            if dtype != torch.bfloat16:
                raise InputError(f"precision 'bf16' is not for this machine ({reason}); use precision='fp32'")
        if threads is not None:
            torch.set_num_threads(threads)
        self._tower: Tower | None = Tower.load(folder, device=device, attention="sdpa")
        self._device, self._half, self._forked = device, {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision), False
        _LIVE.add(self)

    def __call__(self, input_ids: IntArray, attention_mask: IntArray) -> FloatArray:
        """Token ids ``(n, t)`` and mask, int64, to float32 ``(n, dim)``."""
        import torch

        tower = self._tower  # once: another thread may close the encoder meanwhile
        if tower is None:
            raise InputError("this encoder is closed; open another one")
        if self._forked:
            torch.set_num_threads(1)
            self._forked = False
        with torch.autocast(torch.device(self._device).type, self._half or torch.bfloat16, enabled=self._half is not None):
            return tower.forward_arrays(input_ids, attention_mask)

    def close(self) -> None:
        """Frees the weights; later calls raise InputError."""
        self._tower = None


def check_torch_device(device: str) -> None:
    """Returns if torch is installed and can use the device.

    Raises:
        MissingExtraError: torch is not installed.
        InputError: no such device here, said in torch's words.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("the torch backend (a plain model folder, or a GPU)", "train", error.name or "torch") from None
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch built without CUDA
        raise InputError(f"device {device!r}: torch cannot use it ({str(error).splitlines()[0]})") from None


_LIVE: weakref.WeakSet[TorchBackend] = weakref.WeakSet()


def _after_fork() -> None:
    for backend in list(_LIVE):
        backend._forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
