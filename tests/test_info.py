"""`nearfield info` and `--version`: what a bug report needs, and what a bundle or an index says of itself."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import nearfield as nf
from nearfield.encode.dtype import cpu_flags
from nearfield.info import describe, version_line
from tuned_runs import nearfield


def test_everything_a_bug_report_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEARFIELD_THREADS", "1")
    monkeypatch.setenv("NEARFIELD_SECRET", "x")
    monkeypatch.setenv("HOME_ADDRESS", "x")
    found = nf.info()
    assert found["version"] == nf.__version__
    assert platform.python_version() in found["python"]
    assert found["libc"].startswith(("glibc ", "musl ", "unknown"))
    assert found["cpu"]["affinity"] == sorted(os.sched_getaffinity(0))
    assert found["cpu"]["cores"] == len(found["cpu"]["affinity"]) <= found["cpu"]["of"]
    assert found["cpu"]["training"].startswith(("bfloat16: the CPU has ", "float32: the CPU has neither"))
    assert ("avx512_bf16" in cpu_flags() or "amx_bf16" in cpu_flags()) == found["cpu"]["training"].startswith("bfloat16")
    assert re.fullmatch(r"(\d+/\d+/\d+)?", found["cpu"]["numbers"])
    assert 0 < found["memory"]["available"] <= found["memory"]["total"]
    assert found["native"]["threads"] == 1
    assert set(found["native"]["kernels"]) >= {"dot_f32", "scan_i8"}
    assert set(found["encoder"]["kernels"]) >= {"linear_i8", "linear_bf16", "linear_f32"}
    assert set(found["encoder"]["auto"]) <= {"int8", "bf16"}
    assert found["backends"][0] == "native"
    assert found["libraries"]["numpy"] == np.__version__
    assert found["libraries"]["sentence_transformers"] == metadata.version("sentence-transformers")
    assert found["libraries"]["sklearn"] == metadata.version("scikit-learn")
    assert found["environment"]["NEARFIELD_THREADS"] == "1"
    assert found["environment"]["NEARFIELD_SECRET"] == "x"
    assert "HOME_ADDRESS" not in found["environment"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_nothing_heavy_is_imported_for_it() -> None:
    heavy = ("torch", "onnxruntime", "transformers", "numba", "faiss", "pyarrow")
    code = f"import sys, nearfield; nearfield.info(); sys.exit(', '.join(m for m in {heavy} if m in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_version_line() -> None:
    line = version_line()
    assert line.startswith(f"nearfield {nf.__version__}, {nf.info()['native']['active']}, Python {platform.python_version()}, ")
    assert nearfield("--version").stdout == line + "\n"
    # A variable that stops everything else does not stop the question for the version.
    done = nearfield("--version", NEARFIELD_TARGET="abacus")
    assert done.returncode == 0
    assert "unknown target 'abacus'" in done.stdout


def test_a_bundle_and_indexes_describe_themselves(tiny_bundle: Path, tmp_path: Path) -> None:
    said = describe(tiny_bundle)
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    assert (said["kind"], said["fingerprint"], said["dim"]) == ("bundle", manifest["fingerprint"], 32)
    assert said["files"]["onnx/model.onnx"] == (tiny_bundle / "onnx" / "model.onnx").stat().st_size
    assert said["native"] == "yes"
    flat, graph = nf.FlatIndex(3, metric="l2", storage="int8"), nf.HNSWIndex(3, metric="ip", fingerprint="ab")
    for made in (flat, graph):
        made.add(np.eye(3, dtype=np.float32))
    for index in (flat, graph, graph.freeze()):
        index.save(tmp_path / "x.nf")
        said = describe(tmp_path / "x.nf")
        assert said == {
            "kind": type(index).__name__, "rows": 3, "metric": index.metric, "storage": index.storage, "dim": 3,
            "fingerprint": index.fingerprint, "bytes": (tmp_path / "x.nf").stat().st_size,
        }  # fmt: skip


def test_paths_that_are_nothing_of_ours(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("dear")
    for path, word in ((tmp_path / "none", "no such file"), (tmp_path, "neither a bundle"), (tmp_path / "letter", "not a nearfield file")):
        with pytest.raises(nf.InputError, match=word) as caught:
            describe(path)
        assert "\n" not in str(caught.value)
