"""Changes of low rank: what they compute, what they leave alone, what leaves the run, and going on from a checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from nearfield.encode.tower import Tower
from nearfield.errors import InputError
from nearfield.tune import loop
from nearfield.tune.lora import SCALE, Lora
from nearfield.tune.train import train
from test_tune_train import FAST, code_book, plain_texts

LOW = dataclasses.replace(FAST, lora_rank=2, learning_rate=1e-3, epochs=3)

pytestmark = pytest.mark.usefixtures("one_thread")


def test_folded_weights_compute_what_the_changes_did(tiny_model: Path) -> None:
    tower, texts = Tower.load(tiny_model), code_book().doc_texts[:5]
    plain = tower.encode(texts)
    lora = Lora(tower.model, 3)
    np.testing.assert_array_equal(tower.encode(texts), plain)  # B begins at 0
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in lora.parameters.items():
            if name.endswith("lora_b"):
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=rng))
    changed = tower.encode(texts)
    assert np.abs(changed - plain).max() > 0.01
    merged = lora.merged()
    lora.remove()
    np.testing.assert_array_equal(tower.encode(texts), plain)
    tower.model.load_state_dict(merged)
    np.testing.assert_allclose(tower.encode(texts), changed, atol=2e-6)
    name = next(iter(lora.layers))
    before = load_file(tiny_model / "model.safetensors")[f"{name}.weight"].double()
    up, down = (lora.parameters[f"{name}.lora_{side}"].detach().double() for side in "ba")
    torch.testing.assert_close(merged[f"{name}.weight"].double(), before + SCALE * up @ down, rtol=0, atol=1e-6)


def test_training_changes_linear_layers_by_a_low_rank_and_nothing_else(tmp_path: Path, tiny_model: Path) -> None:
    result = train(
        code_book(), tiny_model, dataclasses.replace(LOW, merge_alphas=(1.0,)), work=tmp_path, guard=plain_texts(), progress=False
    )
    assert result.dev["tuned"] > result.dev["base"] + 0.05
    before, after = load_file(tiny_model / "model.safetensors"), load_file(result.model / "model.safetensors")
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    if result.alpha:
        assert moved == {f"{name}.weight" for name in Lora(Tower.load(tiny_model).model, 2).layers}
    for name in moved:
        values = torch.linalg.svdvals((after[name] - before[name]).double())
        assert values[2] < 1e-4 * values[0], name


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(code_book(), tiny_model, LOW, work=tmp_path / "whole", progress=False)
    inner, calls = loop.step_loss, iter(range(1000))

    def stopping(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 12:
            raise KeyboardInterrupt
        return inner(*arguments, **options)

    monkeypatch.setattr(loop, "step_loss", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(code_book(), tiny_model, LOW, work=tmp_path / "stopped", progress=False)
    monkeypatch.setattr(loop, "step_loss", inner)
    resumed = train(code_book(), tiny_model, LOW, work=tmp_path / "stopped", resume=True, progress=False)
    one, two = (load_file(run.model / "model.safetensors") for run in (whole, resumed))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"lora_rank": 33}, "lora_rank: 33 given, at most 32"), ({"frozen_layers": 0}, "frozen_layers: 0 given together with lora_rank")],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, tiny_model: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        train(code_book(), tiny_model, dataclasses.replace(LOW, **options), work=tmp_path, progress=False)


def test_queries_alone_take_changes_of_low_rank_too(tmp_path: Path, tiny_model: Path) -> None:
    config = dataclasses.replace(LOW, query_only=True)
    result = train(code_book(), tiny_model, config, work=tmp_path, progress=False)
    assert result.dev["tuned"] > result.dev["base"]
