"""One look-up of the token table for a step: values and gradients of plain look-ups, and the model as it was afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nearfield.encode.tower import Tower
from nearfield.tune import embed as module
from nearfield.tune.embed import embed
from nearfield.tune.lookup import shared_lookup

TEXTS = ["the index of a tree", "search", "how to sort an array of numbers quickly", "a vector of text", "index index index"]


def gradients(tower: Tower, *, rows: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    tower.zero_grad(set_to_none=True)
    ids = tower.tokenizer(TEXTS).ids
    vectors = embed(tower, ids, chunk_rows=rows, dtype="float32")
    (vectors * torch.arange(vectors.numel()).reshape(vectors.shape)).sum().backward()
    return vectors.detach(), {name: p.grad.clone() for name, p in tower.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("rows", [1, 2, 16])
def test_values_and_gradients_are_those_of_plain_look_ups(tiny_model: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tower = Tower.load(tiny_model)
    tower.model.double()
    shared, gradient = gradients(tower, rows=rows)
    with monkeypatch.context() as patch:
        patch.setattr(module, "shared_lookup", lambda *_: torch.enable_grad())
        plain, expected = gradients(tower, rows=rows)
    assert torch.equal(shared, plain)
    assert gradient.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(gradient[name], value, rtol=1e-5, atol=1e-6 * float(value.abs().max()))
    used = sorted({token for row in tower.tokenizer(TEXTS).ids for token in row})
    table = gradient["model.embeddings.word_embeddings.weight"]
    assert table[used].abs().sum(1).gt(0).all()
    others = torch.ones(len(table), dtype=torch.bool)
    others[used] = False
    assert table[others].abs().max() == 0


def test_the_model_is_as_it_was_after_the_block_and_after_an_error(tiny_model: Path) -> None:
    tower = Tower.load(tiny_model)
    table = tower.model.get_input_embeddings()
    before = table.forward
    seen = []

    def fail() -> None:
        with shared_lookup(tower.model, [[1, 2]], 0):
            seen.append(table.forward)
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        fail()
    assert seen != [before]
    assert table.forward == before
    with torch.no_grad(), shared_lookup(tower.model, [[1, 2]], 0):
        assert table.forward == before
    table.weight.requires_grad_(False)
    with shared_lookup(tower.model, [[1, 2]], 0):
        assert table.forward == before
