"""Every shape of model: the float64 oracle against torch in float64, and the native encoder against the oracle on every target."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import nearfield as nf
import oracle_encoder
from encoder_models import FORMS, OTHER_ACTIVATIONS, Form, save, some_ids
from nearfield import _core
from nearfield.encode.native_model import open_native_model
from nearfield.encode.shape import UnsupportedModelError
from nearfield.encode.spec import read_spec
from nearfield.errors import FormatError

TARGETS = [row["name"] for row in _core.targets() if row["built"] and row["runs_here"]]
# Of a component of a text's vector, in units of the vector's root mean square: float32 loses its last bits over a few layers; bfloat16 and
# int8 lose 2^-9 of each value and half of 1/127 of a row's largest at every step, and weights as lively as these pass it all on.
TOLERANCES = {"fp32": 1e-5, "bf16": 0.05, "int8": 0.2}


@pytest.fixture(scope="module", params=[*FORMS, *OTHER_ACTIVATIONS], ids=lambda form: form.name)
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


@dataclass(frozen=True)
class Case:
    """A model, token ids of texts, and their vectors by the oracle."""

    folder: Path
    ids: list[list[int]]
    expected: np.ndarray

    def open(self, precision: str) -> _core.EncoderModel:
        return open_native_model(self.folder, read_spec(self.folder), precision)[0]


def flat(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    lengths = [len(row) for row in rows]
    return np.array([token for row in rows for token in row], np.int32), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


@pytest.fixture(scope="module", params=FORMS, ids=lambda form: form.name)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    form: Form = request.param
    folder = form.make(tmp_path_factory.mktemp(form.name) / "model", seed=1)
    ids = some_ids(9, vocab=json.loads((folder / "config.json").read_text())["vocab_size"], seed=1)
    return Case(folder, ids, oracle_encoder.vectors(folder, ids, form.pooling, normalize=form.normalize))


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> Iterator[str]:
    _core.force_target(request.param)
    yield request.param
    _core.force_target("")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_native_vectors_agree_with_the_oracle(case: Case, target: str, precision: str) -> None:
    found = case.open(precision).encode(*flat(case.ids), threads=2)
    assert found.dtype == np.float32
    assert found.shape == case.expected.shape
    size = np.sqrt((case.expected**2).mean(axis=1, keepdims=True))
    worst = np.abs((found - case.expected) / size).max()
    assert worst < TOLERANCES[precision], f"{worst} of the root mean square"


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_a_text_has_the_same_bits_alone_in_any_batch_and_with_any_threads(case: Case, target: str, precision: str) -> None:
    model = case.open(precision)
    texts = [*case.ids, *some_ids(40, vocab=40, seed=2)]
    alone = np.concatenate([model.encode(*flat([row]), threads=1) for row in texts])
    rng = np.random.default_rng(3)
    for threads in (1, 2, 3, 8):
        order = rng.permutation(len(texts))
        for size in (2, 7, len(texts)):
            places = order[:size]
            np.testing.assert_array_equal(model.encode(*flat([texts[i] for i in places]), threads=threads), alone[places])
        np.testing.assert_array_equal(model.encode(*flat([texts[1]]), threads=threads), alone[1:2])


@pytest.mark.parametrize("form", OTHER_ACTIVATIONS, ids=lambda form: form.name)
def test_other_activations_are_refused_by_name(form: Form, tmp_path: Path) -> None:
    folder = form.make(tmp_path / "model")
    with pytest.raises(UnsupportedModelError, match="hidden_act"):
        open_native_model(folder, read_spec(folder), "fp32")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_weights_that_overflow_are_called_damaged(precision: str, tmp_path: Path) -> None:
    folder = FORMS[3].make(tmp_path / "model")
    tensors = load_file(str(folder / "model.safetensors"))
    tensors["encoder.layer.0.output.dense.weight"] *= np.float32(1e38)
    save(folder / "model.safetensors", tensors)
    with (
        nf.Encoder(folder, backend="native", precision=precision) as encoder,
        pytest.raises(FormatError, match="NaN or infinity for text"),
    ):
        encoder.encode(["search", "a list of files"])
