"""Running cells: train, then measure, then one line in the table; each in a process of its own where its memory is to be known."""

from __future__ import annotations

import resource
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.quality.cells import Cell
from benchmarks.quality.measure import measure
from benchmarks.quality.recipes import RECIPES
from benchmarks.quality.theirs import train_theirs
from benchmarks.quality.trained import Trained, documents_alone, fewer_pairs, train_adapter, train_ours
from nearfield.data.dataset import Dataset
from nearfield.data.read import read
from nearfield.data.split import split


@dataclass(frozen=True)
class Inputs:
    """What all cells share.

    Attributes:
        data: name -> BEIR folder or file.
        guard: general questions; None: not measured, and no say in the merge.
        base: the base model's folder.
        epochs: passes at most; None: one without a budget, as many as fit within one.
        scratch: folder for models that are thrown away once measured.
    """

    data: Mapping[str, Path]
    guard: Path | None
    base: Path
    epochs: int | None = None
    scratch: Path | None = None


@lru_cache(maxsize=8)
def _dataset(path: Path) -> Dataset:
    return split(read(path), seed=0)


def run_cell(cell: Cell, inputs: Inputs) -> dict[str, Any]:
    """Trains and measures one cell; returns its line."""
    data = fewer_pairs(_dataset(inputs.data[cell.data]), cell.pairs, cell.seed)
    guard = None if inputs.guard is None else _dataset(inputs.guard)
    work = Path(tempfile.mkdtemp(prefix="cell-", dir=inputs.scratch))
    _forget_peak(cell.device)
    wall, processor = time.monotonic(), time.process_time()
    try:
        trained = _train(cell, data, guard, inputs, work)
        took = {"wall_seconds": round(time.monotonic() - wall, 2), "cpu_seconds": round(time.process_time() - processor, 2)}
        memory = _peak(cell.device)
        began = time.monotonic()
        measured = measure(trained.model, data, guard, cell.device, trained.adapt, trained.queries)
        took["measuring_seconds"] = round(time.monotonic() - began, 2)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()), **took, "train_pairs": sum(map(len, data.qrels["train"].values())),
        "pairs_seen": trained.pairs_seen, "steps": trained.steps, "pairs_per_second": round(trained.pairs_per_second, 2),
        "peak_bytes": memory, "how": trained.how, "details": trained.details, **measured,
    }  # fmt: skip


def _train(cell: Cell, data: Dataset, guard: Dataset | None, inputs: Inputs, work: Path) -> Trained:
    recipe = RECIPES[cell.recipe]
    if recipe.kind == "base":
        return Trained(inputs.base, 0, 0, 0.0, "nothing")
    if recipe.kind == "adapter":
        return train_adapter(data, inputs.base, recipe.options, seed=cell.seed, clock=cell.clock, device=cell.device, guard=guard)
    common: dict[str, Any] = {
        "seed": cell.seed,
        "seconds": cell.seconds,
        "clock": cell.clock,
        "device": cell.device,
        "epochs": inputs.epochs,
    }
    if recipe.kind == "sentence-transformers":
        return train_theirs(data, inputs.base, work, recipe.options, **common)
    if recipe.source == "documents":
        data = documents_alone(data, cell.seed)
    return train_ours(data, inputs.base, work, recipe.options, guard=guard, **common)


def warm_up(inputs: Inputs, recipes: list[str], name: str, device: str) -> None:
    """Trains three seconds of every recipe and keeps nothing: what a process does once is not the first cell's cost.

    A recipe that fails here fails in its cell too, which says so.
    """
    for recipe in recipes:
        run = Cell(recipe, name, 0, 256, 3.0, "wall", device)
        work = Path(tempfile.mkdtemp(prefix="warm-", dir=inputs.scratch))
        with suppress(Exception):
            _train(run, fewer_pairs(_dataset(inputs.data[name]), 256, 0), None, inputs, work)
        shutil.rmtree(work, ignore_errors=True)


def _forget_peak(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak(device: str) -> int:
    """The most memory that training took: of the GPU's, or the process's resident set."""
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
