"""The float64 oracle of the encoder against torch in float64, on every shape of model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import oracle_encoder
from encoder_models import FORMS, Form, some_ids


@pytest.fixture(scope="module", params=FORMS, ids=lambda form: form.name)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Form, Path]:
    form: Form = request.param
    return form, form.make(tmp_path_factory.mktemp(form.name) / "model")


def test_the_oracle_agrees_with_torch_in_float64(made: tuple[Form, Path]) -> None:
    import torch
    from transformers import AutoModel

    form, folder = made
    model = AutoModel.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    oracle = oracle_encoder.Bert(folder)
    vocab = json.loads((folder / "config.json").read_text())["vocab_size"]
    hidden = []
    for ids in some_ids(6, vocab=vocab):
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()
        found = oracle.hidden(ids)
        assert found.shape == (len(ids), form.hidden)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)
        hidden.append(found)
    # Every part matters: tokens differ within a text, and texts from each other.
    assert np.abs(hidden[1] - hidden[1].mean(axis=0)).mean() > 0.1
