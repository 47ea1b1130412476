"""Everybody held to one instruction set: ``--target avx2`` runs the suites in a fresh process whose libraries see no more than AVX2;
``avx512vnni`` likewise.

Libraries choose their kernels when they are loaded, so the environment must be there before the first import.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from benchmarks.core import machine
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
# What brings a library to its best where it does not know the CPU. The OpenBLAS of faiss's package (0.3.15) takes Xeons newer than
# itself for SSE3 machines: `IndexFlatIP` answered 268 instead of 1,070 queries a second on model 207 (two threads, 200,000 x 384). With
# AVX-512 its kernels for SkylakeX fit, which newer copies choose by themselves.
AVX512_BLAS = {"OPENBLAS_CORETYPE": "SkylakeX"}
# Engines that cannot be held on a machine that has more.
FREE = ("usearch", "rabitqlib", "voyager", "NGT", "vsag", "SVS", "onnxruntime")


def environment(target: str | None) -> dict[str, str]:
    """The variables that hold nearfield to ``target``, and the peers where they can be held to the same.

    Without a target, or one that leaves the peers free, those that a peer needs for its best on this CPU.

    >>> environment("avx2")["FAISS_OPT_LEVEL"]
    'AVX2'
    """
    best = AVX512_BLAS if machine.is_intel() and "avx512f" in machine.flags() and "OPENBLAS_CORETYPE" not in os.environ else {}
    return best if target is None else {**best, OURS: target, **PEERS.get(target, {})}


def in_force(target: str | None) -> bool:
    """Whether this process was started under ``environment(target)``."""
    return all(os.environ.get(name) == value for name, value in environment(target).items())


def bound(plan: Plan, ours: bool) -> str | None:
    """The target to which an engine of a scan suite is held in this run, or None for its best."""
    return plan.target if ours or plan.target in PEERS else None


def rerun(target: str | None, arguments: Sequence[str]) -> NoReturn:
    """Becomes ``python -m benchmarks`` with the same arguments under ``environment(target)``.

    The same process goes on: whoever stops it reaches the run itself, which then writes down what it has.
    """
    path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH")) if part)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, "-m", "benchmarks", *arguments], {**os.environ, **environment(target), "PYTHONPATH": path})
