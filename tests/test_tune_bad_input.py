"""Data and bases that cannot be tuned: one line each that says what, where and how to mend it, before anything is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import make_pairs
from nearfield.data.dataset import Finding
from nearfield.errors import InputError
from nearfield.workflow import tune

PAIRS = make_pairs(40)
CONFIG = {"batch_size": 8, "pieces": 0, "int8": "none", "dev_documents": 20}


def pairs_file(folder: Path, rows: list[dict[str, object]]) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def beir(folder: Path, documents: list[str], qrels: dict[str, list[tuple[int, str]]]) -> Path:
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text("".join(json.dumps({"_id": f"d{i}", "text": text}) + "\n" for i, text in enumerate(documents)))
    queries = sorted({query for rows in qrels.values() for query, _ in rows})
    (folder / "queries.jsonl").write_text("".join(json.dumps({"_id": f"q{i}", "text": PAIRS[i]["query"]}) + "\n" for i in queries))
    for split, rows in qrels.items():
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(f"q{q}\t{d}\t1\n" for q, d in rows))
    return folder


def one_pair(folder: Path) -> Path:
    return pairs_file(folder, [dict(PAIRS[0])])


def all_alike(folder: Path) -> Path:
    return pairs_file(folder, [{"query": "what is it", "positive": "the same thing"}] * 50)


def one_answer(folder: Path) -> Path:
    return pairs_file(folder, [{"query": row["query"], "positive": "the same thing"} for row in PAIRS])


def one_document(folder: Path) -> Path:
    rows = [(i, "d0") for i in range(9)]
    return beir(folder / "data", ["a text"], {"train": rows[:3], "dev": rows[3:6], "test": rows[6:]})


def missing_documents(folder: Path) -> Path:
    return beir(folder / "data", [row["positive"] for row in PAIRS], {"train": [(i, f"x{i}") for i in range(9)]})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (one_pair, ["1 cluster(s)", "3 expected", "give more data or splits of your own"]),
        (all_alike, ["1 cluster(s)", "give more data"]),
        (one_answer, ["40 queries form 1 cluster(s) that share documents"]),
        (one_document, ["the 3 training pairs have one document between them", "at least two different documents are needed"]),
        (missing_documents, ["train.tsv", "document 'x0' is not in the data"]),
    ],
)
def test_data_that_cannot_teach_is_refused_in_one_line(
    make: Callable[[Path], Path], words: list[str], tmp_path: Path, tiny_model: Path
) -> None:
    with pytest.raises(InputError) as caught:
        tune(make(tmp_path), base=tiny_model, out=tmp_path / "bundle", config=CONFIG, progress=False)
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert word in line
    assert not (tmp_path / "bundle").exists()


def without_safetensors(folder: Path) -> None:
    for path in folder.rglob("*.safetensors"):
        path.rename(path.with_name("pytorch_model.bin"))


def of_another_architecture(folder: Path) -> None:
    path = next(path for path in folder.rglob("config.json") if "model_type" in path.read_text())
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "frobnicator", "architectures": ["Frobnicator"]}))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(without_safetensors, "a pickle, which is never opened; convert it once"), (of_another_architecture, "model type `frobnicator`")],
)
def test_bases_that_cannot_be_opened_are_named(spoil: Callable[[Path], None], words: str, tmp_path: Path, tiny_model: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    spoil(base)
    data = pairs_file(tmp_path, [dict(row) for row in PAIRS])
    with pytest.raises(InputError) as caught:
        tune(data, base=base, out=tmp_path / "bundle", config=CONFIG, progress=False)
    assert str(base) in str(caught.value)
    assert words in str(caught.value)


def test_contradictory_judgements_are_told_and_the_run_goes_on(tmp_path: Path, tiny_model: Path) -> None:
    rows: list[dict[str, object]] = [dict(row) for row in PAIRS]
    rows += [{**PAIRS[0], "score": 0}, {**PAIRS[1], "score": 3}]
    found: list[Finding] = []
    report = tune(
        pairs_file(tmp_path, rows), base=tiny_model, out=tmp_path / "bundle", config=CONFIG, progress=False, on_findings=found.extend
    )
    messages = [finding.message for finding in found if finding.kind == "contradictory-judgement"]
    assert messages == [
        "the same pair as before with grade 3, the first grade 1 is kept",
        "the same document is positive and negative for one query, kept as positive",
    ]
    assert any(finding.kind == "few-pairs" for finding in found)
    assert report.bundle.is_dir()
