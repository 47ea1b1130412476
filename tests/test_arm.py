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
NATIVE = ROOT / "tests" / "native"
ENCODER = ("test_encoder_kernels.cpp", "test_encoder_linear.cpp", "test_encoder_rows.cpp")

pytestmark = pytest.mark.skipif(
    shutil.which(COMPILER) is None or shutil.which(EMULATOR) is None, reason="needs apt-get install g++-aarch64-linux-gnu qemu-user"
)


def compiled(sources: list[Path], folder: Path) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("platform.machine", lambda: "aarch64")
        build = runpy.run_path(str(ROOT / "setup.py"), run_name="nearfield_setup")
        objects = []
        for source in sources:
            target = folder / f"{source.parent.name}-{source.stem}.o"
            subprocess.run([COMPILER, *build["flags_of"](source), "-O1", "-c", str(source), "-o", str(target)], check=True)
            objects.append(str(target))
    return objects


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return compiled(SOURCES, tmp_path_factory.mktemp("arm"))


def linked(objects: list[str], program: Path) -> Path:
    subprocess.run([COMPILER, "-static", "-pthread", *objects, "-o", str(program)], check=True)
    return program


def test_arm_kernels_agree_with_scalar(kernels: list[str], tmp_path: Path) -> None:
    program = linked([*kernels, *compiled([NATIVE / "arm.cpp"], tmp_path)], tmp_path / "arm")
    done = subprocess.run([EMULATOR, "-cpu", "max", str(program)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    active, measured, forced = done.stdout.split()
    assert active == forced == "neon_dotprod"
    assert measured in {"scalar", "neon_dotprod"}
    plain = subprocess.run([EMULATOR, "-cpu", "cortex-a53", str(program)], capture_output=True, text=True, timeout=300, check=False)
    assert plain.returncode != 0  # this CPU has no DOTPROD: the instructions really are in the program


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_arm_encoder_kernels_agree_with_float64(kernels: list[str], tmp_path: Path) -> None:
    """The native tests of the encoder's kernels, as they stand: they run on every target of the machine, here scalar and neon_dotprod."""
    sources = [NATIVE / name for name in (*ENCODER, "harness.cpp", "oracle.cpp")]
    program = linked([*kernels, *compiled(sources, tmp_path)], tmp_path / "encoder")
    done = subprocess.run([EMULATOR, "-cpu", "max", str(program)], capture_output=True, text=True, timeout=2000, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    assert "4 tests, 0 failed checks" in done.stdout
