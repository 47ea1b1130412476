"""The int8 suites at a tiny size: every way to make an int8 graph, its loss, its speed, and what the rows say about it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

from benchmark_samples import SAMPLE, sample_document
from benchmarks.core import results, tables
from benchmarks.core.plan import Plan
from benchmarks.suites import int8, int8_graphs, int8_speed
from conftest import WORDS


@pytest.fixture(scope="module")
def plan(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("int8")
    chance = np.random.default_rng(0)
    documents = [" ".join(chance.choice(WORDS, size=chance.integers(4, 30))) for _ in range(40)]
    (folder / "documents.json").write_text(json.dumps(documents))
    judged = folder / "judged"
    (judged / "qrels").mkdir(parents=True)
    rows = [{"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate(documents)]
    asked = [{"_id": f"q{i}", "text": " ".join(text.split()[:4])} for i, text in enumerate(documents[:20])]
    for name, items in (("corpus", rows), ("queries", asked)):
        (judged / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    lines = ["query-id\tcorpus-id\tscore", *(f"q{i}\td{i}\t1" for i in range(20))]
    (judged / "qrels" / "dev.tsv").write_text("\n".join(lines) + "\n")
    return Plan(quick=True, threads=(1,), ceilings=SAMPLE, cache=folder, out=folder, judged=(judged,))


@pytest.fixture(autouse=True)
def small(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nearfield.encode.models.resolve_model", lambda path: tiny_model)
    monkeypatch.setattr(int8_graphs, "TEXTS", 4)
    monkeypatch.setattr(int8_speed, "LENGTHS", (8,))
    monkeypatch.setattr(int8_speed, "QUICK_LENGTHS", (8,))
    monkeypatch.setattr(int8_speed, "SINGLES", {8: 2})
    monkeypatch.setattr(int8_speed, "BATCH", 4)
    monkeypatch.setenv("NEARFIELD_THREADS", "1")  # the suites change it: its old value comes back with the fixture's end


def test_every_graph_is_described_and_its_loss_measured(plan: Plan) -> None:
    rows = int8.run(plan)
    results.validate(sample_document(*rows))
    names = [contestant.name for contestant in int8_graphs.CONTESTANTS]
    about = {row.engine: row for row in rows if row.group == "graphs"}
    assert list(about) == names
    mixed = about[names[-1]]
    assert len(mixed.params["float32"]) == int8_graphs.KEPT
    assert mixed.params["nodes"]["MatMul"] + mixed.params["nodes"].get("Attention", 0) == int8_graphs.KEPT
    assert about["rows, 7-bit weights"].params["fused"].startswith("2 MultiHeadAttention, 4 SkipLayerNormalization, 2 BiasGelu of ")
    assert about["rows, 7-bit weights"].params["batch_difference"] < 1e-6 < about["dynamic, 7-bit weights"].params["batch_difference"]
    assert about["rows, 7-bit weights"].value < about["fp32, fused"].value
    losses = [row for row in rows if row.group == "loss on judged"]
    assert [row.engine for row in losses] == [name for name in names if not name.startswith("fp32")]
    for row in losses:
        low, high = row.params["interval"]
        assert low <= row.params["points_lost"] <= high
        assert row.params["points_lost"] == pytest.approx(100 * (row.params["ndcg_fp32"] - row.value))
    shown = [tables.cells(row) for row in rows]
    assert any("2 MultiHeadAttention" in cell for line in shown for cell in line)


def test_every_graph_is_timed_in_batches_and_alone(plan: Plan) -> None:
    rows = int8_speed.run(plan)
    results.validate(sample_document(*rows))
    assert [row.unit for row in rows] == ["tokens / s"] * len(int8_graphs.CONTESTANTS) + ["ms / text"] * len(int8_graphs.CONTESTANTS)
    for row in rows:
        seconds = sorted(entry["seconds"] for entry in row.rounds)[len(row.rounds) // 2]
        expected = 4 * 8 / seconds if row.params["batch"] == 4 else 1000 * seconds / 2
        assert row.value == pytest.approx(expected, rel=1e-6)


def test_token_rows_stand_between_the_models_own_tokens(plan: Plan) -> None:
    work = int8_graphs.Workshop(plan)
    ids = int8_speed._token_rows(work, 8, 50)
    assert ids.shape == (50, 8)
    assert set(ids[:, 0]) == {2}
    assert set(ids[:, -1]) == {3}
    assert ids[:, 1:-1].min() > 4, "no special token inside"
    assert len(np.unique(ids, axis=0)) > 20
