"""The fp32 graph of a bundle: by our own exporter or by Optimum's, fused where that keeps the vectors, and never kept unchecked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearfield.encode.tower import Tower
from nearfield.errors import InputError, MissingExtraError
from nearfield.export.onnx_graph import GraphRunner, check_size, export_graph, fuse
from nearfield.export.optimum import check_optimum, export_with_optimum
from nearfield.export.parity import fp32_parity


@dataclass(frozen=True, slots=True)
class Fp32:
    """A graph that passed.

    Attributes:
        exporter: ``"own"`` or ``"optimum"``.
        fused_offline: whether it holds onnxruntime's fused attention already.
        parity: its figures against torch, as ``fp32_parity`` gives them.
    """

    exporter: str
    fused_offline: bool
    parity: dict[str, Any]


def write_fp32(tower: Tower, texts: Sequence[str], folder: Path, exporter: str = "auto") -> Fp32:
    """Writes ``folder/model.onnx`` and checks it against torch.

    Args:
        tower: on the CPU.
        texts: where the tokens of the check are taken from; at least one.
        folder: exists.
        exporter: ``"own"``, ``"optimum"``, or ``"auto"``: Optimum's only where ours fails. No list says which architectures ours knows:
            it traces whatever transformers loads, and the comparison with torch decides.

    Raises:
        InputError: the model is too large for one file, or no exporter gives a graph within 1e-5 of torch; each one's reason is named.
        MissingExtraError: Optimum is asked for and not installed.
    """
    check_size(tower)
    if exporter != "auto":
        return _attempt(tower, texts, folder, exporter)
    try:
        return _attempt(tower, texts, folder, "own")
    except InputError as own:
        try:
            check_optimum("trying Optimum's exporter")
            return _attempt(tower, texts, folder, "optimum")
        except (InputError, MissingExtraError) as other:
            raise InputError(f"{own}; {other}") from other


def _attempt(tower: Tower, texts: Sequence[str], folder: Path, exporter: str) -> Fp32:
    plain, fused, final = folder / "plain.onnx", folder / "fused.onnx", folder / "model.onnx"
    config: Any = tower.model.config
    try:
        (export_graph if exporter == "own" else export_with_optimum)(tower, plain)
        if fuse(plain, fused, heads=int(getattr(config, "num_attention_heads", 0) or 0), hidden=tower.spec.dim):
            parity, wrong = _check(tower, fused, texts)
            if not wrong:
                fused.replace(final)
                return Fp32(exporter, True, parity)
        parity, wrong = _check(tower, plain, texts)
        if wrong:
            graph = "the ONNX graph" if exporter == "own" else "Optimum's ONNX graph"
            raise InputError(f"{tower.folder}: {graph} of {type(tower.model).__name__} {wrong}; this model cannot be exported")
        plain.replace(final)
        return Fp32(exporter, False, parity)
    finally:
        plain.unlink(missing_ok=True)
        fused.unlink(missing_ok=True)


def _check(tower: Tower, path: Path, texts: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The graph's parity with torch, and what is wrong with it: nothing where it passed."""
    try:
        parity = fp32_parity(tower, GraphRunner(path), texts)
    except Exception as error:  # onnxruntime's own errors share no base class; a graph that holds for the traced shape alone ends in one
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return {}, f"or torch fails on a batch of another shape ({type(error).__name__}: {reason:.200})"
    wrong = f"is {parity['max_abs_diff']:.2g} from torch, at most {parity['limit']:g} expected"
    return parity, "" if parity["passed"] else wrong
