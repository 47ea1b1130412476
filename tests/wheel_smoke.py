"""What every wheel must do where it was built, without a model: `python tests/wheel_smoke.py` with the wheel installed alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import numpy as np

import nearfield as nf


def main() -> None:
    rows = np.random.default_rng(0).standard_normal((500, 48)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for kind in (nf.FlatIndex, nf.HNSWIndex):
        index = kind(48)
        index.add(rows)
        with tempfile.TemporaryDirectory() as folder:
            index.save(os.path.join(folder, "index"))
            hits = kind.load(os.path.join(folder, "index")).search(rows, k=3)
        assert (hits.ids[:, 0] == np.arange(500)).mean() > 0.99, kind
    targets = [target["name"] for target in nf.info()["native"]["targets"] if target["runs_here"]]
    assert "scalar" in targets
    for target in targets:  # each in a process of its own, as it is chosen once
        code = "import nearfield as nf; assert list(nf.topk([[1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]], 2).ids[0]) == [1, 0]"
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "NEARFIELD_TARGET": target})
    print(f"nearfield {nf.__version__}, Python {sys.version.split()[0]}: {', '.join(targets)}")


if __name__ == "__main__":
    main()
