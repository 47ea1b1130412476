"""Pairs, batches, the dev sub-corpus, the schedule, the merge: each against what it says."""

from __future__ import annotations

import itertools
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from nearfield.config import TuneConfig
from nearfield.data.dataset import Dataset
from nearfield.errors import InputError
from nearfield.tune import choice
from nearfield.tune.batches import Batches, length_chunks
from nearfield.tune.budget import Budget
from nearfield.tune.devset import choose_devset
from nearfield.tune.merge import RESCUES, Point, choose_alpha, interpolate
from nearfield.tune.mining import lexical_neighbours
from nearfield.tune.pairs import TrainingPairs, training_pairs
from nearfield.tune.precision import choose_dtype
from nearfield.tune.schedule import evaluation_steps, rate_at


def letters(texts: list[str]) -> list[list[int]]:
    return [[ord(c) for c in text] for text in texts]


def pairs_of(dataset: Dataset, **options: object) -> TrainingPairs:
    return training_pairs(dataset, TuneConfig(**options), query_ids_of=letters, doc_ids_of=letters)  # type: ignore[arg-type]


def dataset(docs: dict[str, str], queries: dict[str, str], train: dict[str, dict[str, int]], **rest: object) -> Dataset:
    return Dataset("d", "memory", [*docs], [*docs.values()], [*queries], [*queries.values()], {"train": train}, **rest)  # type: ignore[arg-type]


def test_texts_that_look_alike_are_one_row_and_relevance_follows_the_text() -> None:
    data = dataset(
        {"d1": "one", "d2": "one", "d3": "three", "d4": ""},
        {"q1": "same", "q2": "same", "q3": "other", "q4": " "},
        {"q1": {"d1": 1}, "q2": {"d3": 2, "d4": 1}, "q3": {"d2": 1, "gone": 1}, "q4": {"d1": 1}},
        hard_negatives={"q1": ["d3", "d2"], "q3": ["d3", "gone", "d4"]},
    )
    pairs = pairs_of(data)
    assert len(pairs.queries) == 2
    assert len(pairs.documents) == 2
    same, other = 0, 1
    one, three = pairs.documents.index(letters(["one"])[0]), pairs.documents.index(letters(["three"])[0])
    assert pairs.relevant == [frozenset({one, three}), frozenset({one})]
    assert sorted(map(tuple, pairs.pairs.tolist())) == sorted([(same, one), (same, three), (other, one)])
    assert pairs.negatives == [(), (three,)]


def test_nothing_that_could_be_a_negative_is_an_error() -> None:
    one = dataset({"d1": "one", "d2": "one"}, {"q1": "a", "q2": "b"}, {"q1": {"d1": 1}, "q2": {"d2": 1}})
    with pytest.raises(InputError, match="at least two different documents"):
        pairs_of(one)
    with pytest.raises(InputError, match="no training pair"):
        pairs_of(dataset({"d1": " "}, {"q1": "a"}, {"q1": {"d1": 1}}))
    with pytest.raises(InputError, match="'train'"):
        pairs_of(Dataset("d", "memory", ["d1"], ["x"]))
    enough = dataset({"d1": "one", "d2": "two"}, {"q1": "a"}, {"q1": {"d1": 1}}, hard_negatives={"q1": ["d2"]})
    assert len(pairs_of(enough).pairs) == 1
    with pytest.raises(InputError, match="at least two different documents"):
        pairs_of(enough, hard_negatives=0)


def test_max_pairs_is_a_repeatable_sample_and_keeps_the_relevance_of_what_is_left_out() -> None:
    data = dataset({f"d{i}": f"t{i}" for i in range(50)}, {"q": "a"}, {"q": {f"d{i}": 1 for i in range(50)}})
    first, again, other = (pairs_of(data, max_pairs=10, seed=seed) for seed in (1, 1, 2))
    assert len(first.pairs) == 10
    np.testing.assert_array_equal(first.pairs, again.pairs)
    assert not np.array_equal(first.pairs, other.pairs)
    assert len(first.relevant[0]) == 50


