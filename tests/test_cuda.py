"""The GPU's search against the float64 oracle and the native engine. Everything but the last tests runs on torch's device "cpu"."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nearfield as nf
from nearfield.kernels import cuda, cuda_codes, cuda_maxima, cuda_pool, devices
from nearfield.types import Metric
from oracles import assert_ranked, rank, scores, swap_tolerance, unit_rows

torch = pytest.importorskip("torch")

METRICS: list[Metric] = ["cosine", "ip", "l2"]
HERE = torch.device("cpu")
HAS_GPU = torch.cuda.is_available()


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """device="cuda" computes on torch's CPU device."""
    monkeypatch.setattr(cuda, "find_device", lambda number: HERE)
    monkeypatch.delenv(devices.VARIABLE, raising=False)


def draw(rng: np.random.Generator, kind: str, rows: int, dim: int) -> np.ndarray:
    if kind == "few":  # many exact ties
        return rng.integers(-1, 2, (rows, dim)).astype(np.float32)
    base = rng.standard_normal((rows, dim)).astype(np.float32)
    if kind == "ulp":  # rows one rounding step apart
        base[:] = base[0]
        return np.nextafter(base, rng.choice(np.array([-np.inf, np.inf], np.float32), base.shape)).astype(np.float32)
    if kind == "denormal":
        return base * np.float32(1e-42)
    if kind == "huge":
        return base * np.float32(1e37 / np.sqrt(dim))
    if kind == "mixed":
        return (base * 10.0 ** rng.integers(-40, 35, (rows, 1))).astype(np.float32)
    if kind == "far":  # l2 far from the origin
        return base + np.float32(1000)
    return base


KINDS = ["few", "ulp", "denormal", "huge", "mixed", "far", "normal"]


def same(got: nf.Hits, wanted: nf.Hits) -> None:
    """Ids, order, counts and the scores' bits."""
    assert np.array_equal(got.ids, wanted.ids)
    assert np.array_equal(got.scores, wanted.scores, equal_nan=True)
    assert np.array_equal(got.counts, wanted.counts)


@pytest.mark.parametrize("chunk_rows", [None, 37])
@pytest.mark.parametrize("metric", METRICS)
def test_search_is_the_oracle(metric: Metric, chunk_rows: int | None) -> None:
    rng = np.random.default_rng(1)
    for n, dim, nq in [(1, 1, 1), (15, 2, 3), (130, 3, 2), (300, 33, 13)]:
        rows, queries = draw(rng, "normal", n, dim), draw(rng, "normal", nq, dim)
        stored = unit_rows(rows) if metric == "cosine" else rows
        exact, tolerance = scores(queries, stored, metric), swap_tolerance(queries, stored, metric)
        searched = cuda.DeviceRows(rows, metric, HERE, chunk_rows=chunk_rows)
        for k in (1, 10, n, n + 5):
            found = searched.search(queries, k)
            assert not found.open.any()
            for i in range(nq):
                wanted = rank(exact[i], k)
                assert found.counts[i] == len(wanted)
                assert_ranked(found.positions[i, : len(wanted)], exact[i], wanted, tolerance)
                assert np.allclose(found.scores[i, : len(wanted)], exact[i][wanted], rtol=2.0**-22, atol=tolerance)
                assert (found.positions[i, len(wanted) :] == -1).all()
                assert np.isnan(found.scores[i, len(wanted) :]).all()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    metric=st.sampled_from(METRICS),
    kind=st.sampled_from(KINDS),
    asked=st.sampled_from([*KINDS, "zero"]),
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 700),
    dim=st.integers(1, 20),
    nq=st.integers(1, 5),
    k=st.integers(1, 40),
    chunk_rows=st.sampled_from([None, 1, 50, 333]),
)
def test_hard_values_give_what_the_native_engine_gives(
    metric: Metric, kind: str, asked: str, seed: int, n: int, dim: int, nq: int, k: int, chunk_rows: int | None
) -> None:
    if chunk_rows == 1:
        n = min(n, 20)
    rng = np.random.default_rng(seed)
    rows = draw(rng, kind, n, dim)
    rows[rng.random(n) < 0.05] = 0
    queries = np.zeros((nq, dim), np.float32) if asked == "zero" else draw(rng, asked, nq, dim)
    found = cuda.DeviceRows(rows, metric, HERE, chunk_rows=chunk_rows).search(queries, k)
    wanted = nf.topk(queries, rows, k, metric=metric)
    proven = ~found.open
    same(
        nf.Hits(found.positions[proven], found.scores[proven], found.counts[proven]),
        nf.Hits(wanted.ids[proven], wanted.scores[proven], wanted.counts[proven]),
    )


