"""Vectors of one's own in the benchmark suite: files that are read, files that are refused, and a metric that ranks by distance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark_samples import needs_core
from benchmarks.core import data, own
from benchmarks.core.plan import Plan
from benchmarks.core.quality import exact_topk
from benchmarks.core.texts import sentences
from benchmarks.suites import search
from benchmarks.suites.graph_peers import Shape
from benchmarks.suites.graphs import ENGINES, Setting


def rows_of(n: int, dim: int = 8, scale: float = 3.0) -> np.ndarray:
    return (scale * np.random.default_rng(n).standard_normal((n, dim))).astype(np.float32)


def hdf5(path: Path, **content: Any) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.attrs["distance"] = content.pop("distance", "euclidean")
        for name, values in content.items():
            file[name] = values
    return path


def test_a_table_of_rows_gives_its_last_rows_as_queries(tmp_path: Path) -> None:
    table = rows_of(60)
    np.save(tmp_path / "mine.npy", table)
    found = own.read(tmp_path / "mine.npy")
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    assert np.allclose(np.concatenate([found.rows, found.queries]), unit, atol=1e-6)
    assert (len(found.rows), len(found.queries), found.metric) == (54, 6, "ip")
    plan = Plan(quick=True, data=tmp_path / "mine.npy", cache=tmp_path)
    vectors, queries, label = data.real_vectors(plan, 10, 9)
    assert np.array_equal(vectors, found.rows[:10])
    assert np.array_equal(queries, found.queries[[0, 1, 2, 3, 4, 5, 0, 1, 2]])
    assert label.startswith("10 x 8 of mine.npy, angular (")
    with pytest.raises(own.BadData, match=r"mine.npy: holds vectors, and this suite needs texts"):
        sentences(plan)


def test_ann_benchmarks_files_are_read_with_their_metric(tmp_path: Path) -> None:
    train, test = rows_of(30), rows_of(5)
    flat = own.read(hdf5(tmp_path / "e.hdf5", train=train, test=test))
    assert np.array_equal(flat.rows, train)
    assert np.array_equal(flat.queries, test)
    assert flat.metric == "l2"
    round_ = own.read(hdf5(tmp_path / "a.h5", train=train.astype(np.float64), test=test, distance="angular"))
    assert round_.metric == "ip"
    assert np.allclose(np.linalg.norm(round_.rows, axis=1), 1, atol=1e-6)
    whole = own.read(hdf5(tmp_path / "i.hdf5", train=np.arange(24, dtype=np.uint8).reshape(3, 8), test=test))
    assert whole.rows.dtype == np.float32
    with pytest.raises(own.BadData, match="only the suites search and build"):
        data.real_vectors(Plan(data=tmp_path / "e.hdf5"), 10, 2)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.npy", b"no array", "no array that numpy reads"),
        ("x.hdf5", b"no file", "no HDF5 file"),
        ("x.npy", np.zeros(9), r"an array of shape \(9,\)"),
        ("x.npy", np.zeros((9, 4)), "at least 20 rows expected"),
        ("x.npy", np.full((40, 4), "a"), "numbers of shape"),
        ("x.npy", np.array([[object()] * 2] * 30), "without pickle"),
        ("x.npy", np.vstack([np.ones((30, 4)), np.full((9, 4), np.nan)]), "row 30 holds NaN"),
        ("x.npy", np.vstack([np.ones((30, 4)), np.zeros((9, 4))]), "row 30 is zero"),
        ("x.hdf5", {"train": np.ones((4, 4))}, "datasets train, train and test expected"),
        ("x.hdf5", {"train": np.ones((4, 4)), "test": np.ones((4, 5))}, "queries of 5 columns and rows of 4"),
        ("x.hdf5", {"train": np.ones((4, 4)), "test": np.ones((4, 4)), "distance": "jaccard"}, "distance 'jaccard', one of angular"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_gets_one_line(tmp_path: Path, name: str, content: Any, message: str) -> None:
    path = tmp_path / name
    if path.suffix == ".hdf5":
        pytest.importorskip("h5py")
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        hdf5(path, **content)
    else:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(own.BadData, match=message) as refused:
        own.read(path)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


def test_products_rank_as_squared_distances() -> None:
    rows, queries = rows_of(200), rows_of(20)
    ids, scores = exact_topk(own.as_products(queries, query=True), own.as_products(rows, query=False), 7)
    distances = ((queries[:, None, :].astype(np.float64) - rows[None].astype(np.float64)) ** 2).sum(axis=2)
    assert np.array_equal(ids, np.argsort(distances, axis=1)[:, :7])
    half = 0.5 * (queries.astype(np.float64) ** 2).sum(axis=1)
    assert np.allclose(2 * (half[:, None] - scores), np.sort(distances, axis=1)[:, :7])


@needs_core
@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_every_engine_searches_by_distance(engine: Any) -> None:
    if line := engine.missing():
        pytest.skip(line)
    vectors, queries = rows_of(1_000, 64), rows_of(24, 64)
    vectors *= np.random.default_rng(0).uniform(0.5, 2, (1_000, 1)).astype(np.float32)  # lengths matter: by products these rank otherwise
    found = search.collection("own", vectors, queries, "", "l2", batch=8, alone=False)
    graph = engine.make(Shape(64, 1_000, "l2"))
    graph.add(vectors, 2)
    recalls = search.recalls_of(graph, found, 10)
    assert recalls[Setting(300, max(graph.refines))] >= 0.9
