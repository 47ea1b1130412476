"""Pairs from documents alone: headings, titles, questions and sentences ask, and what asks is no longer in what answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nearfield.data.dataset import Dataset
from nearfield.data.read import read
from nearfield.data.split import split
from nearfield.data.structure import few_pairs, pairs_from_documents, sections, sentences
from nearfield.errors import InputError
from nearfield.workflow import tune

FILLER = "It holds words of every length and says nothing that matters to anybody here."


def documents(texts: list[str], titles: dict[str, str] | None = None) -> Dataset:
    return Dataset("docs", "memory", [f"d{i}" for i in range(len(texts))], texts, titles=titles or {})


def asked(made: Dataset) -> dict[str, str]:
    """Question -> id of its document."""
    text = dict(zip(made.query_ids, made.query_texts, strict=True))
    return {text[query]: next(iter(judged)) for query, judged in made.qrels["train"].items()}


def test_headings_in_both_styles_and_none_inside_code() -> None:
    text = "# One\nfirst words\n```\n# a comment\n```\n\nTwo\n===\nmore\n\nThree\n---\nlast\n\nnot a heading\nsecond line\n---\n"
    found = sections(text)
    assert [section.heading for section in found] == ["One", "Two", "Three"]
    assert "# a comment" in found[0].text
    assert "not a heading" in found[2].text


def test_sentences_keep_numbers_and_names_together() -> None:
    assert sentences('He said "no." Then 3.5 more. e.g. this\nA line') == [
        'He said "no.',
        "Then 3.5 more. e.g. this",
        "A line",
    ] or sentences("Then 3.5 more. Next one.\nA line") == ["Then 3.5 more.", "Next one.", "A line"]


def test_sections_become_documents_and_headings_ask_for_them() -> None:
    text = f"# Install\n{FILLER} Run the installer.\n# Remove\n{FILLER} Delete the folder."
    made = pairs_from_documents(documents([text], {"d0": ""}), kinds=("heading",))
    assert made.doc_ids == ["d0#0", "d0#1"]
    assert made.groups == {"d0#0": "d0", "d0#1": "d0"}
    # one word is too little to ask with, and there is no title to say what is installed
    assert not made.qrels
    titled = pairs_from_documents(documents([f"The tool {text}"], {"d0": "The tool"}), kinds=("heading",))
    assert asked(titled) == {"The tool: Install": "d0#0", "The tool: Remove": "d0#1"}


def test_what_asks_is_taken_out_of_what_answers() -> None:
    text = f"Why does a heap sort slowly? {FILLER} A heap is a tree that keeps its least value on top. {FILLER}"
    made = pairs_from_documents(documents([f"About heaps {text}"], {"d0": "About heaps"}))
    questions = asked(made)
    assert {"About heaps", "Why does a heap sort slowly?"} <= set(questions)
    assert len(questions) == 3
    for question in questions:
        assert question not in made.doc_texts[0]
    assert made.findings[-1].kind == "made-pairs"
    assert "1 by title, 1 by question, 1 by cloze" in made.findings[-1].message


def test_a_rest_that_is_too_short_stays_whole() -> None:
    text = "Why is it so? Nobody knows the answer to this at all. Really nobody does. Not even we."
    made = pairs_from_documents(documents([text]))
    assert made.doc_texts == [text]
    assert not made.qrels


def test_the_same_documents_give_the_same_pairs_in_any_order_and_other_seeds_others() -> None:
    rng = np.random.default_rng(0)
    vocabulary = [f"word{i}" for i in range(300)]
    texts = [" ".join(" ".join(rng.choice(vocabulary, 9)).capitalize() + "." for _ in range(8)) for _ in range(30)]
    first = documents(texts)
    order = rng.permutation(30)
    shuffled = Dataset("docs", "memory", [first.doc_ids[i] for i in order], [texts[i] for i in order])
    a, b = pairs_from_documents(first), pairs_from_documents(shuffled)
    assert asked(a) == asked(b)
    assert asked(a) != asked(pairs_from_documents(first, seed=1))
    assert len(a.query_ids) == 30


def test_sections_of_a_document_stay_on_one_side_of_the_split() -> None:
    rng = np.random.default_rng(0)
    vocabulary = [f"word{i}" for i in range(3000)]

    def words(count: int) -> str:
        return " ".join(rng.choice(vocabulary, count))

    texts = ["\n".join(f"# {words(3)}\n{words(20)}" for _ in range(4)) for _ in range(20)]
    made = split(pairs_from_documents(documents(texts)), seed=0)
    side: dict[str, set[str]] = {}
    for name, qrels in made.qrels.items():
        for judged in qrels.values():
            for doc in judged:
                side.setdefault(doc.split("#")[0], set()).add(name)
    assert set(made.qrels) == {"train", "dev", "test"}
    assert all(len(names) == 1 for names in side.values())


def test_titles_are_read_and_do_not_change_the_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(json.dumps({"_id": "1", "title": "A title", "text": "and text"}) + "\n")
    data = read(tmp_path / "d.jsonl")
    assert data.titles == {"1": "A title"}
    assert data.fingerprint == Dataset("x", "y", ["1"], ["A title and text"]).fingerprint


def test_few_pairs_are_a_warning() -> None:
    made = few_pairs(Dataset("d", "m", ["a"], ["x"], ["q"], ["y"], {"train": {"q": {"a": 1}}}))
    assert "1 training pairs; 1,000 to 5,000 are advised" in made.findings[-1].message


def test_documents_that_say_nothing_are_refused_in_one_line(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    with pytest.raises(InputError, match=r"2 documents without judgements, and no title, heading, question or paragraph") as caught:
        tune(tmp_path / "d.jsonl", base=tiny_model, out=tmp_path / "bundle", progress=False)
    assert "\n" not in str(caught.value)
