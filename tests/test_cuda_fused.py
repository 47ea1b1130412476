"""Kernels of our own on the GPU: the small steps also in Triton's interpreter, the scan and the recorded searches on a GPU alone."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import nearfield as nf
from nearfield.kernels import cuda, cuda_codes, cuda_maxima, cuda_replay, devices, fused
from nearfield.types import Metric

torch = pytest.importorskip("torch")

METRICS: list[Metric] = ["cosine", "ip", "l2"]
HAS_GPU = torch.cuda.is_available()


def test_codes_are_as_wide_as_the_scan_takes_them() -> None:
    for metric in METRICS:
        for dim in range(1, 4097):
            width = cuda_codes.width(dim, metric)
            assert width % 16 == 0
            assert width.bit_count() <= 3
            assert dim + cuda_codes.BESIDE[metric] <= width <= 1.25 * dim + 32


@pytest.mark.parametrize("groups", [1, 3, 16, 37, 700, 1601])
def test_the_best_groups_are_found_by_way_of_their_families(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_maxima, "TILE_VALUES", 7 * cuda_maxima.GROUP * 50)  # several tiles of products, and an unfinished one
    rng = np.random.default_rng(groups)
    codes, queries = (torch.from_numpy(rng.standard_normal((n, 16)).astype(np.float16)) for n in (groups * cuda_maxima.GROUP, 7))
    maxima = cuda_maxima.Maxima.of(queries, codes, None)
    drawn = cuda_maxima.product(queries, codes).view(7, groups, cuda_maxima.GROUP).amax(2)
    assert torch.equal(maxima.fine.transpose(0, 1).reshape(7, -1)[:, :groups], drawn)
    assert bool((maxima.fine.transpose(0, 1).reshape(7, -1)[:, groups:] == -torch.inf).all())
    for wanted in {1, min(3, groups), min(30, groups), groups}:
        for which in (slice(None), torch.tensor([5, 2])):
            chosen, outside = maxima.at(which).best(wanted)
            some = drawn[which]
            assert chosen.is_contiguous()
            assert all(len(set(row)) == wanted for row in chosen.tolist())
            kept, order = some.gather(1, chosen).sort(dim=1, descending=True)[0], some.sort(dim=1, descending=True)[0]
            assert torch.equal(kept, order[:, :wanted])
            # Never less than the truth, or a row that was left out could be missed.
            assert torch.equal(outside, order[:, wanted] if wanted < groups else torch.full_like(outside, -torch.inf))


def test_nothing_of_our_own_runs_where_it_is_switched_off_or_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not fused.pool_runs(torch.device("cpu"))
    assert not fused.scan_runs(torch.device("cpu"))
    monkeypatch.setenv(fused.VARIABLE, "0")
    assert not fused.wanted()

    def broken(device: object) -> bool:
        raise RuntimeError("no compiler\nhere")

    with pytest.warns(RuntimeWarning, match=r"the scan: not used on cpu \(RuntimeError: no compiler\); torch's own operations answer"):
        assert not fused._tried("the scan", torch.device("cpu"), broken)
    with pytest.warns(RuntimeWarning, match="its results are wrong"):
        assert not fused._tried("the scan", torch.device("cpu"), lambda device: False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fused._tried("the scan", torch.device("cpu"), lambda device: True)


def test_replays_cover_every_number_of_queries() -> None:
    for queries in range(1, 5000):
        covered = cuda_replay.rounded(queries)
        assert queries <= covered < max(2 * queries, queries + cuda_replay.STEP)


INTERPRETED = """
import torch
from nearfield.kernels import cuda_pool, fused, fused_pool
assert fused._pool_is_right(torch.device("cpu"))
draw = torch.Generator().manual_seed(1)
for dim in (1, 7, 24, 65):
    rows, queries = torch.randn(40, dim, generator=draw), torch.randn(5, dim, generator=draw)
    rows[3], queries[2] = 0, 0
    lengths = fused_pool.norms(queries)
    assert torch.equal(lengths, cuda_pool.lane_sum(queries.double() ** 2).sqrt())
    chosen = torch.randint(0, 40, (5, 19), generator=draw)
    for metric in ("cosine", "ip", "l2"):
        chosen = torch.randint(0, 40, (5, 23), generator=draw)[:, :19]
        exact = cuda_pool.exact_scores(metric, queries, lengths, rows[chosen])
        assert torch.equal(fused_pool.exact_scores(metric, queries, lengths, rows, chosen), exact), (metric, dim)
