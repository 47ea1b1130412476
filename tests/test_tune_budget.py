"""A run under a budget: the rate follows the clock, dev is scored in time, the end is set aside, and slow machines train fewer steps."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearfield.clitext import Duration
from nearfield.config import TuneConfig
from nearfield.encode.tower import Tower
from nearfield.tune import loop
from nearfield.tune.budget import Budget, fitted, reserve
from nearfield.tune.devset import DevSet
from nearfield.tune.sizing import measured
from test_tune_train import FAST, code_book, plain_texts, run


class StepClock:
    """A clock that a training step moves on by a fixed time and nothing else does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        self.now, self.rates = 100.0, list[float]()
        inner = loop.step_loss

        def timed(*arguments: Any, **options: Any) -> Any:
            self.now += seconds
            return inner(*arguments, **options)

        monkeypatch.setattr(loop, "step_loss", timed)
        place = loop.rate_at

        def noted(*arguments: Any, **options: Any) -> float:
            self.rates.append(place(*arguments, **options))
            return self.rates[-1]

        monkeypatch.setattr(loop, "rate_at", noted)

    def __call__(self) -> float:
        return self.now


def test_the_run_ends_with_the_time_and_the_rate_with_it(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = StepClock(monkeypatch, 2.0)
    config = dataclasses.replace(FAST, budget_seconds=50, epochs=1000, eval_every=0.25)
    result = run(tmp_path, tiny_model, config, clock=clock)
    assert result.steps == 25
    assert clock.rates[-1] < 0.1 * FAST.learning_rate < max(clock.rates)
    assert np.argmax(clock.rates) <= 4
    scores = [entry["step"] for entry in result.history if entry["kind"] == "train"]
    assert scores == [0, 7, 13, 19, 25]
    assert any("the budget of 50 s ended training after 2.50 passes over 160 pairs" in note for note in result.notes)


def test_a_bad_score_does_not_end_a_run_that_has_a_budget(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = StepClock(monkeypatch, 2.0)
    scores = iter([0.5, 0.4, 0.3, 0.2, 0.1] + [0.1] * 20)
    monkeypatch.setattr(DevSet, "values", lambda *_: np.full(30, next(scores)))
    config = dataclasses.replace(FAST, budget_seconds=50, epochs=1000, eval_every=0.25, patience=1)
    result = run(tmp_path, tiny_model, config, clock=clock)
    assert (result.steps, result.best_step) == (25, 7)


def test_under_a_budget_the_last_weights_count_unless_dev_is_sure(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = StepClock(monkeypatch, 2.0)
    rng = np.random.default_rng(0)
    means = iter([0.5, 0.6, 0.62, 0.61, 0.61] + [0.6] * 20)
    monkeypatch.setattr(DevSet, "values", lambda *_: np.clip(next(means) + rng.normal(0, 0.3, 30), 0, 1))
    config = dataclasses.replace(FAST, budget_seconds=50, epochs=1000, eval_every=0.25)
    assert run(tmp_path, tiny_model, config, clock=clock).best_step == 25


def test_steps_end_a_run_that_has_time_left(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = StepClock(monkeypatch, 0.5)
    result = run(tmp_path, tiny_model, dataclasses.replace(FAST, budget_seconds=500, epochs=1), clock=clock)
    assert result.steps == 10
    assert not any("budget" in note for note in result.notes)


def test_a_budget_that_is_over_at_once_still_makes_a_step_and_a_model(tmp_path: Path, tiny_model: Path) -> None:
    config = dataclasses.replace(FAST, budget_seconds=1, pieces=0.5)
    ticks = iter(np.arange(0.0, 1e6, 10.0))
    result = run(tmp_path, tiny_model, config, guard=plain_texts(), clock=lambda: float(next(ticks)))
    assert result.steps == 1
    assert (result.model / "model.safetensors").is_file()


def test_sub_corpora_shrink_to_their_share_and_never_grow() -> None:
    config = TuneConfig()
    large = fitted(config, Budget(1e6), tokens_per_second=1e6, dev_tokens=100, guard_tokens=100)
    assert large == config
    small = fitted(config, Budget(600.0), tokens_per_second=10_000, dev_tokens=180, guard_tokens=100)
    assert (small.dev_documents, small.guard_documents) == (500, 900)
    assert (small.dev_queries, small.guard_queries) == (250, 675)
    least = fitted(config, Budget(1.0), tokens_per_second=1, dev_tokens=100, guard_tokens=100)
    assert (least.dev_documents, least.dev_queries, least.guard_documents, least.guard_queries) == (400, 200, 200, 150)
    assert (least.eval_every, small.eval_every, dataclasses.replace(config, eval_every=1.0).eval_every) == (0.5, 0.25, 1.0)


def test_what_the_end_needs_is_set_aside() -> None:
    assert reserve(TuneConfig(), tokens_per_second=1000, dev_tokens=100, guard_tokens=900, piece_seconds=7.5) == pytest.approx(
        3 * 0.1 + 4 * 0.9 + 7.5
    )
    assert reserve(TuneConfig(pieces=0), tokens_per_second=1000, dev_tokens=100, guard_tokens=900) == pytest.approx(2 * 0.1 + 3 * 0.9)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400)])
def test_durations(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "ten", "-5m", "0", "5d", "1e99", "nan"])
def test_other_durations_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(Exception, match=r"90s, 10m or 1.5h"):
        Duration().convert(text, None, None)


def test_pieces_are_timed_by_real_steps(tmp_path: Path, tiny_model: Path) -> None:
    """A clock that every reading moves on by a second: each step is one reading, so 24 of them take 24 s, and loading one."""
    ticks = iter(np.arange(0.0, 1e6, 1.0))
    budget = Budget(600.0, clock=lambda: float(next(ticks)))
    tower = Tower.load(tiny_model)
    documents = tower.tokenizer(code_book().doc_texts).ids
    before = {name: tensor.clone() for name, tensor in tower.model.state_dict().items()}
    _, speed = measured(budget, TuneConfig(), tower, lambda: Tower.load(tiny_model), "float32", documents, None)
    assert speed.pieces == 1 + 24
    assert speed.tokens == sum(map(len, documents[:32]))
    assert all(bool((before[name] == tensor).all()) for name, tensor in tower.model.state_dict().items())
    assert measured(budget, TuneConfig(pieces=0), tower, lambda: Tower.load(tiny_model), "float32", documents, None)[1].pieces == 0


def test_a_budget_leaves_dev_whole_where_queries_alone_are_trained(tiny_model: Path) -> None:
    ticks = iter(np.arange(0.0, 1e6, 100.0))
    tower, config = Tower.load(tiny_model), TuneConfig(query_only=True, pieces=0)
    documents = tower.tokenizer(code_book().doc_texts).ids
    sizes, _ = measured(Budget(60.0, clock=lambda: float(next(ticks))), config, tower, lambda: tower, "float32", documents, plain_texts())
    assert (sizes.dev_queries, sizes.dev_documents, sizes.eval_every) == (300, 1000, 0.25)
    assert sizes.guard_documents == 200
