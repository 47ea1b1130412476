"""Scans of a graph by its codes, alone and sixteen queries together: every row that may matter comes out, whatever the rows look like."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nearfield as nf
import oracles
from nearfield.index import planner
from nearfield.types import Metric

METRICS: list[Metric] = ["cosine", "ip", "l2"]
KINDS = ["mutable", "frozen", "compact"]


def odd_rows(rng: np.random.Generator, kind: str, dim: int) -> np.ndarray:
    plain = rng.standard_normal((300, dim))
    made: dict[str, Any] = {
        "plain": plain,
        "duplicates": np.repeat(plain[:30], 10, axis=0),
        "all equal": np.repeat(plain[:1], 300, axis=0),
        "one ulp apart": np.nextafter(np.float32(1), np.float32(2)) ** np.arange(300)[:, None] * np.ones(dim),
        "tiny": plain * 1e-30,
        "denormal": plain * 1e-42,
        "huge": plain * 1e17,
        "all sizes": plain * 10.0 ** rng.integers(-20, 17, (300, 1)),
        "near ties": plain[:1] + plain * 1e-6,
        "far from the centre": plain * 1e-3 + 50,
        "one spike": plain * 1e-4 + 10 * (np.arange(dim) == 1),
        "zeros among them": plain * (rng.random((300, 1)) < 0.7),
    }
    return np.ascontiguousarray(made[kind], np.float32)


def made(rows: np.ndarray, metric: Metric, kind: str) -> Any:
    index = nf.HNSWIndex(rows.shape[1], metric=metric, M=4, ef_construction=20)
    index.add(rows)
    return index if kind == "mutable" else index.freeze(compact=kind == "compact")


def scanned(index: Any, queries: np.ndarray, k: int, **options: Any) -> tuple[np.ndarray, ...]:
    graph = index._seen.graph
    return graph.search(queries, k, graph.slots, 10, mode="scan", **options)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "kind",
    [
        "plain",
        "duplicates",
        "all equal",
        "one ulp apart",
        "tiny",
        "denormal",
        "huge",
        "all sizes",
        "near ties",
        "far from the centre",
        "one spike",
        "zeros among them",
    ],
)
@pytest.mark.parametrize("metric", METRICS)
def test_scans_of_the_mutable_graph_are_exact(metric: Metric, kind: str) -> None:
    rng = np.random.default_rng(7)
    for dim in (1, 7, 33, 64):
        rows = odd_rows(rng, kind, dim)
        queries = np.concatenate([rows[:3] * np.float32(0.7), odd_rows(rng, "plain", dim)[:17], np.zeros((1, dim), np.float32)])
        index = made(rows, metric, "mutable")
        stored = index.get(index.ids)
        score = oracles.scores(queries, stored, metric)
        for k in (1, 10, 300):
            slots, values, counts = scanned(index, queries, k)
            assert counts.tolist() == [k] * len(queries)
            for i in range(len(queries)):
                swap = oracles.swap_tolerance(queries[i : i + 1], stored, metric)
                oracles.assert_ranked(slots[i], score[i], oracles.rank(score[i], k), swap)
                assert np.allclose(values[i], score[i][slots[i]], rtol=1e-6, atol=1e-38)  # float32 holds nothing smaller


@pytest.mark.parametrize(
    "kind",
    ["plain", "duplicates", "all equal", "tiny", "denormal", "huge", "all sizes", "far from the centre", "one spike", "zeros among them"],
)
@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("metric", METRICS)
def test_scans_of_frozen_graphs_rank_every_row_by_its_score(metric: Metric, compact: bool, kind: str) -> None:
    rng = np.random.default_rng(8)
    for dim in (3, 40):
        rows = odd_rows(rng, kind, dim)
        queries = np.concatenate([rows[:3], odd_rows(rng, "plain", dim)[:17]])
        index = made(rows, metric, "compact" if compact else "frozen")
        score = index.score(queries, np.broadcast_to(index.ids, (len(queries), len(rows))))
        for k in (1, 10):
            slots, values, _ = scanned(index, queries, k)
            # The scores are rounded to float32 here: rows that are equal then may stand in either order.
            assert np.array_equal(values, -np.sort(-score, axis=1)[:, :k])
            assert np.array_equal(np.take_along_axis(score, slots, axis=1), values)
            assert all(len(set(row)) == k for row in slots.tolist())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
def test_together_is_as_one_by_one(metric: Metric, kind: str) -> None:
    rng = np.random.default_rng(9)
    rows = rng.standard_normal((1000, 24)).astype(np.float32)
    index = made(rows, metric, kind)
    index_size = len(rows)
    queries = rng.standard_normal((37, 24)).astype(np.float32)
    for share in (1.0, 0.3, 0.005, 0.0):
        mask = rng.random((1, index_size)) < share
        bias = rng.standard_normal((37, index_size)).astype(np.float32) * np.float32(3)
        for options in (
            {"mask": mask},
            {"mask": mask, "bias": bias},
            {"mask": mask, "bias": bias[:1]},
            {"mask": np.repeat(mask, 37, axis=0)},
        ):
            whole = scanned(index, queries, 10, **options, threads=2)
            for i in range(37):
                own = {name: value[i : i + 1] if len(value) > 1 else value for name, value in options.items()}
                alone = scanned(index, queries[i : i + 1], 10, **own)
                assert all(np.array_equal(a[i], b[0], equal_nan=a.dtype.kind == "f") for a, b in zip(whole, alone, strict=True))
            assert (whole[2] == min(10, mask.sum())).all()
            assert mask[0][whole[0][whole[0] >= 0]].all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_bias_that_dwarfs_the_scores(kind: str) -> None:
    rng = np.random.default_rng(10)
    rows = rng.standard_normal((500, 16)).astype(np.float32)
    index = made(rows, "ip", kind)
    queries = rng.standard_normal((20, 16)).astype(np.float32)
    for size in (1e6, 3e38):
        bias = (rng.uniform(-1, 1, (1, 500)) * size).astype(np.float32)
        slots, _, _ = scanned(index, queries, 5, bias=bias)
        assert (np.sort(slots, axis=1) == np.sort(np.argsort(-bias[0])[:5])).all()


def test_masks_of_any_length_and_alignment() -> None:
    rng = np.random.default_rng(11)
    for rows in (1, 7, 8, 9, 15, 64, 100):
        index = made(rng.standard_normal((rows, 8)).astype(np.float32), "l2", "mutable")
        index.delete([0])
        for share in (0.0, 0.5, 1.0):
            mask = rng.random((3, rows)) < share
            plan = index.explain(rng.standard_normal((3, 8)), 5, filter=mask[:, 1:])
            assert plan.matches.tolist() == mask[:, 1:].sum(axis=1).tolist()
            graph = index._seen.graph
            slots, _, counts = graph.search(rng.standard_normal((3, 8)).astype(np.float32), rows, rows, 10, mask, mode="scan")
            for i in range(3):
                assert sorted(slots[i][: counts[i]].tolist()) == (np.flatnonzero(mask[i, 1:]) + 1).tolist()


def test_the_plan_knows_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(12)
    rows = rng.standard_normal((3000, 16)).astype(np.float32)
    index = made(rows, "l2", "frozen")
    monkeypatch.setattr(planner, "_steps", {})
    monkeypatch.setattr(planner, "LEAST_ROWS", 1000)
    mask = rng.random(3000) < 0.1
    alone, batch = index.explain(rows[:15], 10, ef=20, filter=mask), index.explain(rows[:16], 10, ef=20, filter=mask)
    assert (alone.together, batch.together, alone.measured, batch.measured) == (False, True, True, True)
    assert "together" in batch.reasons[0]
    assert "together" not in alone.reasons[0]
    assert not index.explain(rows[:16], 10, ef=20, filter=np.repeat(mask[None], 16, axis=0)).together
    # Steps that are forced apart: the same filter is scanned for a batch and walked for one query.
    assert len(planner._steps) == 2
    for key in planner._steps:
        planner._steps[key] = 1e6 if key[-1] else 1e-3
    assert not index.explain(rows[:1], 10, ef=20, filter=mask).scans.any()
    assert index.explain(rows[:16], 10, ef=20, filter=mask).scans.all()
