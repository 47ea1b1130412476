"""Small tuning runs by the command line, whole or killed on the way, and what must be equal between two of them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import make_pairs

# Several scores on dev, a checkpoint after every step, pieces, and a merge with something to measure.
OPTIONS = {
    "batch_size": 8, "learning_rate": 3e-3, "epochs": 2, "patience": 0, "dev_queries": 20, "dev_documents": 40, "merge_trials": 1,
    "merge_alphas": [0.5, 0.9], "checkpoint_minutes": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Inputs:
    """Files of a run."""

    pairs: Path
    guard: Path
    config: Path
    base: Path

    def tune(self, out: Path, *more: object) -> list[str]:
        """The arguments of the run."""
        files = ["--base", self.base, "--guard", self.guard, "--config", self.config]
        return [str(word) for word in ("tune", self.pairs, *files, "--out", out, "--quiet", *more)]


def make_inputs(folder: Path, base: Path) -> Inputs:
    """60 pairs to learn and a guard of 30 others."""
    made = Inputs(folder / "pairs.jsonl", folder / "guard", folder / "config.json", base)
    made.pairs.write_text("".join(json.dumps(row) + "\n" for row in make_pairs(60)))
    write_guard(made.guard)
    made.config.write_text(json.dumps(OPTIONS))
    return made


def write_guard(folder: Path, seed: int = 1) -> None:
    """A BEIR folder with a test split; without a dev split it has no say in the merge, so that pieces take part in the weights."""
    rows = make_pairs(30, seed=seed)
    (folder / "qrels").mkdir(parents=True)
    for name, column in (("corpus.jsonl", "positive"), ("queries.jsonl", "query")):
        lines = (json.dumps({"_id": f"{i}", "text": row[column]}) + "\n" for i, row in enumerate(rows))
        (folder / name).write_text("".join(lines))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(f"{i}\t{i}\t1\n" for i in range(len(rows))))


def nearfield(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a fresh process."""
    return subprocess.run(
        [sys.executable, "-m", "nearfield", *map(str, arguments)],
        cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def digests(bundle: Path) -> dict[str, str]:
    """sha256 of what a run makes for use: weights, graphs and golden vectors."""
    names = ["model/model.safetensors", "onnx/model.onnx", "onnx/model.int8.onnx", "golden.npz"]
    return {name: hashlib.sha256((bundle / name).read_bytes()).hexdigest() for name in names}


def figures(bundle: Path) -> dict[str, Any]:
    """What was measured, without the times it took."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    history = json.loads((bundle / "run.json").read_text())["history"]
    return dict(
        _timeless({"metrics": manifest["metrics"], "verdict": manifest["verdict"], "parity": manifest["parity"], "history": history})
    )


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(item) for name, item in value.items() if name not in ("seconds", "latencies", "name")}
    return [_timeless(item) for item in value] if isinstance(value, list) else value
