"""The Arm kernels on an x86 machine: cross-compiled with the flags of the build, run under qemu's user emulation."""

from __future__ import annotations

import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
SOURCES = [*ROOT.glob("csrc/kernels/*/*.cpp"), *ROOT.glob("csrc/kernels/*.cpp"), *ROOT.glob("csrc/simd/*.cpp")]


@pytest.mark.skipif(
    shutil.which(COMPILER) is None or shutil.which(EMULATOR) is None, reason="needs apt-get install g++-aarch64-linux-gnu qemu-user"
)
def test_arm_kernels_agree_with_scalar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    build = runpy.run_path(str(ROOT / "setup.py"), run_name="nearfield_setup")
    objects = []
    for source in [*SOURCES, ROOT / "tests/native/arm.cpp"]:
        target = tmp_path / f"{source.parent.name}-{source.stem}.o"
        subprocess.run([COMPILER, *build["flags_of"](source), "-O1", "-c", str(source), "-o", str(target)], check=True)
        objects.append(str(target))
    program = tmp_path / "arm"
    subprocess.run([COMPILER, "-static", "-pthread", *objects, "-o", str(program)], check=True)
    done = subprocess.run([EMULATOR, "-cpu", "max", str(program)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    active, measured, forced = done.stdout.split()
    assert active == forced == "neon_dotprod"
    assert measured in {"scalar", "neon_dotprod"}
    plain = subprocess.run([EMULATOR, "-cpu", "cortex-a53", str(program)], capture_output=True, text=True, timeout=300, check=False)
    assert plain.returncode != 0  # this CPU has no DOTPROD: the instructions really are in the program
