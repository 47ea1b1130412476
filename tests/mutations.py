"""Damaged files by the thousand: each is opened in a worker process that survives whatever a file may do to it, or whose death is counted.

Started as a program it is the worker: it makes its good files in the folder it is given, then reads a job a line ("kind seed") and answers
a line (JSON: outcome, message, seconds). Another number is another damage, so that one that fails can be looked at alone:
``python tests/mutations.py FOLDER <<< "onnx 17"``.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import resource
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# No file here is larger than 200 kB: whoever needs this much address space beyond what is loaded was led to it by a damaged size.
MEMORY = 2 << 30
# The good file opens in well under a second.
SECONDS = 20.0
TEXTS = ["the index of a tree", "search", "how to sort an array of numbers"]


def damage(data: bytes, chance: random.Random) -> bytes:
    """One to four changes: bits, bytes, numbers at their extremes, pieces lost, doubled or swapped, the end cut off."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        if not out:
            break
        # Headers are where the decisions are made: half of the damage goes to the first and the last kilobyte.
        near = chance.choice([len(out), min(1024, len(out))])
        place = chance.randrange(near) if chance.random() < 0.5 else len(out) - 1 - chance.randrange(near)
        end = place + chance.choice([1, 1, 2, 4, 8, 64])
        kind = chance.randrange(8)
        if kind == 0:
            out[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            out[place] = chance.randrange(256)
        elif kind == 2:
            extreme = chance.choice([b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\xff" * 7 + b"\x7f", bytes(8), b"9" * 8])
            out[place:end] = extreme[: end - place]
        elif kind == 3:
            del out[place:end]
        elif kind == 4:
            out[place:place] = out[place:end]
        elif kind == 5:
            other = chance.randrange(len(out))
            out[place:end], out[other : other + end - place] = out[other : other + end - place], out[place:end]
        elif kind == 6:
            out[place:place] = chance.randbytes(end - place)
        elif chance.random() < 0.2:
            del out[place:]
    return bytes(out)


@dataclass(frozen=True)
class Kind:
    """A kind of file: the good one, what is done with a damaged one, a command that must refuse what ``use`` refused, and what follows the
    damage (a manifest whose hash is made to fit)."""

    file: Path
    use: Callable[[], object]
    command: tuple[object, ...] = ()
    follow: Callable[[], object] = lambda: None


def kinds(folder: Path) -> dict[str, Kind]:
    """Makes the good files, and says how each is used."""
    import numpy as np

    import nearfield as nf
    from conftest import make_tiny_model
    from nearfield.bundle import Bundle
    from nearfield.data.read import read
    from nearfield.encode.encoder import Encoder
    from nearfield.encode.tower import Tower
    from nearfield.export.export import export_bundle
    from nearfield.repeat import read_config
    from nearfield.search.folder import IndexFolder, write_index_folder

    model, bundle = folder / "model", folder / "bundle"
    if not (folder / "made").exists():
        make_tiny_model(model)
        export_bundle(model, bundle, progress=False)
        rows = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
        for name, index in (("flat.nf", nf.FlatIndex(8)), ("hnsw.nf", nf.HNSWIndex(8))):
            index.add(rows, [f"document {i}" for i in range(len(rows))])
            index.save(folder / name)
            if isinstance(index, nf.HNSWIndex):
                index.freeze().save(folder / "frozen.nf")
        write_index_folder(
            folder / "index", [str(i) for i in range(60)], [f"text {i}" for i in range(60)], rows[:60], model="m", fingerprint="f"
        )
        _tables(folder)
        (folder / "made").touch()

    def encode() -> None:
        with Encoder(bundle) as encoder:
            encoder.encode(TEXTS)

    def load() -> None:
        Tower.load(model).encode(TEXTS)

    def search(kind: Any, name: str) -> None:
        for verify in (True, False):
            with contextlib.suppress(nf.InputError) if verify else contextlib.nullcontext():
                kind.load(folder / name, verify=verify).search(rows_of(8), 5)

    def look_up() -> None:
        opened = IndexFolder.open(folder / "index", verify=False)
        opened.index.search(rows_of(8), 5)
        for name in opened.index.ids:
            opened.text(name)

    def rows_of(dim: int) -> Any:
        return np.ones((2, dim), np.float32)

    def fit(listing: str, name: str) -> Callable[[], None]:
        """Size and hash in the listing as the damaged file has them: only then is the file looked into."""

        def follow() -> None:
            file = folder / listing
            said = json.loads(file.read_text())
            data = (file.parent / name).read_bytes()
            said["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            file.write_text(json.dumps(said))

        return follow

    def table(name: str) -> Kind:
        command = ("encode", folder / name, "--model", bundle, "--out", folder / "out", "--quiet")
        return Kind(folder / name, lambda: read(folder / name), command)

    def of_model(name: str) -> Kind:
        return Kind(model / name, load, ("export", model, "--out", folder / "out", "--quiet"))

    def of_bundle(name: str) -> Kind:
        command = ("encode", folder / "pairs.jsonl", "--model", bundle, "--out", folder / "out", "--quiet")
        return Kind(bundle / name, encode, command, fit("bundle/manifest.json", name) if name != "manifest.json" else lambda: None)

    def of_index(name: str) -> Kind:
        command = ("search", folder / "index", "query", "--model", bundle)
        return Kind(folder / "index" / name, look_up, command, fit("index/index.json", name) if name != "index.json" else lambda: None)

    return {
        "parquet": table("documents.parquet"),
        "parquet pairs": table("pairs.parquet"),
        "jsonl": table("pairs.jsonl"),
        "csv": table("pairs.csv"),
        "safetensors": of_model("model.safetensors"),
        "model config": of_model("config.json"),
        "onnx": of_bundle("onnx/model.onnx"),
        "tokenizer": of_bundle("model/tokenizer.json"),
        "manifest": of_bundle("manifest.json"),
        "npz": Kind(bundle / "golden.npz", lambda: Bundle.open(bundle).golden(), (), fit("bundle/manifest.json", "golden.npz")),
        "flat index": Kind(folder / "flat.nf", lambda: search(nf.FlatIndex, "flat.nf")),
        "hnsw index": Kind(folder / "hnsw.nf", lambda: search(nf.HNSWIndex, "hnsw.nf")),
        "frozen index": Kind(folder / "frozen.nf", lambda: search(nf.FrozenIndex, "frozen.nf")),
        "index.json": of_index("index.json"),
        "documents": of_index("documents.jsonl"),
        "offsets": of_index("documents.offsets"),
        "run.json": Kind(
            folder / "run.json",
            lambda: read_config(folder / "run.json"),
            ("tune", folder / "pairs.jsonl", "--config", folder / "run.json", "--out", folder / "out"),
        ),
    }


def _tables(folder: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    from conftest import make_pairs
    from nearfield.config import TuneConfig

    pairs = make_pairs(60)
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    (folder / "pairs.csv").write_text("query,positive\n" + "".join(f'{row["query"]},"{row["positive"]}\n"\n' for row in pairs))
    documents = {"_id": [str(i) for i in range(60)], "title": ["same"] * 60, "text": [row["positive"] for row in pairs]}
    parquet.write_table(pyarrow.table(documents), folder / "documents.parquet", compression="zstd", row_group_size=25)
    judged = {"query": [row["query"] for row in pairs], "positive": [row["positive"] for row in pairs], "negative": [["a", "b c"]] * 60}
    parquet.write_table(pyarrow.table(judged | {"score": list(range(60))}), folder / "pairs.parquet", data_page_version="2.0")
    run = {
        "run_format": 1,
        "config": TuneConfig().to_dict(),
        "base": "b",
        "threads": {"training": 1, "encoding": 1},
        "machine": {"cpu": "x"},
    }
    (folder / "run.json").write_text(json.dumps(run))


def answer(kind: Kind, good: bytes, seed: int) -> dict[str, Any]:
    """Damages the file, uses it, and puts it back. Every tenth that was refused is also given to the command line."""
    from nearfield.errors import InputError

    listings = [kind.file.parent / "index.json", *(folder / "manifest.json" for folder in kind.file.parents)]
    kept = {path: path.read_bytes() for path in (kind.file, *listings) if path.is_file()}
    outcome, message, begun = "fine", "", time.monotonic()
    try:
        kind.file.write_bytes(damage(good, random.Random(f"{kind.file.name} {seed}")))
        kind.follow()
        kind.use()
    except InputError as error:
        outcome, message = ("refused", str(error)) if "\n" not in str(error) else ("wrong", f"more than one line: {error}")
        if seed % 10 == 0 and kind.command and (problem := refused_by_command(kind.command)):
            outcome, message = "wrong", problem
    except BaseException as error:
        outcome, message = "wrong", f"{type(error).__module__}.{type(error).__name__}: {error}"
    finally:
        for path, data in kept.items():
            path.write_bytes(data)
    return {"outcome": outcome, "message": message, "seconds": time.monotonic() - begun}


def refused_by_command(words: tuple[object, ...]) -> str:
    """Runs a command; "" where it ends with 2 and one line, and leaves nothing behind."""
    from nearfield.cli import main

    said, code = io.StringIO(), 0
    with contextlib.redirect_stderr(said):
        try:
            main([str(word) for word in words])
        except SystemExit as end:
            code = int(end.code or 0)
    left = [str(path) for word in words if str(word).endswith("/out") for path in Path(str(word)).parent.glob("*out*")]
    lines = said.getvalue().splitlines()
    return "" if code == 2 and len(lines) == 1 and not left else f"exit {code}, left {left}, said {lines}"


def work(folder: Path) -> None:
    import faulthandler

    faulthandler.enable()
    # What a library may print goes to stderr; the answers alone to stdout.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    made = kinds(folder)
    good = {name: kind.file.read_bytes() for name, kind in made.items()}
    for kind in made.values():
        kind.use()  # a good file is fine, and everything is loaded before memory is limited
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY,) * 2)
    before = _resident()
    print(json.dumps({"ready": sorted(made)}), file=answers, flush=True)
    for line in sys.stdin:
        name, _, seed = line.strip().rpartition(" ")
        print(json.dumps(answer(made[name], good[name], int(seed)) | {"grown": _resident() - before}), file=answers, flush=True)


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _resident() -> int:
    """The most resident memory so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Worker:
    """The worker process, seen from the tests: started when it is needed, and again after a death."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None
        self.deaths = 0
        self.grown = 0

    def ask(self, kind: str, seed: int) -> dict[str, Any]:
        """The outcome of one damaged file: "fine", "refused", "wrong", "died" (with the signal) or "hung"."""
        process = self.process or self._start()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(f"{kind} {seed}\n")
            process.stdin.flush()
        line = self._line(SECONDS)
        if line:
            found: dict[str, Any] = json.loads(line)
            self.grown = max(self.grown, found["grown"])
            return found
        self.deaths += 1
        # An end of the stream is a death; the time ran out where there is none.
        outcome = "hung" if line is None else "died"
        self.close()
        # The next one must not find the damaged file.
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        return {"outcome": outcome, "message": f"exit status {process.returncode}", "seconds": SECONDS}

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def _start(self) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(self.folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self._line(180), "the worker could not open the good files"
        return self.process

    def _line(self, seconds: float) -> str | None:
        assert self.process is not None
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        return self.process.stdout.readline() if ready else None


if __name__ == "__main__":
    work(Path(sys.argv[1]))
