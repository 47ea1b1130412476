"""Vectors from the native engine: weights packed once and mapped, no padding, one call from token ids to rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nearfield import _core
from nearfield.encode.batches import check_vectors
from nearfield.encode.native_model import open_native_model
from nearfield.encode.spec import ModelSpec
from nearfield.encode.tokenize import TextTokenizer
from nearfield.errors import InputError
from nearfield.progress import progress as show_progress
from nearfield.types import FloatArray

# Texts per call of the engine: enough for all threads, few enough for a bar that moves and token ids that take a few megabytes.
SLICE = 1_024
# Targets whose instructions multiply what a precision stores; on others the engine is right and slow, and "auto" takes onnxruntime.
FAST: Mapping[str, frozenset[str]] = {
    "int8": frozenset({"avxvnni", "avx512vnni", "amx", "neon_dotprod", "neon_i8mm"}),
    "bf16": frozenset({"avx512bf16", "amx"}),
}
_LINEAR = {"int8": "linear_i8", "bf16": "linear_bf16", "fp32": "linear_f32"}


class NativeBackend:
    """A packed model. Safe under threads and after a fork: the engine's pool makes its own threads in the child.

    Args:
        folder: the model folder.
        spec: as ``read_spec`` gives it.
        precision: ``"fp32"``, ``"bf16"`` or ``"int8"``.
        threads: of one call.
        plan: for int8: the kind of each linear layer; None (default): the engine's own choice, for a model that nobody measured.
        weights_sha256: of ``model.safetensors`` where it was checked already.

    Attributes:
        cache_file: what the weights are mapped from; ``""`` where they were packed in memory.

    Raises:
        UnsupportedModelError: a sound model of an architecture that the engine does not compute.
        InputError, FormatError: missing or damaged files.
    """

    def __init__(
        self, folder: Path, spec: ModelSpec, precision: str, threads: int, *, plan: Sequence[str] | None = None,
        weights_sha256: str | None = None,
    ) -> None:  # fmt: skip
        if precision != "int8" or plan is None:
            plan = ()
        self._model: _core.EncoderModel | None
        self._model, self.cache_file = open_native_model(folder, spec, precision, plan, weights_sha256=weights_sha256)
        self._dim, self._threads = spec.dim, threads

    def encode(self, texts: list[str], prompt: str, tokenizer: TextTokenizer, *, progress: bool = False) -> tuple[FloatArray, int]:
        """Checked texts to float32 ``(len(texts), dim)`` in the order given, and how many were cut.

        Raises:
            InputError: closed, also by another thread meanwhile; or a token that the model does not have.
            FormatError: vectors with NaN or infinity: the weights are damaged.
        """
        if len(texts) <= SLICE and not progress:  # a query: a bar and a copy would take a tenth of its time
            return self._slice(texts, prompt, tokenizer, 0)
        out = np.empty((len(texts), self._dim), np.float32)
        truncated = 0
        with show_progress(f"encoding {len(texts):,} texts", len(texts), enabled=progress) as bar:
            for start in range(0, len(texts), SLICE):
                part = texts[start : start + SLICE]
                out[start : start + SLICE], cut = self._slice(part, prompt, tokenizer, start)
                truncated += cut
                bar.advance(len(part))
        return out, truncated

    def queries(self, texts: list[str], prompt: str, tokenizer: TextTokenizer) -> _core.TextQueries | None:
        """Checked texts for a search that encodes them itself; None where tokens are made elsewhere, or for more texts than a call takes.

        Raises:
            InputError: closed.
        """
        model = self._model
        if model is None:
            raise InputError("this encoder is closed; open another one")
        if tokenizer.native is None or len(texts) > SLICE:
            return None
        return _core.TextQueries(tokenizer.native, model, texts, tokenizer.max_tokens, prompt, self._threads)

    def _slice(self, texts: list[str], prompt: str, tokenizer: TextTokenizer, start: int) -> tuple[FloatArray, int]:
        model = self._model  # once: another thread may close the encoder meanwhile
        if model is None:
            raise InputError("this encoder is closed; open another one")
        if tokenizer.native is not None:  # from text to vector without the GIL
            vectors, truncated = _core.encode_texts(tokenizer.native, model, texts, tokenizer.max_tokens, prompt, self._threads)
        else:
            ids, offsets, truncated = tokenizer.encode(texts, prompt)
            vectors = model.encode(ids, offsets, self._threads)
        if not np.isfinite(vectors).all():  # which one is asked only then: a query has no time for more
            check_vectors(vectors, np.arange(start, start + len(texts)), self._dim)
        return vectors, truncated

    def close(self) -> None:
        """Lets go of the weights once running calls have ended; later calls raise InputError."""
        self._model = None


def is_fast(precision: str) -> bool:
    """Whether the engine's active target has the instructions for this precision, so that it is faster than onnxruntime."""
    return _core.encoder_targets()[_LINEAR[precision]] in FAST.get(precision, ())
