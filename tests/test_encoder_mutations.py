"""Damaged models through the native encoder: each is encoded with or refused in one line; no crash, no hang, no memory beyond a bound."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from encoder_models import FORMS
from encoder_mutations import KINDS

ROOT = Path(__file__).resolve().parent.parent
COUNTS = {"safetensors": 3_000, "config": 2_000, "tokenizer": 2_000, "pooling": 500, "cache": 1_000, "packed": 1_500}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mutations")
    FORMS[4].make(folder / "model")
    return folder


def outcomes(folder: Path, kind: str, first: int, count: int, **environment: str) -> Counter[str]:
    """Runs so many damages in a process of their own; every one must have an outcome, and none be wrong."""
    words = [sys.executable, str(ROOT / "tests/encoder_mutations.py"), str(folder), kind, str(first), str(count)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, env=os.environ | environment, check=False)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"{kind}: after {len(found)} of {count}: {done.stderr[-3000:]}"
    assert [one["seed"] for one in found] == list(range(first, first + count))
    wrong = [one for one in found if one["outcome"] == "wrong"]
    assert not wrong, (kind, wrong[:3])
    return Counter(one["outcome"] for one in found)


def test_every_kind_of_damage(folder: Path) -> None:
    counted = {kind: outcomes(folder, kind, 0, 15) for kind in KINDS}
    for kind in ("safetensors", "config", "tokenizer", "packed"):
        assert counted[kind]["refused"] >= 3, counted
    assert counted["cache"]["fine"] == 15
    assert sum(one["fine"] for one in counted.values()) > 25, counted


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_10000_damaged_models(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sum(COUNTS.values()) == 10_000
    assert set(COUNTS) == set(KINDS)
    for kind, count in COUNTS.items():
        counted = sum((outcomes(folder, kind, first, 250) for first in range(1_000, 1_000 + count, 250)), Counter[str]())
        with capsys.disabled():
            print(f"\n{kind}: {counted['fine']} fine, {counted['refused']} refused", end="")


def sanitized(folder: Path) -> dict[str, str]:
    """A copy of the package whose engine is built with AddressSanitizer and UndefinedBehaviorSanitizer, as an environment to run it in."""
    package = folder / "sanitized"
    shutil.copytree(ROOT / "python", package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    environment = os.environ | {"NF_SANITIZE": "address,undefined"}
    words = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(package)]
    subprocess.run(words, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=3000)
    libraries = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    # CPython leaks on purpose at its end; the sanitizer's own allocator is told to say "no memory" rather than stop the process.
    options = "detect_leaks=0:allocator_may_return_null=1:handle_segv=1"
    return {"PYTHONPATH": str(package), "LD_PRELOAD": " ".join(libraries), "ASAN_OPTIONS": options, "UBSAN_OPTIONS": "halt_on_error=1"}


@pytest.mark.slow
@pytest.mark.timeout(5400)
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_2000_damaged_models_under_sanitizers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environment = sanitized(folder)
    proof = "import nearfield._core as c; print(c.__file__); print('asan' in open('/proc/self/maps').read())"
    said = subprocess.run(
        [sys.executable, "-c", proof], env=os.environ | environment, capture_output=True, text=True, check=True
    ).stdout.split()
    assert said[0].startswith(str(folder))
    assert said[1] == "True"
    for kind, count in COUNTS.items():
        counted = outcomes(folder, kind, 50_000, count // 5, **environment)
        with capsys.disabled():
            print(f"\n{kind}: {counted['fine']} fine, {counted['refused']} refused", end="")
