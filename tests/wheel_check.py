"""Installs a wheel alone, without extras, in an empty environment; encodes and searches there: `python tests/wheel_check.py WHEEL`.

Before that the file itself is looked at: its size, the libraries that it needs, and that only its kernels hold wide instructions.
"""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

import wide
from conftest import make_tiny_model

ROOT = Path(__file__).parents[1]
MAX_BYTES, MAX_IMPORT_S = 15e6, 0.150
SYSTEM = {"libstdc++", "libm", "libgcc_s", "libc", "libpthread", "ld-linux-x86-64", "ld-linux-aarch64"}

# Files are in the page cache after the first time; Python's own start is not part of it.
IMPORT = "import time; start = time.perf_counter(); import nearfield; print(time.perf_counter() - start)"

# What a service does with a bundle; run where neither torch nor transformers exists.
SERVICE = """
import importlib.util, sys
import nearfield as nf
assert importlib.util.find_spec("torch") is None and importlib.util.find_spec("transformers") is None
encoder = nf.Encoder("bundle")
texts = ["the value of a key", "read a file", "sort the list of words"]
vectors = encoder.encode(texts)
for index in (nf.FlatIndex(encoder.dim, fingerprint=encoder.fingerprint), nf.HNSWIndex(encoder.dim, fingerprint=encoder.fingerprint)):
    index.add(vectors, ids=["value", "file", "list"])
    index.save("index.nfi")
    hits = nf.Searcher(encoder, type(index).load("index.nfi")).search(texts, k=2)
    assert list(hits.ids[:, 0]) == ["value", "file", "list"], hits.ids
assert encoder.self_check() < 1e-5
try:
    nf.tune("pairs.jsonl")
except nf.InputError as error:
    assert "pairs.jsonl" in str(error)
print(f"nearfield {nf.__version__}: encoded and searched with target {nf.info()['native']['active']}, without torch")
"""


def look_at(wheel: Path, folder: Path) -> None:
    """What can be said of the file without installing it."""
    assert wheel.stat().st_size <= MAX_BYTES, f"{wheel.stat().st_size / 1e6:.1f} MB, at most {MAX_BYTES / 1e6:.0f} expected"
    with zipfile.ZipFile(wheel) as archive:
        libraries = [Path(archive.extract(name, folder)) for name in archive.namelist() if ".so" in name]
        assert any(name.endswith("/py.typed") for name in archive.namelist())
    assert [path.name.partition(".")[0] for path in libraries] == ["_core"], "nothing is packed beside the engine"
    if shutil.which("objdump") is None:
        print("objdump is not installed: libraries and instructions were not looked at")
        return
    needed = {name.split(".so")[0] for name in wide.needed(libraries[0])}
    assert needed <= SYSTEM, f"{needed - SYSTEM}: no OpenMP and nothing else that a system may lack"
    if platform.machine() == "x86_64":
        found = wide.out_of_place(wide.wide_functions(libraries[0]))
        assert found == {}, f"wide instructions outside the kernels: {found}"


def main(wheel: Path) -> None:
    from nearfield.export.export import export_bundle

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        look_at(wheel, folder / "looked-at")
        export_bundle(make_tiny_model(folder / "model"), folder / "bundle", progress=False)
        environment = folder / "empty"
        venv.create(environment, with_pip=True)
        python = environment / "bin" / "python"
        alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

        def run(*command: str | Path) -> str:
            return subprocess.run(command, check=True, cwd=folder, env=alone, stdout=subprocess.PIPE, text=True).stdout

        run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", ROOT / "constraints.txt", wheel.resolve())
        print(run(python, "-c", SERVICE), run(python, ROOT / "tests" / "wheel_smoke.py"), sep="", end="")
        run(environment / "bin" / "nearfield", "info")
        times = [float(run(python, "-c", IMPORT)) for _ in range(7)]
        assert min(times) <= MAX_IMPORT_S, f"import nearfield: {1000 * min(times):.0f} ms, at most {1000 * MAX_IMPORT_S:.0f} expected"
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, import {1000 * statistics.median(times):.1f} ms")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        sys.exit("usage: python tests/wheel_check.py WHEEL (a file)")
    main(Path(sys.argv[1]))
