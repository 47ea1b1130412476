"""The engines of the encoder suites behind one call, each with the settings among which its fastest is looked for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

import nearfield
from benchmarks.core import held
from benchmarks.core.machine import has_bf16
from benchmarks.core.peers import Engine, present, set_threads
from benchmarks.core.plan import Plan, usable_cores
from benchmarks.encoders import graphs
from benchmarks.encoders.loop import Encode, Forward, HandLoop
from benchmarks.encoders.models import Model, bundle

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
    made: dict[Any, Any] = field(default_factory=dict, compare=False)

    def once(self, key: object, make: Callable[[], Any]) -> Any:
        """What ``make`` gives, made at most once for this key: settings that differ in the batches alone share their sessions."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    @property
    def folder(self) -> Path:
        """The model for torch, and the tokenizer."""
        return bundle(self.plan, self.model) / "model"


@dataclass(frozen=True)
class EncodeEngine(Engine):
    """An engine that makes an ``Encode`` from a setup and a setting.

    Attributes:
        settings: ``(threads, texts in a call)`` to those worth trying; one means that there is nothing to choose.
        served: what it takes to serve many callers at once, each with one thread.
    """

    settings: Callable[[int, int], list[Setting]] = lambda threads, texts: [{}]
    served: Setting = field(default_factory=dict)


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

        kwargs = {"dtype": getattr(torch, dtype)}
        tower = setup.once((dtype, "torch"), lambda: SentenceTransformer(str(setup.folder), device="cpu", model_kwargs=kwargs))
        return lambda texts: tower.encode(list(texts), batch_size=rows, normalize_embeddings=True, show_progress_bar=False)

    return make


def onnxruntime(precision: str) -> Callable[..., Encode]:
    """A session at its defaults (all optimizations, spinning workers), but for the threads."""

    def make(setup: Setup, rows: int = BATCHES[-1], streams: int = 1) -> Encode:
        graph = bundle(setup.plan, setup.model) / "onnx" / "model.onnx" if precision == "f32" else graphs.onnx_int8(setup.plan, setup.model)
        forwards = setup.once((graph, streams), lambda: [_session(graph, setup.threads // streams) for _ in range(streams)])
        return HandLoop(setup.folder, setup.model.max_tokens, forwards, rows)

    return make


def _session(path: Path, threads: int) -> Forward:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda ids, mask: session.run(None, {"input_ids": ids, "attention_mask": mask})[0]


def openvino(precision: Literal["int8", "bf16"]) -> Callable[..., Encode]:
    """The CPU plugin hinted at latency (one stream) or at throughput (a stream for each thread); products that are not int8 are bf16.

    Its threads belong to the model and not to the call: with ``served`` callers share as many streams of one thread as there are cores.
    """

    def make(setup: Setup, rows: int = BATCHES[-1], streams: int = 1, others: str = "bf16", served: bool = False) -> Encode:
        import openvino as ov

        path = (graphs.openvino_int8 if precision == "int8" else graphs.openvino_f32)(setup.plan, setup.model)
        streams = usable_cores() if served else streams
        config = {
            "INFERENCE_NUM_THREADS": streams if served else setup.threads,
            "NUM_STREAMS": streams,
            "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": others,
        }
        compiled = setup.once((path, streams, others, served), lambda: ov.Core().compile_model(path, "CPU", config))
        return HandLoop(setup.folder, setup.model.max_tokens, [_requests(compiled)] * (1 if served else streams), rows)

    return make


def _requests(compiled: Any) -> Forward:
    """A request for each call that runs: two calls in one request spoil each other's tensors, without a word from the library."""
    idle: list[Any] = []

    def forward(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        try:
            request = idle.pop()
        except IndexError:
            request = compiled.create_infer_request()
        request.infer([ids, mask], share_inputs=True)
        out = np.array(request.get_output_tensor(0).data)
        idle.append(request)
        return out

    return forward


def _rows(threads: int, texts: int) -> list[Setting]:
    return [{"rows": rows} for rows in BATCHES if rows <= max(texts, min(BATCHES))] if texts > 1 else [{}]


def _rows_and_streams(threads: int, texts: int) -> list[Setting]:
    """One stream that all threads share, or a stream for each thread."""
    if texts == 1:
        return [{"rows": 1}]
    return [{**rows, "streams": streams} for rows in [{"rows": 1}, *_rows(threads, texts)] for streams in sorted({1, threads})]


def _with_others(threads: int, texts: int) -> list[Setting]:
    """Beside its int8 products OpenVINO computes in bf16, where the CPU has it, or in f32; neither is always the faster."""
    return [
        {**one, "others": others} for one in _rows_and_streams(threads, texts) for others in (["f32"] if no_bf16() else ["bf16", "f32"])
    ]


def no_bf16() -> str | None:
    """Why products in bf16 make no sense here, or None."""
    target = os.environ.get(held.OURS)
    if target in held.PEERS:
        return f"{target}, to which all are held, does not multiply bf16"
    return None if has_bf16() else "the CPU does not multiply bf16"


def no_native() -> str | None:
    """Why there is no native encoder, or None."""
    from nearfield import _core

    return None if hasattr(_core, "EncoderModel") else "this build has no native encoder"


_ST = ("sentence-transformers", ("sentence_transformers", "torch"))
ENGINES = (
    EncodeEngine("nearfield native int8", ours("native", "int8"), precision="int8", unable=no_native),
    EncodeEngine("nearfield native bf16", ours("native", "bf16"), precision="bf16", unable=no_native),
    EncodeEngine("nearfield native fp32", ours("native", "fp32"), unable=no_native),
    EncodeEngine("nearfield onnx int8", ours("onnx", "int8"), precision="int8"),
    EncodeEngine("sentence-transformers torch f32", sentence_transformers("float32"), *_ST, settings=_rows),
    EncodeEngine(
        "sentence-transformers torch bf16", sentence_transformers("bfloat16"), *_ST, precision="bf16", settings=_rows, unable=no_bf16
    ),
    EncodeEngine("onnxruntime f32", onnxruntime("f32"), "onnxruntime", ("onnxruntime",), settings=_rows),
    EncodeEngine("onnxruntime int8", onnxruntime("int8"), "onnxruntime", ("onnxruntime",), precision="int8", settings=_rows_and_streams),
    EncodeEngine(
        "OpenVINO bf16", openvino("bf16"), "openvino", ("openvino",), precision="bf16", settings=_rows_and_streams, unable=no_bf16
    ),
    EncodeEngine(
        "OpenVINO int8",
        openvino("int8"),
        "openvino",
        ("openvino", "nncf"),
        precision="int8",
        settings=_with_others,
        served={"served": True},
    ),
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
            while not spent or sum(spent) < TRIAL_S:
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
        return [len(row) for row in HandLoop(self.setup.folder, self.model.max_tokens, [], 1).tokenize(texts)]

    def close(self) -> None:
        """Lets go of all models."""
        for encode in self._made.values():
            owner = getattr(encode, "__self__", encode)
            if hasattr(owner, "close"):
                owner.close()
        self._made.clear()


def engines_named(names: Sequence[str]) -> list[EncodeEngine]:
    """The engines of these names, in the order of ``ENGINES``."""
    return [engine for engine in ENGINES if engine.name in names]
