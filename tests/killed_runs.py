"""Runs of the command line that are killed at a chosen moment, as kill -9 does. Started as a program it is the server that forks them.

A fork of a process that has torch imported begins to work at once, so that the kills fall into the run and not into its imports.
The server reads a job a line (JSON: arguments, folder, seconds, event, within) and answers a line (status, events, seconds, stderr).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What changes a folder; "open" counts where it may write.
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code or minus the signal, file changes it made, seconds, and what it said on stderr."""

    status: int
    events: int
    seconds: float
    stderr: str

    @property
    def killed(self) -> bool:
        return self.status == -signal.SIGKILL


class Server:
    """The forking process, seen from the tests."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def run(self, arguments: list[str], folder: Path, *, seconds: float | None = None, event: int | None = None, within: str = "") -> Ended:
        """Runs a command, killed after ``seconds``, or before the ``event``-th change of a path below ``folder`` that holds ``within``."""
        job = {"arguments": arguments, "folder": str(folder), "seconds": seconds, "event": event, "within": within}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return Ended(**json.loads(self.process.stdout.readline()))


@contextmanager
def server() -> Iterator[Server]:
    with subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Server(process)
        assert process.stdin is not None
        process.stdin.close()


def serve() -> None:
    import onnx
    import torch
    import transformers

    import nearfield.workflow

    # These load parts of themselves when first used.
    _ = onnx.helper, transformers.AutoModel, transformers.BertModel, torch.onnx.export, nearfield.workflow.tune
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)


def _answer(job: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    said = Path(job["folder"]) / "stderr.txt"
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _work(job, writing, said)
    os.close(writing)
    limit = job["seconds"] if job["seconds"] is not None else 120.0
    status = None
    while status is None:
        done, code = os.waitpid(child, os.WNOHANG)
        status = os.waitstatus_to_exitcode(code) if done else None
        if status is None and time.monotonic() - begun >= limit:
            os.kill(child, signal.SIGKILL)
            limit = float("inf")
        time.sleep(0.001)
    with os.fdopen(reading, "rb") as counted:
        events = len(counted.read())
    return {"status": status, "events": events, "seconds": time.monotonic() - begun, "stderr": said.read_text()}


def _work(job: dict[str, Any], counter: int, said: Path) -> None:
    """The child: runs the command and never returns. Each change writes one byte to ``counter``, which outlives a kill."""
    from nearfield.cli import main

    handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    seen = 0

    def hook(event: str, values: tuple[Any, ...]) -> None:
        nonlocal seen
        if event != "open" and event not in CHANGES:
            return
        path = values[0] if isinstance(values[0], (str, os.PathLike)) else ""
        name = os.fspath(path)
        if not isinstance(name, str) or not name.startswith(job["folder"]) or job["within"] not in name:
            return
        if event == "open" and not (isinstance(values[2], int) and values[2] & WRITING):
            return
        seen += 1
        os.write(counter, b".")
        if seen == job["event"]:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    code = 99
    try:
        main(job["arguments"])
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
