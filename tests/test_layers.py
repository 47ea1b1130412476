"""The import rules of docs/architecture.md, read from the source: who may import whom, and which libraries load late."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "python" / "nearfield"

BASE = {"errors", "types", "arrays", "config", "bundle", "files", "modelfiles", "metrics", "progress", "_version"}
# Room -> the rooms it may import, besides itself. "_core" is the native engine.
MAY_IMPORT = {
    **dict.fromkeys(BASE, BASE),
    "__init__": BASE,
    "kernels": BASE | {"_core"},
    "data": BASE,
    "encode": BASE | {"kernels", "_core"},
    "index": BASE | {"kernels", "_core"},
    "tune": BASE | {"data", "encode", "index"},
    "export": BASE | {"tune", "encode"},
    "search": BASE | {"encode", "index"},
    "evaluate": BASE | {"search", "data", "encode", "index", "kernels"},
}
# These may import every room.
TOP = {"workflow", "clitext", "int8aware", "ladder", "texts", "repeat", "record", "info", "demo", "cli", "__main__"}

# Library -> where it may be imported at all. A name that ends in / is a room.
HOMES = {
    "torch": {"tune/", "export/", "encode/dtype.py", "encode/tower.py", "encode/torch_backend.py"}
    | {f"encode/{name}.py" for name in ("packed", "packed_backend", "packed_choice", "packed_lanes", "packed_steps", "triton_steps")}
    | {f"kernels/{name}.py" for name in ("cuda", "cuda_codes", "cuda_maxima", "cuda_pool", "cuda_replay")}
    | {f"kernels/{name}.py" for name in ("fused", "fused_pool", "fused_scan")},
    "triton": {"encode/triton_steps.py", "kernels/fused_pool.py", "kernels/fused_scan.py"},
    "transformers": {"tune/", "export/", "encode/tower.py", "encode/torch_backend.py"},
    "onnxruntime": {"export/", "encode/onnx_backend.py"},
    "onnx": {"export/"},
    "optimum": {"export/optimum.py"},
    "numba": {"kernels/"},
    "pyarrow": {"data/"},
    "bm25s": {"evaluate/keywords.py"},
    "jinja2": {"evaluate/report/"},
    "sklearn": {"evaluate/study/projection.py"},
    "sentence_transformers": set[str](),
}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), path


def imports(tree: ast.AST, *, top_level_only: bool = False) -> Iterator[tuple[str, int]]:
    """Yields (dotted name, line) of every import that runs; imports under TYPE_CHECKING do not."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if top_level_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno
        else:
            yield from imports(node, top_level_only=top_level_only)


def breaches(name: str, source: str) -> list[str]:
    room = name.split("/")[0].removesuffix(".py")
    found = []
    for imported, line in imports(ast.parse(source)):
        parts = imported.split(".")
        if parts[0] == "nearfield" and len(parts) > 1 and room not in TOP and parts[1] != room and parts[1] not in MAY_IMPORT[room]:
            found.append(f"{name}:{line} imports {imported}: {room} may import {sorted(MAY_IMPORT[room])}")
        if parts[0] in HOMES and not any(name == home or (home.endswith("/") and name.startswith(home)) for home in HOMES[parts[0]]):
            # The command line and `info` may ask for a version; they import nothing to do so.
            found.append(f"{name}:{line} imports {imported}: only {sorted(HOMES[parts[0]])} may")
    return found


@pytest.mark.parametrize(("name", "path"), list(modules()))
def test_imports_follow_the_layers(name: str, path: Path) -> None:
    assert not breaches(name, path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("data/read.py", "from nearfield.encode.encoder import Encoder"),
        ("errors.py", "import nearfield.data.read"),
        ("encode/tokenize.py", "def f():\n    import torch"),
        ("search/searcher.py", "from nearfield import workflow"),
        ("evaluate/run.py", "import onnxruntime as ort"),
    ],
)
def test_a_breach_is_noticed(name: str, source: str) -> None:
    assert breaches(name, source)


def test_type_checking_imports_are_free() -> None:
    assert not breaches("data/read.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch")


def test_native_sources_keep_their_layers() -> None:
    """csrc: base <- simd, parallel <- kernels <- codec <- score <- graph; encoder on kernels; storage on base; bindings on top."""
    csrc = PACKAGE.parents[1] / "csrc"
    may = {
        "base": {"base"},
        "simd": {"base", "simd"},
        "parallel": {"base", "parallel"},
        "kernels": {"base", "simd", "parallel", "kernels"},
        "codec": {"base", "simd", "parallel", "kernels", "codec"},
        "storage": {"base", "storage"},
        "score": {"base", "simd", "parallel", "kernels", "codec", "storage", "score"},
        "graph": {"base", "simd", "parallel", "kernels", "codec", "storage", "score", "graph"},
        "encoder": {"base", "simd", "parallel", "kernels", "encoder"},
        "probes": {"base", "simd", "parallel", "kernels", "probes"},
    }
    checked = 0
    for path in sorted([*csrc.rglob("*.h"), *csrc.rglob("*.cpp")]):
        room = path.relative_to(csrc).parts[0]
        if room not in may:
            assert room in {"bindings", "tests"}, f"{path}: an unknown room"
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("#include"):
                assert "Python.h" not in line, f"{path}: {line}"
                assert "pybind11" not in line, f"{path}: {line}"
            if line.startswith('#include "') and "/" in line:
                target = line.split('"')[1].split("/")[0]
                assert target == ".." or target in may[room], f"{path}: {line}"
                checked += 1
    assert checked > 10
