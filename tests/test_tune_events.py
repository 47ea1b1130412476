"""TensorBoard's event files: every step and score is there, a resumed run hides what it repeats, and a missing package is one line."""

from __future__ import annotations

import dataclasses
import sys
import types
from pathlib import Path
from typing import Any, ClassVar

import pytest

from nearfield.errors import MissingExtraError
from test_tune_train import FAST, run


class Writer:
    """Stands for torch's writer where tensorboard is not installed."""

    made: ClassVar[list[Writer]] = []

    def __init__(self, folder: str, purge_step: int) -> None:
        self.folder, self.purge_step, self.scalars, self.closed = folder, purge_step, list[tuple[str, float, int]](), False
        Writer.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def close(self) -> None:
        self.closed = True


def with_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    Writer.made.clear()


def test_every_step_and_score_is_written(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_writer(monkeypatch)
    result = run(tmp_path / "work", tiny_model, dataclasses.replace(FAST, epochs=1), events=tmp_path / "events")
    (writer,) = Writer.made
    assert (writer.folder, writer.purge_step, writer.closed) == (str(tmp_path / "events"), 0, True)
    steps = {name: [step for n, _, step in writer.scalars if n == name] for name, _, _ in writer.scalars}
    every = list(range(1, result.steps + 1))
    assert steps == {"train/loss": every, "train/gradient norm": every, "train/learning rate": every, "dev/nDCG@10": [0, 5, 10]}
    scores = [value for name, value, _ in writer.scalars if name == "dev/nDCG@10"]
    assert scores == [entry["dev_ndcg"] for entry in result.history if entry["kind"] == "train"]


def test_a_resumed_run_hides_what_it_repeats_and_errors_close_the_file(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_tune_train import interrupt_at

    with_writer(monkeypatch)
    config = dataclasses.replace(FAST, epochs=1)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 7, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "work", tiny_model, config, events=tmp_path / "events")
    run(tmp_path / "work", tiny_model, config, events=tmp_path / "events", resume=True)
    assert [writer.closed for writer in Writer.made] == [True, True]
    first = min(step for name, _, step in Writer.made[1].scalars if name == "train/loss")
    assert Writer.made[1].purge_step == first > 1


def test_a_missing_package_is_said_before_training(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match="writing events needs tensorboard"):
        run(tmp_path / "work", tiny_model, FAST, events=tmp_path / "events")


def test_torchs_own_writer_makes_a_file_that_tensorboard_reads(tmp_path: Path, tiny_model: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = run(tmp_path / "work", tiny_model, dataclasses.replace(FAST, epochs=1), events=tmp_path / "events")
    found = EventAccumulator(str(tmp_path / "events")).Reload()
    assert [event.step for event in found.Scalars("train/loss")] == list(range(1, result.steps + 1))
