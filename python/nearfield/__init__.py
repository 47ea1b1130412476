"""nearfield: a retriever made from a team's own documents, measured, exported to int8 ONNX and served inside the caller's process.

Public names load on first use, so that ``import nearfield`` brings neither torch nor numba nor onnxruntime.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from nearfield._version import __version__

if TYPE_CHECKING:
    from nearfield.encode.encoder import Encoder
    from nearfield.errors import FingerprintError, FormatError, InputError, MissingExtraError, NearfieldError
    from nearfield.evaluate.evaluate import EvalReport, evaluate
    from nearfield.index.flat import FlatIndex
    from nearfield.index.frozen import FrozenIndex
    from nearfield.index.hnsw import HNSWIndex
    from nearfield.info import info
    from nearfield.kernels.native import score, topk
    from nearfield.kernels.rerank import rerank
    from nearfield.search.searcher import Searcher
    from nearfield.types import Hits
    from nearfield.workflow import TuneReport, tune

_HOME = {
    "Encoder": "nearfield.encode.encoder",
    "EvalReport": "nearfield.evaluate.evaluate",
    "FingerprintError": "nearfield.errors",
    "FlatIndex": "nearfield.index.flat",
    "FormatError": "nearfield.errors",
    "FrozenIndex": "nearfield.index.frozen",
    "HNSWIndex": "nearfield.index.hnsw",
    "Hits": "nearfield.types",
    "InputError": "nearfield.errors",
    "MissingExtraError": "nearfield.errors",
    "NearfieldError": "nearfield.errors",
    "Searcher": "nearfield.search.searcher",
    "TuneReport": "nearfield.workflow",
    "evaluate": "nearfield.evaluate.evaluate",
    "info": "nearfield.info",
    "rerank": "nearfield.kernels.rerank",
    "score": "nearfield.kernels.native",
    "topk": "nearfield.kernels.native",
    "tune": "nearfield.workflow",
}

__all__ = [
    "Encoder",
    "EvalReport",
    "FingerprintError",
    "FlatIndex",
    "FormatError",
    "FrozenIndex",
    "HNSWIndex",
    "Hits",
    "InputError",
    "MissingExtraError",
    "NearfieldError",
    "Searcher",
    "TuneReport",
    "__version__",
    "evaluate",
    "info",
    "rerank",
    "score",
    "topk",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'nearfield' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


class _Package(ModuleType):
    """Keeps the functions `evaluate`, `info` and `tune`: importing the module of the same name would put that module in their place."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted(__all__)
