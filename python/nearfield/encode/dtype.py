"""Which floating-point type training and torch inference should use here, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def best_dtype(device: str | torch.device = "cpu") -> tuple[torch.dtype, str]:
    """The type for the matrix products of a model on a device, with the reason in words.

    bfloat16 only where the hardware multiplies it: elsewhere it is emulated, and slower than float32 by several times.

    Args:
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` ...

    Returns:
        ``torch.bfloat16`` or ``torch.float32``, and one line such as ``"bfloat16: the CPU has amx_bf16"``.
    """
    import torch

    if torch.device(device).type == "cuda":
        name, (major, minor) = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
        if major >= 8:
            return torch.bfloat16, f"bfloat16: {name} (compute capability {major}.{minor}) has it"
        return torch.float32, f"float32: {name} (compute capability {major}.{minor}) has no bfloat16, which needs 8.0"
    if torch.device(device).type != "cpu":
        return torch.float32, f"float32: nothing is known about bfloat16 on {device}"
    reason = on_this_cpu()
    return (torch.bfloat16 if reason.startswith("bfloat16") else torch.float32), reason


def on_this_cpu() -> str:
    """The type for this CPU, with the reason; without importing torch.

    >>> on_this_cpu().split(":")[0] in ("bfloat16", "float32")
    True
    """
    flags = cpu_flags()
    for flag in ("amx_bf16", "avx512_bf16"):
        if flag in flags:
            return f"bfloat16: the CPU has {flag}"
    return "float32: the CPU has neither amx_bf16 nor avx512_bf16"


def cpu_flags(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The features the kernel reports for the first CPU; empty where there is no such report."""
    try:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()
