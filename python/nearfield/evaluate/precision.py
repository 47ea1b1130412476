"""In which precision a model is measured."""

from __future__ import annotations

from pathlib import Path

from nearfield.config import EvaluationPrecision
from nearfield.encode.encoder import Encoder
from nearfield.encode.native_backend import is_fast
from nearfield.encode.shape import UnsupportedModelError


def open_for_evaluation(model: str | Path, precision: EvaluationPrecision = "fp32", *, threads: int | None = None) -> Encoder:
    """Opens a model in the precision that ``TuneConfig.evaluation`` asks for.

    Args:
        model: a bundle, a model folder or a hub name.
        precision: "fp32": as ``Encoder`` opens it; "bf16": the native engine; "auto": that where the CPU multiplies bfloat16 and the engine
            computes the model, else fp32.
        threads: of one call; None: all cores.

    Raises:
        InputError: no such model, or "bf16" of one that the native engine does not compute.
    """
    if precision == "bf16" or (precision == "auto" and is_fast("bf16")):
        try:
            return Encoder(model, backend="native", precision="bf16", threads=threads)
        except UnsupportedModelError:
            if precision == "bf16":
                raise
    return Encoder(model, threads=threads)
