"""What this installation is and what it found on this machine: everything a bug report needs."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata, util
from typing import Any

from nearfield._version import __version__

LIBRARIES = ("numpy", "onnxruntime", "tokenizers", "torch", "transformers", "onnx", "safetensors", "pyarrow", "numba", "hnswlib", "bm25s")


def info() -> dict[str, Any]:
    """Describes this installation and machine. Imports neither torch nor onnxruntime.

    Returns:
        ``version``, ``python``, ``platform``, ``cpu`` (model, cores), ``native`` (targets built, found, active and forced;
        threads), ``backends`` (encoder backends that can be used), ``libraries`` (versions, None where absent) and ``gpu``
        (names as the driver gives them; empty without one).

    >>> sorted(info())
    ['backends', 'cpu', 'gpu', 'libraries', 'native', 'platform', 'python', 'version']
    """
    from nearfield import kernels

    libraries = {name: _version(name) for name in LIBRARIES}
    return {
        "version": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpu": {"model": cpu_model(), "cores": len(os.sched_getaffinity(0))},
        "native": kernels.backend(),
        "backends": [name for name, needs in (("onnx", "onnxruntime"), ("torch", "torch")) if libraries[needs]],
        "libraries": libraries,
        "gpu": _gpus(),
    }


def _version(name: str) -> str | None:
    # find_spec sees a broken half-removed package for what it is: absent.
    if util.find_spec(name) is None:
        return None
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"


def cpu_model() -> str:
    """The CPU's name as Linux gives it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _gpus() -> list[str]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        answer = subprocess.run(
            [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()] if answer.returncode == 0 else []