@pytest.mark.parametrize("dim", [5, 16, 43])
@pytest.mark.parametrize("metric", ["cosine", "ip"])
def test_sums_run_in_the_native_engines_order(metric: Metric, dim: int, stand_in: None) -> None:
    """Terms that cancel far beyond float64: what remains of them depends on the order of summation alone."""
    rng = np.random.default_rng(dim)
    values = np.resize(np.array([2.0**60, -(2.0**60), 1, 2.0**30, -3, -(2.0**31), 0.5], np.float32), dim)
    rows, queries = np.stack([rng.permutation(values) for _ in range(300)]), np.ones((2, dim), np.float32)
    same(nf.topk(queries, rows, 300, metric=metric, device="cuda"), nf.topk(queries, rows, 300, metric=metric))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
def test_no_score_exceeds_its_bound(metric: Metric, kind: str) -> None:
    """Even if the product is short by all that its float32 sum may lose, and rounded down to float16, the bound holds."""
    rng = np.random.default_rng(5)
    for dim in (1, 7, 64, 385):
        rows, queries = draw(rng, kind, 200, dim), draw(rng, "normal" if kind == "ulp" else kind, 9, dim)
        if metric == "cosine":
            rows = unit_rows(rows)
        chunk = cuda.DeviceRows(rows, metric, HERE, unit=True)._kept[0]
        given = torch.from_numpy(queries)
        coded = chunk.frame.queries(given, cuda._norms(given))
        a, b = coded.codes.double(), chunk.codes[: len(rows)].double()
        least = a @ b.T - cuda_codes.sum_error(a.shape[1]) * (a.abs() @ b.abs().T)
        products = least.half()
        products = torch.where(products.double() > least, torch.nextafter(products, torch.tensor(-torch.inf).half()), products)
        for j in range(len(rows)):
            upper = coded.upper(products[:, j]).numpy()
            exact = cuda_pool.exact_scores(metric, given, cuda._norms(given), torch.from_numpy(rows[j : j + 1])[None].expand(9, 1, dim))
            assert (upper >= exact[:, 0].numpy()).all()
        if kind == "normal" and metric == "cosine" and dim == 385:
            # And it says something: within 0.002 of the score.
            upper = coded.upper(products[:, 0]).numpy()
            assert (upper < scores(queries, rows[:1], metric)[:, 0] + 2e-3).all()


@pytest.mark.parametrize("metric", METRICS)
def test_a_pool_that_proves_nothing_grows_and_then_gives_up(metric: Metric, monkeypatch: pytest.MonkeyPatch, stand_in: None) -> None:
    rng = np.random.default_rng(2)
    rows = draw(rng, "normal", 5000, 8)
    rows[1000:1400] = rows[77]  # more equal rows than the first pool holds
    queries = rows[[77, 3]] + draw(rng, "normal", 2, 8) * np.float32(1e-3)
    found = cuda.DeviceRows(rows, metric, HERE).search(queries, 10)
    assert found.open.tolist() == [False, False]
    assert found.rescored[0] > 200 > found.rescored[1]
    same(nf.topk(queries, rows, 10, metric=metric, device="cuda"), nf.topk(queries, rows, 10, metric=metric))

    monkeypatch.setattr(cuda_pool, "MOST_POOL_ROWS", 1000)
    assert cuda.DeviceRows(rows, metric, HERE).search(queries, 10).open.tolist() == [True, False]
    same(nf.topk(queries, rows, 10, metric=metric, device="cuda"), nf.topk(queries, rows, 10, metric=metric))


