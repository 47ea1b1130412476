"""Everybody held to one instruction set: ``--target avx2`` runs the suites in a fresh process whose libraries see no more than AVX2;
``avx512vnni`` likewise.

Libraries choose their kernels when they are loaded, so the environment must be there before the first import.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.core.plan import ROOT, Plan

OURS = "NEARFIELD_TARGET"
# What holds the peers, by target. A target without an entry holds nearfield alone: the peers then run at their best.
# faiss: FAISS_OPT_LEVEL picks the library in packages that bring one per instruction set (its loader compares upper case),
# FAISS_SIMD_LEVEL the kernels in packages with dynamic dispatch; its matrix products are OpenBLAS's.
# numpy takes Haswell kernels from OpenBLAS as well; torch has three libraries to hold (ATen, oneDNN, MKL). OpenVINO obeys oneDNN's variable
# for all its products (its graph then names brgemm_avx512_I8 and jit_gemm_I8 in place of AMX's); its layer norms stay at AVX-512. usearch,
# rabitqlib, vsag, SVS and onnxruntime have no such switch.
PEERS = {
    "avx2": {
        "OPENBLAS_CORETYPE": "Haswell",
        "FAISS_OPT_LEVEL": "AVX2",
        "FAISS_SIMD_LEVEL": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
    "avx512vnni": {
        "OPENBLAS_CORETYPE": "SkylakeX",
        "FAISS_OPT_LEVEL": "AVX512",
        "FAISS_SIMD_LEVEL": "AVX512",
        "ATEN_CPU_CAPABILITY": "avx512",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
    },
}
# Engines that cannot be held on a machine that has more.
FREE = ("usearch", "rabitqlib", "vsag", "SVS", "onnxruntime")


def environment(target: str) -> dict[str, str]:
    """The variables that hold nearfield to ``target``, and the peers where they can be held to the same.

    >>> environment("scalar")
    {'NEARFIELD_TARGET': 'scalar'}
    """
    return {OURS: target, **PEERS.get(target, {})}


def in_force(target: str) -> bool:
    """Whether this process was started under ``environment(target)``."""
    return all(os.environ.get(name) == value for name, value in environment(target).items())


def bound(plan: Plan, ours: bool) -> str | None:
    """The target to which an engine of a scan suite is held in this run, or None for its best."""
    return plan.target if ours or plan.target in PEERS else None


def rerun(target: str, arguments: Sequence[str]) -> int:
    """Runs ``python -m benchmarks`` with the same arguments under ``environment(target)``; returns its exit status."""
    path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH")) if part)
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], env={**os.environ, **environment(target), "PYTHONPATH": path}, check=False
    ).returncode
