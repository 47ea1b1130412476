"""Each suite in a process of its own: what one of them loads, holds or breaks cannot touch the next.

The process that was started keeps machine, ceilings and tables; a fresh one reads the plan from a folder, runs one suite and leaves its
rows there: pickled, for only this user can read or write the folder, and both ends are this code. It inherits the environment, and with it
what holds the libraries (``held.py``).
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from benchmarks import suites
from benchmarks.core.own import BadData
from benchmarks.core.plan import ROOT, Plan
from benchmarks.core.results import Row

PLAN, ANSWER, SO_FAR = "plan", "answer", "so far"
STDERR = 2
COMMAND = (sys.executable, "-c", "import sys; from benchmarks.core import apart; sys.exit(apart.main(sys.argv[1:]))")


@dataclass(frozen=True)
class Outcome:
    """What became of a suite.

    Attributes:
        rows: all of them, or where it failed those that it had handed over by then (``Plan.so_far``).
        skipped: lines about peers that were not there.
        error: one line, None where it ended well.
        stopped: whether somebody wants no more of it (Ctrl-C, or SIGTERM).
    """

    rows: list[Row] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    error: str | None = None
    stopped: bool = False


def run(name: str, plan: Plan, command: Sequence[str] = COMMAND) -> Outcome:
    """Runs a suite in a fresh process; its progress and its traceback, if any, go to stderr.

    Args:
        name: of ``suites.SUITES``.
        plan: with the ceilings that were measured.
        command: another one in tests.

    Raises:
        BadData: the caller's own data are not what this suite needs.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / PLAN).write_bytes(pickle.dumps(replace(plan, skipped=[])))
        # stdout belongs to the tables and to --json: what a library prints goes where the progress goes.
        try:
            done = subprocess.run([*command, name, folder], env=environment(plan), stdout=STDERR, check=False)
        except KeyboardInterrupt:
            return replace(_so_far(Path(folder)), error="it was stopped", stopped=True)
        answer = Path(folder) / ANSWER
        # A process that has answered and then breaks while it ends has done its work.
        said: Outcome | BadData
        said = pickle.loads(answer.read_bytes()) if answer.is_file() else replace(_so_far(Path(folder)), error=_ended(done.returncode))
    if isinstance(said, BadData):
        raise said
    return said


def environment(plan: Plan) -> dict[str, str]:
    """The variables of the fresh process, which those that it starts inherit.

    Where Python is told to keep no compiled modules (``PYTHONDONTWRITEBYTECODE``), every import compiles anew: torch takes 5.6 s instead of
    2. That is not what is measured, so they are kept in the suite's own cache.
    """
    out = dict(os.environ)
    if out.pop("PYTHONDONTWRITEBYTECODE", ""):
        out.setdefault("PYTHONPYCACHEPREFIX", str(plan.cache.resolve() / "pycache"))
    out["PYTHONPATH"] = os.pathsep.join(part for part in (str(ROOT), out.get("PYTHONPATH")) if part)
    return out


def _so_far(folder: Path) -> Outcome:
    """What a suite that gave no answer had handed over."""
    file = folder / SO_FAR
    found: Outcome = pickle.loads(file.read_bytes()) if file.is_file() else Outcome()
    return found


def _leave(folder: Path, name: str, said: Outcome | BadData) -> None:
    """Writes a file that is whole or not there."""
    part = folder / "part"
    part.write_bytes(pickle.dumps(said))
    os.replace(part, folder / name)


def _ended(status: int) -> str:
    """What is known of a process that said nothing."""
    if status < 0:
        return f"its process was ended by signal {-status} ({signal.Signals(-status).name})"
    return f"its process ended with status {status} and no answer"


def main(arguments: Sequence[str]) -> int:
    """The fresh process: SUITE FOLDER. Returns 0, or 1 after a traceback where the suite raised."""
    name, folder = arguments[0], Path(arguments[1])
    plan: Plan = pickle.loads((folder / PLAN).read_bytes())
    plan.so_far = lambda rows: _leave(folder, SO_FAR, Outcome(list(rows), plan.skipped))
    said: Outcome | BadData
    try:
        if find_spec("onnxruntime"):
            # Loaded for the first time after torch, faiss, usearch and matplotlib, onnxruntime 1.32 ended the process with a segmentation
            # fault; loaded before them it does not.
            import_module("onnxruntime")
        said = Outcome(suites.load(name)(plan), plan.skipped)
    except BadData as error:
        said = error
    except Exception as error:  # whatever it is, the other suites go on
        traceback.print_exc()
        said = Outcome(_so_far(folder).rows, plan.skipped, " ".join(f"{type(error).__name__}: {error}".split()))
    _leave(folder, ANSWER, said)
    return int(isinstance(said, Outcome) and said.error is not None)
