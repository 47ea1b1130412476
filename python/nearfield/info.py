"""What this installation is and what it found on this machine: everything a bug report needs."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata, util
from pathlib import Path
from typing import Any

from nearfield._version import __version__
from nearfield.errors import FormatError, InputError
from nearfield.tune.memory import group_limit

LIBRARIES = (
    *("numpy", "onnxruntime", "tokenizers", "torch", "transformers", "sentence_transformers", "onnx", "safetensors", "pyarrow", "numba"),
    *("bm25s", "jinja2", "sklearn", "click", "rich", "faiss", "hnswlib", "optimum"),
)
# Variables that change what we or the libraries below us do, besides our own, which all begin with NEARFIELD_.
VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ATEN_CPU_CAPABILITY", "CUDA_VISIBLE_DEVICES"),
    *("TOKENIZERS_PARALLELISM", "HF_HUB_OFFLINE", "HF_HOME", "TMPDIR"),
)


def info() -> dict[str, Any]:
    """Describes this installation and machine. Imports neither torch nor onnxruntime.

    Returns:
        ``version``, ``package`` (its folder), ``python``, ``platform``, ``libc``, ``cpu`` (model, with the maker's numbers for it, as
        virtual machines hide the name; cores this process may use, by number, of how many; the number format that training takes there),
        ``memory`` (bytes: of the machine, available, and the control group's limit or None), ``native`` (targets built, found, active and
        forced; the target of each kernel; threads), ``encoder`` (the target of each kernel of the native encoder, and the precisions
        that ``"auto"`` gives it on this CPU), ``backends`` (encoder backends that can be used), ``libraries`` (versions, None where
        absent), ``environment`` (variables that are set and matter) and ``gpu`` (names as the driver gives them; empty without one).

    >>> sorted(info())[:6]
    ['backends', 'cpu', 'encoder', 'environment', 'gpu', 'libc']
    """
    from nearfield import _core, kernels
    from nearfield.encode.dtype import on_this_cpu
    from nearfield.encode.native_backend import FAST, is_fast

    libraries = {name: _version(name) for name in LIBRARIES}
    affinity = sorted(os.sched_getaffinity(0))
    return {
        "version": __version__,
        "package": str(Path(__file__).parent),
        "python": f"{platform.python_implementation()} {sys.version.split()[0]}",
        "platform": platform.platform(),
        "libc": " ".join(platform.libc_ver()) or "unknown",
        "cpu": {
            "model": cpu_model(),
            "numbers": _cpu_numbers(),
            "cores": len(affinity),
            "affinity": affinity,
            "of": os.cpu_count(),
            "training": on_this_cpu(),
        },
        "memory": _memory(),
        "native": kernels.backend(),
        "encoder": {"kernels": dict(_core.encoder_targets()), "auto": [precision for precision in FAST if is_fast(precision)]},
        "backends": ["native", *(name for name, needs in (("onnx", "onnxruntime"), ("torch", "torch")) if libraries[needs])],
        "libraries": libraries,
        "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith("NEARFIELD_") or name in VARIABLES},
        "gpu": _gpus(),
    }


def version_line() -> str:
    """The version with what decides how it behaves, in one line.

    >>> version_line().split(",")[0].split()[0]
    'nearfield'
    """
    from nearfield import _core

    try:
        target = _core.active_target()
    except InputError as error:  # a NEARFIELD_TARGET that cannot be used; the version is asked for to find such things
        target = f"no target ({error})"
    where = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {' '.join(platform.libc_ver())}"
    return f"nearfield {__version__}, {target}, {where}"


def describe(path: Path) -> dict[str, Any]:
    """What a bundle, an index folder or an index file says of itself; contents are not verified.

    Raises:
        InputError: nothing there, or none of these.
        FormatError: one of these that cannot be opened.
    """
    from nearfield.bundle import Bundle
    from nearfield.search.folder import INFO, read_info

    if not path.exists():
        raise InputError(f"{path}: no such file or folder; a bundle, an index folder or an index file expected")
    if Bundle.is_bundle(path):
        bundle = Bundle.open(path, verify=False)
        kept = ("format_version", "nearfield", "dim", "max_tokens", "pooling", "normalize", "prompts", "base", "verdict", "versions")
        sizes = {name: entry["size"] for name, entry in bundle.manifest["files"].items()}
        said = {name: bundle.manifest[name] for name in kept if name in bundle.manifest}
        if bundle.query is not None:
            said["query"] = {name: bundle.query[name] for name in ("tower", "map")}
        return {"kind": "bundle", "fingerprint": bundle.fingerprint, **said, "native": _native_support(path / "model"), "files": sizes}
    if (path / INFO).is_file():
        told = read_info(path)
        return {"kind": "index folder", **told, "files": {name: entry["size"] for name, entry in told["files"].items()}}
    if path.is_file():
        return _describe_index(path)
    raise InputError(f"{path}: neither a bundle (manifest.json) nor an index folder ({INFO})")


def _native_support(model: Path) -> str:
    """Whether the native encoder computes this model, or why not; its weights are not read."""
    from nearfield.encode.shape import UnsupportedModelError, read_shape
    from nearfield.encode.spec import weights_folder

    try:
        read_shape(weights_folder(model))
    except UnsupportedModelError as reason:
        return f"no: {reason}"
    return "yes"


def _describe_index(path: Path) -> dict[str, Any]:
    from nearfield.index.flat import FlatIndex
    from nearfield.index.frozen import FrozenIndex
    from nearfield.index.hnsw import HNSWIndex

    refusals = []
    for kind in (FlatIndex, HNSWIndex, FrozenIndex):
        try:
            index = kind.load(path, verify=False)
        except FormatError as error:
            refusals.append(error)
            continue
        names = ("metric", "storage", "dim", "fingerprint")
        return {"kind": kind.__name__, "rows": len(index), **{name: getattr(index, name) for name in names}, "bytes": path.stat().st_size}
    raise refusals[0]


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


def _cpu_numbers() -> str:
    """Family, model and stepping, for example ``6/207/2`` for an Emerald Rapids; empty where Linux does not give them."""
    first: dict[str, str] = {}
    for line in _lines("/proc/cpuinfo"):
        name, _, value = line.partition(":")
        first.setdefault(name.strip(), value.strip())
    return "/".join(first[name] for name in ("cpu family", "model", "stepping") if name in first)


def _version(name: str) -> str | None:
    # find_spec sees a broken half-removed package for what it is: absent.
    if util.find_spec(name) is None:
        return None
    for distribution in (name, *metadata.packages_distributions().get(name, ())):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"


def _memory() -> dict[str, int | None]:
    page = os.sysconf("SC_PAGE_SIZE")
    found: dict[str, int | None] = {"total": page * os.sysconf("SC_PHYS_PAGES"), "available": None, "limit": group_limit()}
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            found["available"] = int(line.split()[1]) * 1024
    return found


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


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
