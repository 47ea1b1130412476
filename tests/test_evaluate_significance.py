"""Intervals and p-values against exact enumeration, and against what they promise: coverage and a uniform p under no difference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle_metrics as oracle
from nearfield.errors import InputError
from nearfield.evaluate import significance
from nearfield.evaluate.significance import bootstrap, bootstrap_columns, paired, paired_columns, randomization_p


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([-0.5, -0.25, 0.0, 0.1, 0.25, 0.5, 0.63]), min_size=1, max_size=9))
def test_small_samples_count_every_sign_pattern(differences: list[float]) -> None:
    assert randomization_p(differences) == pytest.approx(oracle.sign_flip_p(differences), abs=1e-12)


def test_sampled_p_agrees_with_the_enumerated_one() -> None:
    rng = np.random.default_rng(3)
    differences = rng.normal(0.25, 1.0, 12)
    exact = oracle.sign_flip_p(differences.tolist())
    assert 0.05 < exact < 0.95
    # 2^12 patterns > 2,000 samples, so this call samples; its standard error is below 0.012
    sampled = randomization_p(differences, samples=2_000, seed=1)
    assert sampled != exact
    assert sampled == pytest.approx(exact, abs=0.05)


def test_sampled_p_never_states_zero() -> None:
    assert randomization_p(np.full(60, 0.2), samples=999) == 1 / 1000


def test_no_difference_has_p_one() -> None:
    assert randomization_p([0.0, 0.0]) == 1.0
    assert randomization_p([]) == 1.0


def test_p_is_two_sided_and_symmetric() -> None:
    differences = np.random.default_rng(5).normal(0.3, 1, 40)
    assert randomization_p(differences, seed=2) == randomization_p(-differences, seed=2)


def test_p_is_uniform_where_there_is_no_difference() -> None:
    rng = np.random.default_rng(11)
    p = np.array([randomization_p(rng.normal(0, 1, 30), samples=400, seed=i) for i in range(300)])
    # binomial(300, 0.05) has mean 15 and standard deviation 3.8; binomial(300, 0.5) 150 and 8.7
    assert 4 <= (p <= 0.05).sum() <= 27
    assert 120 <= (p <= 0.5).sum() <= 180


def test_interval_agrees_with_all_resamples() -> None:
    values = [0.1, 0.9, 0.4, 0.0, 0.7]
    means = np.array(oracle.bootstrap_means(values))
    widen = np.sqrt(5 / 4)
    low, high = ((np.quantile(means, q) - np.mean(values)) * widen + np.mean(values) for q in (0.025, 0.975))
    got = bootstrap(values, resamples=40_000, seed=1)
    assert got.mean == pytest.approx(0.42)
    # neighbouring values of the exact distribution are at most 0.02 apart here
    assert got.low == pytest.approx(low, abs=0.025)
    assert got.high == pytest.approx(high, abs=0.025)


def test_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    # reciprocal ranks are what a skewed metric looks like; true mean of 1/(1..10) drawn evenly
    population = 1 / np.arange(1, 11)
    covered = 0
    for trial in range(300):
        got = bootstrap(rng.choice(population, 60), resamples=500, seed=trial)
        covered += got.low <= population.mean() <= got.high
    # 95 % of 300 is 285, standard deviation 3.8; percentile intervals of 60 skewed values lose a point or two
    assert 270 <= covered <= 297


def test_columns_share_resamples_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).random((50, 3))
    together = bootstrap_columns(values, resamples=300, seed=4)
    for column, interval in zip(values.T, together, strict=True):
        alone = bootstrap(column, resamples=300, seed=4)
        assert (alone.mean, alone.low, alone.high) == pytest.approx((interval.mean, interval.low, interval.high), abs=1e-12)
    monkeypatch.setattr(significance, "CHUNK_VALUES", 50 * 7)
    for a, b in zip(together, bootstrap_columns(values, resamples=300, seed=4), strict=True):
        assert (a.low, a.high) == pytest.approx((b.low, b.high), abs=1e-12)


def test_paired_columns_are_those_of_each_alone() -> None:
    rng = np.random.default_rng(9)
    # few, many and no differences: the three ways to a p-value
    columns = np.stack([rng.normal(0.1, 1, 40), np.where(np.arange(40) < 6, rng.normal(0.5, 1, 40), 0.0), np.zeros(40)], axis=1)
    for column, together in zip(columns.T, paired_columns(columns, resamples=2_000, seed=3), strict=True):
        alone = paired(np.zeros(40), column, resamples=2_000, seed=3)
        assert together.p == pytest.approx(alone.p, abs=1e-12)
        assert (together.low, together.high) == pytest.approx((alone.low, alone.high), abs=1e-12)
    assert paired(np.zeros(40), columns[:, 1]).p == pytest.approx(oracle.sign_flip_p(columns[:6, 1].tolist()), abs=1e-12)


def test_seed_decides() -> None:
    values = np.random.default_rng(1).random(40)
    assert bootstrap(values, seed=1) == bootstrap(values, seed=1)
    assert bootstrap(values, seed=1) != bootstrap(values, seed=2)


def test_pairing_is_far_tighter_than_two_intervals() -> None:
    rng = np.random.default_rng(2)
    before = rng.random(200)
    after = before + rng.normal(0.03, 0.05, 200)
    change = paired(before, after)
    assert change.mean == pytest.approx((after - before).mean())
    assert change.low > 0
    assert change.p < 0.001
    alone = bootstrap(before)
    assert change.high - change.low < 0.3 * (alone.high - alone.low)


def test_one_query_has_no_interval() -> None:
    got = bootstrap([0.5])
    assert got.mean == 0.5
    assert np.isnan(got.low)
    assert np.isnan(got.high)
    assert np.isnan(bootstrap([]).mean)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: paired([1.0], [1.0, 2.0]), "2 values given, 1 expected"),
        (lambda: bootstrap([np.nan]), "NaN or infinity"),
        (lambda: bootstrap([0.1, 0.2], level=95), "a share between 0 and 1"),
        (lambda: bootstrap([0.1, 0.2], resamples=0), "at least 1"),
        (lambda: bootstrap([[0.1], [0.2]]), "(n,) expected"),
    ],
)
def test_refusals(call, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError) as caught:
        call()
    assert words in str(caught.value)
