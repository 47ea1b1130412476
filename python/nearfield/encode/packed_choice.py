"""Which type and which kernels a packed model runs with on a device: what was asked for, or what a measurement on the model allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from nearfield.encode.dtype import best_dtype
from nearfield.encode.packed import Packed, PackedBert, Steps, lay_out, views
from nearfield.encode.shape import Shape
from nearfield.encode.spec import ModelSpec
from nearfield.errors import InputError
from nearfield.types import FloatArray

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# The largest angle that rounding may turn a vector by where nobody asked for it: 1 - cosine of every probe to float32's vector. float16
# turns all-MiniLM's by 1e-6, bfloat16 by 6e-5.
AUTO_BOUND = 1e-4
# Token ids drawn from the whole vocabulary, lengths from the shortest text on.
PROBES, PROBE_SEED = 16, 7
# How far the fused kernels' vectors may lie from torch's own steps in the same type, by component of a unit vector: several times what
# another order of summation does, far below what a wrong kernel would.
AGREEMENT = {"fp32": 2e-5, "bf16": 6e-2, "fp16": 8e-3}


@dataclass(frozen=True)
class Chosen:
    """A model ready to run, the name of its precision, and what to say about it."""

    model: PackedBert
    precision: str
    notes: list[str]


def choose(shape: Shape, weights: Mapping[str, FloatArray], spec: ModelSpec, device: torch.device, precision: str) -> Chosen:
    """Puts the weights on the device.

    ``"auto"`` is float16 where the vectors of ``PROBES`` random texts keep within ``AUTO_BOUND`` of float32's, else bfloat16 by the same
    measure, else float32. Fused kernels are taken on a GPU that has Triton, where they agree with torch's own steps on these texts.

    Raises:
        InputError: bf16 on a GPU without it.
    """
    notes: list[str] = []
    batch = probes(shape, device)
    if precision == "bf16" and device.type == "cuda":
        dtype, reason = best_dtype(device)
        if dtype != torch.bfloat16:
            raise InputError(f"precision 'bf16' is not for this machine ({reason}); use precision='fp16' or 'fp32'")
    candidates = [precision] if precision != "auto" else ["fp16", "bf16", "fp32"] if device.type == "cuda" else ["fp32"]
    truth: torch.Tensor | None = None
    for name in candidates:
        model = PackedBert(shape, weights, spec, device, DTYPES[name])
        plain = model(batch)
        if len(candidates) > 1 and name != "fp32":
            if truth is None:
                truth = PackedBert(shape, weights, spec, device, torch.float32)(batch)
            turned = float((1 - torch.nn.functional.cosine_similarity(plain, truth)).max())
            if not turned <= AUTO_BOUND:  # NaN fails too
                notes.append(f"{name}: turns probe vectors by 1 - cosine {turned:.1e}, at most {AUTO_BOUND:g} allowed unasked")
                continue
            notes.append(f"{name}: turns probe vectors by 1 - cosine {turned:.1e} at most")
        fused = _fused(device, notes)
        if fused is not None and _agree(model, fused, batch, plain, AGREEMENT[name], notes):
            model.steps = fused
        return Chosen(model, name, notes)
    raise AssertionError("fp32 is always taken")


def probes(shape: Shape, device: torch.device) -> Packed:
    """Random texts of 1 token to the longest but 128, packed."""
    rng = np.random.default_rng(PROBE_SEED)
    longest = min(128, shape.positions)
    lengths = np.unique(np.geomspace(1, longest, PROBES).astype(np.int64))
    if odd := int(lengths.sum()) % 16:  # as recorded batches have it: Triton compiles other kernels for other alignments
        lengths = np.append(lengths, min(16 - odd, shape.positions))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens, texts = int(offsets[-1]), len(lengths)
    laid = np.empty(3 * tokens + texts + 1, np.int32)
    lay_out(rng.integers(0, shape.vocab, tokens).astype(np.int32), offsets, tokens, texts, laid)
    return views(torch.from_numpy(laid).to(device), tokens, texts, longest)


def _fused(device: torch.device, notes: list[str]) -> Steps | None:
    if device.type != "cuda":
        return None
    try:
        from nearfield.encode.triton_steps import TritonSteps
    except ImportError as error:
        notes.append(f"kernels: torch's own, as triton cannot be imported ({error})")
        return None
    return TritonSteps()


def _agree(model: PackedBert, fused: Steps, batch: Packed, plain: torch.Tensor, bound: float, notes: list[str]) -> bool:
    """Whether the fused kernels compile, run and give the same vectors; if not, the notes say why."""
    before, model.steps = model.steps, fused
    try:
        difference = float((model(batch) - plain).abs().max() / plain.abs().max().clamp(min=1e-9))
    except Exception as error:  # a compiler, a linker, a driver: each has its own exceptions, and all mean that the plain steps are taken
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        notes.append(f"kernels: torch's own, as triton's do not run here ({type(error).__name__}: {reason[:200]})")
        return False
    finally:
        model.steps = before
    if not difference <= bound:
        notes.append(f"kernels: torch's own, as triton's differ by {difference:.1e}, at most {bound:g} expected")
        return False
    return True
