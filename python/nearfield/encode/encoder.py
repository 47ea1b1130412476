"""The public encoder: texts to unit vectors, from a bundle or a model folder."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

import nearfield.encode.forked  # noqa: F401 (registers what a forked child needs, before any session or fork)
from nearfield.bundle import Bundle
from nearfield.encode.batches import run_batches
from nearfield.encode.bundled import bundle_spec, is_batch_invariant, mapped, unit_rows
from nearfield.encode.fingerprint import space_fingerprint
from nearfield.encode.models import resolve_model
from nearfield.encode.shape import UnsupportedModelError
from nearfield.encode.spec import read_spec, weights_folder
from nearfield.encode.threads import thread_count
from nearfield.encode.tokenize import TextTokenizer, check_texts
from nearfield.errors import FormatError, InputError
from nearfield.types import FloatArray, IntArray, Kind

if TYPE_CHECKING:
    from nearfield import _core
    from nearfield.encode.native_backend import NativeBackend
    from nearfield.encode.packed_backend import PackedBackend

BackendName = Literal["auto", "native", "onnx", "torch"]
PrecisionName = Literal["auto", "int8", "bf16", "fp16", "fp32"]

_BACKENDS = ("auto", "native", "onnx", "torch")
_PRECISIONS = ("auto", "int8", "bf16", "fp16", "fp32")
_ONNX_FILES = {"fp32": "onnx/{}.onnx", "int8": "onnx/{}.int8.onnx"}
# Rows and padded tokens of one batch. all-MiniLM-L6 on one Zen 3 core, texts of 16, 64 and 200 tokens: batches of 32 rows gave 188, 30 and
# 8.0 texts per second of CPU, of 8 rows 227, 47 and 9.7, single rows 136, 46 and 14: a batch pays only while it fits the caches.
_MAX_ROWS = 16
_MAX_TOKENS = 512
# On a GPU, where a batch pays until it fills the device.
_MAX_ROWS_GPU, _MAX_TOKENS_GPU = 512, 32_768
# What the fp32 graph promises against torch, per component of a unit vector.
_FP32_TOLERANCE = 1e-5


class _Backend(Protocol):
    def __call__(self, input_ids: IntArray, attention_mask: IntArray) -> FloatArray: ...

    def close(self) -> None: ...


class Encoder:
    """Turns texts into unit vectors. One instance serves many threads; it works on in a forked child.

    Args:
        path: a bundle (no torch needed), or a model folder, a hub name or None for the packaged all-MiniLM-L6-v2.
        backend: ``"auto"`` (default) takes the native engine for int8 and bf16 where it computes the model (a BERT) and the CPU
            multiplies these numbers (AMX, VNNI, AVX512-BF16, NEON dotprod; ``nearfield info`` says which), else onnx for a bundle and torch
            for a model folder. ``"native"``, ``"onnx"`` and ``"torch"`` insist; native reads a bundle or a model folder, on any CPU.
        precision: ``"auto"`` (default) is fp32: a default rounds nothing. ``"int8"`` is the fastest: the native engine's on the model's
            own weights (docs/benchmarks.md has its loss), or the bundle's quantized graph with the loss in its parity figures, whose
            texts run one by one where the bundle does not say that its vectors are independent of their neighbours. ``"bf16"`` is for
            the native engine, and for torch on hardware that has it. ``"fp16"`` is for a GPU, and there ``"auto"`` takes it where it
            turns no probe text's vector by more than 1 - cosine = 1e-4 (else bf16 by the same measure, else fp32): docs/cuda-encoder.md.
            Queries of a bundle with a query side (docs/tuning.md) take the same backend and precision.
        threads: of one call (default: the CPUs available); ``NEARFIELD_THREADS`` caps it. With torch it holds for the process.
        device: ``"cpu"`` (default), or ``"cuda"``, ``"cuda:1"``: a BERT, from a bundle or a model folder, then runs without padding in
            torch, any other model as transformers computes it; with ``backend="onnx"`` in onnxruntime's CUDA provider.

    Attributes:
        dim: columns of a vector.
        max_tokens: tokens per text, special tokens included; longer texts are cut.
        backend, precision: what was chosen, never ``"auto"``.
        device: where it runs.

    Raises:
        InputError: no such model, or a backend or precision that it does not have.
        FormatError: a bundle that is damaged or does not hold what its manifest says.
        UnsupportedModelError: (an InputError) backend "native" for a model that it does not compute; the others may.
        MissingExtraError: a model folder on torch without torch installed.

    ``encoder = Encoder("bundle"); vectors = encoder.encode(["how do I sort a list?"], kind="query")`` gives float32 ``(1, dim)``.
    """

    _tower = "model"

    def __init__(
        self,
        path: str | Path | None,
        backend: BackendName = "auto",
        precision: PrecisionName = "auto",
        threads: int | None = None,
        *,
        device: str = "cpu",
    ) -> None:
        _check_choice("backend", backend, _BACKENDS)
        _check_choice("precision", precision, _PRECISIONS)
        count = thread_count(threads)
        self._local = threading.local()
        self._closed = False
        self._bundle = self._find_bundle(path)
        self._folder = self._bundle.path / self._tower if self._bundle else resolve_model(path)
        self._spec = bundle_spec(self._bundle, self._folder) if self._bundle else read_spec(self._folder)
        self._tokenizer = TextTokenizer(weights_folder(self._folder) / "tokenizer.json", self._spec.max_tokens)
        on_cpu = device == "cpu"
        _check_device(backend, precision, on_cpu, device)
        self._native = self._open_native(backend, precision, count) if on_cpu else None
        self._packed = self._open_packed(precision, device) if not on_cpu and backend in ("auto", "torch") else None
        self.backend: str = "native" if self._native else backend if backend != "auto" else "onnx" if self._bundle and on_cpu else "torch"
        self.precision: str = self._packed.precision if self._packed else precision if precision != "auto" else "fp32"
        self.device = device
        # Some int8 graphs take one activation scale over a whole batch, padding included; a text alone depends on nothing else.
        self._max_rows, self._max_tokens = (_MAX_ROWS, _MAX_TOKENS) if on_cpu else (_MAX_ROWS_GPU, _MAX_TOKENS_GPU)
        if self.precision == "int8" and not is_batch_invariant(self._about, self._tower):
            self._max_rows = 1
        self._forward: _Backend | None = None
        if self.backend == "onnx":
            self._forward = self._open_onnx(count, device)
        elif self.backend == "torch" and self._packed is None:
            self._forward = self._open_torch(count if threads is not None or os.environ.get("NEARFIELD_THREADS") else None, device)
        self._query: Encoder | None = None
        self._map: FloatArray | None = None
        if self._bundle is not None and self._bundle.query is not None and self._tower == "model":
            self._query = _QueryTower(self._bundle, backend, precision, threads, device=device) if self._bundle.query["tower"] else None
            self._map = self._bundle.query_map()

    def _find_bundle(self, path: str | Path | None) -> Bundle | None:
        return Bundle.open(path) if path is not None and Bundle.is_bundle(path) else None

    @property
    def _about(self) -> Mapping[str, Any]:
        """What the manifest says of this tower's graphs and native plan; nothing for a model folder."""
        if self._bundle is None:
            return {}
        return self._bundle.manifest if self._tower == "model" else self._bundle.query or {}

    def _open_native(self, backend: str, precision: str, threads: int) -> NativeBackend | None:
        """The native engine where it is asked for, or where "auto" finds that it computes this model and has the instructions to win."""
        from nearfield.encode.native_backend import NativeBackend, is_fast
        from nearfield.encode.native_plan import stated_plan

        wanted = precision if precision != "auto" else "fp32"
        if backend not in ("auto", "native") or (backend == "auto" and not is_fast(wanted)):
            return None
        known = self._bundle.manifest["files"].get(f"{self._tower}/model.safetensors") if self._bundle else None
        try:
            plan = stated_plan(self._about, self._folder)
            return NativeBackend(self._folder, self._spec, wanted, threads, plan=plan, weights_sha256=known["sha256"] if known else None)
        except UnsupportedModelError:
            if backend == "native":
                raise
            return None

    def _open_packed(self, precision: str, device: str) -> PackedBackend | None:
        """A BERT on a GPU without padding; None for a model that is none."""
        from nearfield.encode.torch_backend import check_torch_device

        check_torch_device(device)
        from nearfield.encode.packed_backend import PackedBackend

        try:
            return PackedBackend(self._folder, self._spec, precision, device)
        except UnsupportedModelError:
            return None

    def _open_onnx(self, threads: int, device: str) -> _Backend:
        from nearfield.encode.onnx_backend import OnnxBackend

        if self._bundle is None:
            raise InputError(
                f"{self._folder}: a model folder has no ONNX graph; make a bundle with `nearfield export`, or use backend='torch'"
            )
        if self.precision not in _ONNX_FILES:
            raise InputError(f"precision {self.precision!r}: the onnx backend has fp32 and int8; {self.precision} is for backend='torch'")
        name = _ONNX_FILES[self.precision].format(self._tower)
        if name not in self._bundle:
            raise InputError(f"{self._bundle.path}: the bundle has no {self.precision} graph ({name}); export it again with that variant")
        return OnnxBackend(partial(self._bundle.read_model, name), self._bundle.path / name, threads, device)

    def _open_torch(self, threads: int | None, device: str) -> _Backend:
        from nearfield.encode.torch_backend import TorchBackend

        if self.precision == "int8":
            raise InputError("precision 'int8': the torch backend has fp32 and bf16; int8 is for bundles with backend='onnx'")
        return TorchBackend(self._folder, self.precision, threads, device)

    @property
    def dim(self) -> int:
        """Columns of a vector."""
        return self._spec.dim

    @property
    def max_tokens(self) -> int:
        """Tokens per text, special tokens included; longer texts are cut."""
        return self._spec.max_tokens

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of the document vector space; equal for a bundle and the model folder it was made from."""
        return self._bundle.fingerprint if self._bundle else space_fingerprint(self._folder, self._spec)

    @property
    def truncated(self) -> int:
        """How many texts were cut in this thread's last ``encode``; 0 before the first.

        Texts that a search encodes itself are not among them: theirs is the ``truncated`` of what ``queries`` returned.
        """
        return int(getattr(self._local, "truncated", 0))

    def encode(self, texts: str | Iterable[str], *, kind: Kind = "document", dim: int | None = None, progress: bool = False) -> FloatArray:
        """Encodes texts.

        Args:
            texts: one ``str`` (one row) or many; an empty text is allowed.
            kind: ``"document"`` (default) or ``"query"``: decides the prompt put before each text.
            dim: keeps the first ``dim`` columns and normalizes again, for models trained that way (Matryoshka); default all.
            progress: shows a bar on stderr.

        Returns:
            float32 ``(n, dim)``, unit rows in the order given; ``(0, dim)`` for no texts. A text has the same vector in any batch and at
            any position: bit for bit from the native engine, whatever the threads; within 1e-5 from onnx and torch with fp32; on a GPU
            within 2e-3 with fp16 and 2e-2 with bf16.

        Raises:
            InputError: a text that is not a ``str`` or holds a lone surrogate (its index is named), a wrong kind or dim,
                or a closed encoder.
        """
        self._check_open()
        _check_choice("kind", kind, ("document", "query"))
        columns = self._check_dim(dim)
        rows = check_texts(texts)
        if kind == "query" and (self._query is not None or self._map is not None):
            return self._encode_queries(rows, columns, progress)
        return self._encode(rows, kind, columns, progress)

    def _encode_queries(self, rows: list[str], columns: int, progress: bool) -> FloatArray:
        """Through the bundle's query side: its own tower, its map, or one after the other."""
        tower = self._query or self
        vectors = tower._encode(rows, "query", self._spec.dim, progress)
        self._local.truncated = tower.truncated
        if self._map is not None:
            vectors = mapped(vectors, self._map)
        return vectors if columns == self._spec.dim and self._spec.normalize else unit_rows(vectors[:, :columns])

    def _encode(self, rows: list[str], kind: Kind, columns: int, progress: bool) -> FloatArray:
        whole = self._native or self._packed
        if whole is not None:
            vectors, self._local.truncated = whole.encode(rows, self._spec.prompts[kind], self._tokenizer, progress=progress)
        else:
            assert self._forward is not None
            vectors, self._local.truncated = run_batches(
                rows, self._spec.prompts[kind], self._tokenizer, self._forward, self._spec.dim,
                max_rows=self._max_rows, max_tokens=self._max_tokens, progress=progress,
            )  # fmt: skip
        if columns == self._spec.dim and self._spec.normalize:
            return vectors
        return unit_rows(vectors[:, :columns])

    def queries(self, texts: str | Iterable[str]) -> FloatArray | _core.TextQueries:
        """Query texts for the ``search`` of an index, which `nearfield.Searcher` hands over.

        With the native engine and its tokenizer they become vectors inside that call: from text to ids without Python, or its lock, in
        between. With any other backend, for models whose vectors are not normalized, and for more than 1,024 texts, this returns what
        ``encode(texts, kind="query")`` does. ``numpy.asarray`` makes the same vectors of either.

        Raises:
            InputError: as ``encode``.
        """
        self._check_open()
        rows = check_texts(texts)
        native = self._query._native if self._query is not None else self._native
        if native is not None and self._spec.normalize and self._map is None:
            found = native.queries(rows, self._spec.prompts["query"], self._tokenizer)
            if found is not None:
                return found
        return self.encode(rows, kind="query")

    def warmup(self) -> None:
        """Runs a short text and one of full length, so that the first request pays for no allocation or lazy start.

        In a forked child it also makes the child's own session. On a GPU it records the launches of every batch size. Raises InputError
        for a closed encoder.
        """
        if self._packed is not None:
            self._packed.warmup()
        self.encode(["warm up", "warm up " * self._spec.max_tokens])
        if self._query is not None:
            self._query.warmup()

    def self_check(self, tolerance: float | None = None) -> float:
        """Compares the vectors of the bundle's golden texts with those stored when it was made.

        Args:
            tolerance: the largest allowed difference of a component; default 1e-5 for fp32, none for int8 and bf16.

        Returns:
            the largest absolute difference found.

        Raises:
            InputError: not a bundle, or a bundle without golden vectors.
            FormatError: the difference is above the tolerance: this machine or this onnxruntime computes something else.
        """
        if self._bundle is None:
            raise InputError(f"{self._folder}: a model folder has no golden vectors; self_check is for bundles")
        texts, stored = self._bundle.golden()
        difference = float(np.abs(self.encode(texts) - unit_rows(stored)).max(initial=0.0))
        if self._query is not None or self._map is not None:
            texts, stored = self._bundle.golden("golden-query.npz")
            difference = max(difference, float(np.abs(self.encode(texts, kind="query") - unit_rows(stored)).max(initial=0.0)))
        limit = tolerance if tolerance is not None else _FP32_TOLERANCE if self.precision == "fp32" else float("inf")
        if not difference <= limit:  # NaN fails too
            raise FormatError(
                f"{self._bundle.path}: golden vectors differ by {difference:.2g}, at most {limit:.2g} expected "
                f"(backend {self.backend}, precision {self.precision}); export the bundle again or upgrade {self._library()}"
            )
        return difference

    def _library(self) -> str:
        return {"onnx": "onnxruntime", "native": "nearfield"}.get(self.backend, self.backend)

    def close(self) -> None:
        """Frees the model; ``encode``, ``warmup``, ``self_check`` and ``with`` raise InputError from then on. Closing twice is fine.

        Calls that run in other threads meanwhile return their vectors or raise that InputError.
        """
        self._closed = True
        for part in (self._native, self._packed, self._forward, self._query):
            if part is not None:
                part.close()

    def __enter__(self) -> Encoder:
        self._check_open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"Encoder({str(self._bundle.path if self._bundle else self._folder)!r}, backend={self.backend!r}, precision={self.precision!r}"
            f"{'' if self.device == 'cpu' else f', device={self.device!r}'})"
        )

    def _check_open(self) -> None:
        if self._closed:
            raise InputError("this encoder is closed; open another one")

    def _check_dim(self, dim: int | None) -> int:
        if dim is None:
            return self._spec.dim
        if isinstance(dim, bool) or not isinstance(dim, (int, np.integer)) or not 1 <= dim <= self._spec.dim:
            raise InputError(f"dim: {dim!r} given, a whole number from 1 to {self._spec.dim} expected")
        return int(dim)


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name}: {value!r} given, one of {', '.join(choices)} expected")


def _check_device(backend: str, precision: str, on_cpu: bool, device: str) -> None:
    if on_cpu and precision == "fp16":
        raise InputError("precision 'fp16' is for a GPU (device='cuda'); a CPU has bf16 where it multiplies it, int8 and fp32")
    if not on_cpu and backend == "native":
        raise InputError(f"device {device!r}: the native engine runs on CPUs; backend='torch' or 'auto' expected")
    if not on_cpu and precision == "int8":
        raise InputError(f"precision 'int8' is for CPUs; on device {device!r} fp16, bf16 or fp32 expected")


class _QueryTower(Encoder):
    """The second tower of a bundle that is open already."""

    _tower = "query"

    def __init__(self, bundle: Bundle, backend: BackendName, precision: PrecisionName, threads: int | None, *, device: str) -> None:
        self._given = bundle
        super().__init__(bundle.path, backend, precision, threads, device=device)

    def _find_bundle(self, path: str | Path | None) -> Bundle | None:
        return self._given
