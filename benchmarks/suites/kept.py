"""Graphs of the peers, kept in the cache with what their building cost: building twelve of them over 200,000 rows takes 25 of 45 minutes.

A graph is taken from there only if engine, version, rows, metric, shape, threads and CPU are the same; its row then says on what day it
was built. Ours are built in every run, as their code is what changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.core import machine
from benchmarks.core.peers import Engine
from benchmarks.core.plan import Plan, usable_cores
from benchmarks.suites.graph_peers import EF_CONSTRUCTION, LINKS

# Hexadecimal digits of a hash in a folder's name.
DIGITS = 16
FIGURES, GRAPH = "figures.json", "graph"


@dataclass(frozen=True)
class Figures:
    """What building cost: seconds, growth of the resident set, bytes of the saved files, and the day (ISO), None for this run."""

    seconds: float
    memory: int
    file_bytes: int
    day: str | None = None


def digest(vectors: np.ndarray, metric: str) -> str:
    """Of everything that a graph depends on beside its engine."""
    about = (vectors.shape, metric, LINKS, EF_CONSTRUCTION, usable_cores(), machine.describe()["cpu"])
    return hashlib.sha256(repr(about).encode() + np.ascontiguousarray(vectors).tobytes()).hexdigest()[:DIGITS]


def folder(plan: Plan, engine: Engine, key: str) -> Path:
    """Where the graph of an engine lies, or would."""
    name = re.sub(r"[^a-z0-9]+", "-", f"{engine.name} {engine.version}".lower())
    return plan.cache / "graphs" / f"{name}-{key}"


def restore(place: Path, graph: Any, vectors: np.ndarray) -> Figures:
    """Reads a kept graph into ``graph``."""
    found = Figures(**json.loads((place / FIGURES).read_text(encoding="utf-8")))
    graph.load(place / GRAPH, vectors)
    return found


def keep(place: Path, graph: Any, seconds: float, memory: int) -> Figures:
    """Saves a graph with its figures, whole or not at all."""
    part = place.with_name(place.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    graph.save(part / GRAPH)
    found = Figures(seconds, memory, sum(path.stat().st_size for path in part.rglob("*") if path.is_file()))
    (part / FIGURES).write_text(json.dumps({**asdict(found), "day": date.today().isoformat()}), encoding="utf-8")
    shutil.rmtree(place, ignore_errors=True)
    os.replace(part, place)
    return found
