"""Texts and vectors of the benchmark suite."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from benchmark_samples import ROOT
from benchmarks.core import data, texts
from benchmarks.core.plan import Plan


def test_clustered_vectors_are_unit_rows_and_seeded() -> None:
    vectors, queries, label = data.clustered(300, 20, dim=64)
    assert vectors.dtype == queries.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert label.startswith("300 synthetic vectors in 3 clusters")
    assert np.array_equal(vectors, data.clustered(300, 20, dim=64)[0])
    nearest = np.sort(queries @ vectors.T, axis=1)
    assert nearest[:, -1].mean() > nearest[:, 0].mean() + 0.4  # clusters: neighbours are far closer than the rest


class FakeEncoder:
    """One number a text: its length. ``encoded`` holds every text that any encoder saw."""

    encoded: ClassVar[list[str]] = []

    def __init__(self, *args: Any, **options: Any) -> None: ...

    def __enter__(self) -> FakeEncoder:
        return self

    def __exit__(self, *error: object) -> None: ...

    def encode(self, texts: list[str]) -> np.ndarray:
        self.encoded.extend(texts)
        return np.array([[len(text)] * data.DIM for text in texts], np.float32)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    monkeypatch.setattr("nearfield.Encoder", FakeEncoder, raising=False)
    monkeypatch.setattr(FakeEncoder, "encoded", [])
    monkeypatch.setattr(data, "bundle", lambda plan: tmp_path)
    monkeypatch.setattr(data, "SHARD", 2)
    return FakeEncoder.encoded


def test_cached_vectors_are_extended_and_made_again_when_the_texts_change(encoded: list[str], tmp_path: Path) -> None:
    plan, pool = Plan(cache=tmp_path), ["a", "bb", "ccc", "dddd"]
    assert data._encoded(plan, pool, 0).shape == (0, data.DIM)
    assert data._encoded(plan, pool, 2)[:, 0].tolist() == [1, 2]
    assert encoded == ["a", "bb"]
    assert data._encoded(plan, pool, 1)[:, 0].tolist() == [1]
    assert data._encoded(plan, pool, 4)[:, 0].tolist() == [1, 2, 3, 4]
    assert encoded == ["a", "bb", "ccc", "dddd"]
    assert data._encoded(plan, ["xxxxx", "bb"], 2)[:, 0].tolist() == [5, 2]
    assert data._encoded(plan, pool, 3)[:, 0].tolist() == [1, 2, 3]  # other texts did not push these out
    assert encoded[4:] == ["xxxxx", "bb"]


def test_a_run_that_was_stopped_goes_on_where_it_was(encoded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, pool = Plan(cache=tmp_path), ["a", "bb", "ccc", "dddd"]

    def stopped(self: FakeEncoder, texts: list[str]) -> np.ndarray:
        if "ccc" in texts:
            raise KeyboardInterrupt
        return np.ones((len(texts), data.DIM), np.float32)

    with monkeypatch.context() as patched:
        patched.setattr(FakeEncoder, "encode", stopped)
        with pytest.raises(KeyboardInterrupt):
            data._encoded(plan, pool, 4)
    assert data._encoded(plan, pool, 4)[:, 0].tolist() == [1, 1, 3, 4]
    assert encoded == ["ccc", "dddd"]


def test_queries_are_not_among_the_rows(encoded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(f'{{"text": "{"long enough " + "x" * n}"}}\n' for n in [*range(3, 12), 4, 5, 2]))  # 2: too short
    plan = Plan(quick=True, cache=tmp_path, data=file)
    monkeypatch.setattr(data.own, "HELD_PART", 2)  # half of them, where it is a tenth
    vectors, queries, label = data.real_vectors(plan, 100, 4)
    assert sorted([*vectors[:, 0], *queries[:, 0]]) == list(range(15, 24)), "each distinct text once, as a query or as a row"
    assert label.startswith("5 real sentence embeddings (mine.jsonl, all-MiniLM-L6-v2, ")
    again = data.real_vectors(plan, 3, 2)
    assert np.array_equal(again[0], vectors[:3])
    assert np.array_equal(again[1], queries[:2])
    assert len(data.real_vectors(replace(plan, quick=False), 3, 2)[0]) == 5, "all of one's own rows take part"
    assert np.array_equal(data.real_vectors(plan, 3, 6)[1], queries[[0, 1, 2, 3, 0, 1]]), "few queries are asked again"
    monkeypatch.setattr(data.own, "HELD_PART", 10)
    with pytest.raises(data.BadData, match=r"mine.jsonl: 9 sentences found, more than 10 expected; .*--data"):
        data.real_vectors(plan, 100, 4)


def test_the_texts_found_here_must_be_more_than_the_queries(encoded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "short-texts.json").write_text(json.dumps([f"text {n}" for n in range(9)]))
    monkeypatch.setattr(data, "MAX_QUERIES", 4)
    assert [len(part) for part in data.real_vectors(Plan(cache=tmp_path), 100, 4)[:2]] == [5, 4]
    with pytest.raises(data.BadData, match="9 sentences found, more than 4 expected"):
        data.real_vectors(Plan(cache=tmp_path), 100, 5)


def test_sentences_of_documentation_are_cut_distinct_and_in_an_order_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "pkg" / "tests").mkdir(parents=True)
    long = " ".join(f"word{n}" for n in range(30))
    (tmp_path / "pkg" / "a.py").write_text(f'''"""First sentence here. Second\n  one.\n\n>>> left(out)\n\n{long}"""\n''')
    (tmp_path / "pkg" / "b.py").write_text('''def f():\n    """First sentence here."""\nclass C:\n    """Of a class."""\n''')
    (tmp_path / "pkg" / "broken.py").write_text('"""Not closed')
    (tmp_path / "pkg" / "tests" / "c.py").write_text('"""Of a test."""')
    found = texts.documentation_sentences([tmp_path])
    cut = " ".join(f"word{n}" for n in range(texts.SHORT_WORDS))[: texts.SHORT_CHARS]
    assert sorted(found) == sorted(["First sentence here.", "Second one.", cut, "Of a class."])
    assert found == texts.documentation_sentences([tmp_path])
    assert len(texts.documentation_sentences([tmp_path], enough=1)) < len(found)  # the second file is not read


