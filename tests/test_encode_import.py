"""What importing costs: the package brings no heavy library, and the serving path no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from encode_models import make_bundle

HEAVY = ("torch", "numba", "onnxruntime", "transformers", "sentence_transformers", "pandas", "pyarrow")


def run(code: str, *arguments: str) -> str:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, timeout=120).stdout.strip()


def test_import_brings_nothing_heavy() -> None:
    found = run(f"import sys, nearfield; print(*[name for name in {HEAVY!r} if name in sys.modules])")
    assert found == ""


def test_import_takes_under_150_ms() -> None:
    code = "import time; start = time.perf_counter(); import nearfield; print(time.perf_counter() - start)"
    # The smallest of up to ten tries: other processes can only make it slower.
    times: list[float] = []
    while len(times) < 10 and min(times, default=1.0) >= 0.15:
        times.append(float(run(code)))
    assert min(times) < 0.15, times


def test_serving_a_bundle_needs_neither_torch_nor_transformers(tiny_model: Path, tmp_path: Path) -> None:
    bundle = make_bundle(tiny_model, tmp_path / "bundle")
    code = (
        "import sys, nearfield as nf\n"
        "sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "print(nf.Encoder(sys.argv[1]).encode('a text').shape)\n"
        "print(sorted(set(sys.modules) & {'numba', 'safetensors', 'onnx'}))"
    )
    assert run(code, str(bundle)) == "(1, 32)\n[]"
