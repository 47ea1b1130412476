"""A commit as a folder with its native engine built, kept in the cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.core.plan import ROOT


def resolve(commit: str) -> str:
    """The full name of a commit.

    Raises:
        ValueError: git knows none of this name.
    """
    done = subprocess.run(
        ["git", "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ValueError(f"{commit!r}: no commit of this repository")
    return done.stdout.strip()


def built(commit: str, cache: Path) -> Path:
    """The folder of a commit, made and built when it is not there yet."""
    folder = cache / "compare" / commit[:12]
    if not (folder / "setup.py").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        archive = subprocess.run(["git", "archive", "--format=tar", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True)
        subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    build(folder)
    return folder


def build(folder: Path) -> None:
    """Compiles what is not fresh."""
    subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=folder, check=True)


def environment(folder: Path) -> dict[str, str]:
    """Variables with which Python finds the ``nearfield`` of this folder first.

    Packed weights are kept apart: another commit may lay them out otherwise, and read without a word what is not its own.
    """
    return {**os.environ, "PYTHONPATH": str(folder / "python"), "NEARFIELD_CACHE": str(folder / "build" / "weights")}
