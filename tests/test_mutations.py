"""Damaged files of every kind: each opens or is refused in one line; no crash, no hang, no memory beyond a bound, nothing left behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from mutations import MEMORY, Worker, damage

pytest.importorskip("pyarrow")
pytest.importorskip("onnx")

# Most for the files that libraries in C++ and Rust open; together 10,000.
COUNTS = {
    "parquet": 1_000, "parquet pairs": 1_000, "onnx": 1_500, "safetensors": 1_200, "tokenizer": 1_000, "model config": 500, "manifest": 700,
    "npz": 700, "flat index": 400, "hnsw index": 300, "frozen index": 300,
    "index.json": 300, "documents": 300, "offsets": 200, "run.json": 200, "jsonl": 200, "csv": 200,
}  # fmt: skip
FAST = 13
# What any of them may add to the worker's resident memory; the good files are below 200 kB.
GROWTH = 256 << 20


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    made = Worker(tmp_path_factory.mktemp("mutations"))
    yield made
    made.close()


def outcomes(worker: Worker, kind: str, seeds: range) -> Counter[str]:
    counted: Counter[str] = Counter()
    for seed in seeds:
        found = worker.ask(kind, seed)
        assert found["outcome"] in ("fine", "refused"), (kind, seed, found)
        counted[found["outcome"]] += 1
    assert worker.deaths == 0
    assert worker.grown < GROWTH < MEMORY
    return counted


def test_221_damaged_files(worker: Worker) -> None:
    counted = sum((outcomes(worker, kind, range(FAST)) for kind in COUNTS), Counter[str]())
    assert counted["refused"] > 100
    assert counted["fine"] > 10


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_10000_damaged_files(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    assert sum(COUNTS.values()) == 10_000
    lines = []
    for kind, count in COUNTS.items():
        counted = outcomes(worker, kind, range(100, 100 + count))
        lines.append(f"{kind}: {counted['fine']} fine, {counted['refused']} refused")
    with capsys.disabled():
        print("\n" + "\n".join(lines) + f"\nmemory grew by {worker.grown >> 20} MiB at most")


def test_a_death_and_a_hang_are_noticed(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness itself: a worker that is gone, or says nothing, is a failure that is reported, and another one is started."""
    worker.ask("run.json", 0)
    assert worker.process is not None
    worker.process.kill()
    assert worker.ask("run.json", 0)["outcome"] == "died"
    monkeypatch.setattr("mutations.SECONDS", 0.0)
    assert worker.ask("onnx", 0)["outcome"] == "hung"
    worker.deaths = 0


def test_damage_is_repeatable_and_mostly_small() -> None:
    import random

    data = bytes(range(256)) * 20
    made = [damage(data, random.Random(seed)) for seed in range(200)]
    assert made == [damage(data, random.Random(seed)) for seed in range(200)]
    assert sum(one == data for one in made) < 10
    assert sum(len(one) == len(data) for one in made) > 40