@pytest.mark.parametrize("metric", METRICS)
def test_groups_beyond_the_pool_are_not_forgotten(metric: Metric, monkeypatch: pytest.MonkeyPatch, stand_in: None) -> None:
    """One good row in each group, scores that float16 cannot tell apart: the pool's own rows look safe, the groups outside are not."""
    rng = np.random.default_rng(10)
    base = draw(rng, "normal", 1, 24)
    rows = -np.tile(base, (200 * cuda_maxima.GROUP, 1))
    rows[:: cuda_maxima.GROUP] = base * (1 + 1e-6 * rng.standard_normal((200, 24)).astype(np.float32))
    found = cuda.DeviceRows(rows, metric, HERE).search(base, 10)
    wanted = nf.topk(base, rows, 10, metric=metric)
    assert np.array_equal(found.positions, wanted.ids)
    assert found.rescored[0] > 10 + cuda_pool.MORE_ROWS
    monkeypatch.setattr(cuda_pool, "MOST_POOL_ROWS", 600)
    assert cuda.DeviceRows(rows, metric, HERE).search(base, 10).open.all()


@pytest.mark.parametrize("metric", METRICS)
def test_small_steps_change_nothing(metric: Metric, monkeypatch: pytest.MonkeyPatch, stand_in: None) -> None:
    rng = np.random.default_rng(3)
    rows, queries = draw(rng, "normal", 3000, 13), draw(rng, "normal", 30, 13)
    wanted = nf.topk(queries, rows, 7, metric=metric)
    for module, name, value in [
        (cuda, "QUERY_BLOCK", 7),
        (cuda, "STAGE_BYTES", 1000),
        (cuda, "SLICE_VALUES", 1300),
        (cuda_maxima, "TILE_VALUES", 500),
        (cuda_pool, "MORE_ROWS", 1),  # one row more must do, or the pool grows
        (cuda_pool, "GATHERED_VALUES", 3000),
        (cuda_pool, "HOST_ROWS", 0),
    ]:
        monkeypatch.setattr(module, name, value)
    same(nf.topk(queries, rows, 7, metric=metric, device="cuda"), wanted)


def test_the_shape_of_everything_that_is_empty(stand_in: None) -> None:
    none, rows = np.empty((0, 3), np.float32), np.ones((4, 3), np.float32)
    assert nf.topk(none, rows, 2, device="cuda").ids.shape == (0, 2)
    same(nf.topk(rows, none, 2, device="cuda"), nf.topk(rows, none, 2))
    same(nf.topk(rows[0], rows, 9, device="cuda:0"), nf.topk(rows[0], rows, 9))


@pytest.mark.parametrize("chunk_rows", [None, 4])
@pytest.mark.parametrize("metric", METRICS)
def test_bad_rows_are_named_as_on_the_cpu(metric: Metric, chunk_rows: int | None) -> None:
    good = np.ones((9, 5), np.float32)
    for value, what in [(np.nan, "NaN"), (np.inf, "infinity"), (3e38, "a norm beyond float32")]:
        bad = good.copy()
        bad[7, 1:] = value
        with pytest.raises(nf.InputError, match=f"vectors: row 7 .*{what}"):
            cuda.DeviceRows(bad, metric, HERE, chunk_rows=chunk_rows).search(good, 1)
        with pytest.raises(nf.InputError, match=f"queries: row 7 .*{what}"):
            cuda.DeviceRows(good, metric, HERE, chunk_rows=chunk_rows).search(bad, 1)
        with pytest.raises(nf.InputError, match=f"vectors: row 7 .*{what}"):
            nf.topk(good, bad, 1, metric=metric)


