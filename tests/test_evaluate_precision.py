"""In which precision a verdict is measured: what is asked for, what "auto" takes here, and that the report says it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nearfield.config import EvaluationPrecision
from nearfield.encode.shape import UnsupportedModelError
from nearfield.evaluate import precision as module
from nearfield.evaluate.precision import open_for_evaluation

TEXTS = ["how to sort a list", "a tree of numbers", "search"]


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(("asked", "expected"), [("fp32", "fp32"), ("bf16", "bf16"), ("auto", None)])
def test_what_is_asked_for(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, asked: EvaluationPrecision, expected: str | None, fast: bool
) -> None:
    monkeypatch.setattr(module, "is_fast", lambda name: fast and name == "bf16")
    expected = expected or ("bf16" if fast else "fp32")
    with open_for_evaluation(tiny_bundle, asked, threads=1) as encoder, open_for_evaluation(tiny_bundle) as plain:
        assert encoder.precision == expected
        assert encoder.backend == ("native" if expected == "bf16" else plain.backend)
        assert (plain.precision, encoder.fingerprint) == ("fp32", plain.fingerprint)
        difference = np.abs(encoder.encode(TEXTS) - plain.encode(TEXTS)).max()
    assert difference < (2e-2 if expected == "bf16" else 1e-6)
    assert (difference > 1e-6) == (expected == "bf16")


def test_auto_takes_fp32_of_a_model_that_the_engine_does_not_compute(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[dict[str, object]] = []

    def encoder(model: Path, **options: object) -> str:
        opened.append(options)
        if options.get("backend") == "native":
            raise UnsupportedModelError("not a BERT")
        return "opened"

    monkeypatch.setattr(module, "Encoder", encoder)
    monkeypatch.setattr(module, "is_fast", lambda name: True)
    assert open_for_evaluation(tiny_bundle, "auto") == "opened"
    assert opened == [{"backend": "native", "precision": "bf16", "threads": None}, {"threads": None}]
    with pytest.raises(UnsupportedModelError):
        open_for_evaluation(tiny_bundle, "bf16")
