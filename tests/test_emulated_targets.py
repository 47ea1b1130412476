"""The kernels of x86 targets that this machine may lack: compiled against plain C for every intrinsic, and compared with scalar."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
KERNELS = {
    "dot_f32": ["avx512"],
    "l2sqr_f32": ["avx512"],
    "dot_i8": ["avx512"],
    "scan_1bit": ["avx512"],
    "dot_bf16": ["amx"],
    "scan_i8": ["avxvnni", "avx512", "avx512vnni", "amx"],
}
HEADER = Path("/usr/include/simde/x86/avx512.h")


@pytest.mark.skipif(not HEADER.exists() or shutil.which("g++") is None, reason="needs g++ and SIMDe (apt-get install libsimde-dev)")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the kernel files are empty elsewhere")
def test_emulated_kernels_agree_with_scalar(tmp_path: Path) -> None:
    # tests/native/immintrin.h comes before the compiler's own; the compiler itself stays at the baseline.
    native = ROOT / "tests/native"
    sources = [str(ROOT / f"csrc/kernels/{kernel}/{target}.cpp") for kernel, targets in KERNELS.items() for target in ("scalar", *targets)]
    command = [
        "g++",
        "-std=c++17",
        "-O1",
        "-w",
        "-ffp-contract=off",
        # A kernel that reads a byte beyond its rows or queries ends the program.
        "-fsanitize=address,undefined",
        "-fno-sanitize=signed-integer-overflow",  # SIMDe adds lanes as signed vectors, which wrap as the instruction does
        "-fno-sanitize-recover=all",
        f"-I{native}",
        f"-I{ROOT / 'csrc'}",
        *sources,
        str(ROOT / "csrc/codec/halves.cpp"),
        str(native / "emulated.cpp"),
    ]
    built = subprocess.run([*command, "-o", str(tmp_path / "check")], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[-3000:]
    done = subprocess.run([str(tmp_path / "check")], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert done.stdout.split() == ["avx512"] * 4 + ["scalar", *KERNELS["scan_i8"], "scalar", *KERNELS["dot_bf16"]]
