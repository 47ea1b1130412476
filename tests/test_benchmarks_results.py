"""Result files, tables, the README's figures and the command of the benchmark suite."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from benchmark_samples import ROOT, SAMPLE, sample_document, sample_row
from benchmarks import __main__ as command
from benchmarks import readme_table, suites
from benchmarks.core import ceilings, held, results, tables
from benchmarks.core.apart import Outcome


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that a run without a target wants of the environment is there, so the command does not start a process of its own."""
    for name, value in held.environment(None).items():
        monkeypatch.setenv(name, value)


def test_a_result_survives_the_file(tmp_path: Path) -> None:
    document = sample_document(sample_row(), sample_row(engine="faiss", ours=False))
    path = results.write(document, tmp_path / "results")
    assert path.name == "2026-01-01-123000.json"
    assert results.read(path) == document
    assert results.write(sample_document(sample_row(), quick=True), tmp_path).name.endswith("-quick.json")
    assert "\n" not in results.dumps(document)
    old = results.write(sample_document(sample_row(suite="text_search"), day=2), tmp_path)
    assert results.read(old)["rows"][0]["suite"] == "end_to_end", "suites of older files have the names of today"
    with pytest.raises(ValueError, match="not JSON compliant"):
        results.dumps({"value": float("nan")})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: d.update(schema=99), "schema 99"),
        (lambda d: d.pop("machine"), "machine: NoneType"),
        (lambda d: d.update(date="yesterday"), "yesterday"),
        (lambda d: d["rows"][0].pop("share"), r"rows\[0\]: keys \['share'\]"),
        (lambda d: d["rows"][0].update(rounds=[]), "no rounds"),
        (lambda d: d["rows"][0].update(value=0), "no value"),
    ],
)
def test_a_damaged_result_is_refused_with_its_name(tmp_path: Path, damage: Callable[[dict[str, Any]], Any], message: str) -> None:
    document = sample_document(sample_row())
    damage(document)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=f"result.json: .*{message}"):
        results.read(path)


def test_a_table_line_holds_speed_tail_quality_and_share() -> None:
    from rich.console import Console

    console = Console(width=150, record=True, file=io.StringIO())
    tables.show([sample_row(), sample_row(engine="numpy", ours=False, share=None)], console)
    text = console.export_text()
    line = next(line for line in text.splitlines() if "FlatIndex" in line)
    assert [cell.strip() for cell in line.split("│")[1:-1]] == [
        "nearfield FlatIndex 0.1.0",
        "0.500",
        "10 %",
        "0.400",
        "0.700",
        "0.900",
        "1.0000",
        "42.0 %",
    ]
    assert "MiB" not in text  # no row has memory


def test_the_readme_gets_the_newest_figures_of_each_suite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, readme = tmp_path / "results", tmp_path / "README.md"
    readme.write_text(f"# Title\n{readme_table.BEGIN}\nold\n{readme_table.END}\nend\n")
    options = ["--readme", str(readme), "--results", str(folder)]
    assert readme_table.main(options) == 2  # nothing measured yet
    assert "no results for publication" in capsys.readouterr().err

    blank = dict.fromkeys(("p50", "p99", "quality", "quality_name", "share", "ceiling"))
    search_row = sample_row(suite="search", brief="build", engine="hnswlib", ours=False, unit="s", value=67.0, memory_bytes=2**20, **blank)
    results.write(sample_document(sample_row(value=9.0, p50=9.0), search_row, day=1), folder)
    results.write(sample_document(sample_row(), sample_row(brief="", p50=77.0), day=2), folder)
    results.write(sample_document(sample_row(p50=55.0), day=3, quick=True), folder)
    results.write(sample_document(sample_row(p50=66.0), day=4, forced="avx2"), folder)
    assert readme_table.main([*options, "--check"]) == 1
    assert "old" in readme.read_text()
    assert readme_table.main(options) == 0
    text = readme.read_text()
    assert text.startswith("# Title\n")
    assert text.endswith(f"{readme_table.END}\nend\n")
    assert "old" not in text
    assert (
        "| **nearfield FlatIndex 0.1.0** | p50 0.400, p99 0.900 (42 %) | 1.0000 |" in text
    )  # of day 2: neither day 1 nor the quick or the held run
    assert "| hnswlib 0.1.0 | 67.0, 1 MiB |" in text  # of day 1: the newest file with this suite
    assert "77" not in text.split("Written by")[0].split("score")[1]  # rows without a brief stay in the JSON
    assert readme_table.main([*options, "--check"]) == 0


def test_a_run_without_peers_does_not_take_the_place_of_one_beside_them(tmp_path: Path) -> None:
    results.write(sample_document(sample_row(), day=1), tmp_path)
    results.write(sample_document(sample_row(), sample_row(engine="faiss", ours=False), day=2), tmp_path)
    results.write(sample_document(sample_row(), day=3), tmp_path)
    assert [document["date"][:10] for document in readme_table.newest(tmp_path).values()] == ["2026-01-02"]


def test_our_own_readme_is_up_to_date() -> None:
    if not any(not document["quick"] for document in map(results.read, readme_table.RESULTS.glob("*.json"))):
        pytest.skip("no results for publication in benchmarks/results")
    assert readme_table.main(["--check"]) == 0