codes, asked = torch.randn(64, 48, generator=draw).half(), torch.randn(3, 48, generator=draw).half()
groups = torch.tensor([[0, 3, 9], [2, 1, 9], [3, 3, 9]])[:, :2]  # and rows that lie apart
found = fused_pool.pool_products(asked, codes, groups, 16, 50)
assert bool((found[0, 18:] == -torch.inf).all()) and bool(found[1].isfinite().all())
print("agreed")
"""


def test_the_small_steps_agree_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    python = os.pathsep.join([str(Path(nf.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": python},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "agreed"


# --- on a GPU ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    if not HAS_GPU:
        pytest.skip("torch finds no CUDA device")
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    monkeypatch.delenv(fused.VARIABLE, raising=False)
    fused.pool_runs.cache_clear()
    fused.scan_runs.cache_clear()
    yield torch.device("cuda", torch.cuda.current_device())
    fused.pool_runs.cache_clear()
    fused.scan_runs.cache_clear()
    torch.cuda.empty_cache()


def _hopper(device: torch.device) -> None:
    if torch.cuda.get_device_capability(device) != fused.SCAN_CAPABILITY:
        pytest.skip("the fused scan is for compute capability 9.0")


@pytest.mark.cuda
def test_the_kernels_run_where_they_should(gpu: torch.device) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fused.pool_runs(gpu)
        if torch.cuda.get_device_capability(gpu) == fused.SCAN_CAPABILITY:
            assert fused.scan_runs(gpu)


@pytest.mark.cuda
def test_the_fused_scan_takes_the_largest_product_of_each_group(gpu: torch.device) -> None:
    """Every width of up to three blocks, unfinished tiles and blocks; within what float32 sums may lose of the float64 maximum."""
    _hopper(gpu)
    draw = torch.Generator(device=gpu).manual_seed(3)
    for width in (64, 80, 112, 128, 272, 400, 528):
        for rows in (16, 64, 1008, 8208):
            codes = torch.randn(rows, width, generator=draw, device=gpu).half() / width**0.5
            for count in (1, 63, 65, 128, 300):
                queries = torch.randn(count, width, generator=draw, device=gpu).half() / width**0.5
                a, b = queries.double(), codes.double()
                exact = a @ b.T
                allowed = cuda_codes.sum_error(width) * (a.abs() @ b.abs().T) + exact.abs() * 2.0**-10 + 2.0**-24
                found = cuda_maxima.Maxima.of(queries, codes, fused.scan_for(codes, cuda_maxima.GROUP, cuda_maxima.FAMILY))
                groups, families = rows // 16, len(found.coarse)
                for sign in (-1, 1):
                    bound = torch.full((count, families * 16), -torch.inf, dtype=torch.float64, device=gpu)
                    bound[:, :groups] = (exact + sign * allowed).view(count, -1, 16).amax(2)
                    fine = found.fine.transpose(0, 1).reshape(count, -1).double()
                    coarse, above = found.coarse.T.double(), bound.view(count, families, 16).amax(2)
                    assert bool((fine <= bound).all() if sign > 0 else (fine >= bound).all()), (width, rows, count)
                    assert bool((coarse <= above).all() if sign > 0 else (coarse >= above).all()), (width, rows, count)


@pytest.mark.cuda
@pytest.mark.parametrize("metric", METRICS)
def test_recorded_searches_give_the_same_answers(metric: Metric, gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    rows = rng.standard_normal((30_000, 96)).astype(np.float32)
    rows[5000:5600] = rows[4321]  # more equal rows than the first pool holds
    searched = cuda.DeviceRows(rows, metric, gpu)
    assert searched._replays is not None
    for count, k in [(1, 10), (3, 10), (70, 5), (130, 100)]:
        for turn in range(4):
            queries = rng.standard_normal((count, 96)).astype(np.float32)
            if turn == 2:
                queries[0] = rows[4321]
            if turn == 3:
                queries[-1] = 0
            wanted = nf.topk(queries, rows, k, metric=metric)
            found = searched.search(queries, k)
            done = ~found.open
            assert np.array_equal(found.positions[done], wanted.ids[done])
            assert np.array_equal(found.scores[done], wanted.scores[done])
            assert done[:-1].all()
            assert (found.rescored[done] >= k).all()
            if turn:
                assert (cuda_replay.rounded(count), k) in searched._replays._kept
    assert searched._replays._works
    for value, what in [(np.nan, "NaN"), (np.inf, "infinity")]:
        bad = queries[:3].copy()
        bad[1, 7] = value
        with pytest.raises(nf.InputError, match=f"queries: row 1 .*{what}"):
            searched.search(bad, 10)
    monkeypatch.setattr(cuda_replay, "MOST_BYTES", 2 * 128 * len(rows) // 16)
    searched.search(queries[:128], 3)
    searched.search(queries[:128], 3)
    assert list(searched._replays._kept) == [(128, 3)]  # the others made room


@pytest.mark.cuda
def test_torchs_own_operations_answer_alike(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    rows, queries = (rng.standard_normal((n, 384)).astype(np.float32) for n in (20_000, 300))
    ours = cuda.DeviceRows(rows, "cosine", gpu).search(queries, 10)
    monkeypatch.setenv(fused.VARIABLE, "0")
    fused.pool_runs.cache_clear()
    fused.scan_runs.cache_clear()
    plain = cuda.DeviceRows(rows, "cosine", gpu)
    assert plain._replays is None
    theirs = plain.search(queries, 10)
    assert np.array_equal(ours.positions, theirs.positions)
    assert np.array_equal(ours.scores, theirs.scores)
