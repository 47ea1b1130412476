"""Vectors from an ONNX graph through onnxruntime: no torch, safe under threads and after a fork."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nearfield.errors import FormatError, InputError
from nearfield.types import FloatArray, IntArray

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}


class OnnxBackend:
    """One graph ``input_ids, attention_mask (, token_type_ids) -> (n, dim)``, pooled and normalized inside.

    A session's threads do not survive a fork, and destroying it in the child would wait for them for ever. So a child
    abandons the session it inherited, and the next call there makes its own, from the file read and checked again.

    Args:
        read: gives the model's bytes; called again in a forked child.
        where: the file's name for errors.
        threads: of one call; concurrent calls share them.
        device: ``"cpu"`` (default), or ``"cuda"``, ``"cuda:1"`` for onnxruntime's CUDA provider.

    Raises:
        InputError: a GPU asked of an onnxruntime that cannot use it.
    """

    def __init__(self, read: Callable[[], bytes], where: Path, threads: int, device: str = "cpu") -> None:
        self._read, self._where, self._threads, self._device = read, where, threads, device
        self._lock = threading.Lock()
        self._session: Any = None
        self._closed = False
        self._wants_types = False
        _LIVE.add(self)
        self._open()

    def __call__(self, input_ids: IntArray, attention_mask: IntArray) -> FloatArray:
        """Token ids ``(n, t)`` and mask, int64, to float32 ``(n, dim)``."""
        session = self._session or self._open()
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self._wants_types:
            feeds["token_type_ids"] = input_ids * 0
        try:
            vectors: FloatArray = session.run(None, feeds)[0]
        except Exception as error:  # onnxruntime's own exceptions share no public base class
            raise FormatError(f"{self._where}: onnxruntime cannot run it ({_reason(error)}); export the bundle again") from None
        return vectors

    def close(self) -> None:
        """Frees the session once running calls have ended; later calls raise InputError."""
        with self._lock:
            self._closed, self._session = True, None

    def _open(self) -> Any:
        with self._lock:
            if self._closed:
                raise InputError("this encoder is closed; open another one")
            if self._session is None:
                session = _make_session(self._read(), self._where, self._threads, self._device)
                self._wants_types = _check_signature(session, self._where)
                self._session = session
            return self._session

    def _abandon(self) -> None:
        """In a forked child: leaves the inherited session alone for good, and the lock that another thread may have held."""
        if self._session is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))
            self._session = None
        self._lock = threading.Lock()


_LIVE: weakref.WeakSet[OnnxBackend] = weakref.WeakSet()


def _after_fork() -> None:
    for backend in list(_LIVE):
        backend._abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _make_session(model: bytes, where: Path, threads: int, device: str) -> Any:
    import onnxruntime as ort

    providers = _providers(device, ort.get_available_providers(), ort.__version__)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Spinning threads burn a service's cores between calls, and starve each other where there are more threads than cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # The arena keeps the largest batch ever seen, and lengths vary; without it memory returns to the system after each batch.
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4  # library code is silent; errors arrive as exceptions
    try:
        # The fallback would print to stdout that it tries the same provider again.
        session = ort.InferenceSession(model, options, providers=providers, enable_fallback=0)
    except Exception as error:  # onnxruntime's own exceptions share no public base class
        raise FormatError(f"{where}: onnxruntime {ort.__version__} cannot open it ({_reason(error)})") from None
    if len(providers) > 1 and _CUDA not in session.get_providers():  # a library it needs is missing: it goes on without a word
        raise InputError(
            f"device {device!r}: onnxruntime {ort.__version__} cannot start its CUDA provider (CUDA or cuDNN of another version?); "
            f"backend='torch' may"
        )
    return session


def _providers(device: str, available: list[str], version: str) -> list[Any]:
    """What a session is to run on.

    >>> _providers("cpu", ["CPUExecutionProvider"], "1.30")
    ['CPUExecutionProvider']
    """
    if device == "cpu":
        return [_CPU]
    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number or "0").isdigit():
        raise InputError(f"device {device!r} given, 'cpu', 'cuda' or 'cuda:<number>' expected with backend='onnx'")
    if _CUDA not in available:
        raise InputError(
            f"device {device!r}: this onnxruntime ({version}) has no CUDA provider; install onnxruntime-gpu in its place, or use "
            f"backend='torch'"
        )
    # TF32 would round what is promised in float32.
    return [(_CUDA, {"device_id": number or "0", "use_tf32": "0"}), _CPU]


def _reason(error: Exception) -> str:
    return (next(iter(str(error).splitlines()), "") or type(error).__name__)[:400]


def _check_signature(session: Any, where: Path) -> bool:
    names = {value.name for value in session.get_inputs()}
    if not {"input_ids", "attention_mask"} <= names <= _INPUTS or len(session.get_outputs()) != 1:
        raise FormatError(f"{where}: inputs {sorted(names)}; input_ids, attention_mask, perhaps token_type_ids, and one output expected")
    return "token_type_ids" in names
