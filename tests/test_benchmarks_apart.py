"""Suites in processes of their own: one that raises, dies or has bad data, and what the command makes of it."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmark_samples import SAMPLE
from benchmarks import __main__ as command
from benchmarks import readme_table
from benchmarks.core import apart, ceilings, newest, results
from benchmarks.core.own import BadData
from benchmarks.core.plan import Plan

HERE = str(Path(__file__).parent)
# The suite's own code stands in the place of TAKES.
FRESH = """
import os, sys
sys.path.insert(0, {here!r})
from benchmark_samples import sample_row
from benchmarks import suites
from benchmarks.core import apart
from benchmarks.core.own import BadData

def suite(plan):
    {takes}

suites.load = lambda name: suite
status = apart.main(sys.argv[1:])
{after}
sys.exit(status)
"""


def process(takes: str, after: str = "") -> Sequence[str]:
    """A command that runs this body as the suite."""
    return sys.executable, "-c", FRESH.format(here=HERE, takes=takes, after=after)


def test_rows_and_lines_come_back_as_they_were(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    takes = (
        "print('noise'); plan.skipped.append('skipped: x'); import numpy as np; "
        "peak = plan.ceilings.f32['1']['avx2']; "
        "return [sample_row(engine=str(os.getpid()), data=str(plan.cache), threads=np.int64(3), value=peak)]"
    )
    plan = Plan(cache=tmp_path, ceilings=SAMPLE, skipped=["skipped: earlier"])
    done = apart.run("score", plan, process(takes))
    (row,) = done.rows
    assert (row.data, row.value, row.params) == (str(tmp_path), 50e9, {"n": 100})
    assert isinstance(row.threads, np.int64)
    assert int(row.engine) != os.getpid()
    assert (done.skipped, done.error) == (["skipped: x"], None)
    assert plan.skipped == ["skipped: earlier"]
    out, err = capfd.readouterr()
    assert out == "", "stdout belongs to the tables"
    assert "noise" in err


@pytest.mark.parametrize(
    ("takes", "error"),
    [
        ("raise OSError('no room\\nat all')", "OSError: no room at all"),
        ("os.kill(os.getpid(), 11)", "its process was ended by signal 11 (SIGSEGV)"),
        ("os._exit(3)", "its process ended with status 3 and no answer"),
    ],
)
def test_a_suite_that_fails_says_how(takes: str, error: str, capfd: pytest.CaptureFixture[str]) -> None:
    done = apart.run("score", Plan(), process(takes))
    assert (done.rows, done.error) == ([], error)
    assert ("Traceback" in capfd.readouterr().err) == takes.startswith("raise")


@pytest.mark.parametrize(
    ("end", "error"),
    [
        ("raise OSError('no room')", "OSError: no room"),
        ("os.kill(os.getpid(), 9)", "its process was ended by signal 9 (SIGKILL)"),
    ],
)
def test_rows_that_were_handed_over_outlive_the_suite(end: str, error: str) -> None:
    takes = f"plan.skipped.append('skipped: x'); plan.so_far([sample_row()]); plan.so_far([sample_row(), sample_row(engine='b')]); {end}"
    done = apart.run("search", Plan(), process(takes))
    assert [row.engine for row in done.rows][1:] == ["b"]
    assert (len(done.rows), done.skipped, done.error, done.stopped) == (2, ["skipped: x"], error, False)


@pytest.mark.parametrize("signal_sent", ["SIGINT", "SIGTERM"])
def test_a_run_that_is_stopped_writes_what_it_has(
    signal_sent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The suite stops its parent, as a limit of time would, and goes on for longer than anybody waits."""
    takes = (
        "import signal, time; plan.so_far([sample_row(suite=sys.argv[1])]); "
        f"os.kill(os.getppid(), signal.{signal_sent}); time.sleep(60); return []"
    )
    monkeypatch.setattr(command.apart, "run", partial(apart.run, command=process(takes)))
    monkeypatch.setattr(ceilings, "measure", lambda *args, **options: SAMPLE)
    monkeypatch.setattr(command.held, "in_force", lambda target: True)
    handler = signal.getsignal(signal.SIGTERM)
    assert command.main(["search", "encode", "--out", str(tmp_path)]) == 1
    assert signal.getsignal(signal.SIGTERM) is handler
    document = results.read(next(tmp_path.glob("*.json")))
    assert [row["suite"] for row in document["rows"]] == ["search"]
    assert document["failed"] == {"search": "it was stopped"}
    assert list(document["seconds"]) == ["search"]
    assert "failed: search (it was stopped)" in capfd.readouterr().out
    assert readme_table.newest(tmp_path) == {}, "half a suite is not for the README"
    assert newest.runs(tmp_path) == [], "nor for the page"


def test_a_process_that_dies_after_its_answer_has_answered() -> None:
    done = apart.run("score", Plan(), process("return [sample_row()]", after="os.kill(os.getpid(), 11)"))
    assert (len(done.rows), done.error) == (1, None)


def test_bad_data_are_the_callers_affair() -> None:
    with pytest.raises(BadData, match="too few texts"):
        apart.run("score", Plan(), process("raise BadData('too few texts')"))


def test_the_other_suites_go_on_and_the_command_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    takes = "sys.argv[1] == 'score' and os.kill(os.getpid(), 11); return [sample_row(suite=sys.argv[1])]"
    monkeypatch.setattr(command.apart, "run", partial(apart.run, command=process(takes)))
    monkeypatch.setattr(ceilings, "measure", lambda *args, **options: SAMPLE)
    monkeypatch.setattr(command.held, "in_force", lambda target: True)
    assert command.main(["import", "score", "encode", "--quick", "--json", "-", "--out", str(tmp_path)]) == 1
    out, err = capfd.readouterr()
    document = json.loads(out.rstrip("\n").split("\n")[-1])
    assert [row["suite"] for row in document["rows"]] == ["import", "encode"]
    assert document["failed"] == {"score": "its process was ended by signal 11 (SIGSEGV)"}
    assert list(document["seconds"]) == ["import", "score", "encode"]
    assert document == results.read(next(tmp_path.glob("*-quick.json")))
    assert "failed: score (its process was ended by signal 11 (SIGSEGV))" in out
    assert "benchmarks: score failed: its process was ended by signal 11" in err


def test_compiled_modules_are_kept_where_python_keeps_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPYCACHEPREFIX", raising=False)
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    assert "PYTHONPYCACHEPREFIX" not in apart.environment(Plan(cache=tmp_path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    takes = "import colorsys; return [sample_row(engine=str(colorsys.__cached__), data=str(sys.dont_write_bytecode))]"
    done = apart.run("score", Plan(cache=tmp_path), process(takes))
    (row,) = done.rows
    assert (Path(row.engine).is_relative_to(tmp_path / "pycache"), Path(row.engine).is_file(), row.data) == (True, True, "False")
