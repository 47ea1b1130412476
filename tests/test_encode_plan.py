"""Which products of a native int8 encoder stay in bf16: the worst, as few as reach the target; export measures, the encoder obeys."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import nearfield as nf
from encode_models import make_bundle, some_texts
from nearfield.encode import native_plan
from nearfield.encode.native_model import packer
from nearfield.encode.native_plan import TARGET, choose, measure_plan, stated_plan
from nearfield.encode.spec import read_spec
from nearfield.encode.tokenize import TextTokenizer
from nearfield.errors import FormatError
from nearfield.export.export import export_bundle


def losses(of: dict[int, float]) -> Callable[[list[str]], float]:
    """The mean cosine when each product in int8 loses what ``of`` says, others 1e-6."""
    return lambda plan: 1 - sum(of.get(place, 1e-6) for place, kind in enumerate(plan) if kind == "int8")


@pytest.mark.parametrize(("of", "bf16"), [
    ({}, set()),
    ({3: 0.0009, 4: 0.0001}, {3}),
    ({0: 0.001, 3: 0.002, 4: 0.0005}, {0, 3}),
    ({1: 0.01}, {0, 3, 4, 7}),  # not among those tried: nothing helps
    ({0: 0.001, 7: 0.001}, {0, 7}),
])  # fmt: skip
def test_the_worst_are_kept_until_the_target_is_reached(of: dict[int, float], bf16: set[int]) -> None:
    plan = choose(8, losses(of))
    assert {place for place, kind in enumerate(plan) if kind == "bf16"} == bf16
    assert len(plan) == 8
    if 1 not in of:
        assert losses(of)(plan) >= TARGET


def test_a_plan_is_measured_on_the_engine_and_says_what_it_reaches(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = read_spec(tiny_model)
    ids = TextTokenizer(tiny_model / "tokenizer.json", 64)([*some_texts(30, longest=60), ""]).ids
    found = measure_plan(tiny_model, spec, ids)
    assert len(found["plan"]) == 8
    assert 0.9 < found["min_cosine"] <= found["mean_cosine"] <= 1
    assert found["texts"] == native_plan.TEXTS
    assert found == measure_plan(tiny_model, spec, ids), "the same texts give the same plan"
    monkeypatch.setattr(native_plan, "TARGET", 2.0)
    every = measure_plan(tiny_model, spec, ids)
    assert every["plan"] == ["bf16", "int8", "int8", "bf16"] * 2
    monkeypatch.setattr(native_plan, "TARGET", -1.0)
    none = measure_plan(tiny_model, spec, ids)
    assert none["plan"] == ["int8"] * 8
    assert every["mean_cosine"] > none["mean_cosine"]


def test_export_states_the_plan_and_the_encoder_obeys_it(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_plan, "can_measure", lambda: True)
    export_bundle(tiny_model, tmp_path / "bundle", progress=False)
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert set(manifest["native"]) == {"plan", "mean_cosine", "min_cosine", "texts"}
    for plan in (manifest["native"]["plan"], ["int8"] * 8, ["bf16"] * 8):
        manifest["native"]["plan"] = plan
        (tmp_path / "bundle" / "manifest.json").write_text(json.dumps(manifest))
        with nf.Encoder(tmp_path / "bundle", backend="native", precision="int8") as encoder:
            assert encoder._native is not None
            assert encoder._native._model is not None
            assert encoder._native._model.plan == plan


def test_without_a_plan_the_engine_decides(tiny_model: Path, tmp_path: Path) -> None:
    bundle = make_bundle(tiny_model, tmp_path / "bundle")
    default = packer(tiny_model, read_spec(tiny_model))("int8", []).plan
    assert len(default) == 8
    assert set(default) <= {"int8", "bf16"}
    for path in (bundle, tiny_model):
        with nf.Encoder(path, backend="native", precision="int8") as encoder:
            assert encoder._native is not None
            assert encoder._native._model is not None
            assert encoder._native._model.plan == default
            assert np.isfinite(encoder.encode("search")).all()


@pytest.mark.parametrize("native", [[], {"plan": None}, {"plan": "int8"}, {"plan": ["int4"]}, {"plan": [["int8"]]}, {}, "int8", 3])
def test_a_damaged_plan_is_one_line(native: object) -> None:
    with pytest.raises(FormatError, match=r"native\.plan is .* a list of int8 and bf16 expected; export the bundle again") as caught:
        stated_plan({"native": native}, Path("b"))
    assert "\n" not in str(caught.value)
    assert stated_plan({}, Path("b")) is None
    assert stated_plan({"native": None}, Path("b")) is None


def test_a_plan_of_another_model_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    bundle = make_bundle(tiny_model, tmp_path / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_text()) | {"native": {"plan": ["int8"] * 24}}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(nf.InputError, match="plan"):
        nf.Encoder(bundle, backend="native", precision="int8")
