"""Pieces of documents: what they are made of, what learning them changes, and how the merge takes a share of that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from nearfield.config import TuneConfig
from nearfield.encode.tower import Tower
from nearfield.tune.loop import model_weights
from nearfield.tune.pieces import DOCUMENTS, LONGEST, SHORTEST, TOKENS, add_change, pieces_and_documents, tune_on_pieces
from test_tune_train import FAST, plain_texts, run

CLS, SEP = 1, 2
DOCS = [[CLS, *range(10 + 100 * i, 10 + 100 * i + size), SEP] for i, size in enumerate([1, 3, 5, 20, 61, 62, 63, 90] * 4)]


class Count:
    """A bar that only counts."""

    def __init__(self) -> None:
        self.done = 0

    def advance(self, amount: int, note: str = "") -> None:
        self.done += amount


def test_a_piece_is_a_run_of_its_own_document() -> None:
    sizes, starts = set(), set()
    for step in range(40):
        texts = pieces_and_documents(DOCS, seed=3, step=step)
        count = len(texts) // 2
        assert count == DOCUMENTS
        seen = set()
        for piece, document in zip(texts[:count], texts[count:], strict=True):
            whole = next(ids for ids in DOCS if ids[1] == document[1])
            seen.add(whole[1])
            assert document == (whole if len(whole) <= TOKENS else [*whole[: TOKENS - 1], SEP])
            assert (piece[0], piece[-1]) == (CLS, SEP)
            body = document[1:-1]
            at = body.index(piece[1])
            assert piece[1:-1] == body[at : at + len(piece) - 2]
            assert 1 <= len(piece) - 2 <= min(LONGEST, len(body))
            if len(body) >= LONGEST:
                sizes.add(len(piece) - 2)
                starts.add(at == len(body) - len(piece) + 2)
            else:
                assert len(piece) - 2 >= min(SHORTEST, len(body))
        assert len(seen) == count  # different documents
    assert sizes == set(range(SHORTEST, LONGEST + 1))
    assert starts == {True, False}  # the end of a document is reached


def test_texts_are_a_function_of_seed_and_step() -> None:
    assert pieces_and_documents(DOCS, 0, 5) == pieces_and_documents(DOCS, 0, 5)
    assert pieces_and_documents(DOCS, 0, 5) != pieces_and_documents(DOCS, 0, 6)
    assert pieces_and_documents(DOCS, 0, 5) != pieces_and_documents(DOCS, 1, 5)


def test_add_change_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    tuned, base, changed = ({"w": torch.tensor(rng.normal(size=(2, 3))), "steps": torch.tensor([i])} for i in (7, 8, 9))
    mixed = add_change(tuned, base, changed, 0.25)
    for i in range(2):
        for j in range(3):
            expected = float(tuned["w"][i, j]) + 0.25 * (float(changed["w"][i, j]) - float(base["w"][i, j]))
            assert float(mixed["w"][i, j]) == pytest.approx(expected, abs=1e-12)
    assert mixed["steps"].item() == 7
    assert torch.equal(add_change(tuned, base, changed, 0.0)["w"], tuned["w"])


def test_pieces_find_their_documents_better_afterwards(tiny_model: Path) -> None:
    """The share of pieces whose own document comes first rises; the same seed gives the same weights."""
    rng = np.random.default_rng(1)
    tower, reference = Tower.load(tiny_model), Tower.load(tiny_model).eval()
    size = tower.model.get_input_embeddings().weight.shape[0]
    documents = [[CLS, *rng.integers(5, size, 20).tolist(), SEP] for _ in range(40)]
    config = TuneConfig(learning_rate=2e-3)

    def found(model: Tower) -> float:
        texts = pieces_and_documents(documents, 99, 0)
        with torch.inference_mode():
            ids, mask = model.tokenizer.pad(texts)
            rows = torch.nn.functional.normalize(model(torch.from_numpy(ids), torch.from_numpy(mask)), dim=-1).numpy()
        count = len(texts) // 2
        scores = rows[:count] @ rows[count:].T
        return float((scores.argmax(1) == np.arange(count)).mean())

    before, bar = found(tower), Count()
    tune_on_pieces(tower, reference, documents, config, dtype="float32", bar=bar)  # type: ignore[arg-type]
    assert bar.done == 24
    assert found(tower) > before + 0.1
    again = Tower.load(tiny_model)
    tune_on_pieces(again, reference, documents, config, dtype="float32", bar=Count())  # type: ignore[arg-type]
    first, second = model_weights(tower), model_weights(again)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_one_document_changes_nothing(tiny_model: Path) -> None:
    tower = Tower.load(tiny_model)
    before = {name: tensor.clone() for name, tensor in model_weights(tower).items()}
    tune_on_pieces(tower, tower, DOCS[:1], TuneConfig(), dtype="float32", bar=Count())  # type: ignore[arg-type]
    assert all(torch.equal(before[name], tensor) for name, tensor in model_weights(tower).items())


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_without_a_guard_the_configs_share_is_added(tmp_path: Path, tiny_model: Path) -> None:
    config = replace(FAST, merge_alphas=(1.0,))
    plain, half, whole = (run(tmp_path / str(share), tiny_model, replace(config, pieces=share)) for share in (0.0, 0.5, 1.0))
    assert (plain.pieces, half.pieces, whole.pieces) == (0.0, 0.5, 1.0)
    a, b, c = (weights_of(result.model) for result in (plain, half, whole))
    moved = [name for name in a if a[name].is_floating_point() and not torch.equal(a[name], c[name])]
    assert moved
    for name in moved:
        assert torch.allclose(b[name], (a[name] + c[name]) / 2, atol=1e-6)


def test_under_a_guard_the_least_share_that_holds_is_taken(tmp_path: Path, tiny_model: Path) -> None:
    easy = run(tmp_path / "easy", tiny_model, replace(FAST, pieces=0.5, guard_max_drop=1.0), guard=plain_texts())
    assert easy.pieces == 0.0
    assert [point["pieces"] for point in easy.history if point["kind"] == "merge" and point["alpha"] == 1] == [0.0]
    hard = run(tmp_path / "hard", tiny_model, replace(FAST, pieces=0.5, guard_max_drop=0.0), guard=plain_texts())
    tried = [point for point in hard.history if point["kind"] == "merge" and point["alpha"] == 1]
    base = next(point for point in hard.history if point["kind"] == "merge" and point["alpha"] == 0)
    shares = {point["pieces"]: point["guard_ndcg"] >= base["guard_ndcg"] for point in tried}
    assert 1 < len(shares) == len(tried)
    assert not shares[0.0]
    # The one that is taken is the least that held; where none did, the greatest that was tried.
    assert hard.pieces == (min(share for share in shares if shares[share]) if any(shares.values()) else max(shares))
