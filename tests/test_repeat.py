"""A run repeated from its run.json gives the same bits; what is not the same is said."""

from __future__ import annotations

import json
import platform
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from nearfield.config import TuneConfig
from nearfield.data.dataset import Finding
from nearfield.errors import FormatError, InputError
from nearfield.repeat import Recorded, Threads, choose_threads, read_config
from nearfield.workflow import tune
from tuned_runs import Inputs, digests, figures, nearfield, write_guard


def test_run_json_alone_repeats_the_run_bit_for_bit(run_inputs: Inputs, whole_run: Path, tmp_path: Path) -> None:
    run = json.loads((whole_run / "run.json").read_text())
    run["machine"]["platform"] = "CP/M"  # recorded, and without a say in the bits
    (tmp_path / "run.json").write_text(json.dumps(run))
    again = tmp_path / "again"
    done = nearfield(
        "tune", run_inputs.pairs, "--config", "run.json", "--out", again, cwd=tmp_path, PYTHONHASHSEED="2", OMP_NUM_THREADS="2"
    )
    assert done.returncode in (0, 1), done.stderr
    warning = f"run.json: machine: platform was CP/M, is {platform.platform()}: weights and figures may differ from that run's"
    assert [line for line in done.stderr.splitlines() if "warning: " in line] == [f"warning: {warning}"]
    assert f"note: {warning}" in done.stdout.splitlines()
    assert digests(again) == digests(whole_run)
    assert figures(again) == figures(whole_run)
    second = json.loads((again / "run.json").read_text())
    varying = {"seconds", "peak_memory", "history", "machine", "command", "date"}
    assert {k: v for k, v in run.items() if k not in varying} == {k: v for k, v in second.items() if k not in varying}


class Reached(Exception):
    """Training would begin now."""


def test_what_differs_is_said_line_by_line_before_training(
    run_inputs: Inputs, whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reached(*_: object, **__: object) -> None:
        raise Reached

    monkeypatch.setattr(import_module("nearfield.tune.train"), "train", reached)
    run = json.loads((whole_run / "run.json").read_text())
    run["machine"]["cpu"] = "Intel 8086"
    run["versions"]["torch"] = "0.1"
    changed = tmp_path / "run.json"
    changed.write_text(json.dumps(run))
    fewer = tmp_path / "pairs.jsonl"
    fewer.write_text("".join(run_inputs.pairs.read_text().splitlines(keepends=True)[1:]))
    said: list[list[Finding]] = []
    with pytest.raises(Reached):
        tune(fewer, config=changed, threads=7, out=tmp_path / "b", progress=False, on_findings=said.append)
    lines = [f"{finding.where}: {finding.message}" for finding in said[1]]
    assert [line.split(" was ")[0].removeprefix(f"{changed}: ") for line in lines] == [
        "inputs: data", "threads: training", "threads: encoding", "machine: cpu", "versions: torch",
    ]  # fmt: skip
    assert "cpu was Intel 8086, is " in lines[3]
    assert all("\n" not in line and line.endswith("may differ from that run's") for line in lines)
    # The guard of the run is found again; another one is said.
    said.clear()
    write_guard(tmp_path / "other", seed=2)
    with pytest.raises(Reached):
        tune(
            run_inputs.pairs,
            config=whole_run / "run.json",
            guard=tmp_path / "other",
            out=tmp_path / "b",
            progress=False,
            on_findings=said.append,
        )
    assert [finding.message.split(" was ")[0] for finding in said[1]] == ["inputs: guard"]


def test_threads_are_the_callers_else_the_recorded_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded(threads=Threads(3, 5))
    monkeypatch.setenv("NEARFIELD_THREADS", "1")
    assert choose_threads(None, recorded) == Threads(3, 5)
    assert choose_threads(None, Recorded()) == Threads(1, 1)
    monkeypatch.delenv("NEARFIELD_THREADS")
    assert choose_threads(2, recorded) == Threads(2, 2)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"run_format": 2}, "run_format: 2 given, 1 to 1 expected: upgrade nearfield"),
        ({"run_format": "1"}, "run_format: '1' given, 1 to 1 expected: upgrade nearfield"),
        ({"config": []}, "config: [] given, a JSON object expected"),
        ({"config": {"epochs": 0}}, "config: epochs: 0 given, a whole number from 1 to 1000 expected"),
        ({"config": {"epoch": 1}}, "config: unknown key 'epoch'; did you mean 'epochs'?"),
        ({"base": 3}, "base: 3 given, a text expected"),
        ({"guard": ["x"]}, "guard: ['x'] given, a text expected"),
        ({"columns": {"query": 1}}, "columns: texts expected"),
        (
            {"threads": {"training": 0, "encoding": 1}},
            "threads: {'training': 0, 'encoding': 1} given, whole numbers from 1 to 65536 for training and encoding expected",
        ),
        ({"machine": "x86"}, "machine: 'x86' given, a JSON object expected"),
    ],
)
def test_a_wrong_run_json_is_named_with_its_key(tmp_path: Path, change: dict[str, Any], line: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"run_format": 1, "config": {}} | change))
    with pytest.raises((InputError, FormatError)) as caught:
        read_config(path)
    assert str(caught.value) == f"{path}: {line}"


def test_a_run_json_of_little_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"run_format": 1, "config": {"seed": 4}, "more": 1}')
    config, recorded = read_config(path)
    assert config == TuneConfig(seed=4)
    assert (recorded.base, recorded.guard, recorded.columns, recorded.threads) == (None, None, None, None)
    assert recorded.differences({"inputs": {"data": "x"}, "threads": {}, "machine": {}, "versions": {}}) == []