def many(n: int = 23) -> TrainingPairs:
    data = dataset(
        {f"d{i}": f"doc {i}" for i in range(n + 9)},
        {f"q{i}": f"query {i}" for i in range(n)},
        {f"q{i}": {f"d{i}": 1, f"d{(i + 1) % n}": 1} for i in range(n)},
        hard_negatives={"q0": [f"d{n}", f"d{n + 1}", f"d{n + 2}"], "q1": ["d1", f"d{n + 3}"]},
    )
    return pairs_of(data)


def test_an_epoch_sees_every_pair_once_in_parts_of_like_size() -> None:
    pairs = many()
    batches = Batches(pairs, TuneConfig(batch_size=8, epochs=3, seed=5))
    assert len(batches) == 3 * 6
    text_of = {tuple(ids): i for i, ids in enumerate(pairs.queries)}, {tuple(ids): i for i, ids in enumerate(pairs.documents)}
    orders = []
    for epoch in range(3):
        seen = []
        for step in range(6 * epoch, 6 * epoch + 6):
            batch = batches[step]
            assert len(batch) in (7, 8)
            assert len({tuple(ids) for ids in batch.documents}) == len(batch.documents)
            seen += [
                (text_of[0][tuple(batch.queries[q])], text_of[1][tuple(batch.documents[d])])
                for q, d in zip(batch.query_of, batch.target, strict=True)
            ]
        assert sorted(seen) == sorted(map(tuple, pairs.pairs.tolist()))
        orders.append(seen)
    assert orders[0] != orders[1]
    assert [batches.pairs_before(s) for s in (0, 1, 6, 18)] == [0, 8, 46, 138]


def test_relevant_marks_exactly_what_was_judged_and_negatives_rotate() -> None:
    pairs = many()
    batches = Batches(pairs, TuneConfig(batch_size=64, epochs=4))
    used = []
    for epoch in range(4):
        batch = batches[epoch]
        for i in range(len(batch)):
            row = pairs.queries.index(batch.queries[batch.query_of[i]])
            for j, ids in enumerate(batch.documents):
                assert batch.relevant[i, j] == (pairs.documents.index(ids) in pairs.relevant[row])
        texts = {bytes(ids).decode() for ids in batch.documents}
        used.append({int(text.split()[1]) for text in texts if int(text.split()[1]) >= 23})
    assert used == [{23, 26}, {24, 26}, {25, 26}, {23, 26}]


def test_batches_do_not_depend_on_the_order_of_asking() -> None:
    pairs = many()
    config = TuneConfig(batch_size=8, epochs=2)
    forward, back = Batches(pairs, config), Batches(pairs, config)
    wanted = [forward[s] for s in range(len(forward))]
    for step in reversed(range(len(back))):
        assert back[step].documents == wanted[step].documents
        np.testing.assert_array_equal(back[step].relevant, wanted[step].relevant)


def test_length_chunks_cover_everything_once() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 77).tolist()
    chunks = list(length_chunks(lengths, 10))
    assert sorted(np.concatenate(chunks).tolist()) == list(range(77))
    assert all(min(lengths[i] for i in a) >= max(lengths[i] for i in b) for a, b in itertools.pairwise(chunks))


