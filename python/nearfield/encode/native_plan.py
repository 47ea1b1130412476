"""Which of a model's products the native engine computes in int8 and which in bf16, decided by what each loses.

Rounding hurts some products far more than others: of the 24 of all-MiniLM-L6-v2 the three worst in bf16 take the mean cosine to float32
from 0.9988 to 0.9993. So export measures them one by one, and the bundle's manifest carries the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nearfield import _core
from nearfield.encode.native_model import packer
from nearfield.encode.shape import read_shape
from nearfield.encode.spec import ModelSpec, weights_folder
from nearfield.errors import FormatError
from nearfield.types import FloatArray

# The linear layers of a transformer layer, in the order of a plan.
LINEARS = ("qkv", "attention output", "up", "down")
# Those that are tried in bf16: the others gain a tenth as much where it was measured.
_TRIED = (0, 3)
# What the plan has to reach on the texts it is made on; 0.999 is promised of others, and means of so few texts scatter by 0.0001.
TARGET = 0.9992
# For ranking products: a text each, cut to so many tokens, so that every trial takes some ten milliseconds.
TEXTS, TOKENS = 24, 64


def measure_plan(folder: Path, spec: ModelSpec, ids: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Measures every candidate alone and puts the worst into bf16 until the mean cosine to float32 is TARGET.

    Args:
        folder: the model folder.
        spec: as ``read_spec`` gives it.
        ids: token ids of some texts, the more varied the better; the first TEXTS of them are used, each cut to TOKENS.

    Returns:
        for the manifest: ``plan`` (one word for each linear layer), ``mean_cosine`` and ``min_cosine`` to the engine's float32, ``texts``.

    Raises:
        UnsupportedModelError: a model that the native engine does not compute.
        InputError, FormatError: missing or damaged files.
    """
    pack = packer(folder, spec)
    last = [row[-1] for row in ids]
    cut = [[*row[: TOKENS - 1], end] if len(row) > TOKENS else list(row) for row, end in zip(ids, last, strict=True)][:TEXTS]
    tokens = np.array([token for row in cut for token in row], np.int32)
    offsets = np.cumsum([0, *map(len, cut)], dtype=np.int64)

    def encode(precision: str, plan: list[str]) -> FloatArray:
        return pack(precision, plan).encode(tokens, offsets)

    truth = encode("fp32", [])

    def cosines(plan: list[str]) -> npt.NDArray[np.float64]:
        return _cosines(encode("int8", plan), truth)

    plan = choose(len(LINEARS) * read_shape(weights_folder(folder)).layers, lambda plan: float(cosines(plan).mean()))
    found = cosines(plan)
    return {"plan": plan, "mean_cosine": float(found.mean()), "min_cosine": float(found.min()), "texts": len(cut)}


def choose(linears: int, cosine: Callable[[list[str]], float]) -> list[str]:
    """The plan with the fewest products in bf16, the most damaging ones first, that reaches TARGET; all candidates if none does."""
    plan = ["int8"] * linears
    reached = cosine(plan)
    if reached >= TARGET:
        return plan
    candidates = [place for place in range(linears) if place % len(LINEARS) in _TRIED]
    gains = {place: cosine([*plan[:place], "bf16", *plan[place + 1 :]]) for place in candidates}
    for place in sorted(candidates, key=lambda place: (-gains[place], place)):
        plan[place] = "bf16"
        if cosine(plan) >= TARGET:
            break
    return plan


def stated_plan(manifest: Mapping[str, Any], where: Path) -> list[str] | None:
    """The plan that a bundle's manifest states, None where it states none.

    Raises:
        FormatError: something else stands there.
    """
    if manifest.get("native") is None:
        return None
    told = manifest["native"]
    plan = told.get("plan") if isinstance(told, dict) else None
    if not isinstance(plan, list) or not all(word in ("int8", "bf16") for word in plan):
        raise FormatError(f"{where}: native.plan is {plan!r:.80}, a list of int8 and bf16 expected; export the bundle again")
    return plan


def can_measure() -> bool:
    """Whether this CPU is fast enough at it: the portable kernels would take minutes."""
    return "scalar" not in {_core.encoder_targets()[name] for name in ("linear_i8", "linear_f32")}


def _cosines(a: FloatArray, b: FloatArray) -> npt.NDArray[np.float64]:
    x, y = a.astype(np.float64), b.astype(np.float64)
    norms: npt.NDArray[np.float64] = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return np.asarray(np.sum(x * y, axis=1) / np.where(norms > 0, norms, 1), np.float64)
