"""Builds ``nearfield._core``: every ``csrc/**/*.cpp``, one object per file, each with the flags its folder is entitled to.

setuptools knows no per-file flags, and giving the whole library ``-mavx2`` would let inline functions of the standard library
become AVX code that an older CPU runs too. So objects are compiled here one by one: only ``csrc/kernels/<kernel>/<target>.cpp``
gets instruction-set flags. An object is rebuilt when its source, a header it includes or its command line changed.

Environment: ``NF_SANITIZE=address,undefined`` or ``thread`` builds with that sanitizer; ``NF_BUILD_JOBS`` sets the number of
compilers at a time (default 2).
"""

from __future__ import annotations

import fcntl
import os
import platform
import runpy
import shlex
import subprocess
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
VERSION: str = runpy.run_path(str(ROOT / "python/nearfield/_version.py"))["__version__"]

# No -ffast-math (NaN and rounding stay meaningful), no contraction (a * b + c means two roundings unless a kernel says fma).
COMMON = [
    *("-std=c++17", "-fPIC", "-O3", "-DNDEBUG", "-fvisibility=hidden", "-pthread"),
    *("-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra"),
]
X86_BASELINE = ["-march=x86-64", "-mtune=generic"]
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
# gcc 12's own AVX-512 header trips its uninitialized warning: https://gcc.gnu.org/bugzilla/show_bug.cgi?id=105593
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-Wno-uninitialized", "-Wno-maybe-uninitialized"]
X86_TARGETS = {
    "avx2": AVX2,
    "avxvnni": [*AVX2, "-mavxvnni"],
    "avx512": AVX512,
    "avx512vnni": [*AVX512, "-mavx512vnni"],
    "avx512bf16": [*AVX512, "-mavx512bf16"],
    "amx": [*AVX512, "-mavx512vnni", "-mamx-tile", "-mamx-int8", "-mamx-bf16"],
}
ARM_TARGETS = {"neon_dotprod": ["-march=armv8.2-a+dotprod"]}
MACHINE = platform.machine().lower()
ON_X86 = MACHINE in {"x86_64", "amd64"}
TARGET_FLAGS = X86_TARGETS if ON_X86 else ARM_TARGETS if MACHINE in {"aarch64", "arm64"} else {}


def flags_of(source: Path) -> list[str]:
    """The compiler flags of one source file, without include paths."""
    flags = list(COMMON)
    if ON_X86:
        flags += X86_BASELINE
    parts = source.relative_to(ROOT / "csrc").parts
    if len(parts) == 3 and parts[0] == "kernels":
        flags += TARGET_FLAGS.get(source.stem, [])
    if source.match("csrc/bindings/module.cpp"):
        flags.append(f'-DNEARFIELD_VERSION="{VERSION}"')
    sanitize = os.environ.get("NF_SANITIZE")
    if sanitize:
        flags += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all", "-g", "-O1"]
    return flags


def is_fresh(target: Path, depfile: Path, cmdfile: Path, command: str) -> bool:
    """True when the object is newer than everything it was made from and was made by the same command."""
    if not (target.exists() and depfile.exists() and cmdfile.exists()) or cmdfile.read_text() != command:
        return False
    made = target.stat().st_mtime_ns
    listed = depfile.read_text().replace("\\\n", " ").split(":", 1)[-1].split()
    return all(os.path.exists(name) and os.stat(name).st_mtime_ns <= made for name in listed)


class BuildNative(build_ext):
    """Compiles object by object (see the module docstring), then links once."""

    def build_extension(self, ext: Extension) -> None:
        import pybind11

        sanitize = os.environ.get("NF_SANITIZE", "").replace(",", "-")
        # Not setuptools' build_temp: pip makes a new one each time, and every install would compile everything again.
        temp = ROOT / "build" / "-".join(filter(None, ("native", sysconfig.get_config_var("SOABI"), sanitize)))
        temp.mkdir(parents=True, exist_ok=True)
        compiler = os.environ.get("CXX", "g++")
        includes = [f"-I{ROOT / 'csrc'}", f"-I{pybind11.get_include()}", *(f"-I{path}" for path in self.compiler.include_dirs)]
        # Two builds in one tree take turns, or they would link each other's half-written objects.
        with open(temp / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            jobs = int(os.environ.get("NF_BUILD_JOBS", "2"))
            with ThreadPoolExecutor(jobs) as pool:
                objects = list(pool.map(lambda name: self.compile(compiler, ROOT / name, temp, includes), ext.sources))
            self.link(compiler, ext, objects)

    def compile(self, compiler: str, source: Path, temp: Path, includes: list[str]) -> Path:
        target = temp / source.relative_to(ROOT / "csrc").with_suffix(".o")
        target.parent.mkdir(parents=True, exist_ok=True)
        depfile, cmdfile = target.with_suffix(".d"), target.with_suffix(".cmd")
        parts = [*shlex.split(compiler), *flags_of(source), *includes, "-MMD", "-MF", str(depfile), "-c", str(source), "-o", str(target)]
        command = shlex.join(parts)
        if not is_fresh(target, depfile, cmdfile, command):
            cmdfile.unlink(missing_ok=True)
            self.announce(f"compiling {source.relative_to(ROOT)}", level=2)
            started = time.time_ns()
            subprocess.run(parts, check=True)
            # Dated by its beginning: a source that is saved while it compiles makes the object stale.
            os.utime(target, ns=(started, started))
            cmdfile.write_text(command)
        return target

    def link(self, compiler: str, ext: Extension, objects: list[Path]) -> None:
        path = Path(self.get_ext_fullpath(ext.name)).resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(path.name + ".tmp")
        sanitize = os.environ.get("NF_SANITIZE")
        extra = [f"-fsanitize={sanitize}"] if sanitize else ["-Wl,--strip-debug"]
        subprocess.run([*shlex.split(compiler), "-shared", "-pthread", *extra, *map(str, objects), "-o", str(unfinished)], check=True)
        # A process that has the old library mapped keeps it; the next import sees the new one.
        unfinished.replace(path)


SOURCES = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("csrc/**/*.cpp"))

setup(
    ext_modules=[Extension("nearfield._core", SOURCES, depends=sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("csrc/**/*.h")))],
    cmdclass={"build_ext": BuildNative},
)
