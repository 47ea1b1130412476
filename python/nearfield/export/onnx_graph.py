"""A torch tower to one ONNX graph, token ids in, finished vectors out; and what onnxruntime makes of that graph."""

from __future__ import annotations

import io
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nearfield.encode.threads import thread_count
from nearfield.encode.tower import Tower
from nearfield.errors import InputError
from nearfield.tune.interrupts import finish_first
from nearfield.types import FloatArray, IntArray

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "embedding"
# 17 is the first opset with LayerNormalization as one operator; every onnxruntime the package accepts reads it.
OPSET = 17
# Protobuf holds at most 2 GiB in one file, and a bundle takes no external data; the graph around the weights needs little.
MAX_PARAMETER_BYTES = (1 << 31) - (16 << 20)
# The operators whose fusion decides speed. Patterns miss silently, so they are counted.
FUSED = (
    "Attention",
    "MultiHeadAttention",
    "QAttention",
    "SkipLayerNormalization",
    "EmbedLayerNormalization",
    "QEmbedLayerNormalization",
    "LayerNormalization",
    "BiasGelu",
    "Gelu",
    "FastGelu",
    "FusedMatMul",
    "MatMul",
    "MatMulInteger",
    "DynamicQuantizeMatMul",
    "MatMulIntegerToFloat",
    "MatMulNBits",
)


@dataclass(frozen=True)
class Graph:
    """An exported graph.

    Attributes:
        path: the ONNX file.
        fused_offline: whether the graph holds onnxruntime's fused operators already (else it was left as torch wrote it).
        nodes: operator -> count after onnxruntime's own optimization at load, for the operators in ``FUSED``, and ``"total"``.
    """

    path: Path
    fused_offline: bool
    nodes: dict[str, int]


def export_graph(tower: Tower, path: Path) -> Path:
    """Writes the tower as ONNX: ``input_ids``, ``attention_mask``, int64 ``(n, t)``, both axes free, to ``embedding``, float32 ``(n, d)``.

    Pooling and normalization are part of the graph. Token type ids are not an input: every text is one segment, so torch's default of zeros
    is baked in, which saves each caller from feeding them and changes no vector.

    Raises:
        InputError: the architecture cannot be traced, or its weights do not fit one file.
    """
    import torch

    check_size(tower)
    # Two rows of unequal length, so that nothing about batch, length or padding is constant in the trace.
    tokens = max(2, min(7, tower.spec.max_tokens))
    ids = torch.full((2, tokens), tower.tokenizer.pad_id, dtype=torch.int64)
    mask = torch.ones((2, tokens), dtype=torch.int64)
    ids[0] = torch.arange(tokens) % _vocabulary(tower)
    mask[1, tokens // 2 + 1 :] = 0
    free = {0: "batch", 1: "sequence"}
    try:
        # The exporter calls Python from C++: a Ctrl-C raised in there can end the process by abort instead of by an exception.
        with quiet(), torch.no_grad(), finish_first():
            torch.onnx.export(
                tower.eval(), (ids, mask), str(path), input_names=list(INPUTS), output_names=[OUTPUT], opset_version=OPSET, dynamo=False,
                dynamic_axes={INPUTS[0]: free, INPUTS[1]: free, OUTPUT: {0: "batch"}}, do_constant_folding=True,
            )  # fmt: skip
    except Exception as error:  # torch raises its own and Python's errors for what it cannot trace
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        kind = type(tower.model).__name__
        raise InputError(f"{tower.folder}: {kind} cannot be exported to ONNX ({type(error).__name__}: {reason:.200})") from error
    return path


def check_size(tower: Tower) -> None:
    """Raises InputError for a model whose weights do not fit one ONNX file."""
    size = sum(parameter.numel() * 4 for parameter in tower.parameters())
    if size > MAX_PARAMETER_BYTES:
        raise InputError(f"{tower.folder}: {size:,} bytes of weights in float32, at most {MAX_PARAMETER_BYTES:,} fit one ONNX file")


def fuse(source: Path, target: Path, *, heads: int, hidden: int) -> bool:
    """Rewrites attention, layer norms and embeddings as onnxruntime's fused operators; returns whether any attention was fused.

    onnxruntime's optimization at load finds none of the attention in the graphs that transformers 5 gives (0 of 6 layers of
    all-MiniLM-L6-v2, 282 nodes); its offline optimizer finds all (73 nodes). On an AVX2 machine that made no difference to fp32 (10.3 and
    10.4 s for the same texts) and took 8 % off int8.
    """
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    try:
        with quiet():
            # opt_level 0: graph rewriting in Python only; onnxruntime does its own, CPU-specific part at load.
            model = optimizer.optimize_model(
                str(source), model_type="bert", num_heads=heads, hidden_size=hidden, opt_level=0, optimization_options=FusionOptions("bert")
            )
            # Also sorts the nodes and declares the domain of the fused operators.
            model.save_model_to_file(str(target))
    except Exception:  # an architecture the optimizer does not know ends in whatever its pattern code raises; the plain graph is right too
        return False
    return any(node.op_type in ("Attention", "MultiHeadAttention") for node in model.model.graph.node)


def count_nodes(path: Path) -> dict[str, int]:
    """Counts the operators that onnxruntime really runs: loads the model, has it dump the graph it optimized, and reads that."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory(prefix="nearfield-") as folder:
        dump = Path(folder) / "optimized.onnx"
        options = _session_options()
        # The layout-specific level only changes how weights are packed for this CPU; EXTENDED has all fusions and a dump that onnx reads.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(dump)
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        counts = Counter(node.op_type for node in onnx.load_model(str(dump), load_external_data=False).graph.node)
    return {name: counts[name] for name in FUSED if counts[name]} | {"total": counts.total()}


class GraphRunner:
    """Runs one ONNX file on the CPU, for measuring it. Serving has its own session with threads and memory under control."""

    def __init__(self, path: Path) -> None:
        self.session: Any = make_session(str(path))

    def __call__(self, input_ids: IntArray, attention_mask: IntArray) -> FloatArray:
        """Token ids to vectors, float32 ``(n, dim)``."""
        output = self.session.run([OUTPUT], dict(zip(INPUTS, (input_ids, attention_mask), strict=True)))[0]
        return np.asarray(output, np.float32)


def make_session(model: str | bytes) -> Any:
    """An onnxruntime session on the CPU from a file's name or a model's bytes."""
    import onnxruntime

    return onnxruntime.InferenceSession(model, _session_options(), providers=["CPUExecutionProvider"])


def _session_options() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_count()
    options.log_severity_level = 4  # what fails is raised; a trial of a graph prints nothing
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _vocabulary(tower: Tower) -> int:
    config: Any = tower.model.config
    return int(config.vocab_size)


@contextmanager
def quiet() -> Iterator[None]:
    """Hides what the exporter and the optimizer tell their own developers: warnings, log lines about patterns, and printed lines.

    onnxruntime's optimizer prints "failed in shape inference" for some graphs, where a result belongs that a machine reads.
    """
    import logging

    previous = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
