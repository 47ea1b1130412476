"""The config: round trip, and one clear line for each way to get it wrong."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from nearfield.config import TuneConfig
from nearfield.errors import InputError


def test_round_trip(tmp_path: Path) -> None:
    config = TuneConfig(epochs=2, learning_rate=1e-4, max_pairs=100, merge_alphas=(1.0, 0.5, 0.0), symmetric=True)
    config.save(tmp_path / "c.json")
    assert TuneConfig.load(tmp_path / "c.json") == config
    assert config.merge_alphas == (0.0, 0.5, 1.0)
    assert TuneConfig.from_dict({}) == TuneConfig()


def test_every_default_has_its_reason_in_the_docstring() -> None:
    text = TuneConfig.__doc__ or ""
    for field in dataclasses.fields(TuneConfig):
        assert f"{field.name}: " in text, field.name


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epoch": 1}, ["unknown key 'epoch'", "'epochs'"]),
        ({"zzz": 1}, ["unknown key 'zzz'", "known keys", "learning_rate"]),
        ({"epochs": 1.5}, ["epochs", "1.5", "whole number"]),
        ({"epochs": "3"}, ["epochs", "'3'"]),
        ({"epochs": True}, ["epochs", "True"]),
        ({"batch_size": 1}, ["batch_size", "from 2"]),
        ({"learning_rate": 5}, ["learning_rate", "5", "0.1"]),
        ({"learning_rate": float("nan")}, ["learning_rate", "nan"]),
        ({"learning_rate": None}, ["learning_rate", "None"]),
        ({"symmetric": 1}, ["symmetric", "true or false"]),
        ({"dtype": "fp16"}, ["dtype", "'fp16'", "bfloat16"]),
        ({"dtype": []}, ["dtype", "bfloat16"]),
        ({"merge_alphas": [0, 2]}, ["merge_alphas", "from 0 to 1"]),
        ({"merge_alphas": 1}, ["merge_alphas"]),
        ({"merge_alphas": []}, ["merge_alphas"]),
        ({"max_pairs": 0}, ["max_pairs", "from 1"]),
    ],
)
def test_bad_values_are_named(values: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        TuneConfig.from_dict(values, where="my.json")
    line = str(caught.value)
    assert line.startswith("my.json: ")
    assert "\n" not in line
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"{", "not JSON"),
        (b"[1]", "list"),
        (b'{"epochs": 0}', "epochs"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "nested"),
        (b"{}" + b" " * (5 << 20), "more than"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=word) as caught:
        TuneConfig.load(path)
    assert "bad.json" in str(caught.value)
    with pytest.raises(InputError, match=r"missing\.json"):
        TuneConfig.load(tmp_path / "missing.json")


def test_whole_numbers_are_fine_for_fractions_and_none_for_a_cap() -> None:
    config = TuneConfig.from_dict(json.loads('{"temperature": 1, "max_pairs": null}'))
    assert config.temperature == 1.0
    assert isinstance(config.temperature, float)
    assert config.max_pairs is None
