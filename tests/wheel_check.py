"""Installs a wheel alone, without extras, in an empty environment; encodes and searches there: `python tests/wheel_check.py WHEEL`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from conftest import make_tiny_model

ROOT = Path(__file__).parents[1]

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


def main(wheel: Path) -> None:
    from nearfield.export.export import export_bundle

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export_bundle(make_tiny_model(folder / "model"), folder / "bundle", progress=False)
        environment = folder / "empty"
        venv.create(environment, with_pip=True)
        python = environment / "bin" / "python"
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", ROOT / "constraints.txt", wheel.resolve()],
            check=True,
        )
        subprocess.run([python, "-c", SERVICE], check=True, cwd=folder)
        subprocess.run([environment / "bin" / "nearfield", "info"], check=True, cwd=folder, stdout=subprocess.DEVNULL)
    print(f"{wheel.name}: {wheel.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        sys.exit("usage: python tests/wheel_check.py WHEEL (a file)")
    main(Path(sys.argv[1]))
