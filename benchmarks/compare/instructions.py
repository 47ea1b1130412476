"""Instructions of a workload as callgrind counts them, the same on a busy machine. It knows AVX2 at most, so that is the target."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# Calls of the two runs whose difference is counted: what comes before the calls cancels out.
FEW, MORE = 2, 8
WORKER = Path(__file__).with_name("worker.py")


def missing() -> str | None:
    """Why nothing can be counted here, or None."""
    return None if shutil.which("valgrind") else "valgrind is not installed"


def per_call(name: str, environment: dict[str, str]) -> float:
    """Instructions of one call.

    Raises:
        RuntimeError: the run failed; its last line stands in the message.
    """
    few, more = (_counted(name, calls, environment) for calls in (FEW, MORE))
    return (more - few) / (MORE - FEW)


def _counted(name: str, calls: int, environment: dict[str, str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", "--vex-guest-max-insns=25"]
        held = {
            **os.environ,
            **environment,
            "NEARFIELD_TARGET": "avx2",
            "PYTHONHASHSEED": "0",
            "OPENBLAS_NUM_THREADS": "1",
            "NEARFIELD_THREADS": "1",
        }
        done = subprocess.run(
            [*command, sys.executable, str(WORKER), "count", name, str(calls)], env=held, capture_output=True, text=True, check=False
        )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no output"])[-1])
    return int(found[1])
