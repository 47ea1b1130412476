"""The step that is taken where int8 fails its gate: its rounding is the export's, it brings vectors nearer, and the gate decides."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from nearfield import int8aware, workflow
from nearfield.bundle import Bundle
from nearfield.config import TuneConfig
from nearfield.encode.tower import Tower
from nearfield.export.int8_products import weight_codes
from nearfield.tune import quantaware
from nearfield.tune.quantaware import STEPS, fake_rows, fake_weight, rounded_products, teach_rounding
from test_tune_train import code_book
from tuned_runs import Inputs, digests

CONFIG = TuneConfig(learning_rate=1e-3)


class Silent:
    def advance(self, count: int, *, note: str = "") -> None:
        assert count == 1
        assert note.startswith("loss ")


def with_outliers(model: Path, folder: Path) -> Path:
    """One weight of each output 50 times as large as the others, which leaves these two or three codes."""
    tower = Tower.load(model)
    torch.manual_seed(0)
    with torch.no_grad():
        for module in tower.model.modules():
            if isinstance(module, torch.nn.Linear):
                rows = torch.arange(len(module.weight))
                module.weight[rows, torch.randint(0, module.weight.shape[1], (len(rows),))] += 1.0
    tower.save(folder)
    return folder


def ids_of(tower: Tower, count: int = 60) -> list[list[int]]:
    return [list(row) for row in tower.tokenizer(code_book(count, 0).doc_texts).ids]


def test_weights_are_rounded_as_the_export_codes_them() -> None:
    weight = np.random.default_rng(0).standard_normal((7, 33)).astype(np.float32)
    weight[3] = 0
    codes, scales = weight_codes(np.ascontiguousarray(weight.T), 7)
    found = fake_weight(torch.from_numpy(weight), "rows").numpy()
    np.testing.assert_allclose(found, (codes * scales).T, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scheme", ["rows", "dynamic", "static", "nbits"])
def test_activations_lie_on_their_grid_and_gradients_go_through(scheme: Any) -> None:
    x = torch.randn(5, 37, generator=torch.Generator().manual_seed(1)).requires_grad_()
    found = fake_rows(x, scheme)
    values = x.detach()
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    if scheme in ("dynamic", "static"):
        low, high = low.min().clamp(max=0), high.max().clamp(min=0)
    if scheme == "nbits":
        parts = [values[:, :32], values[:, 32:]]
        step = torch.cat([part.abs().amax(1, keepdim=True).expand_as(part) for part in parts], 1) / 127
        grid = found.detach() / step
    else:
        step = ((high - low) / 255).expand_as(values)
        grid = (found.detach() - (low if scheme == "rows" else 0)) / step
    torch.testing.assert_close(grid, grid.round(), rtol=0, atol=2e-3)
    assert bool(((found - x).detach().abs() <= 1.01 * step).all())
    assert not torch.equal(found, x)
    found.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


def test_the_layers_compute_plainly_again_after_the_block(tiny_model: Path) -> None:
    tower = Tower.load(tiny_model)
    before = tower.encode(["sort a list"])
    with rounded_products(tower.model, "rows") as names:
        assert len(names) == 12  # two layers of six products
        assert not np.array_equal(tower.encode(["sort a list"]), before)
    np.testing.assert_array_equal(tower.encode(["sort a list"]), before)


def test_outliers_are_learned_around_and_the_same_bits_come_out(tiny_model: Path, tmp_path: Path) -> None:
    folder = with_outliers(tiny_model, tmp_path / "outliers")
    made = []
    for _ in range(2):
        tower = Tower.load(folder)
        figures = teach_rounding(tower, ids_of(tower), CONFIG, "rows", bar=Silent())
        made.append(tower.model.state_dict())
        assert figures["steps"] == STEPS
        assert 1 - figures["cosine_after"] < 0.6 * (1 - figures["cosine_before"])
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])


def bundle(passed: bool | None, fp32: float, int8: float, cosine: float = 0.99) -> Any:
    retrieval = {"ndcg_fp32": fp32, "ndcg_int8": int8}
    parity = {"int8": {"passed": passed, "mean_cosine": cosine, "retrieval": retrieval}}
    return SimpleNamespace(manifest={"parity": parity}, query=None, path=Path("bundle"))


@pytest.mark.parametrize(
    ("second", "kept"),
    [
        (bundle(True, 0.70, 0.70), True),
        (bundle(False, 0.70, 0.69), False),
        (bundle(True, 0.60, 0.60), False),  # the gate passes, but the float weights have paid for it
    ],
)
def test_the_better_is_kept_and_the_finding_says_what_happened(second: Any, kept: bool, tiny_model: Path, tmp_path: Path) -> None:
    first, asked = bundle(False, 0.70, 0.60), []

    def export(model: Path, out: Path) -> Bundle:
        asked.append((Tower.load(model).spec.dim, out.name))
        return second

    made = int8aware.mend(first, tiny_model, code_book(30, 5), CONFIG, tmp_path, export, progress=False)
    assert asked == [(32, "bundle")]
    assert made.bundle is (second if kept else first)
    assert made.entry["kept"] is kept
    assert (made.entry["ndcg_int8_before"], made.entry["ndcg_fp32_before"]) == (0.60, 0.70)
    assert made.finding.severity == ("info" if kept else "warning")
    assert "nDCG@10 of int8 0.600 to " in made.finding.message
    assert made.finding.message.endswith("kept" if kept else "the model stays as it was")


def test_it_is_asked_for_only_where_the_gate_was_measured_and_failed() -> None:
    assert [int8aware.failed(bundle(passed, 0.7, 0.6), query_side=False) for passed in (False, True, None)] == [True, False, False]
    assert not int8aware.failed(SimpleNamespace(manifest={"parity": {}}, query=None), query_side=True)  # type: ignore[arg-type]


def test_a_run_whose_gate_passes_takes_no_step(whole_run: Path) -> None:
    manifest, run = (json.loads((whole_run / name).read_text()) for name in ("manifest.json", "run.json"))
    assert manifest["parity"]["int8"]["passed"] is True
    assert not [entry for entry in run["history"] if entry["kind"] == "int8-aware"]


@pytest.mark.slow
def test_a_run_that_is_stopped_in_the_step_goes_on_to_the_same_bits(
    run_inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "failed", lambda *_, **__: True)
    options = {"base": run_inputs.base, "config": run_inputs.config, "progress": False}
    whole = workflow.tune(run_inputs.pairs, out=tmp_path / "whole", **options)
    with monkeypatch.context() as patch:
        patch.setattr(quantaware, "drift", _stop_at(5, quantaware.drift))
        with pytest.raises(KeyboardInterrupt):
            workflow.tune(run_inputs.pairs, out=tmp_path / "stopped", **options)
    assert not (tmp_path / "stopped").exists()
    resumed = workflow.tune(run_inputs.pairs, out=tmp_path / "stopped", resume=True, **options)
    assert digests(tmp_path / "stopped") == digests(tmp_path / "whole")
    (said,) = [found for found in resumed.findings if found.kind == "int8-aware"]
    assert said in whole.findings
    run = json.loads((tmp_path / "stopped" / "run.json").read_text())
    assert [entry["steps"] for entry in run["history"] if entry["kind"] == "int8-aware"] == [STEPS]
    assert "int8 failed its gate" in (tmp_path / "stopped" / "report.html").read_text()


def _stop_at(call: int, function: Any) -> Any:
    calls = iter(range(call))

    def stopping(*arguments: Any) -> Any:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return function(*arguments)

    return stopping
