"""The experiment runner: cells and their table on disk, fair batches for the peer, paired reports, and a whole run with a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.quality import __main__ as command
from benchmarks.quality.cells import UNKNOWN, Cell, Table, expected_seconds, grid
from benchmarks.quality.recipes import RECIPES, SETS, named
from benchmarks.quality.report import differences, markdown
from benchmarks.quality.theirs import batches_without_duplicates
from benchmarks.quality.trained import documents_alone, fewer_pairs
from nearfield.config import TuneConfig
from nearfield.data.dataset import Dataset
from test_tune_train import code_book

SAME: dict[str, Any] = {"seconds": 20.0, "clock": "wall", "device": "cpu"}


def cell(recipe: str = "ours", seed: int = 0) -> Cell:
    return Cell(recipe, "tiny", seed, None, **SAME)


def test_recipes_are_valid_configs_and_unknown_names_are_refused() -> None:
    for recipe in RECIPES.values():
        if recipe.kind == "nearfield":
            TuneConfig.from_dict(recipe.options)
    assert [recipe.name for recipe in named("theirs, ours,theirs")] == ["theirs", "ours"]
    with pytest.raises(ValueError, match="'nothing' given, some of base, ours"):
        named("nothing")
    assert [recipe.name for recipe in named("main,adapter")] == ["base", "ours", "theirs", "adapter"]
    assert all(set(recipes) <= set(RECIPES) and len(set(recipes)) == len(recipes) for recipes in SETS.values())
    assert not set(SETS) & set(RECIPES)


def test_documents_alone_ask_for_train_and_dev_and_show_no_judgement() -> None:
    topics = [f"topic{i} {word}" for i in range(40) for word in ("alpha", "beta")]
    texts = [f"About {t}. The {t} is large and red. It has {t} in it. Nobody knows why {t} came." for t in topics]
    ids = [f"d{i}" for i in range(len(texts))]
    given = Dataset("tiny", "memory", ids, texts, ["q"], ["a secret question"], {"train": {"q": {"d0": 1}}, "test": {"q": {"d0": 1}}})
    made = documents_alone(given, 0)
    assert set(made.qrels) == {"train", "dev"}
    assert made.doc_ids == ids
    assert "a secret question" not in made.query_texts
    assert len(made.qrels["train"]) > 20


def test_a_cell_is_expected_to_take_what_its_like_took() -> None:
    free = Cell("adapter", "tiny", 0, None, None, "wall", "cpu")
    assert expected_seconds(cell(), []) == 20 + UNKNOWN
    assert expected_seconds(cell("base"), []) == UNKNOWN
    assert expected_seconds(free, []) is None
    rows = [
        {"recipe": "adapter", "data": "tiny", "wall_seconds": 70.0, "measuring_seconds": 5.0},
        {"recipe": "adapter", "data": "other", "wall_seconds": 700.0, "measuring_seconds": 50.0},
    ]
    assert expected_seconds(free, rows) == 75
    assert expected_seconds(cell(), rows) == 25


def test_the_plan_adds_up_and_runs_nothing(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, table = write_beir(tmp_path / "data"), tmp_path / "table.jsonl"
    arguments = [
        f"--data=tiny={data}",
        f"--base={tiny_model}",
        "--seconds=60",
        "--device=cpu",
        f"--table={table}",
        "--recipes=main",
        "--plan",
    ]
    assert command.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-2] for line in lines[:3]] == ["2.0", "3.0", "3.0"]
    assert lines[3] == "3 of 3 cells missing: about 8 min"
    assert not table.exists()


def test_recipes_that_are_compared_are_neighbours_and_the_base_runs_once() -> None:
    cells = grid(["base", "ours", "theirs"], ["a", "b"], [0, 1], [None], **SAME)
    assert [(c.data, c.recipe, c.seed) for c in cells] == [
        ("a", "base", 0), ("a", "ours", 0), ("a", "theirs", 0), ("b", "base", 0), ("b", "ours", 0), ("b", "theirs", 0),
        ("a", "ours", 1), ("a", "theirs", 1), ("b", "ours", 1), ("b", "theirs", 1),
    ]  # fmt: skip
    assert len({c.key for c in cells}) == len(cells)


def test_a_line_that_a_kill_left_half_written_is_run_again(tmp_path: Path) -> None:
    table = Table(tmp_path / "deep" / "table.jsonl")
    cells = [cell(seed=seed) for seed in range(3)]
    assert table.missing(cells) == cells
    table.add(cells[0], {"steps": 1})
    table.add(cells[1], {"steps": 2})
    whole = table.path.read_bytes()
    for cut in range(len(whole.splitlines()[0]) + 1, len(whole)):
        table.path.write_bytes(whole[:cut])
        left = table.missing(cells)
        assert left[-1] == cells[2]
        assert cells[0] not in left
        assert (cells[1] in left) == (cut < len(whole) - 1)
        if cells[1] in left:
            table.add(cells[1], {"steps": 3})
            assert {row["key"]: row["steps"] for row in table.rows()} == {cells[0].key: 1, cells[1].key: 3}


def test_no_text_comes_twice_in_a_batch_and_no_pair_is_lost() -> None:
    rng = np.random.default_rng(0)
    pairs = [(f"q{rng.integers(40)}", f"d{rng.integers(30)}") for _ in range(300)]
    batches = list(batches_without_duplicates(pairs, 16, seed=1))
    assert sorted(row for batch in batches for row in batch) == list(range(300))
    for batch in batches:
        texts = [text for row in batch for text in pairs[row]]
        assert len(set(texts)) == len(texts)
        assert len(batch) <= 16
    assert batches != list(batches_without_duplicates(pairs, 16, seed=2))


def test_both_sides_are_given_the_same_pairs() -> None:
    data = code_book(100)
    part = fewer_pairs(data, 30, seed=3)
    assert sum(map(len, part.qrels["train"].values())) == 30
    assert part.qrels["dev"] == data.qrels["dev"]
    assert fewer_pairs(data, 30, seed=3).qrels == part.qrels != fewer_pairs(data, 30, seed=4).qrels
    assert fewer_pairs(data, None, seed=0) is data


def finished(recipe: str, seed: int, values: list[float], queries: str = "same") -> dict[str, Any]:
    measured = {"ndcg": float(np.mean(values)), "queries": queries, "values": values}
    return {
        "key": f"{recipe}{seed}", "recipe": recipe, "data": "tiny", "seed": seed, "pairs": None, **SAME, "train_pairs": 1234,
        "pairs_per_second": 10.0, "pairs_seen": 100, "wall_seconds": 20.0, "cpu_seconds": 30.0, "peak_bytes": 2**30, "how": "by hand",
        "test": measured, "guard": measured,
    }  # fmt: skip


def test_differences_are_paired_by_query_and_averaged_over_seeds() -> None:
    rng = np.random.default_rng(0)
    theirs = [rng.random(200) for _ in range(2)]
    ours = [theirs[0] + 0.01, theirs[1] + 0.03]
    rows = [finished("theirs", s, theirs[s].tolist()) for s in (0, 1)] + [finished("ours", s, ours[s].tolist()) for s in (0, 1)]
    (found,) = differences([*rows, finished("base", 0, [0.0])], "theirs")
    assert (found.recipe, found.seeds) == ("ours", [0, 1])
    assert [round(each.mean, 6) for each in found.each] == [0.01, 0.03]
    # the same shift for every query leaves nothing to resample: the interval is paired, or it would be as wide as the queries differ
    assert found.all.mean == pytest.approx(0.02)
    assert found.all.high - found.all.low < 1e-9
    text = markdown([*rows, finished("base", 0, [0.25])], "theirs")
    assert "| tiny, 1,234 pairs, 20 s of wall time, cpu | ours | +2.00 [+2.00, +2.00] |" in text
    assert "0: +1.00 [+1.00, +1.00]; 1: +3.00 [+3.00, +3.00]" in text
    assert "| ours | 2 | " in text


def test_cells_of_other_queries_are_not_compared() -> None:
    with pytest.raises(ValueError, match="measured on different queries of test"):
        differences([finished("ours", 0, [0.5]), finished("theirs", 0, [0.5], queries="others")], "theirs")


def write_beir(folder: Path) -> Path:
    data = code_book(60, 20)
    (folder / "qrels").mkdir(parents=True)
    for name, ids, texts in (("corpus", data.doc_ids, data.doc_texts), ("queries", data.query_ids, data.query_texts)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"_id": i, "text": t}) + "\n" for i, t in zip(ids, texts, strict=True)))
    for split, qrels in {**data.qrels, "test": data.qrels["dev"]}.items():
        lines = [f"{q}\t{d}\t1\n" for q, judged in qrels.items() for d in judged]
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return folder


def test_a_whole_comparison_runs_once_and_goes_on_where_it_was(
    tmp_path: Path, tiny_model: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_beir(tmp_path / "data")
    # the trainer's extra packages may or may not be here; the plain loop always is
    monkeypatch.setattr("sentence_transformers.util.is_training_available", lambda: False)
    monkeypatch.setenv("NEARFIELD_THREADS", "1")  # put back afterwards: the command sets it
    table, report = tmp_path / "table.jsonl", tmp_path / "out" / "report.md"
    arguments = [
        f"--data=tiny={data}", f"--guard={data}", f"--base={tiny_model}", "--seconds=2", "--device=cpu", "--clock=cpu", "--threads=1",
        f"--table={table}", "--no-isolate",
    ]  # fmt: skip
    assert command.main([*arguments, "--list"]) == 0
    assert capfd.readouterr().out.count("missing") == 3
    assert command.main([*arguments, "--only=/base/"]) == 0
    assert command.main([*arguments, f"--report={report}"]) == 0
    rows = {row["recipe"]: row for row in Table(table).rows()}
    assert list(rows) == ["base", "ours", "theirs"]
    assert rows["ours"]["test"]["queries"] == rows["theirs"]["test"]["queries"] == rows["base"]["test"]["queries"]
    assert rows["ours"]["pairs_seen"] >= 60
    assert rows["theirs"]["pairs_seen"] > 60
    assert rows["theirs"]["how"].startswith("plain loop")
    assert rows["base"]["test"]["ndcg"] < rows["theirs"]["test"]["ndcg"], "the peer's loop has to learn as well"
    assert "| ours | 1 | " in report.read_text()
    before = table.read_bytes()
    assert command.main([*arguments, "--list"]) == 0
    assert capfd.readouterr().out.count("done") == 3
    assert command.main(arguments) == 0
    assert table.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--data NAME=PATH expected"),
        (["--data=x=/nowhere"], "/nowhere does not exist"),
        (["--data=x=/", "--recipes=zzz"], "'zzz' given, some of"),
        (["--data=x=/", "--seeds=one"], "seeds: 'one' given, whole numbers"),
        (["--data=x=/", "--pairs="], "whole numbers or all"),
    ],
)
def test_bad_words_are_one_line(arguments: list[str], words: str, capfd: pytest.CaptureFixture[str], tiny_model: Path) -> None:
    assert command.main([*arguments, f"--base={tiny_model}", "--device=cpu"]) == 2
    error = capfd.readouterr().err
    assert words in error
    assert error.count("\n") == 1
