"""``python -m benchmarks.encoders.fresh``: one engine in a process of its own; the order comes on stdin, two lines of JSON go out."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

from benchmarks.core.plan import Plan
from benchmarks.encoders.engines import Setup, engines_named
from benchmarks.encoders.models import DEEP, MINILM


def main() -> None:
    """Encodes one text, says so, encodes all, and says how much memory that took at most."""
    order = json.loads(sys.stdin.read())
    threads = order["threads"]
    os.environ["NEARFIELD_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(threads)
    (engine,) = engines_named([order["engine"]])
    model = next(one for one in (MINILM, DEEP) if one.short == order["model"])
    encode = engine.make(Setup(Plan(cache=Path(order["cache"])), model, threads), **engine.settings(threads, 1)[0])
    encode(order["texts"][:1])
    print(json.dumps({"first": True}), flush=True)
    encode(order["texts"])
    peak = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    print(json.dumps({"peak": 1024 * int(peak[1]) if peak else 0}), flush=True)


if __name__ == "__main__":
    main()
