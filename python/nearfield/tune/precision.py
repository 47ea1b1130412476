"""Where and in which number format a run trains, and why."""

from __future__ import annotations

import torch

from nearfield.config import Device, DType
from nearfield.encode.dtype import best_dtype
from nearfield.errors import InputError


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


def instruction_set() -> str:
    """The widest instructions that torch's own CPU kernels use here, for example "AVX2"; other ones round other sums.

    >>> instruction_set().isupper()
    True
    """
    return str(torch.backends.cpu.get_cpu_capability())


def choose_dtype(wanted: DType, device: str) -> tuple[str, str]:
    """Returns the format to train in and one line that says why.

    Weights and optimizer state stay in float32 either way; bfloat16 means autocast of the matrix products.

    Args:
        wanted: what the config asks for.
        device: "cpu" or "cuda".

    Returns:
        ("float32" or "bfloat16", reason).

    >>> choose_dtype("float32", "cpu")
    ('float32', 'float32: asked for')
    """
    best, reason = best_dtype(device)
    if wanted == "float32":
        return "float32", "float32: asked for"
    if wanted == "bfloat16":
        slower = "" if best == torch.bfloat16 else f", though slower here ({reason})"
        return "bfloat16", f"bfloat16: asked for{slower}"
    return ("bfloat16" if best == torch.bfloat16 else "float32"), reason
