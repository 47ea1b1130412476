"""Losses beyond the contrastive one, hard negatives and teachers, each against slow arithmetic in float64 or a known answer."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import oracle_tune
from nearfield.config import TuneConfig
from nearfield.encode.tower import Tower
from nearfield.errors import InputError
from nearfield.tune.batches import Batches
from nearfield.tune.crossencoder import CrossEncoder, train_cross_encoder
from nearfield.tune.distill import listwise_kl, margin_mse
from nearfield.tune.embed import cached_step, embed
from nearfield.tune.gradcache import cached_backward
from nearfield.tune.negatives import BiEncoderTeacher, mine, score_candidates
from nearfield.tune.objective import step_loss
from nearfield.tune.pairs import TrainingPairs
from nearfield.tune.prepare import prepared
from test_tune_train import FAST, run

NAN = math.nan


# --- GradCache ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[7], [3, 4], [1, 1, 5], [1] * 7])
def test_cached_gradients_are_those_of_the_whole_batch_in_float64(sizes: list[int]) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4)).double()
    inputs = torch.randn(7, 5, dtype=torch.float64)

    def loss_of(vectors: torch.Tensor) -> torch.Tensor:
        unit = torch.nn.functional.normalize(vectors, dim=-1)
        return torch.nn.functional.cross_entropy(unit[:3] @ unit[3:].T / 0.05, torch.arange(3))

    whole = loss_of(model(inputs))
    whole.backward()
    expected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    cached = cached_backward(inputs.split(sizes), model, loss_of)
    assert abs(cached.item() - whole.item()) < 1e-12
    for p, grad in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, grad, rtol=1e-12, atol=1e-14)


def test_cached_gradients_see_the_same_dropout_twice_and_leave_the_random_state_as_one_pass_would() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(5, 64), torch.nn.Dropout(0.5), torch.nn.Linear(64, 4)).double()
    inputs = torch.randn(6, 5, dtype=torch.float64)
    torch.manual_seed(1)
    (torch.cat([model(part) for part in inputs.split(2)]) ** 2).sum().backward()
    after, expected = torch.get_rng_state(), [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    torch.manual_seed(1)
    cached_backward(inputs.split(2), model, lambda vectors: (vectors**2).sum())
    assert torch.equal(torch.get_rng_state(), after)
    for p, grad in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, grad, rtol=1e-12, atol=1e-14)


def test_a_step_of_the_tower_with_and_without_the_cache(tiny_model: Path) -> None:
    tower = Tower.load(tiny_model)
    ids = tower.tokenizer(["the index", "search", "a tree of vectors", "sort an array quickly", "text"]).ids

    def loss_of(vectors: torch.Tensor) -> torch.Tensor:
        return (vectors[0] @ vectors[3:].T).sum() + vectors[1] @ vectors[2]

    plain = loss_of(embed(tower, ids, chunk_rows=2, dtype="float32"))
    plain.backward()
    expected = {name: p.grad.clone() for name, p in tower.named_parameters() if p.grad is not None}
    tower.zero_grad(set_to_none=True)
    cached = cached_step(tower, ids, loss_of, chunk_rows=2, dtype="float32")
    assert cached.item() == pytest.approx(plain.item(), abs=1e-6)
    for name, p in tower.named_parameters():
        if name in expected:
            torch.testing.assert_close(p.grad, expected[name], rtol=1e-4, atol=1e-6)


# --- distillation ------------------------------------------------------------------------------------------------------


def test_kl_agrees_with_loops_and_missing_places_do_not_count() -> None:
    rng = np.random.default_rng(0)
    scores, teacher = rng.uniform(-1, 1, (4, 5)), rng.normal(0, 3, (4, 5))
    teacher[1, 3:] = NAN
    teacher[2, 1:] = NAN
    total = 0.0
    for row in range(4):
        kept = [j for j in range(5) if not math.isnan(teacher[row, j])]
        t, s = ([math.exp(values[row, j] / heat) for j in kept] for values, heat in ((teacher, 2.0), (scores, 0.05)))
        total += sum(a / sum(t) * math.log((a / sum(t)) / (b / sum(s))) for a, b in zip(t, s, strict=True))
    own = torch.tensor(scores, requires_grad=True)
    loss = listwise_kl(own, torch.tensor(teacher), temperature=0.05, teacher_temperature=2.0)
    assert loss.item() == pytest.approx(total / 4, rel=1e-5)
    loss.backward()
    assert own.grad is not None
    assert bool(own.grad.isfinite().all())
    assert own.grad[1, 3:].abs().max() == own.grad[2].abs().max() == 0


def test_margins_agree_with_loops_and_missing_places_do_not_count() -> None:
    scores = torch.tensor([[0.9, 0.5, 0.1], [0.2, 0.6, 0.0]], requires_grad=True)
    teacher = torch.tensor([[5.0, 1.0, 4.0], [2.0, 3.0, NAN]])
    expected = ((10 * 0.4 - 4) ** 2 + (10 * 0.8 - 1) ** 2 + (10 * -0.4 + 1) ** 2) / 3
    loss = margin_mse(scores, teacher, scale=10.0)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert scores.grad is not None
    assert scores.grad[1, 2] == 0
    assert margin_mse(scores, torch.full((2, 3), NAN)).item() == 0


# --- the whole objective -----------------------------------------------------------------------------------------------

TINY = TrainingPairs(
    queries=[[1, 5, 2], [1, 6, 2], [1, 7, 2]],
    documents=[[1, 8, 2], [1, 9, 2], [1, 10, 2], [1, 11, 2]],
    pairs=np.array([[0, 0], [1, 1], [2, 2]], np.int64),
    relevant=[frozenset({0}), frozenset({1}), frozenset({2})],
    negatives=[(3,), (3, 0), ()],
)


def test_a_batch_knows_its_candidates_and_the_teachers_scores() -> None:
    pairs = dataclasses.replace(TINY, teacher={(0, 0): 4.0, (0, 3): 1.0, (1, 1): 3.0, (1, 3): 2.0, (1, 0): 0.5})
    batch = Batches(pairs, TuneConfig(batch_size=3, hard_negatives=2))[0]
    for i in range(3):
        query = pairs.queries.index(batch.queries[batch.query_of[i]])
        rows = [pairs.documents.index(batch.documents[c]) for c in batch.candidates[i] if c >= 0]
        assert rows == [query, *pairs.negatives[query]]
        expected = [pairs.teacher.get((query, row), NAN) for row in rows] + [NAN] * (3 - len(rows))
        np.testing.assert_array_equal(batch.teacher[i], np.array(expected, np.float32))


def test_lengths_are_averaged_and_each_is_the_loss_of_the_cut_vectors() -> None:
    batch = Batches(TINY, TuneConfig(batch_size=3))[0]
    vectors = torch.randn(len(batch.queries) + len(batch.documents), 8, dtype=torch.float64)
    parts = []
    for dim in (8, 4, 2):
        cut = vectors[:, :dim].numpy()
        queries, documents = cut[: len(batch.queries)][batch.query_of], cut[len(batch.queries) :]
        parts.append(oracle_tune.info_nce(queries, documents, batch.target, batch.relevant, 0.05, False))
    loss = step_loss(vectors, batch, TuneConfig(batch_size=3, matryoshka=(2, 4, 100)))
    assert loss.item() == pytest.approx(sum(parts) / 3, rel=1e-4)


def test_the_teachers_part_is_a_share_and_the_anchor_is_added() -> None:
    pairs = dataclasses.replace(TINY, teacher={(0, 0): 4.0, (0, 3): 1.0})
    batch = Batches(pairs, TuneConfig(batch_size=3))[0]
    vectors = torch.randn(len(batch.queries) + len(batch.documents), 8)
    plain = step_loss(vectors, batch, TuneConfig(batch_size=3)).item()
    only = step_loss(vectors, batch, TuneConfig(batch_size=3, distill=1.0, teacher="x")).item()
    half = step_loss(vectors, batch, TuneConfig(batch_size=3, distill=0.5, teacher="x")).item()
    assert half == pytest.approx((plain + only) / 2, rel=1e-5)
    margin = step_loss(vectors, batch, TuneConfig(batch_size=3, distill=1.0, teacher="x", distill_loss="margin")).item()
    assert margin != pytest.approx(only)
    anchored = step_loss(vectors, batch, TuneConfig(batch_size=3, anchor=2.0), held=-vectors).item()
    assert anchored == pytest.approx(plain + 4.0, rel=1e-5)


# --- hard negatives and teachers ---------------------------------------------------------------------------------------


class Fixed:
    """A teacher that knows its answers by the texts."""

    def __init__(self, high: set[tuple[int, int]]) -> None:
        self.high = high

    def scores(self, queries, documents):  # type: ignore[no-untyped-def]
        return np.array([float((q[1], d[1]) in self.high) for q, d in zip(queries, documents, strict=True)], np.float32)


def test_mined_negatives_keep_the_margin_and_are_the_hardest() -> None:
    angles = [0.0, 0.1, 0.5, 0.6, 1.2, 1.4]
    documents = np.array([[math.cos(a), math.sin(a)] for a in angles], np.float32)
    queries = np.array([[1.0, 0.0]], np.float32)
    pairs = TrainingPairs([[1, 5, 2]], [[1, 10 + i, 2] for i in range(6)], np.array([[0, 1]]), [frozenset({1})], [(3,)])
    config = TuneConfig(mined_negatives=2, mined_margin=0.05)
    # document 0 is nearer than the positive (1), so it may be an answer; 3 is labelled already; 2 and 4 are the next
    assert mine(pairs, queries, documents, config).negatives == [(3, 2, 4)]
    teacher = Fixed({(5, 11), (5, 12)})
    assert mine(pairs, queries, documents, config, teacher).negatives == [(3, 4, 5)]
    assert mine(pairs, queries, documents, TuneConfig(mined_negatives=2, mined_margin=0.9)).negatives == [(3,)]


def test_a_bi_encoder_teaches_its_cosines(tiny_model: Path) -> None:
    tower = Tower.load(tiny_model)
    texts = ["the index of a tree", "search", "sort an array"]
    ids = tower.tokenizer(texts).ids
    vectors = tower.encode(texts)
    scores = BiEncoderTeacher(tower, dtype="float32").scores([ids[0], ids[0], ids[2]], [ids[1], ids[0], ids[1]])
    expected = [vectors[0] @ vectors[1], vectors[0] @ vectors[0], vectors[2] @ vectors[1]]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    pairs = dataclasses.replace(TINY, negatives=[(3,), (), ()])
    assert set(score_candidates(pairs, Fixed({(5, 8)}))) == {(0, 0), (0, 3), (1, 1), (2, 2)}


def test_a_cross_encoder_reads_both_texts_and_keeps_their_ends(tiny_model: Path) -> None:
    model = CrossEncoder(Tower.load(tiny_model), dtype="float32", max_tokens=8)
    assert model.joined([1, 5, 2], [1, 6, 7, 2]) == [1, 5, 2, 6, 7, 2]
    assert model.joined([1, 5, 2], [1, 6, 7, 8, 9, 10, 11, 2]) == [1, 5, 2, 6, 7, 8, 9, 2]
    assert len(model.joined(list(range(20)), list(range(20)))) == 8


def test_a_cross_encoder_learns_and_is_a_function_of_its_arguments(tiny_model: Path) -> None:
    """Three topics, each with a word of its own on either side: only both texts together tell what belongs together."""
    topics = np.arange(60) % 3
    rng = np.random.default_rng(0)
    queries = [[1, 10 + int(t), int(rng.integers(30, 60)), 2] for t in topics]
    documents = [[1, int(rng.integers(30, 60)), 20 + int(t), 2] for t in topics]
    same = [frozenset(np.flatnonzero(topics == t).tolist()) for t in topics]
    pairs = TrainingPairs(queries, documents, np.array([[i, i] for i in range(60)]), same, [()] * 60)
    config = dataclasses.replace(FAST, batch_size=64)
    models = [train_cross_encoder(Tower.load(tiny_model), pairs, config, dtype="float32", steps=steps) for steps in (150, 150)]
    other = documents[1:] + documents[:1]
    assert np.array_equal(models[0].scores(queries, documents), models[1].scores(queries, documents))
    assert (models[0].scores(queries, documents) > models[0].scores(queries, other)).mean() > 0.9


def test_a_run_with_everything_learns_and_repeats(tmp_path: Path, tiny_model: Path) -> None:
    config = dataclasses.replace(
        FAST, epochs=3, mined_negatives=2, distill=0.3, teacher="cross-encoder", matryoshka=(16,), gradcache=True, anchor=0.1
    )
    first, second = run(tmp_path / "a", tiny_model, config), run(tmp_path / "b", tiny_model, config)
    assert first.dev["tuned"] > first.dev["base"] + 0.1
    assert (first.model / "model.safetensors").read_bytes() == (second.model / "model.safetensors").read_bytes()


def test_distilling_without_a_teacher_is_refused(tiny_model: Path) -> None:
    tower = Tower.load(tiny_model)
    with pytest.raises(InputError, match=r"distill: 0\.5 given without a teacher"):
        prepared(TINY, tower, lambda: tower, TuneConfig(distill=0.5), dtype="float32", progress=False)
