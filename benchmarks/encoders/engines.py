"""The engines of the encoder suites behind one call, each with the settings among which its fastest is looked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

import nearfield
from benchmarks.core.machine import has_bf16
from benchmarks.core.peers import Engine, present, set_threads
from benchmarks.core.plan import Plan
from benchmarks.encoders import graphs
from benchmarks.encoders.loop import Encode, Forward, HandLoop
from benchmarks.encoders.models import MAX_TOKENS, Model, bundle

Setting = dict[str, Any]
# Rows of one batch that a peer may choose among; more than 32 gained nobody anything here.
BATCHES = (8, 32)
# Seconds for which a setting is tried.
TRIAL_S = 0.15


@dataclass(frozen=True)
class Setup:
    """What an engine is made for."""

    plan: Plan
    model: Model
    threads: int

    @property
    def folder(self) -> Path:
        """The model for torch, and the tokenizer."""
        return bundle(self.plan, self.model) / "model"


@dataclass(frozen=True)
class EncodeEngine(Engine):
    """An engine that makes an ``Encode`` from a setup and a setting.

    Attributes:
        settings: ``(threads, texts in a call)`` to those worth trying; one means that there is nothing to choose.
    """

    settings: Callable[[int, int], list[Setting]] = lambda threads, texts: [{}]


def ours(backend: Literal["native", "onnx"], precision: Literal["int8", "bf16", "fp32"]) -> Callable[..., Encode]:
    """Makes ``nearfield.Encoder.encode``."""

    def make(setup: Setup) -> Encode:
        path = bundle(setup.plan, setup.model)
        return nearfield.Encoder(path, backend=backend, precision=precision, threads=setup.threads).encode

    return make


def sentence_transformers(dtype: str) -> Callable[..., Encode]:
    """torch in one type for weights and products; the library sorts by length itself."""

    def make(setup: Setup, rows: int = BATCHES[-1]) -> Encode:
        import torch
        from sentence_transformers import SentenceTransformer

        tower = SentenceTransformer(str(setup.folder), device="cpu", model_kwargs={"dtype": getattr(torch, dtype)})
        return lambda texts: tower.encode(list(texts), batch_size=rows, normalize_embeddings=True, show_progress_bar=False)

    return make


def onnxruntime(precision: str) -> Callable[..., Encode]:
    """A session at its defaults (all optimizations, spinning workers), but for the threads."""

    def make(setup: Setup, rows: int = BATCHES[-1], streams: int = 1) -> Encode:
        path = bundle(setup.plan, setup.model) / "onnx" / "model.onnx" if precision == "f32" else graphs.onnx_int8(setup.plan, setup.model)
        forwards = [_session(path, setup.threads // streams) for _ in range(streams)]
        return HandLoop(setup.folder, MAX_TOKENS, forwards, rows)

    return make


def _session(path: Path, threads: int) -> Forward:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda ids, mask: session.run(None, {"input_ids": ids, "attention_mask": mask})[0]


def openvino(precision: Literal["int8", "bf16"]) -> Callable[..., Encode]:
    """The CPU plugin hinted at latency (one stream) or at throughput (a stream for each thread); products that are not int8 are bf16."""

    def make(setup: Setup, rows: int = BATCHES[-1], streams: int = 1, inference: str = "bf16") -> Encode:
        import openvino as ov

        path = (graphs.openvino_int8 if precision == "int8" else graphs.openvino_f32)(setup.plan, setup.model)
        config = {
            "INFERENCE_NUM_THREADS": setup.threads,
            "NUM_STREAMS": streams,
            "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": inference,
        }
        compiled = ov.Core().compile_model(path, "CPU", config)
        return HandLoop(setup.folder, MAX_TOKENS, [_request(compiled) for _ in range(streams)], rows)

    return make


def _request(compiled: Any) -> Forward:
    request = compiled.create_infer_request()

    def forward(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        request.infer([ids, mask], share_inputs=True)
        return np.array(request.get_output_tensor(0).data)

    return forward


def _rows(threads: int, texts: int) -> list[Setting]:
    return [{"rows": rows} for rows in BATCHES if rows <= max(texts, min(BATCHES))] if texts > 1 else [{}]


def _rows_and_streams(threads: int, texts: int) -> list[Setting]:
    """One stream that all threads share, or a stream for each thread."""
    if texts == 1:
        return [{"rows": 1}]
    return [{**rows, "streams": streams} for rows in [{"rows": 1}, *_rows(threads, texts)] for streams in sorted({1, threads})]


def _no_bf16() -> str | None:
    return None if has_bf16() else "the CPU does not multiply bf16"


def _no_native() -> str | None:
    from nearfield import _core

    return None if hasattr(_core, "EncoderModel") else "this build has no native encoder"


_ST = ("sentence-transformers", ("sentence_transformers", "torch"))
ENGINES = (
    EncodeEngine("nearfield native int8", ours("native", "int8"), precision="int8", unable=_no_native),
    EncodeEngine("nearfield native bf16", ours("native", "bf16"), precision="bf16", unable=_no_native),
    EncodeEngine("nearfield native fp32", ours("native", "fp32"), unable=_no_native),
    EncodeEngine("nearfield onnx int8", ours("onnx", "int8"), precision="int8"),
    EncodeEngine("sentence-transformers torch f32", sentence_transformers("float32"), *_ST, settings=_rows),
    EncodeEngine(
        "sentence-transformers torch bf16", sentence_transformers("bfloat16"), *_ST, precision="bf16", settings=_rows, unable=_no_bf16
    ),
    EncodeEngine("onnxruntime f32", onnxruntime("f32"), "onnxruntime", ("onnxruntime",), settings=_rows),
    EncodeEngine("onnxruntime int8", onnxruntime("int8"), "onnxruntime", ("onnxruntime",), precision="int8", settings=_rows_and_streams),
    EncodeEngine(
        "OpenVINO bf16", openvino("bf16"), "openvino", ("openvino",), precision="bf16", settings=_rows_and_streams, unable=_no_bf16
    ),
    EncodeEngine("OpenVINO int8", openvino("int8"), "openvino", ("openvino", "nncf"), precision="int8", settings=_rows_and_streams),
)


class Maker:
    """The engines of one model with one number of threads: each setting is made once, and tried at most once for each kind of call."""

    def __init__(self, plan: Plan, model: Model, threads: int, engines: Sequence[EncodeEngine] = ENGINES) -> None:
        self.plan, self.model, self.threads = plan, model, threads
        self.setup = Setup(plan, model, threads)
        self.engines: list[EncodeEngine] = present(engines, plan)  # type: ignore[assignment]
        self._made: dict[tuple[str, str], Encode] = {}
        self._reference: nearfield.Encoder | None = None

    def encode(self, engine: EncodeEngine, setting: Setting) -> Encode:
        """The engine at a setting."""
        key = engine.name, repr(setting)
        if key not in self._made:
            self._made[key] = engine.make(self.setup, **setting)
            set_threads(self.threads)  # some library may have changed torch's on the way
        return self._made[key]

    def fastest(self, engine: EncodeEngine, texts: list[str]) -> tuple[Encode, Setting, float]:
        """The fastest setting for a call with these texts, and the seconds that the call took.

        Each setting is called once to warm up (with at most 32 texts) and then timed on as many calls as fit into TRIAL_S; one that took
        more than that is timed on its first call.
        """
        best: tuple[Encode, Setting, float] | None = None
        for setting in engine.settings(self.threads, len(texts)):
            encode = self.encode(engine, setting)
            encode(texts[: BATCHES[-1]])
            spent: list[float] = []
            while sum(spent) < TRIAL_S:
                start = time.perf_counter()
                encode(texts)
                spent.append(time.perf_counter() - start)
            seconds = float(np.median(spent))
            if best is None or seconds < best[2]:
                best = encode, setting, seconds
        assert best is not None, f"{engine.name}: no settings"
        return best

    def truth(self, texts: list[str]) -> np.ndarray | None:
        """What torch gives in float32; None without torch."""
        if find_spec("torch") is None:
            self.plan.say("encode: no torch, so no cosine to float32")
            return None
        if self._reference is None:
            self._reference = nearfield.Encoder(self.setup.folder, backend="torch", threads=self.threads)
        out = self._reference.encode(texts)
        set_threads(self.threads)
        return out

    def token_counts(self, texts: list[str]) -> list[int]:
        """Tokens of each text, special ones included."""
        return [len(row) for row in HandLoop(self.setup.folder, MAX_TOKENS, [], 1).tokenize(texts)]

    def close(self) -> None:
        """Lets go of all models."""
        for encode in self._made.values():
            owner = getattr(encode, "__self__", encode)
            if hasattr(owner, "close"):
                owner.close()
        self._made.clear()