def test_devices_that_do_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    row = np.ones((1, 2), np.float32)
    for name in ("gpu", "cuda:", "cuda:x", "cuda:-1", "mps", ""):
        with pytest.raises(nf.InputError, match=f"device: '{name}' given, 'cpu', 'cuda' or 'cuda:N' expected"):
            nf.topk(row, row, 1, device=name)
        with pytest.raises(nf.InputError, match="'cpu', 'cuda' or 'cuda:N' expected"):
            nf.FlatIndex(2).search(row, device=name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(nf.InputError, match=r"device: 'cuda' given, but torch .* finds no CUDA device: use device='cpu'"):
        nf.topk(row, row, 1, device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(nf.InputError, match="'cuda:2' given, but the last of the 2 CUDA devices is 'cuda:1'"):
        nf.topk(row, row, 1, device="cuda:2")
    assert cuda.find_device(1) == torch.device("cuda", 1)
    monkeypatch.setenv(devices.VARIABLE, "cublas")
    with pytest.raises(nf.InputError, match="NEARFIELD_CUDA_BACKEND: 'cublas' given, one of torch, numba expected"):
        nf.topk(row, row, 1, device="cuda")
    monkeypatch.setenv(devices.VARIABLE, "numba")
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(nf.MissingExtraError, match=r"pip install 'nearfield\[numba\]'"):
        nf.topk(row, row, 1, device="cuda")
    monkeypatch.delenv(devices.VARIABLE)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(nf.MissingExtraError, match=r"torch, which is not installed: pip install 'nearfield\[cuda\]'"):
        nf.topk(row, row, 1, device="cuda")


def test_a_search_leaves_torch_as_it_was(monkeypatch: pytest.MonkeyPatch, stand_in: None) -> None:
    flags = torch.backends.cuda.matmul
    before, seen = flags.allow_fp16_reduced_precision_reduction, []
    product = cuda_maxima.product

    def watched(queries: Any, codes: Any) -> Any:
        seen.append((flags.allow_fp16_reduced_precision_reduction, torch.is_autocast_enabled("cpu")))
        return product(queries, codes)

    monkeypatch.setattr(cuda_maxima, "product", watched)
    rng = np.random.default_rng(4)
    rows = draw(rng, "normal", 500, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        same(nf.topk(rows[:9], rows, 5, device="cuda"), nf.topk(rows[:9], rows, 5))
        assert torch.is_autocast_enabled("cpu")
    assert set(seen) == {(False, False)}
    assert flags.allow_fp16_reduced_precision_reduction == before


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("metric", METRICS)
def test_flat_index_follows_its_changes(metric: Metric, storage: str, monkeypatch: pytest.MonkeyPatch, stand_in: None) -> None:
    made = []
    kept = cuda.DeviceRows.__init__
    monkeypatch.setattr(cuda.DeviceRows, "__init__", lambda self, *args, **options: (made.append(1), kept(self, *args, **options))[1])
    rng = np.random.default_rng(6)
    rows, queries = draw(rng, "normal", 900, 20), draw(rng, "normal", 8, 20)
    index = nf.FlatIndex(20, metric=metric, storage=storage)  # type: ignore[arg-type]
    same(index.search(queries, 3, device="cuda"), index.search(queries, 3))  # empty
    index.add(rows, ids=[f"row {i}" for i in range(900)])
    for _ in range(2):
        hits = index.search(queries, 6, device="cuda")
        same(hits, index.search(queries, 6))
        assert hits.rescored is not None
    assert len(made) == 1
    index.delete(hits.ids[:, 0].tolist()[:1])
    same(index.search(queries, 6, device="cuda"), index.search(queries, 6))
    index.add(queries[:2], ids=["row 5", "new"])
    same(index.search(queries, 6, device="cuda"), index.search(queries, 6))
    same(index.search(queries, 1000, device="cuda"), index.search(queries, 1000))
    assert len(made) == 3
    index.add(np.tile(queries[:1], (40, 1)), ids=[f"same {i}" for i in range(40)])
    monkeypatch.setattr(cuda_pool, "MOST_POOL_ROWS", 600)
    hits = index.search(queries, 6, device="cuda")  # the native engine answers the first query
    same(hits, index.search(queries, 6))
    with pytest.raises(nf.InputError, match="filter, bias: given with device='cuda'"):
        index.search(queries, 6, filter=["new"], device="cuda")


def test_what_fits_is_reckoned_from_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (24 * 2**30, 24 * 2**30))
    fit = cuda._rows_that_fit(384, "cosine", device)
    assert 24 * 2**30 / 10_000 < fit < 21 * 2**30 / (4 * 384 + 2 * 392)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 24 * 2**30))
    with pytest.raises(nf.InputError, match=r"cuda:0 has 1\.0 GiB free, at least 4 expected"):
        cuda._rows_that_fit(384, "cosine", device)


# --- Numba's kernel, in its simulator ----------------------------------------------------------------------------------

