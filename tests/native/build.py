"""Builds and runs the native tests: the engine without its bindings, linked with ``tests/native/*.cpp``, no Python in the process.

    python tests/native/build.py                                plain, from the objects of the installed engine where these are fresh
    python tests/native/build.py --sanitize address,undefined   with a sanitizer, under build/
    python tests/native/build.py --build-only                   prints the program's path and does not run it
    python tests/native/build.py --faults                       builds and runs faults.cpp instead: what a sanitizer must report

Other arguments go to the program: names of tests, or parts of them. Sources and flags come from setup.py.
"""

from __future__ import annotations

import argparse
import logging
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "tests" / "native"


def build(*, faults: bool = False) -> Path:
    """Compiles what is not fresh, links, and returns the program's path. ``NF_SANITIZE`` chooses a sanitizer, as for setup.py."""
    setup: dict[str, Any] = runpy.run_path(str(ROOT / "setup.py"), run_name="nearfield_setup")
    engine = [path for path in setup["SOURCES"] if not path.is_relative_to(setup["CSRC"] / "bindings")]
    program: Path = setup["object_folder"]() / ("native_faults" if faults else "native_tests")
    sanitize = os.environ.get("NF_SANITIZE")
    extra = [f"-fsanitize={sanitize}"] if sanitize else []

    def link(objects: list[Path]) -> None:
        unfinished = program.with_suffix(".tmp")
        subprocess.run([*setup["compiler"](), "-pthread", *extra, *map(str, objects), "-o", str(unfinished)], check=True)
        unfinished.replace(program)

    if faults:  # the parts of the engine that they need, compiled as in the whole
        engine = [setup["CSRC"] / name for name in ("codec/rows.cpp", "parallel/pool.cpp")]
    tests = [NATIVE / "faults.cpp"] if faults else [NATIVE / "oracle.cpp", *sorted(NATIVE.glob("test_*.cpp"))]
    setup["compile_all"]([*engine, NATIVE / "harness.cpp", *tests], [], link)
    return program


def launcher() -> list[str]:
    """gcc 12's ThreadSanitizer needs its shadow memory where newer kernels may already have put something at random: no randomness then."""
    if os.environ.get("NF_SANITIZE") != "thread" or shutil.which("setarch") is None:
        return []
    without = ["setarch", "-R"]
    return without if subprocess.run([*without, "true"], capture_output=True, check=False).returncode == 0 else []


def main() -> int:
    parser = argparse.ArgumentParser(description="Builds and runs the native tests.")
    parser.add_argument("--sanitize", help="address,undefined or thread")
    parser.add_argument("--build-only", action="store_true")
    parser.add_argument("--faults", action="store_true")
    options, names = parser.parse_known_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.sanitize:
        os.environ["NF_SANITIZE"] = options.sanitize
    program = build(faults=options.faults)
    if options.build_only:
        print(program)
        return 0
    return subprocess.run([*launcher(), str(program), *names], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