def test_a_readme_without_markers_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results.write(sample_document(sample_row()), tmp_path / "results")
    readme = tmp_path / "README.md"
    readme.write_text(f"{readme_table.END} {readme_table.BEGIN}")
    assert readme_table.main(["--readme", str(readme), "--results", str(tmp_path / "results")]) == 2
    assert "once each, in this order" in capsys.readouterr().err


def test_the_command_refuses_an_unknown_suite_and_too_many_threads(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["nothing"]) == 2
    known = ", ".join(suites.SUITES)
    assert {"import", "encode", "score", "build", "search", "filter", "churn", "tune", "end_to_end"} <= set(suites.SUITES)
    assert f"unknown suite 'nothing', one of {known} expected, or all" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        command.main(["--threads", "99999"])
    assert stopped.value.code == 2


def test_the_command_ends_in_one_json_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command.apart, "run", lambda name, plan: Outcome([sample_row(suite=name)]))
    monkeypatch.setattr(ceilings, "measure", lambda *args, **options: SAMPLE)
    assert command.main(["score", "--quick", "--json", "-", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out.rstrip("\n").split("\n")
    document = json.loads(out[-1])
    results.validate(document)
    assert document["command"] == f"python -m benchmarks score --quick --json - --out {tmp_path.name}"
    assert document == results.read(next(tmp_path.glob("*-quick.json")))
    assert out[0].startswith("machine ")


def test_extra_columns_stand_where_a_row_has_them() -> None:
    from rich.console import Console

    extra = {
        "shown": "5 %",
        "recall": 0.99951,
        "touched_bytes": 76_800_000,
        "touched_from": "DRAM",
        "rescored_mean": 27.25,
        "rescored_max": 1234,
    }
    console = Console(width=200, record=True, file=io.StringIO())
    tables.show([sample_row(params=extra), sample_row(engine="numpy", ours=False, params={})], console)
    text = console.export_text()
    line = next(line for line in text.splitlines() if "FlatIndex" in line)
    cells = [cell.strip() for cell in line.split("│")[1:-1]]
    assert cells[0] == "nearfield FlatIndex 0.1.0 (5 %)"
    assert cells[-5:] == ["0.9995", "76.8", "DRAM", "27.2", "1,234"]
    assert "valley" not in text


def test_a_held_target_reruns_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[Any] = []

    class Gone(BaseException):
        """The process is another program now."""

    def execve(program: str, line: list[str], env: dict[str, str]) -> None:
        asked.append((program, line, env))
        raise Gone

    for name in held.environment("avx2"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.execve", execve)
    monkeypatch.setattr(command.machine, "targets", lambda: {"targets_here": ["scalar", "avx2"]})
    arguments = ["score", "--target", "avx2", "--quick"]
    with pytest.raises(Gone):
        command.main(arguments)
    program, line, env = asked[0]
    assert program == line[0] == sys.executable
    assert line[1:] == ["-m", "benchmarks", *arguments]
    wanted = {"NEARFIELD_TARGET": "avx2", "OPENBLAS_CORETYPE": "Haswell", "FAISS_OPT_LEVEL": "AVX2", "FAISS_SIMD_LEVEL": "AVX2"}
    assert wanted.items() <= env.items()
    assert env["PYTHONPATH"].split(":")[0] == str(ROOT)
    with pytest.raises(SystemExit):
        command.main(["--target", "amx"])
    assert "'amx': one of scalar, avx2 expected" in capsys.readouterr().err


def test_a_new_xeon_gets_the_matrix_kernels_that_an_old_openblas_would_not_find(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    monkeypatch.setattr(held.machine, "flags", lambda: {"avx2", "avx512f"})
    monkeypatch.setattr(held.machine, "is_intel", lambda: True)
    assert held.environment(None) == {"OPENBLAS_CORETYPE": "SkylakeX"}
    assert held.environment("avx2")["OPENBLAS_CORETYPE"] == "Haswell"
    assert not held.in_force(None)
    monkeypatch.setattr(held.machine, "is_intel", lambda: False)
    assert held.environment(None) == {}
    monkeypatch.setattr(held.machine, "is_intel", lambda: True)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Zen")  # whoever sets it knows why
    assert held.environment(None) == {}
    assert held.in_force(None)


def test_in_a_held_process_the_suites_run_and_know_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in held.environment("scalar").items():
        monkeypatch.setenv(name, value)
    plans = []
    monkeypatch.setattr(command.apart, "run", lambda name, plan: plans.append(plan) or Outcome([sample_row(suite=name)]))
    monkeypatch.setattr(ceilings, "measure", lambda *args, **options: SAMPLE)
    monkeypatch.setattr(command.machine, "targets", lambda: {"targets_here": ["scalar", "avx2"]})
    assert command.main(["filter", "--target", "scalar", "--large", "--only", "hnswlib,faiss", "--out", str(tmp_path)]) == 0
    assert (plans[0].target, plans[0].large, plans[0].only, plans[0].out) == ("scalar", True, ("hnswlib", "faiss"), tmp_path)


def test_a_file_of_texts_must_be_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["score", "--data", "nowhere.jsonl"]) == 2
    assert "--data nowhere.jsonl: no such file" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux" or find_spec("faiss") is None, reason="faiss is not installed")
def test_faiss_obeys_the_environment_that_holds_it() -> None:
    code = "import faiss; print(getattr(faiss, 'SIMDConfig', None) and faiss.SIMDConfig.get_level_name())"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **held.environment("avx2")}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() in {"AVX2", "None"}  # None: a package without dynamic dispatch, which FAISS_OPT_LEVEL holds