SIMULATED = """
import numpy as np, nearfield as nf
from nearfield.kernels.numba_cuda import NumbaRows
rng = np.random.default_rng(0)
for metric in ("cosine", "ip", "l2"):
    for n, dim, nq, k, threads in [(1, 1, 1, 1, 4), (50, 9, 2, 4, 8), (12, 17, 2, 20, 5)]:
        rows = rng.integers(-2, 3, (n, dim)).astype(np.float32)  # ties
        rows[0] = 0
        queries = rng.standard_normal((nq, dim)).astype(np.float32)
        queries[-1] = 0 if nq > 1 else 1
        found, hits = NumbaRows(rows, metric, threads=threads).search(queries, k), nf.topk(queries, rows, k, metric=metric)
        assert np.array_equal(found.positions, hits.ids), (metric, n, found.positions, hits.ids)
        assert np.array_equal(found.scores, hits.scores, equal_nan=True)
        assert np.array_equal(found.counts, hits.counts)
rows = rng.standard_normal((40, 6)).astype(np.float32)
assert np.array_equal(nf.topk(rows[:2], rows, 3, device="cuda").ids, nf.topk(rows[:2], rows, 3).ids)
index = nf.FlatIndex(6)
index.add(rows)
assert np.array_equal(index.search(rows[:2], 3, device="cuda:0").ids, index.search(rows[:2], 3).ids)
rows[3, 2] = np.nan
for queries, vectors, what in [(rows, rows[:2], "queries"), (rows[:2], rows, "vectors")]:
    try:
        nf.topk(queries, vectors, 3, device="cuda")
    except nf.InputError as error:
        assert str(error).startswith(f"{what}: row 3 holds NaN in column 2"), error
    else:
        raise AssertionError(what)
print("agreed")
"""


def test_the_readable_kernel_agrees_in_the_simulator() -> None:
    pytest.importorskip("numba")
    python = os.pathsep.join([str(Path(nf.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", devices.VARIABLE: "numba", "PYTHONPATH": python}
    done = subprocess.run([sys.executable, "-c", SIMULATED], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "agreed"


# --- on a GPU ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if not HAS_GPU:
        pytest.skip("torch finds no CUDA device")
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    yield
    torch.cuda.empty_cache()


@pytest.mark.cuda
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
def test_a_gpu_gives_the_cpus_answer(metric: Metric, kind: str, gpu: None) -> None:
    rng = np.random.default_rng(7)
    for n, dim, nq, k in [(1, 1, 1, 1), (1000, 33, 5, 10), (50_000, 384, 70, 100), (50_000, 65, 2100, 10), (100, 3, 2, 200)]:
        rows, queries = draw(rng, kind, n, dim), draw(rng, kind, nq, dim)
        same(nf.topk(queries, rows, k, metric=metric, device="cuda"), nf.topk(queries, rows, k, metric=metric))
    streamed = cuda.DeviceRows(rows, metric, torch.device("cuda"), chunk_rows=7).search(queries, 5)
    wanted = nf.topk(queries, rows, 5, metric=metric)
    assert np.array_equal(streamed.positions[~streamed.open], wanted.ids[~streamed.open])


@pytest.mark.cuda
@pytest.mark.parametrize("metric", METRICS)
def test_a_gpus_sums_stay_within_the_bound(metric: Metric, gpu: None) -> None:
    """The products as the tensor cores give them: none is farther from the exact sum of products than the bound allows."""
    rng = np.random.default_rng(8)
    for dim in (8, 64, 384, 1024, 4096):
        device = torch.device("cuda")
        chunk = cuda.DeviceRows(draw(rng, "normal", 4096, dim), metric, device)._kept[0]
        queries = torch.from_numpy(draw(rng, "normal", 64, dim)).to(device)
        coded = chunk.frame.queries(queries, cuda._norms(queries))
        with cuda._as_supposed(device):
            products = cuda_maxima.product(coded.codes, chunk.codes).double()
        a, b = coded.codes.double(), chunk.codes.double()
        exact = a @ b.T
        allowed = cuda_codes.sum_error(a.shape[1]) * (a.abs() @ b.abs().T) + exact.abs() * 2.0**-10 + 2.0**-24
        assert bool(((products - exact).abs() <= allowed).all())


@pytest.mark.cuda
def test_the_readable_kernel_agrees_on_a_gpu(monkeypatch: pytest.MonkeyPatch, gpu: None) -> None:
    numba_cuda = pytest.importorskip("numba.cuda")
    if not numba_cuda.is_available():
        pytest.skip("numba finds no CUDA device")
    monkeypatch.setenv(devices.VARIABLE, "numba")
    rng = np.random.default_rng(9)
    rows, queries = draw(rng, "normal", 5000, 48), draw(rng, "normal", 20, 48)
    for metric in METRICS:
        wanted = nf.topk(queries, rows, 10, metric=metric)
        assert np.array_equal(nf.topk(queries, rows, 10, metric=metric, device="cuda").ids, wanted.ids)
