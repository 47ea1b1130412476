"""Builds ``nearfield._core``: every ``csrc/**/*.cpp``, one object per file, each with the flags its folder is entitled to.

setuptools knows no per-file flags, and giving the whole library ``-mavx2`` would let inline functions of the standard library
become AVX code that an older CPU runs too. So objects are compiled here one by one: only ``csrc/kernels/<kernel>/<target>.cpp``
gets instruction-set flags. An object is rebuilt when its source, a header it includes or its command line changed.
``tests/native/build.py`` takes sources, flags and compiled objects from here, so that what it checks is what is shipped.

Environment: ``NF_SANITIZE=address,undefined`` or ``thread`` builds with that sanitizer; ``NF_BUILD_JOBS`` sets the number of
compilers at a time (default: the cores this process may use).
"""

from __future__ import annotations

import fcntl
import functools
import logging
import os
import platform
import runpy
import shlex
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"
VERSION: str = runpy.run_path(str(ROOT / "python/nearfield/_version.py"))["__version__"]

# -ffp-contract=off: a * b + c means two roundings unless a kernel says fma. -fno-math-errno: sqrt is one instruction, of the same value.
# tests/test_native.py refuses what would change values or the CPUs served: -ffast-math and its parts, -march=native, OpenMP.
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
    "avx512fp16": [*AVX512, "-mavx512fp16"],
    "amx": [*AVX512, "-mavx512vbmi", "-mavx512vnni", "-mavx512bf16", "-mamx-tile", "-mamx-int8", "-mamx-bf16"],
}
ARM_TARGETS = {"neon_dotprod": ["-march=armv8.2-a+dotprod"]}
MACHINE = platform.machine().lower()
ON_X86 = MACHINE in {"x86_64", "amd64"}
TARGET_FLAGS = X86_TARGETS if ON_X86 else ARM_TARGETS if MACHINE in {"aarch64", "arm64"} else {}


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def compiler() -> list[str]:
    return shlex.split(os.environ.get("CXX", "g++"))


@functools.cache
def knows(flag: str, compiler: tuple[str, ...]) -> bool:
    """Whether the compiler takes the flag."""
    return subprocess.run([*compiler, flag, "-x", "c++", "-fsyntax-only", os.devnull], capture_output=True).returncode == 0


def flags_of(source: Path) -> list[str]:
    """The compiler flags of one source file, without the include paths of Python."""
    flags = [*COMMON, f"-I{CSRC}"]
    target = TARGET_FLAGS.get(source.stem, []) if source.parent.parent == CSRC / "kernels" else []
    if ON_X86:
        flags += X86_BASELINE
        # gcc 11, Ubuntu 22.04's, has AMX and no float16: its builds leave that kernel out.
        if not knows("-mavx512fp16", tuple(compiler())):
            flags.append("-DNF_WITHOUT_AVX512FP16")
            target = [flag for flag in target if flag != "-mavx512fp16"]
    flags += target
    if source.match("csrc/bindings/module.cpp"):
        flags.append(f'-DNEARFIELD_VERSION="{VERSION}"')
    sanitize = os.environ.get("NF_SANITIZE")
    if sanitize:
        flags += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all", "-g", "-O1", "-D_GLIBCXX_ASSERTIONS"]
    return flags


def is_fresh(target: Path, depfile: Path, cmdfile: Path, command: str) -> bool:
    """True when the object is newer than everything it was made from and was made by the same command."""
    if not (target.exists() and depfile.exists() and cmdfile.exists()) or cmdfile.read_text() != command:
        return False
    made = target.stat().st_mtime_ns
    listed = depfile.read_text().replace("\\\n", " ").split(":", 1)[-1].split()
    return all(os.path.exists(name) and os.stat(name).st_mtime_ns <= made for name in listed)


def object_folder() -> Path:
    """Where objects made with these settings lie."""
    # Not setuptools' build_temp: pip makes a new one each time, and every install would compile everything again.
    sanitize = os.environ.get("NF_SANITIZE", "").replace(",", "-")
    folder = ROOT / "build" / "-".join(filter(None, ("native", sysconfig.get_config_var("SOABI"), sanitize)))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def compile_one(source: Path, target: Path, includes: list[str]) -> Path:
    """Compiles one file unless its object is fresh; returns the object's path."""
    target.parent.mkdir(parents=True, exist_ok=True)
    depfile, cmdfile = target.with_suffix(".d"), target.with_suffix(".cmd")
    parts = [*compiler(), *flags_of(source), *includes, "-MMD", "-MF", str(depfile), "-c", str(source), "-o", str(target)]
    command = shlex.join(parts)
    if not is_fresh(target, depfile, cmdfile, command):
        cmdfile.unlink(missing_ok=True)
        logging.info("compiling %s", source.relative_to(ROOT))
        started = time.time_ns()
        subprocess.run(parts, check=True)
        # Dated by its beginning: a source that is saved while it compiles makes the object stale.
        os.utime(target, ns=(started, started))
        cmdfile.write_text(command)
    return target


def compile_all(sources: list[Path], includes: list[str], link: Callable[[list[Path]], None]) -> None:
    """Compiles the sources (those outside bindings/ without ``includes``, which they do not need), then calls ``link`` with the objects."""
    folder = object_folder()

    def compile_in(source: Path) -> Path:
        target = folder / source.relative_to(CSRC if source.is_relative_to(CSRC) else ROOT).with_suffix(".o")
        return compile_one(source, target, includes if source.is_relative_to(CSRC / "bindings") else [])

    # Two builds in one tree take turns, or they would link each other's half-written objects.
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with ThreadPoolExecutor(int(os.environ.get("NF_BUILD_JOBS") or usable_cores())) as pool:
            link(list(pool.map(compile_in, sources)))


class BuildNative(build_ext):
    """Compiles object by object (see the module docstring), then links once."""

    def build_extension(self, ext: Extension) -> None:
        import pybind11

        includes = [f"-I{pybind11.get_include()}", *(f"-I{path}" for path in self.compiler.include_dirs)]
        compile_all([ROOT / name for name in ext.sources], includes, lambda objects: self.link(ext, objects))

    def link(self, ext: Extension, objects: list[Path]) -> None:
        path = Path(self.get_ext_fullpath(ext.name)).resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(path.name + ".tmp")
        sanitize = os.environ.get("NF_SANITIZE")
        extra = [f"-fsanitize={sanitize}"] if sanitize else ["-Wl,--strip-debug"]
        subprocess.run([*compiler(), "-shared", "-pthread", *extra, *map(str, objects), "-o", str(unfinished)], check=True)
        # A process that has the old library mapped keeps it; the next import sees the new one.
        unfinished.replace(path)


SOURCES = sorted(CSRC.glob("**/*.cpp"))


def names(paths: Iterable[Path]) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in paths)


if __name__ == "__main__":
    setup(
        ext_modules=[Extension("nearfield._core", names(SOURCES), depends=names(CSRC.glob("**/*.h")))],
        cmdclass={"build_ext": BuildNative},
    )
