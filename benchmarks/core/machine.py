"""The machine under test: what a reader needs to compare figures, and nothing that names the host."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.core.plan import ROOT, usable_cores

# The instruction sets that change which kernel anybody's library picks.
FLAGS = (
    "sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip
LIBRARIES = (
    "nearfield",
    "numpy",
    "onnxruntime",
    "tokenizers",
    "torch",
    "transformers",
    "openvino",
    "nncf",
    "sentence-transformers",
    "faiss-cpu",
    "hnswlib",
    "usearch",
    "rabitqlib",
    "voyager",
    "ngt",
    "pyvsag",
    "scalable-vs",
    "numba",
)
# Units that multiply bf16; without one, libraries widen the values and lose what bf16 promises.
BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
# Suffixes with which the kernel writes the sizes of caches.
SIZE_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
# More than this many runnable processes per core before we start: the figures below will be noisy.
BUSY_LOAD = 0.5


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _field(text: str, *names: str) -> str:
    for name in names:
        found = re.search(rf"^{name}\s*:\s*(.+)$", text, re.MULTILINE)
        if found:
            return found.group(1).strip()
    return ""


def caches() -> list[dict[str, Any]]:
    """One entry per cache of the first core: level, type, size as the kernel says it, and how many cores share it."""
    out = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        sharing = _read(index / "shared_cpu_map").strip().replace(",", "")
        out.append(
            {
                "level": int(_read(index / "level").strip() or 0),
                "type": _read(index / "type").strip(),
                "size": _read(index / "size").strip(),
                "shared_by": int(sharing, 16).bit_count() if sharing else 0,
            }
        )
    return out


def last_cache() -> tuple[str, int] | None:
    """The name and the bytes of the largest cache level, ``("L3", 33554432)``; None where the system does not say."""
    found = [(cache["level"], cache["size"]) for cache in caches() if cache["size"][-1:] in SIZE_UNITS]
    if not found:
        return None
    level, size = max(found)
    return f"L{level}", int(size[:-1]) * SIZE_UNITS[size[-1]]


def home_of(size: int) -> str:
    """Where ``size`` bytes that are read again and again come from: the last cache when they fit in it, otherwise DRAM; "" if unknown."""
    cache = last_cache()
    if cache is None:
        return ""
    return cache[0] if size <= cache[1] else "DRAM"


def has_bf16() -> bool:
    """Whether the CPU has an instruction that multiplies bf16."""
    return bool(set(BF16_FLAGS) & flags())


def flags() -> set[str]:
    """Every instruction set that the CPU reports."""
    return set(_field(_read("/proc/cpuinfo"), "flags", "Features").split())


def is_intel() -> bool:
    """Whether the CPU is Intel's."""
    return "GenuineIntel" in _field(_read("/proc/cpuinfo"), "vendor_id")


def memory_bytes() -> int:
    """Physical memory, or the container's limit where that is smaller; 0 where the system does not say."""
    total = _field(_read("/proc/meminfo"), "MemTotal")
    physical = int(total.split()[0]) * 1024 if total else 0
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    return min(physical, int(limit)) if limit.isdigit() and physical else physical


def version_of(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit of the working tree, with ``+changes`` where tracked files differ from it; None outside git."""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+changes" if dirty else "")


def describe() -> dict[str, Any]:
    """The machine as a dictionary for the JSON."""
    cpuinfo = _read("/proc/cpuinfo")
    present = flags()
    return {
        "cpu": _field(cpuinfo, "model name", "Processor") or platform.processor() or platform.machine(),
        "arch": platform.machine(),
        "cores": usable_cores(),
        "cores_of_machine": os.cpu_count() or 1,
        "flags": [flag for flag in FLAGS if flag in present],
        "caches": caches(),
        "memory_bytes": memory_bytes(),
        "os": platform.platform(),
        "load_at_start": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def versions() -> dict[str, str]:
    """Python and the libraries that take part, as far as they are installed, and the commit."""
    import nearfield

    out = {"python": sys.version.split()[0], "nearfield": nearfield.__version__}
    out |= {name: found for name in LIBRARIES if name != "nearfield" and (found := version_of(name))}
    if found := commit():
        out["commit"] = found
    return out


def targets() -> dict[str, Any]:
    """Our engine: the targets this machine can run, the one in use, the target each kernel reports of itself; or why it is not there."""
    try:
        from nearfield.kernels import backend
    except ImportError as error:
        return {"unavailable": str(error)}
    found = backend()
    return {"targets_here": [target["name"] for target in found.pop("targets") if target["runs_here"]], **found}


def lines(machine: dict[str, Any], found: dict[str, str], ours: dict[str, Any]) -> list[str]:
    """The head of the report, for people."""
    shown = ", ".join(
        f"L{c['level']}{'di'[c['type'] == 'Instruction'] if c['level'] == 1 else ''} {c['size']} / {c['shared_by']}"
        for c in machine["caches"]
    )
    out = [
        f"machine    {machine['cpu']}, {machine['arch']}, {machine['cores']} of {machine['cores_of_machine']} cores",
        f"caches     {shown} (size / cores sharing it)" if shown else "caches     not reported by the system",
        f"flags      {' '.join(machine['flags']) or 'none of those that matter'}",
        f"memory     {machine['memory_bytes'] / 2**30:.1f} GiB",
        f"system     {machine['os']}",
        f"versions   {', '.join(f'{name} {version}' for name, version in found.items())}",
        f"nearfield  {', '.join(f'{key} {_short(value)}' for key, value in ours.items())}",
    ]
    load = machine["load_at_start"]
    if load is not None and load > BUSY_LOAD * machine["cores"]:
        out.append(
            f"WARNING    load average {load} on {machine['cores']} cores: other work is running, read ratios and not absolute figures"
        )
    return out


def _short(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "+".join(str(v) for v in value) or "none"
    if isinstance(value, dict):
        return "(" + ", ".join(f"{k} {_short(v)}" for k, v in value.items()) + ")"
    return str(value)


def resident_bytes() -> int:
    """Resident memory of this process in bytes; 0 where the system does not say."""
    fields = _read("/proc/self/statm").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if fields else 0


def settled_bytes() -> int:
    """Resident bytes after garbage went back to the system, so that growth is what the next structure keeps."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
    return resident_bytes()
