"""Which number format a run trains in, and why."""

from __future__ import annotations

from pathlib import Path

import torch

from nearfield.config import Device, DType
from nearfield.errors import InputError

# How /proc/cpuinfo names bfloat16 matrix or dot-product instructions: Intel AMX, AVX-512, Arm.
_BF16_FLAGS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512", "bf16": "Arm"}


def choose_device(wanted: Device) -> str:
    """Returns "cuda" or "cpu".

    Raises:
        InputError: "cuda" asked for where torch sees no GPU.

    >>> choose_device("cpu")
    'cpu'
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError('config: device: "cuda" given, but torch sees no GPU here; "auto" or "cpu" expected')
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def choose_dtype(wanted: DType, device: str, *, cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, str]:
    """Returns the format to train in and one line that says why.

    Weights and optimizer state stay in float32 either way; bfloat16 means autocast of the matrix products.

    Args:
        wanted: what the config asks for.
        device: "cpu" or "cuda".
        cpuinfo: where the CPU's flags are read.

    Returns:
        ("float32" or "bfloat16", reason).

    >>> choose_dtype("float32", "cpu")
    ('float32', 'float32: asked for')
    """
    has, hardware = _bf16_support(device, cpuinfo)
    if wanted == "float32":
        return "float32", "float32: asked for"
    if wanted == "bfloat16":
        return "bfloat16", f"bfloat16: asked for; {hardware}" + ("" if has else ", so float32 would be faster")
    return ("bfloat16", f"bfloat16: {hardware}") if has else ("float32", f"float32: {hardware}")


def _bf16_support(device: str, cpuinfo: Path) -> tuple[bool, str]:
    if device == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
        return has, f"this GPU has {'bf16' if has else 'no bf16'} matrix instructions"
    try:
        words = set(cpuinfo.read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return False, f"this CPU's instructions are unknown ({cpuinfo} cannot be read)"
    for flag, name in _BF16_FLAGS.items():
        if flag in words:
            return True, f"this CPU has {name} bf16 matrix instructions"
    return False, "this CPU has no bf16 matrix instructions"
