"""Scores by the native engine: the vectors of the weights that it is given, and which runs it scores."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nearfield.encode.tower import Tower
from nearfield.tune import loop, native
from nearfield.tune.embed import vectors_of
from nearfield.tune.loop import model_weights
from nearfield.tune.native import NativeVectors, native_vectors
from test_tune_train import FAST, plain_texts, run

pytestmark = pytest.mark.usefixtures("one_thread")
IDS = [[2, *range(5, 5 + length), 3] for length in (1, 30, 7, 2, 13)]


@pytest.mark.parametrize(("pooling", "normalize"), [("mean", True), ("cls", True), ("mean", False)])
def test_vectors_are_those_of_the_weights_given(tiny_model_of: Any, pooling: str, normalize: bool) -> None:
    """Of changed weights, not of the folder's: torch in float32 agrees within what bfloat16 rounds."""
    base = tiny_model_of(pooling=pooling, normalize=normalize)
    tower = Tower.load(base).eval()
    scored = NativeVectors(base, 1)
    before = scored.packed(model_weights(tower))(IDS)
    with torch.no_grad():
        for parameter in tower.model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    after = scored.packed(model_weights(tower))(IDS)
    expected = vectors_of(tower, IDS, chunk_rows=2, dtype="float32")
    assert after.dtype == np.float32
    assert np.linalg.norm(after, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.sum(after * expected, axis=1).min() > 0.999
    assert np.sum(before * expected, axis=1).max() < 0.99


def test_who_is_scored_by_the_engine(tiny_model: Path, tiny_model_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "is_fast", lambda precision: precision == "bf16")
    assert native_vectors(tiny_model, "cpu", "bfloat16") is not None
    assert native_vectors(tiny_model, "cpu", "float32") is None
    assert native_vectors(tiny_model, "cuda", "bfloat16") is None
    other = tiny_model_of()
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    assert native_vectors(other, "cpu", "bfloat16") is None, "the engine computes gelu alone"
    monkeypatch.setattr(native, "is_fast", lambda precision: False)
    assert native_vectors(tiny_model, "cpu", "bfloat16") is None


@pytest.mark.parametrize("options", [{}, {"lora_rank": 2}, {"budget_seconds": 80_000}, {"query_only": True, "pieces": 0.0}])
def test_a_run_is_scored_by_the_engine_alone(
    options: dict[str, Any], tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dev and guard, along the way and in the merge: as torch scores the same run, but for bfloat16."""
    config = dataclasses.replace(FAST, dtype="bfloat16", epochs=2, guard_max_drop=1.0, **options)
    monkeypatch.setattr(native, "is_fast", lambda precision: False)
    torch_scored = run(tmp_path / "torch", tiny_model, config, guard=plain_texts())
    monkeypatch.setattr(native, "is_fast", lambda precision: True)
    monkeypatch.setattr(loop, "vectors_of", None)  # nobody asks torch
    ours = run(tmp_path / "native", tiny_model, config, guard=plain_texts())
    curves = [[entry["dev_ndcg"] for entry in made.history if entry["kind"] == "train"] for made in (torch_scored, ours)]
    assert curves[1] == pytest.approx(curves[0], abs=0.05)
    assert ours.dev["chosen"] > ours.dev["base"]
    assert ours.guard is not None
    assert torch_scored.guard is not None
    assert ours.guard["base"] == pytest.approx(torch_scored.guard["base"], abs=0.05)
    assert ours.guard["tuned"] == pytest.approx(torch_scored.guard["tuned"], abs=0.05)
