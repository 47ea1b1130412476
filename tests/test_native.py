"""The native tests (tests/native), built without a sanitizer; `make sanitize` builds and runs the same program with AddressSanitizer, with
UndefinedBehaviorSanitizer and with ThreadSanitizer."""

from __future__ import annotations

import os
import platform
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "tests/native/build.py"
COMPILERS = shlex.split(os.environ.get("CXX", "g++"))
COMPILER = COMPILERS[0]


def build(*options: str) -> subprocess.CompletedProcess[str]:
    settings = {"NF_SANITIZE", "NEARFIELD_TARGET", "NEARFIELD_THREADS"}
    environment = {name: value for name, value in os.environ.items() if name not in settings}
    command = [sys.executable, str(BUILD), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"needs a compiler ({COMPILER})")
def test_the_native_tests_pass() -> None:
    done = build()
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    assert " 0 failed checks" in done.stdout


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"needs a compiler ({COMPILER})")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="looks for the instruction of x86")
def test_the_compiler_keeps_the_prefetches_of_a_walk() -> None:
    # csrc/base/prefetch.h says how gcc may drop them; nothing but speed would show it.
    source = ROOT / "csrc/graph/walker.cpp"
    command = [*COMPILERS, "-std=c++17", "-O3", "-DNDEBUG", "-fPIC", "-S", f"-I{ROOT / 'csrc'}", str(source), "-o", "-"]
    assembly = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout
    for name in ("Walker4step", "Walker5start"):
        begin = re.search(rf"^_ZN2nf5graph6{name}\w*:$", assembly, re.MULTILINE)
        assert begin is not None, name
        body = assembly[begin.end() : assembly.index(".size", begin.end())]
        assert body.count("prefetcht") >= 1, name


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"needs a compiler ({COMPILER})")
@pytest.mark.parametrize(
    ("sanitizer", "fault", "report"),
    [
        ("thread", "race", "WARNING: ThreadSanitizer: data race"),
        ("address,undefined", "overread", "ERROR: AddressSanitizer: heap-buffer-overflow"),
    ],
)
def test_a_sanitizer_reports_a_fault_in_the_engine(sanitizer: str, fault: str, report: str) -> None:
    """The same settings as `make sanitize`: a clean report there means something."""
    right = build("--faults", "--sanitize", sanitizer, "right")
    assert right.returncode == 0, right.stderr[-3000:]
    assert "Sanitizer" not in right.stderr
    wrong = build("--faults", "--sanitize", sanitizer, fault)
    assert wrong.returncode != 0
    assert report in wrong.stderr
    assert "csrc/codec/rows.cpp" in wrong.stderr, "the engine's objects are compiled with the sanitizer, not only the test's"


def test_the_native_tests_and_the_engine_are_compiled_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NF_SANITIZE", raising=False)
    setup = runpy.run_path(str(ROOT / "setup.py"), run_name="nearfield_setup")
    assert ROOT / "csrc/kernels/dot_f32/avx2.cpp" in setup["SOURCES"]
    assert setup["ON_X86"] == ("-mavx2" in setup["flags_of"](ROOT / "csrc/kernels/dot_f32/avx2.cpp"))
    assert "-mavx2" not in setup["flags_of"](ROOT / "tests/native/avx2.cpp")
    monkeypatch.setenv("NF_SANITIZE", "thread")
    assert "-fsanitize=thread" in setup["flags_of"](ROOT / "tests/native/test_score.cpp")
    assert "-fno-sanitize-recover=all" in setup["flags_of"](ROOT / "csrc/score/scan.cpp")


def test_no_file_is_compiled_with_flags_that_change_values_or_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NF_SANITIZE", raising=False)
    setup = runpy.run_path(str(ROOT / "setup.py"), run_name="nearfield_setup")
    banned = re.compile(
        r"-Ofast|-fopenmp|-march=native|-mtune=native|-flto|-ffast-math|-funsafe|-fassociative|-freciprocal|-ffinite|-fno-signed-zeros"
    )
    for source in setup["SOURCES"]:
        flags = setup["flags_of"](source)
        assert not [flag for flag in flags if banned.match(flag)], source
        assert [flag for flag in flags if flag.startswith("-ffp-contract")] == ["-ffp-contract=off"], source
        if setup["ON_X86"]:
            assert [flag for flag in flags if flag.startswith("-march")] == ["-march=x86-64"], source