@pytest.mark.parametrize("decay", ["linear", "cosine"])
@pytest.mark.parametrize(("total", "warmup"), [(1, 0.1), (7, 0.0), (7, 1.0), (100, 0.1)])
def test_the_rate_rises_then_falls_and_never_stops(total: int, warmup: float, decay: str) -> None:
    rates = [rate_at(s, total, peak=1.0, warmup_fraction=warmup, decay=decay) for s in range(total)]  # type: ignore[arg-type]
    top = int(np.argmax(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert max(rates) == 1.0
    assert min(rates) > 0


def test_evaluation_always_includes_the_end() -> None:
    for total in (1, 2, 3, 7, 100):
        for every in (0.001, 0.25, 0.3, 1.0):
            steps = evaluation_steps(total, every)
            assert total in steps
            assert min(steps) >= 1
            assert max(steps) == total


def test_the_dev_set_has_the_positives_look_alikes_and_random_ones() -> None:
    docs = {f"d{i}": f"{chr(97 + i % 26)}{i}" for i in range(400)}
    queries = {f"q{i}": f"{chr(97 + i % 26)}{i}" for i in range(40)}
    data = dataset(docs, queries, {})
    data.qrels["dev"] = {f"q{i}": {f"d{i}": 1} for i in range(40)}
    config = TuneConfig(dev_queries=20, dev_documents=60)
    dev = choose_devset(data, config, query_ids_of=letters, doc_ids_of=letters)
    again = choose_devset(data, config, query_ids_of=letters, doc_ids_of=letters)
    assert (dev.query_ids, dev.doc_ids) == (again.query_ids, again.doc_ids)
    assert len(dev.query_ids) == 20
    assert len(dev.doc_ids) == len(set(dev.doc_ids)) == 60
    assert {d for q in dev.query_ids for d in dev.qrels[q]} <= set(dev.doc_ids)
    assert dev.documents == letters([docs[d] for d in dev.doc_ids])
    initials = {queries[q][0] for q in dev.query_ids}
    shared = sum(docs[d][0] in initials for d in dev.doc_ids)
    other = choose_devset(data, TuneConfig(dev_queries=20, dev_documents=60, seed=1), query_ids_of=letters, doc_ids_of=letters)
    assert other.query_ids != dev.query_ids
    assert shared >= 35  # the 20 positives and, of the 40 places left, three quarters mined by shared rare tokens
    small = choose_devset(data, TuneConfig(dev_documents=2), query_ids_of=letters, doc_ids_of=letters)
    assert len(small.doc_ids) == 40
    whole = choose_devset(data, TuneConfig(), query_ids_of=letters, doc_ids_of=letters)
    assert len(whole.doc_ids) == 400


def test_a_missing_dev_split_is_named() -> None:
    with pytest.raises(InputError, match="no dev split"):
        choose_devset(dataset({"d": "x"}, {"q": "y"}, {"q": {"d": 1}}), TuneConfig(), query_ids_of=letters, doc_ids_of=letters)


def test_dev_ndcg_is_that_of_the_ranking() -> None:
    data = dataset({"a": "a", "b": "b", "c": "c"}, {"q": "q"}, {})
    data.qrels["dev"] = {"q": {"b": 1}}
    dev = choose_devset(data, TuneConfig(), query_ids_of=letters, doc_ids_of=letters)
    documents = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    assert dev.ndcg(np.array([[1, 0]], np.float32), documents) == pytest.approx(1 / np.log2(3))


def test_mining_agrees_with_loops() -> None:
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, 300, rng.integers(0, 12)).tolist() for _ in range(200)]
    queries = [rng.integers(0, 320, 4).tolist() for _ in range(10)]
    frequency = {t: sum(t in d for d in documents) for t in range(320)}
    for query, rows in zip(queries, lexical_neighbours(queries, documents, 5), strict=True):
        scores = [
            sum(np.log(200 / frequency[t]) for t in sorted(set(query)) if t in d and frequency[t] <= 20) / np.sqrt(max(len(set(d)), 1))
            for d in documents
        ]
        assert rows.tolist() == [i for i in np.argsort(-np.array(scores), kind="stable")[:5] if scores[i] > 0]


def test_interpolation_is_exact_at_both_ends() -> None:
    rng = torch.Generator().manual_seed(0)
    base = {"w": torch.randn(4, 5, generator=rng), "ids": torch.arange(3)}
    tuned = {"w": torch.randn(4, 5, generator=rng), "ids": torch.arange(3)}
    for alpha, wanted in ((0.0, base), (1.0, tuned)):
        got = interpolate(base, tuned, alpha)
        assert all(torch.equal(got[name], wanted[name]) for name in wanted)
        assert got["w"].data_ptr() != wanted["w"].data_ptr()
    torch.testing.assert_close(interpolate(base, tuned, 0.3)["w"], 0.7 * base["w"] + 0.3 * tuned["w"])


def curve(alpha: float) -> Point:
    return Point(alpha, dev=0.5 + 0.4 * alpha - 0.25 * alpha**2, guard=0.8 - 0.04 * alpha**2)