def test_short_texts_do_not_depend_on_the_order_in_which_they_are_found() -> None:
    found = [f"a text with number {n}" for n in range(50)]
    assert texts._shuffled(found) == texts._shuffled(found[::-1] + found)
    assert texts._shuffled(found) != found
    assert texts._shuffled(["short", "long enough, this one", "a control\x00 character in it"]) == ["long enough, this one"]


def test_the_cache_lies_in_the_repository_by_default() -> None:
    assert Plan().cache == ROOT / "benchmarks" / "cache"


def test_a_quick_run_makes_small_pools_that_no_full_run_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "package_descriptions", list)
    asked: list[int] = []
    monkeypatch.setattr(texts, "documentation_sentences", lambda roots, enough: asked.append(enough) or [f"sentence number {enough}"])
    quick, full = Plan(quick=True, cache=tmp_path), Plan(cache=tmp_path)
    assert texts.sentences(quick)[0] == [f"sentence number {texts.QUICK_SENTENCES}"]
    assert texts.sentences(full)[0] == [f"sentence number {texts.ENOUGH_SENTENCES}"]
    assert texts.sentences(quick)[0] == texts.sentences(full)[0], "the whole pool, where there is one"
    assert asked == [texts.QUICK_SENTENCES, texts.ENOUGH_SENTENCES]
    monkeypatch.setattr(
        "nearfield.data.harvest.harvest", lambda limit, progress: asked.append(limit) or Harvested(["a b c d e f " * 9] * 3)
    )
    texts.texts_of_length(quick, 16, 2)
    assert [path.name for path in sorted(tmp_path.glob("*-quick.json"))] == [
        "documents-quick.json",
        "short-texts-quick.json",
        "texts-16-2-quick.json",
    ]
    assert asked[2:] == [texts.QUICK_DOCUMENTS]


class Harvested:
    def __init__(self, doc_texts: list[str]) -> None:
        self.doc_texts = doc_texts
