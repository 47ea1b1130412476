"""kill -9 at any moment: a resumed run ends in the bits of the uninterrupted one, and a bundle is the old one or the new one."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from killed_runs import Ended, Server, server
from nearfield import files
from nearfield.bundle import Bundle
from nearfield.errors import FormatError
from nearfield.tune.checkpoints import CheckpointStore
from tuned_runs import Inputs, digests, figures

KILLS = 20
SEED = 20


@pytest.fixture(scope="module")
def forked() -> Iterator[Server]:
    with server() as started:
        yield started


def stage(out: Path) -> str:
    """How far a killed run had come, by what it left."""
    work = out.with_name(out.name + ".work")
    checkpoints = sorted(path.name for path in work.glob("checkpoint-*"))
    for name, found in (
        ("publication", not work.exists()),
        ("evaluation", (work / "base").exists()),
        ("export", (work / "model").exists()),
    ):
        if found:
            return name
    return f"training or merge, {checkpoints[-1]}" if checkpoints else "before the first checkpoint"


class Life:
    """One run and its resumed sessions; ``older`` is the bundle that stands at ``out`` from the start, if any."""

    def __init__(self, server: Server, inputs: Inputs, folder: Path, older: Path | None) -> None:
        folder.mkdir()
        self.server, self.inputs, self.folder, self.out = server, inputs, folder, folder / "bundle"
        self.kills: list[str] = []
        self.begun = False
        self.older = None if older is None else Bundle.open(shutil.copytree(older, self.out)).fingerprint

    def go(self, *, seconds: float | None = None, event: int | None = None, within: str = "") -> Ended:
        """A session: the first, or one that resumes. What stands at ``out`` afterwards is checked."""
        arguments = self.inputs.tune(self.out, *(["--resume"] if self.begun else []))
        ended = self.server.run(arguments, self.folder, seconds=seconds, event=event, within=within)
        self.begun = True
        assert ended.killed or ended.status in (0, 1), (self.kills, ended)
        if ended.killed:
            moment = f"{seconds:.2f} s" if seconds is not None else f"change {event} of {within or 'any'}"
            self.kills.append(f"{moment}: {stage(self.out)}")
        if self.out.exists():
            bundle = Bundle.open(self.out)
            assert bundle.fingerprint == self.older or bundle.manifest["verdict"]["answer"]
        else:
            assert self.older is None, self.kills
        return ended

    def check(self, whole: Path) -> None:
        """Everything as in the uninterrupted run, and nothing left over."""
        assert digests(self.out) == digests(whole), self.kills
        assert figures(self.out) == figures(whole), self.kills
        assert sorted(path.name for path in self.folder.iterdir() if not path.name.endswith(files.PARTIAL)) == ["bundle", "stderr.txt"]


def test_killed_while_a_checkpoint_is_written_and_during_the_export(
    forked: Server, run_inputs: Inputs, whole_run: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    life = Life(forked, run_inputs, tmp_path / "life", tiny_bundle)
    assert life.go(event=70, within="checkpoint-").killed
    assert life.go(event=9, within="/made/").killed
    assert not life.go().killed
    life.check(whole_run)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_anywhere_any_number_of_times(
    forked: Server, run_inputs: Inputs, whole_run: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """20 kills: by the clock and by changes on disk, in turn, one to three in a life, spread evenly over the whole of a session."""
    chance = random.Random(SEED)
    whole = Life(forked, run_inputs, tmp_path / "whole", None).go()
    spread = [(i + chance.random()) / KILLS for i in range(KILLS)]
    chance.shuffle(spread)
    made: list[str] = []
    lives = 0
    while len(made) < KILLS:
        lives += 1
        life = Life(forked, run_inputs, tmp_path / f"life{lives}", tiny_bundle if lives % 2 else None)
        for _ in range(1 + lives % 3):
            place = spread[len(made) + len(life.kills)] if len(made) + len(life.kills) < KILLS else chance.random()
            by_clock = (len(made) + len(life.kills)) % 2 == 0
            ended = life.go(seconds=place * whole.seconds) if by_clock else life.go(event=1 + int(place * whole.events))
            if not ended.killed:
                break
        else:
            life.go()
        life.check(whole_run)
        made += [f"life {lives}: {kill}" for kill in life.kills]
        shutil.rmtree(life.folder)
    with capsys.disabled():
        print(f"\n{len(made)} kills in {lives} lives, seed {SEED}; a whole session: {whole.seconds:.1f} s, {whole.events} changes on disk")
        print("\n".join(made))


def test_half_removed_checkpoints_count_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from nearfield.tune import checkpoints

    class Killed(BaseException):
        """Ends the process in the middle of a removal, as far as the folder is concerned."""

    def killed(*_: object, **__: object) -> None:
        raise Killed

    identity = {"config": {"seed": 1}}

    def fresh() -> CheckpointStore:
        return CheckpointStore(tmp_path, identity)

    store = fresh()
    store.open(resume=False)
    for removal in (
        lambda: fresh().open(resume=False),
        lambda: checkpoints.discard(tmp_path),
        lambda: checkpoints._remove(store._folders()[-1]),
    ):
        store.save({"w": torch.zeros(2)}, {}, {"best_step": -1})
        assert fresh().open(resume=True)
        with monkeypatch.context() as patch:
            patch.setattr(checkpoints.shutil, "rmtree", killed)
            with pytest.raises(Killed):
                removal()
        assert fresh().open(resume=True) is False
        assert not list(tmp_path.glob("checkpoint-*")), "and what was left of it is in nobody's way"


def test_leftovers_of_a_kill_are_removed_by_the_next_writer_but_not_the_work_of_a_living_one(tmp_path: Path) -> None:
    out = tmp_path / "b"
    with files.building(out) as living:
        dead = tmp_path / f".b.{'0' * 12}{files.PARTIAL}"
        young = tmp_path / f".b.{'1' * 12}{files.PARTIAL}"
        others = tmp_path / f".c.{'2' * 12}{files.PARTIAL}"
        for path in (dead, young, others):
            path.mkdir()
            (path / "x").write_text("x")
        for path in (dead, others, living):
            os.utime(path, (1, 1))
        with files.building(out):
            assert not dead.exists()
            assert young.exists()
            assert others.exists()
            assert living.exists()
    assert not living.exists()


def test_two_folders_are_exchanged_in_one_step_or_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for exchange in (True, False):
        for name in ("new", "out"):
            (tmp_path / name).mkdir()
            (tmp_path / name / name).touch()
        if exchange:
            assert files._exchange(tmp_path / "new", tmp_path / "out")
            assert (tmp_path / "out" / "new").exists()
            assert files._exchange(tmp_path / "new", tmp_path / "out")
        else:
            monkeypatch.setattr(files, "_exchange", lambda one, other: False)
        files.put_in_place(tmp_path / "new", tmp_path / "out")
        assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["out", "out/new"]
        shutil.rmtree(tmp_path / "out")


def test_what_a_killed_update_left_does_not_stop_a_replacement(tiny_bundle: Path, tmp_path: Path) -> None:
    from nearfield.export.writer import check_replaceable

    out = shutil.copytree(tiny_bundle, tmp_path / "b")
    (out / f".README.md.{'0' * 12}{files.PARTIAL}").write_text("half")
    check_replaceable(out)
    Bundle.open(out)
    (out / "mine").write_text("x")
    with pytest.raises(ValueError, match="'mine'"):
        check_replaceable(out)
    (out / "manifest.json").unlink()
    with pytest.raises(FormatError):
        Bundle.open(out)
