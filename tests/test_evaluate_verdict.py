"""Every rule of the verdict, at its edges."""

from __future__ import annotations

import pytest

from nearfield.evaluate.significance import Paired
from nearfield.evaluate.verdict import judge

GAIN = Paired(0.100, 0.080, 0.120, 0.0001)
NAN = float("nan")


def answer(change: Paired, guard: Paired | None = None, **options: float) -> tuple[str, str]:
    verdict = judge(0.700, 0.700 + change.mean, change, guard=guard, **options)
    return verdict.answer, verdict.sentence


def test_ship_names_the_figures() -> None:
    got, sentence = answer(GAIN, Paired(-0.004, -0.009, 0.001, 0.12))
    assert got == "ship"
    for figure in ("0.700", "0.800", "+0.100", "+0.080", "+0.120", "p < 0.001", "the guard falls by 0.004", "within the limit of 0.010"):
        assert figure in sentence
    assert sentence.count("\n") == 0


def test_without_a_guard_the_sentence_says_so() -> None:
    got, sentence = answer(GAIN)
    assert got == "ship"
    assert "no guard set was given" in sentence


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (Paired(0.02, 0.0, 0.04, 0.05), "marginal"),  # zero on the edge of the interval is held by it
        (Paired(0.02, 0.0001, 0.04, 0.05), "ship"),  # p of exactly 0.05 is small enough
        (Paired(0.02, 0.0001, 0.04, 0.0501), "marginal"),  # the two tests must agree
        (Paired(0.02, -0.001, 0.04, 0.04), "marginal"),
        (Paired(0.0049, 0.001, 0.008, 0.001), "marginal"),  # sure, but tiny
        (Paired(0.005, 0.001, 0.008, 0.001), "ship"),
        (Paired(0.0, -0.01, 0.01, 1.0), "do not ship"),
        (Paired(-0.001, -0.01, 0.01, 0.9), "do not ship"),
        (Paired(-0.05, -0.07, -0.03, 0.0001), "do not ship"),
        (Paired(0.3, NAN, NAN, 1.0), "marginal"),  # one query: no interval
        (Paired(-0.3, NAN, NAN, 1.0), "do not ship"),
    ],
)
def test_gain_rules(change: Paired, expected: str) -> None:
    got, sentence = answer(change)
    assert got == expected
    assert sentence.lower().startswith(expected)
    assert "nan" not in sentence


def test_harm_and_no_gain_read_differently() -> None:
    assert "not chance" in answer(Paired(-0.05, -0.07, -0.03, 0.0001))[1]
    assert "so it is not better" in answer(Paired(-0.001, -0.01, 0.01, 0.9))[1]
    assert "stays at 0.700" in answer(Paired(0.0, 0.0, 0.0, 1.0))[1]


@pytest.mark.parametrize(
    ("drop", "expected"),
    [(0.0, "ship"), (0.0099, "ship"), (0.01, "ship"), (0.0101, "do not ship"), (0.036, "do not ship"), (-0.02, "ship")],
)
def test_guard_mean_decides(drop: float, expected: str) -> None:
    # the wide interval holds zero throughout: a guard too small to prove harm is no excuse
    got, sentence = answer(GAIN, Paired(-drop, -drop - 0.05, -drop + 0.05, 0.4))
    assert got == expected
    if expected == "do not ship":
        assert f"the guard falls by {drop:.3f}" in sentence
        assert "more than the limit of 0.010" in sentence
        assert "although nDCG@10 rises" in sentence


def test_guard_limit_is_the_callers() -> None:
    guard = Paired(-0.015, -0.02, -0.01, 0.001)
    assert answer(GAIN, guard)[0] == "do not ship"
    assert answer(GAIN, guard, guard_limit=0.02)[0] == "ship"


def test_worse_on_both_names_both() -> None:
    got, sentence = answer(Paired(-0.05, -0.07, -0.03, 0.0001), Paired(-0.04, -0.05, -0.03, 0.001))
    assert got == "do not ship"
    assert "nDCG@10 falls from 0.700 to 0.650" in sentence
    assert "the guard falls by 0.040" in sentence
