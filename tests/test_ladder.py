"""The ladder: who is kept, where it stops, what a budget is shared among, and what is shipped."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from nearfield.bundle import Bundle
from nearfield.config import TuneConfig
from nearfield.encode.tower import Tower
from nearfield.errors import InputError
from nearfield.ladder import Climbed, climb
from test_tune_train import FAST, code_book, plain_texts

DATA = code_book(100, 40)
CONFIG = TuneConfig(ladder="auto", dev_queries=40)

pytestmark = pytest.mark.usefixtures("one_thread")


class Fake:
    """An encoder that puts every query onto its own document with this chance, and elsewhere at random."""

    def __init__(self, right: float, seed: int = 1) -> None:
        self.rng, self.right = np.random.default_rng(seed), right

    def __enter__(self) -> Fake:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def encode(self, texts: list[str], *, kind: str = "document", progress: bool = False) -> Any:
        places = [(DATA.query_texts if kind == "query" else DATA.doc_texts).index(text) for text in texts]
        rows = DOCUMENTS[places].copy()
        if kind == "query":
            wrong = self.rng.random(len(rows)) >= self.right
            rows[wrong] = DOCUMENTS[self.rng.integers(0, len(DOCUMENTS), int(wrong.sum()))]
        return rows


DOCUMENTS = np.random.default_rng(0).normal(size=(140, 32)).astype(np.float32)
DOCUMENTS /= np.linalg.norm(DOCUMENTS, axis=1, keepdims=True)


class Clock:
    """Time that passes by training alone."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def climbed(
    folder: Path, rights: dict[str, float], config: TuneConfig = CONFIG, takes: float = 0.0
) -> tuple[Climbed, dict[str, TuneConfig]]:
    clock, asked = Clock(), dict[str, TuneConfig]()

    def train(name: str, options: TuneConfig) -> Any:
        asked[name] = options
        clock.now += takes
        return SimpleNamespace(model=Path(name), alpha=1.0)

    found = climb(
        DATA, None, Fake(rights["base"]), folder, config, documents=DOCUMENTS, train=train,  # type: ignore[arg-type]
        open_model=lambda model: Fake(rights[model.name], 2), guard_documents=None, clock=clock,
    )  # fmt: skip
    return found, asked


def test_it_climbs_while_dev_is_surely_better(tiny_model: Path) -> None:
    rights = {"base": 0.2, "query-only": 0.6, "partial": 0.95, "full": 0.95}
    found, asked = climbed(tiny_model, rights, dataclasses.replace(CONFIG, lora_rank=4))
    assert found.name == "partial"
    assert [rung.name for rung in found.rungs] == ["base", "adapter", "query-only", "partial", "full"]
    assert [rung.kept for rung in found.rungs if rung.name != "adapter"] == [True, True, True, False]
    assert (asked["query-only"].query_only, asked["partial"].frozen_layers, asked["full"].frozen_layers) == (True, 1, -1)
    assert (asked["partial"].lora_rank, asked["full"].lora_rank) == (0, 4)
    assert all(options.ladder == "none" for options in asked.values())
    assert found.sentence().endswith("not surely better; partial it is")
    assert "query-only" in found.sentence()


def test_it_stops_where_a_rung_is_not_surely_better(tiny_model: Path) -> None:
    found, asked = climbed(tiny_model, {"base": 0.9, "query-only": 0.9, "partial": 1.0, "full": 1.0})
    assert found.name in ("base", "adapter")
    assert list(asked) == ["query-only"]
    assert not found.rungs[-1].kept
    assert found.result is None


def test_a_budget_is_shared_and_ends_the_climb(tiny_model: Path) -> None:
    rights = {"base": 0.1, "query-only": 0.5, "partial": 0.9, "full": 1.0}
    found, asked = climbed(tiny_model, rights, dataclasses.replace(CONFIG, budget_seconds=100), takes=45)
    assert asked["query-only"].budget_seconds == 20
    assert asked["partial"].budget_seconds == 30
    assert asked["full"].budget_seconds == 10
    found, asked = climbed(tiny_model, rights, dataclasses.replace(CONFIG, budget_seconds=100), takes=100)
    assert list(asked) == ["query-only"]
    assert "the budget was over before partial; query-only it is" in found.sentence()


def test_the_adapter_is_shipped_as_a_map_of_queries(tmp_path: Path, tiny_model: Path) -> None:
    data = _with_test()
    config = dataclasses.replace(FAST, int8="none")
    report = nf.tune(data, base=tiny_model, out=tmp_path / "b", config=config, ladder="adapter", progress=False, threads=1)
    made = Bundle.open(report.bundle)
    assert any(note.startswith("ladder: base") for note in report.notes)
    entries = [entry for entry in json.loads((made.path / "run.json").read_text())["history"] if entry["kind"] == "rung"]
    assert [entry["name"] for entry in entries] == ["base", "adapter"]
    tower = Tower.load(tiny_model)
    expected = tower.encode(data.query_texts[:3], kind="query")
    if entries[1]["kept"]:
        matrix = made.query_map()
        assert matrix is not None
        expected = expected + expected @ matrix
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        assert made.query == {"tower": False, "map": True, "golden": {"texts": 8}}
    else:
        assert made.query is None
        assert report.verdict == "do not ship"
    with nf.Encoder(made.path) as encoder:
        np.testing.assert_allclose(encoder.encode(data.query_texts[:3], kind="query"), expected, atol=2e-5)
        assert encoder.fingerprint == report.evaluation.compare.fingerprint  # type: ignore[union-attr]


def _with_test() -> Any:
    book = code_book(100, 40)
    ids = book.query_ids
    return dataclasses.replace(book, qrels={**book.qrels, "dev": {i: {i: 1} for i in ids[100:130]}, "test": {i: {i: 1} for i in ids[130:]}})


def test_a_whole_climb_with_a_guard(tmp_path: Path, tiny_model_of: Callable[..., Path]) -> None:
    guard = plain_texts()
    guard = dataclasses.replace(guard, qrels={**guard.qrels, "test": guard.qrels["dev"]})
    config = dataclasses.replace(FAST, epochs=3, int8="none", guard_max_drop=1.0)
    report = nf.tune(
        _with_test(), base=tiny_model_of(), out=tmp_path / "b", config=config, guard=guard, ladder="auto", progress=False, threads=1
    )
    sentence = next(note for note in report.notes if note.startswith("ladder: "))
    assert "query-only" in sentence
    shipped = sentence.rpartition("; ")[2].removesuffix(" it is")
    made = Bundle.open(report.bundle)
    assert (made.query is not None and made.query["tower"]) == (shipped == "query-only")
    assert not (tmp_path / "b.work").exists()


def test_a_ladder_and_queries_alone_are_refused_together(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(InputError, match="query_only: true given together with ladder auto"):
        nf.tune(_with_test(), base=tiny_model, out=tmp_path / "b", query_only=True, ladder="auto", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_ladder_of_another_name_is_refused() -> None:
    with pytest.raises(InputError, match="ladder: 'tall' given, one of none, adapter, auto expected"):
        TuneConfig(ladder="tall")  # type: ignore[arg-type]
