"""Forks a process that saves two indexes over each other in one file, kills it -9 at a random moment, opens the file; again and again.

    python tests/killed_saves.py FOLDER KILLS

Prints, as JSON, how many were killed, in how many a half-written file was left, and which index the file held.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

import nearfield as nf


def main(folder: Path, kills: int) -> None:
    chance = random.Random(1)
    rng = np.random.default_rng(0)
    indexes = []
    for name, rows in (("one", 1500), ("other", 1100)):
        index = nf.HNSWIndex(128, "l2", M=4, ef_construction=10, fingerprint=name)
        index.add(rng.normal(size=(rows, 128)).astype(np.float32), threads=1)
        index.delete(list(range(0, 200, 2)), threads=1)
        index.save(folder / name)
        indexes.append(index)
    content = {(folder / name).read_bytes(): name for name in ("one", "other")}
    path = folder / "index"
    indexes[0].save(path)
    begun = time.monotonic()
    for _ in range(5):
        indexes[0].save(path)
    one_save = (time.monotonic() - begun) / 5
    counts = {"killed": 0, "unfinished": 0, "one": 0, "other": 0}
    while counts["killed"] < kills:
        child = os.fork()
        if child == 0:
            while True:
                for index in indexes:
                    index.save(path)
        time.sleep(0.002 + chance.random() * 4 * one_save)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        counts["killed"] += os.WIFSIGNALED(status)
        counts[content[path.read_bytes()]] += 1  # a KeyError: neither the one nor the other
        opened = nf.HNSWIndex.load(path)
        assert opened.search(np.zeros((1, 128), np.float32), 3).counts.tolist() == [3]
        left = list(folder.glob("*.tmp"))
        counts["unfinished"] += bool(left)
        for each in left:
            each.unlink()
    print(json.dumps(counts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
