"""Importing a library in a fresh process: time, memory, what else it loads; and what it takes on disk.

Files are in the page cache after the warm-up. The clock starts inside the new interpreter, whose own start is the same for all.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import nearfield
from benchmarks.core.peers import Engine, present
from benchmarks.core.plan import ROOT, Plan
from benchmarks.core.results import Row
from benchmarks.core.timing import Series

# What a process loads without asking for it is what its users wait for; these are the large ones.
LARGE = ("numpy", "scipy", "torch", "transformers", "onnxruntime", "tokenizers", "numba", "sklearn", "pyarrow", "pandas")
# A quick run leaves out those that take seconds.
SLOW = ("openvino", "torch", "sentence-transformers")
# In megabytes of 10^6 bytes, as package indexes count.
MB = 1e6

CHILD = """
import json, os, re, sys, time
def resident():
    with open("/proc/self/status") as file:
        return int(re.search(r"VmRSS:\\s*(\\d+) kB", file.read())[1]) * 1024
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
modules, before, start = set(sys.modules), resident(), time.perf_counter()
exec(sys.argv[1])
seconds = time.perf_counter() - start
new = set(sys.modules) - modules
names = sorted({name.partition(".")[0] for name in new})
print(json.dumps({"seconds": seconds, "bytes": resident() - before, "modules": names, "count": len(new)}))
"""


@dataclass(frozen=True)
class Import(Engine):
    """A library and the statement that loads it."""

    code: str = ""


def _peer(distribution: str, module: str) -> Import:
    return Import(distribution, dict, distribution, (module,), code=f"import {module}")


ENGINES = (
    Import("nearfield", dict, code="import nearfield"),
    Import("nearfield, with its native engine", dict, code="import nearfield; nearfield.FlatIndex(2)"),
    Import("nearfield, with the native encoder", dict, code="import nearfield; nearfield.Encoder"),
    Import("numpy", dict, "numpy", ("numpy",), code="import numpy"),
    _peer("hnswlib", "hnswlib"),
    _peer("faiss-cpu", "faiss"),
    _peer("usearch", "usearch.index"),
    _peer("voyager", "voyager"),
    _peer("onnxruntime", "onnxruntime"),
    _peer("tokenizers", "tokenizers"),
    _peer("openvino", "openvino"),
    _peer("torch", "torch"),
    _peer("sentence-transformers", "sentence_transformers"),
)


def run(plan: Plan) -> list[Row]:
    """All rows of the suite."""
    engines: list[Import] = present([engine for engine in ENGINES if not (plan.quick and engine.name in SLOW)], plan)  # type: ignore[assignment]
    plan.say(f"import: {len(engines)} libraries, {plan.rounds} rounds of fresh processes")
    found: dict[str, list[dict[str, Any]]] = {engine.name: [] for engine in engines}
    for number in range(plan.rounds + 1):
        for engine in engines:
            answer = in_fresh_process(engine.code)
            if number:
                found[engine.name].append(answer)
    rows = [_time_row(engine, found[engine.name]) for engine in engines]
    return rows + [row for engine in engines if (row := _size_row(engine)) is not None]


def in_fresh_process(code: str) -> dict[str, Any]:
    """Seconds, bytes, modules and their count of running ``code`` in a new interpreter.

    Raises:
        RuntimeError: it failed; the last line of its error stands in the message.
    """
    done = subprocess.run([sys.executable, "-c", CHILD, code], capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{code}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def _time_row(engine: Import, answers: list[dict[str, Any]]) -> Row:
    timed = Series([[answer["seconds"]] for answer in answers])
    large = [name for name in LARGE if name in answers[0]["modules"] and f"import {name}" != engine.code]
    return Row(
        suite="import", group="fresh process, files in the page cache", brief="import", engine=engine.name, version=engine.version,
        ours=engine.ours, data=f"Python {sys.version.split()[0]}", threads=1,
        params={"modules": answers[0]["count"], "loads": ", ".join(large) or "none of the large ones"},
        value=1000 * timed.median, unit="ms", spread=timed.spread, memory_bytes=max(0, answers[0]["bytes"]) or None, rounds=timed.raw(),
    )  # fmt: skip


def _size_row(engine: Import) -> Row | None:
    """Bytes on disk of the library alone, without what it depends on; one row for a library."""
    if engine.ours:
        if engine.name != "nearfield":
            return None
        folder = Path(nearfield.__file__).parent
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    else:
        size = installed_bytes(str(engine.distribution))
    wheels = sorted((ROOT / "dist").glob("nearfield-*.whl")) if engine.ours else []
    shown = {"wheel_bytes": wheels[-1].stat().st_size} if wheels else {}
    return Row(
        suite="import", group="size on disk, without dependencies", brief="", engine=engine.name, version=engine.version, ours=engine.ours,
        data="installed files without compiled Python", threads=1, params=shown, value=size / MB, unit="MB",
        rounds=[{"seconds": 0.0, "calls": 1}],
    )  # fmt: skip


def installed_bytes(distribution: str) -> int:
    """The bytes of an installed distribution's files, compiled Python left out."""
    files = metadata.files(distribution) or []
    return sum(Path(str(file.locate())).stat().st_size for file in files if file.suffix != ".pyc" and Path(str(file.locate())).is_file())
