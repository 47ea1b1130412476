"""The example service (``examples/service.py``) under wrk: searches a second and their times, at few connections and at too many.

Service and wrk share the cores, wrk with one thread. The ceiling is the same server answering ``/health``, which searches nothing. Beyond
``workers + waiting`` searches at a time the service refuses with 429: those count as *refused*, and their times are among the percentiles.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks.core import data
from benchmarks.core.plan import ROOT, Plan, usable_cores
from benchmarks.core.results import Row
from benchmarks.core.texts import fingerprint, sentences

ROWS, QUICK_ROWS = 50_000, 1_000
CONNECTIONS = (1, 8, 32, 256)
SECONDS, QUICK_SECONDS = 5, 1
ROUNDS, QUICK_ROUNDS = 3, 1
K = 10
QUERIES = 2_000
START_S = 120.0

# wrk gives its figures only to a script. Paths are asked in turn; microseconds become milliseconds.
SCRIPT = """
local paths = {{ {paths} }}
local place = 0
request = function()
  place = place % #paths + 1
  return wrk.format("GET", paths[place])
end
done = function(summary, latency, requests)
  io.write(string.format('RESULT {{"requests": %d, "us": %d, "bad": %d, "broken": %d, "p50": %f, "p95": %f, "p99": %f, "max": %f}}\\n',
    summary.requests, summary.duration, summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(95) / 1000, latency:percentile(99) / 1000, latency.max / 1000))
end
"""


def run(plan: Plan) -> list[Row]:
    """All rows of the suite; one line where wrk or the server is not installed."""
    for missing, cure in (("wrk", "apt-get install wrk"), ("starlette", "pip install starlette"), ("uvicorn", "pip install uvicorn")):
        if (shutil.which(missing) if missing == "wrk" else find_spec(missing)) is None:
            plan.skipped.append(f"skipped: service ({missing} not installed: {cure})")
            plan.say(plan.skipped[-1])
            return []
    folder, texts, label = _index(plan)
    with serving(folder, ["--workers", str(usable_cores())]) as address:
        return [row for connections in CONNECTIONS for row in _rows(plan, address, texts, label, connections)]


def _index(plan: Plan) -> tuple[Path, list[str], str]:
    """The index folder, made once, and the texts that are asked."""
    from nearfield import Encoder
    from nearfield.search.folder import write_index_folder

    wanted = QUICK_ROWS if plan.quick else ROWS
    vectors, _, label = data.real_vectors(plan, wanted, 1)
    pool = sentences(plan)[0]
    asked, rows = pool[:QUERIES], pool[len(pool) - len(vectors) :] if plan.data else pool[data.MAX_QUERIES :][: len(vectors)]
    folder = plan.cache / "service" / fingerprint(rows)
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        plan.say(f"service: an index of {len(rows):,} texts")
        with Encoder(data.bundle(plan), backend="onnx") as encoder:
            made = encoder.fingerprint
        write_index_folder(folder, [str(i) for i in range(len(rows))], rows, vectors, model=data.bundle(plan), fingerprint=made)
    return folder, asked, f"{label}; {len(asked):,} other texts asked"


@contextlib.contextmanager
def serving(folder: Path, options: list[str]) -> Iterator[str]:
    """The service in a process of its own until the block ends; gives its address.

    Raises:
        RuntimeError: it did not answer; its last line stands in the message.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "examples" / "service.py"), str(folder), "--port", str(port), *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    address, until = f"http://127.0.0.1:{port}", time.monotonic() + START_S
    try:
        while True:
            with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(f"{address}/health"):
                break
            if process.poll() is not None or time.monotonic() > until:
                process.kill()
                raise RuntimeError(f"the service did not start: {(process.communicate()[1].strip().splitlines() or ['no line'])[-1]}")
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.communicate(timeout=30)


def wrk(address: str, paths: list[str], connections: int, seconds: int) -> dict[str, Any]:
    """What wrk counted: requests, microseconds, answers that were no 2xx, broken connections, percentiles in milliseconds."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT.format(paths=", ".join(f'"{path}"' for path in paths)))
        script.flush()
        command = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--timeout", "10s", "-s", script.name, address]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if done.returncode or line is None:
        raise RuntimeError(f"wrk: {(done.stderr or done.stdout).strip()[-200:]}")
    return json.loads(line.removeprefix("RESULT "))  # type: ignore[no-any-return]


def _rows(plan: Plan, address: str, texts: list[str], label: str, connections: int) -> list[Row]:
    plan.say(f"service: {connections} connections")
    seconds = QUICK_SECONDS if plan.quick else SECONDS
    paths = [f"/search?k={K}&q={quote(text)}" for text in texts]
    wrk(address, paths, connections, 1)  # warm-up
    runs, bare = [], []
    for _ in range(QUICK_ROUNDS if plan.quick else ROUNDS):
        bare.append(wrk(address, ["/health"], connections, 1))
        runs.append(wrk(address, paths, connections, seconds))
    rates = [1e6 * (run["requests"] - run["bad"]) / run["us"] for run in runs]
    ceiling = statistics.median(1e6 * run["requests"] / run["us"] for run in bare)
    value, requests = statistics.median(rates), sum(run["requests"] for run in runs)
    return [
        Row(
            suite="service", group=f"text to top-{K} over HTTP, {connections} connections", brief=f"{connections} connections",
            engine="examples/service.py", version=_version(), ours=True, data=label, threads=usable_cores(),
            params={
                "connections": connections, "k": K, "refused": sum(run["bad"] for run in runs) / requests,
                "broken": sum(run["broken"] for run in runs),
            },
            value=value, unit="searches / s", spread=(max(rates) - min(rates)) / value if len(rates) > 1 else None,
            p50=statistics.median(run["p50"] for run in runs), p95=statistics.median(run["p95"] for run in runs),
            p99=statistics.median(run["p99"] for run in runs),
            ceiling=f"the server alone, {connections} connections: {ceiling:,.0f} answers / s", share=value / ceiling,
            rounds=[{"seconds": run["us"] / 1e6, "calls": run["requests"], "p50": run["p50"], "p99": run["p99"]} for run in runs],
        )
    ]  # fmt: skip


def _version() -> str:
    import nearfield

    return nearfield.__version__
