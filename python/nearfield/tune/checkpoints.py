"""Checkpoints that are complete or absent: tensors as safetensors, the rest as JSON, nothing pickled, every replacement by a rename."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from nearfield.errors import FormatError, InputError
from nearfield.files import PARTIAL, cannot_write, reason_of, sync_folder, whole_file, whole_path

Tensors = dict[str, torch.Tensor]

FORMAT = 1
_PREFIX = "checkpoint-"


class CheckpointStore:
    """The work folder of one run.

    It holds ``run.json`` (what the run is made of), ``checkpoint-<serial>/`` (weights, optimizer, state; the highest serial counts,
    others are removed) and ``best-<step>.safetensors`` (the weights with the best dev score). A folder named ``checkpoint-*`` is always
    complete: it is written under another name, flushed to disk and renamed.

    Args:
        work: the folder; made if missing.
        identity: what must agree for a run to be continued: name -> value, compared as JSON.
        about: what may differ and is only kept, tables by name; None keeps nothing.

    Attributes:
        begun_with: after ``open`` found a run to go on from, the ``about`` it was begun with.
    """

    def __init__(self, work: Path, identity: Mapping[str, Any], about: Mapping[str, Any] | None = None) -> None:
        self.work, self.identity = Path(work), json.loads(json.dumps(dict(identity)))
        self.about, self.begun_with = about, dict[str, Any]()
        try:
            self.work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.work}: cannot be used as a work folder ({reason_of(error)}); a folder to write in expected") from error

    def open(self, *, resume: bool) -> bool:
        """Prepares the folder and returns whether there is a checkpoint to go on from.

        Args:
            resume: False begins anew and removes what an earlier run left; True goes on where there is something to go on from.

        Raises:
            InputError: resume, but the folder belongs to another run; the message names what differs.
        """
        for path in {*self.work.glob(f".*{PARTIAL}"), *self.work.glob(f"{_PREFIX}*")} - {*self._folders()}:
            _remove(path)  # what a kill left half written or half removed
        found = self._read_json(self.work / "run.json") if resume and (self.work / "run.json").is_file() else None
        if found is not None and self._folders():
            self._check_same(found)
            self.begun_with = found.get("about") or {}
            return True
        # In this order: whatever a kill leaves of it is nothing to go on from, rather than half of a checkpoint.
        (self.work / "run.json").unlink(missing_ok=True)
        for path in [*self._folders(), *self.work.glob("best-*.safetensors")]:
            _remove(path)
        self._write_json(self.work / "run.json", {"format": FORMAT, **self.identity, "about": self.about})
        return False

    def save(self, weights: Tensors, optimizer: Tensors, state: Mapping[str, Any]) -> Path:
        """Writes one checkpoint and removes the earlier ones; returns its folder.

        ``state["best_step"]`` names the best weights to keep (see ``save_best``); other files of best weights are removed.
        """
        earlier = self._folders()
        serial = int(earlier[-1].name.removeprefix(_PREFIX)) + 1 if earlier else 1
        part = self.work / f".{_PREFIX}part"
        folder = self.work / f"{_PREFIX}{serial:06d}"
        try:
            _remove(part)
            part.mkdir()
            _write_tensors(part / "weights.safetensors", weights)
            _write_tensors(part / "optimizer.safetensors", optimizer)
            self._write_json(part / "state.json", dict(state))
            sync_folder(part)
            part.rename(folder)
            sync_folder(self.work)
        except OSError as error:
            raise cannot_write(folder, error) from None
        for path in [*earlier, *self.work.glob("best-*.safetensors")]:
            if path != self._best(state.get("best_step")):
                _remove(path)
        return folder

    def load(self) -> tuple[Tensors, Tensors, dict[str, Any]]:
        """Returns (weights, optimizer tensors, state) of the latest checkpoint.

        Raises:
            FormatError: a file of it cannot be read.
        """
        folder = self._folders()[-1]
        weights = _read_tensors(folder / "weights.safetensors")
        return weights, _read_tensors(folder / "optimizer.safetensors"), self._read_json(folder / "state.json")

    def save_best(self, step: int, weights: Tensors) -> None:
        """Writes the best weights so far; the file of the earlier best stays until a checkpoint names this one."""
        _write_tensors(self._best(step), weights)

    def load_best(self, step: int) -> Tensors:
        """Returns the weights saved by ``save_best(step, ...)``."""
        return _read_tensors(self._best(step))

    def _best(self, step: Any) -> Path:
        return self.work / f"best-{step}.safetensors"

    def _folders(self) -> list[Path]:
        return sorted(path for path in self.work.glob(f"{_PREFIX}*") if (path / "state.json").is_file())

    def _check_same(self, found: Mapping[str, Any]) -> None:
        if found.get("format") != FORMAT:
            raise FormatError(f"{self.work}: checkpoints of format {found.get('format')!r}, {FORMAT} expected: start again without resume")
        for name, value in self.identity.items():
            if found.get(name) != value:
                raise InputError(
                    f"{self.work}: cannot be resumed: its {_difference(name, found.get(name), value)}; "
                    "give what the run was started with, another work folder, or start again without resume"
                )

    @staticmethod
    def _write_json(path: Path, value: Mapping[str, Any]) -> None:
        with whole_file(path) as file:
            file.write(json.dumps(value, indent=1).encode())

    @staticmethod
    def _read_json(path: Path) -> dict[str, Any]:
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FormatError(f"{path}: cannot be read ({error}): start again without resume") from error
        if not isinstance(value, dict):
            raise FormatError(f"{path}: a JSON {type(value).__name__}, an object expected: start again without resume")
        return value


def discard(work: Path) -> None:
    """Removes the work folder of a finished run; a kill on the way leaves nothing that a resumed run would take for a checkpoint."""
    (work / "run.json").unlink(missing_ok=True)
    shutil.rmtree(work, ignore_errors=True)


def _difference(name: str, found: Any, present: Any) -> str:
    if isinstance(found, dict) and isinstance(present, dict):
        for key in present:
            if found.get(key) != present[key]:
                return f"{name} has {key} {found.get(key)!r}, {present[key]!r} given"
    return f"{name} is {found!r}, {present!r} given"


def _write_tensors(path: Path, tensors: Tensors) -> None:
    try:
        with whole_path(path) as partial:
            save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, partial)
    except SafetensorError as error:  # its own type, also for a full disk
        raise cannot_write(path, OSError(str(error))) from None


def _read_tensors(path: Path) -> Tensors:
    try:
        tensors: Tensors = load_file(path)
    except Exception as error:  # safetensors raises its own exception type for every kind of damage
        raise FormatError(f"{path}: cannot be read ({error}): start again without resume") from error
    return tensors


def _remove(path: Path) -> None:
    """A checkpoint counts while it has its state: that goes first, so that a kill leaves none with half its files."""
    if path.is_dir():
        (path / "state.json").unlink(missing_ok=True)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