GRID = (0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@pytest.mark.parametrize(
    ("alphas", "allowed", "trials", "wanted"),
    [
        (GRID, 1.0, 3, 0.8),  # the top of the dev curve
        (GRID, 0.005, 3, 0.25),  # the guard lets 0.35 through
        (GRID, 0.011, 3, 0.5),
        (GRID, 0.0, 3, 0.0),  # any change hurts the guard
        (GRID, 1.0, 0, 1.0),  # ends only
        ((1.0,), 1.0, 3, 1.0),
        ((1.0,), 0.005, 3, 0.0),  # nothing of the list passes: the base
        ((0.0,), 1.0, 3, 0.0),
    ],
)
def test_alpha_is_the_best_on_dev_that_the_guard_lets_through(
    alphas: tuple[float, ...], allowed: float, trials: int, wanted: float
) -> None:
    chosen, points = choose_alpha(
        curve(0), curve(1), alphas, guess=curve, measure=lambda alpha, _: curve(alpha), trials=trials, allowed_drop=allowed
    )
    assert chosen.alpha == wanted
    assert [p.alpha for p in points] == sorted(p.alpha for p in points)
    assert 2 <= len(points) <= 2 + trials


def test_a_guess_orders_the_search_and_never_decides() -> None:
    def too_bright(alpha: float) -> Point:
        return Point(alpha, dev=0.9, guard=0.9)

    measured = []

    def measure(alpha: float, to_beat: float) -> Point:
        measured.append(alpha)
        return curve(alpha)

    chosen, _ = choose_alpha(curve(0), curve(1), GRID, guess=too_bright, measure=measure, trials=6, allowed_drop=0.005)
    assert chosen.alpha == 0.25
    assert chosen.dev == curve(0.25).dev
    assert len(measured) == len(set(measured))


@pytest.mark.parametrize(
    ("trials", "allowed", "wanted"), [(1, 0.005, 0.25), (1, 0.011, 0.25), (2, 0.02, 0.6), (1, 0.0, 0.0), (0, 0.005, 0.0)]
)
def test_a_gain_is_not_given_away_because_the_first_guess_was_too_bright(trials: int, allowed: float, wanted: float) -> None:
    measured = []

    def measure(alpha: float, to_beat: float) -> Point:
        measured.append(alpha)
        return curve(alpha)

    def guess(alpha: float) -> Point:
        return Point(alpha, dev=alpha, guard=0.9)

    chosen, _ = choose_alpha(curve(0), curve(1), GRID, guess=guess, measure=measure, trials=trials, allowed_drop=allowed)
    assert chosen.alpha == wanted
    assert len(measured) <= trials + RESCUES
    assert measured[:trials] == [0.9, 0.8][:trials]
    del measured[:]
    choose_alpha(curve(0), Point(1.0, 0.4, 0.7), GRID, guess=guess, measure=measure, trials=trials, allowed_drop=0.0)
    assert len(measured) <= trials  # without a gain there is nothing to rescue


@pytest.mark.parametrize(
    ("gives_back", "tried", "share", "alpha"),
    [
        (0.07, [(0.0, 0.0), (0.0, 1.0), (0.9, 1.0)], 0.9, 1.0),  # by what is usual 0.9 of the change hold what tuning cost, and they do
        # Here all of it holds half: 0.0205 stay lost where 0.005 are allowed. Alphas are next, and the guess is too bright.
        (0.025, [(0.0, 0.0), (0.0, 1.0), (0.9, 1.0), (1.0, 0.1), (1.0, 0.25), (1.0, 1.0)], 1.0, 0.1),
    ],
)
def test_a_budget_that_is_spent_still_tries_shares_and_alphas_until_one_holds(
    gives_back: float, tried: list[tuple[float, float]], share: float, alpha: float
) -> None:
    """Three numbers stand for a model and its vectors: what tuning and pieces changed, and 1 for the length."""

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("w", torch.zeros(3))

    model = Model()

    def vectors(*_: object, **__: object) -> tuple[Any, Any]:
        row = model.w.numpy()[None].astype(np.float64)
        return row / np.linalg.norm(row), row

    def score(rows: Any, gain: float, piece: float, start: float) -> float:
        return float(start + gain * rows[0, 0] / rows[0, 2] + piece * rows[0, 1] / rows[0, 2])

    dev, guard = (
        SimpleNamespace(ndcg=lambda queries, _, part=part: score(queries, *part))
        for part in ((0.3, -0.01, 0.5), (-0.0455, gives_back, 0.8))
    )
    base, tuned, changed = ({"w": torch.tensor(row)} for row in ([0.0, 0.0, 1.0], [1.0, 0.0, 1.0], [0.0, 1.0, 1.0]))
    trainer = SimpleNamespace(
        config=TuneConfig(), tower=SimpleNamespace(model=model, device="cpu"), dtype="float32", dev=dev, vectors={}, states=None,
        encoded=vectors, packed=lambda weights: None, best_weights=lambda: tuned, state=SimpleNamespace(best_step=1), clock=time.monotonic,
    )  # fmt: skip
    spent = Budget(1.0, clock=lambda: 100.0, began=0.0)
    chosen, points = choice.choose_weights(trainer, base, lambda: changed, guard, budget=spent, progress=False)  # type: ignore[arg-type]
    assert [(point.pieces, point.alpha) for point in points] == tried
    assert (chosen.alpha, chosen.pieces) == (alpha, share)
    assert chosen.guard == pytest.approx(0.8 + alpha * (share * gives_back - 0.0455))
    assert model.w.tolist() == pytest.approx([alpha, alpha * share, 1.0])


@pytest.mark.parametrize(("drop", "slope"), [(0.02, 0.05), (0.045, 0.05), (0.071, 0.08), (0.03, 0.2), (0.012, 0.02), (0.06, 0.055)])
def test_the_least_share_that_holds_is_found_in_few_tries(drop: float, slope: float) -> None:
    """On lines and on bent curves: no share well below the one found holds, and one is found wherever there is one."""
    for bend in (0.0, 0.3, -0.3):

        def guard(share: float, bend: float = bend) -> float:
            return 0.8 - drop + slope * (share + bend * share * (1 - share))

        tries: list[Point] = []
        share: float | None = 0.0
        while share is not None:
            assert share not in [point.pieces for point in tries]
            tries.append(Point(1.0, 0.9, guard(share), share))
            share = choice.next_share(tries, 0.795, most=1.0)
        assert len(tries) <= 1 + choice.TRIES
        held = [point.pieces for point in tries if (point.guard or 0.0) >= 0.795]
        if guard(1.0) < 0.795:
            assert not held
            continue
        found = min(held)
        assert guard(found - 0.05) < 0.795 or guard(found) < 0.795 + choice.CLOSE or len(tries) == 1 + choice.TRIES
        assert guard(found) < 0.795 + 0.006


def test_the_guard_is_asked_only_where_dev_could_win() -> None:
    asked = {}

    def hill(alpha: float) -> Point:
        return Point(alpha, dev=0.9 - (alpha - 0.6) ** 2, guard=0.8 - 0.001 * alpha)

    def measure(alpha: float, to_beat: float) -> Point:
        asked[alpha] = hill(alpha).dev >= to_beat
        return hill(alpha) if asked[alpha] else Point(alpha, hill(alpha).dev, None)

    chosen, _ = choose_alpha(hill(0), hill(1), (0.4, 0.6, 0.8), guess=hill, measure=measure, trials=3, allowed_drop=0.005)
    assert chosen == hill(0.6)
    assert asked == {0.6: True, 0.4: False, 0.8: False}


def test_without_a_guard_dev_alone_decides_and_ties_go_to_the_base() -> None:
    flat = choose_alpha(
        Point(0, 0.5, None), Point(1, 0.5, None), GRID, guess=lambda a: Point(a, 0.5, None), measure=lambda a, _: Point(a, 0.5, None),
        trials=3, allowed_drop=0,
    )[0]  # fmt: skip
    assert flat.alpha == 0.0


def test_the_reason_for_the_number_format_is_given() -> None:
    for wanted in ("auto", "float32", "bfloat16"):
        dtype, reason = choose_dtype(wanted, "cpu")  # type: ignore[arg-type]
        assert dtype in ("float32", "bfloat16")
        assert reason.startswith(f"{dtype}: ")
        if wanted != "auto":
            assert dtype == wanted
            assert "asked for" in reason
