"""Every kernel of every target this CPU can run, against float64 loops, on odd lengths, alignments and values."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

import nearfield as nf
from nearfield import _core
from oracles import dot_matrix, int_dot_matrix, l2sqr_matrix, unit_rows

LENGTHS = [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 383, 384, 385, 1000]
TARGETS = [row["name"] for row in _core.targets() if row["built"] and row["runs_here"]]
U = 2.0**-24


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> Iterator[str]:
    _core.force_target(request.param)
    yield request.param
    _core.force_target("")


def shifted(values: np.ndarray, offset: int) -> np.ndarray:
    """A C-contiguous copy that starts ``offset`` elements beyond a 64-byte boundary."""
    memory = np.empty(values.nbytes + 64 + offset * values.itemsize, np.uint8)
    start = -memory.ctypes.data % 64 + offset * values.itemsize
    view = memory[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    view[...] = values
    assert view.size == 0 or (view.ctypes.data - offset * values.itemsize) % 64 == 0
    return view


def odd_rows(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """Rows of very different kinds: normal, zero, denormal, huge, negative, mixed."""
    rows = rng.standard_normal((n, dim)).astype(np.float32)
    rows[1 % n] = 0
    rows[2 % n] *= np.float32(1e-42)
    rows[3 % n] *= np.float32(1e16)
    rows[4 % n] = -np.abs(rows[4 % n])
    rows[5 % n] *= np.logspace(-20, 15, dim, dtype=np.float32) if dim else 1
    return rows


def dot_bound(q: np.ndarray, r: np.ndarray) -> np.ndarray:
    """csrc/kernels/dot_f32/contract.h: (dim + 1) u sum |q_i r_i|, and what underflow may cost."""
    return (q.shape[1] + 1) * U * 1.001 * dot_matrix(np.abs(q), np.abs(r)) + q.shape[1] * 2.0**-126


@pytest.mark.parametrize("dim", LENGTHS)
def test_dot_f32(target: str, dim: int) -> None:
    rng = np.random.default_rng(dim)
    q, r = odd_rows(rng, 7, dim), odd_rows(rng, 23, dim)
    exact, bound = dot_matrix(q, r), dot_bound(q, r)
    for q_offset, r_offset in [(0, 0), (1, 0), (0, 3), (5, 7), (15, 13)]:
        given_q, given_r = shifted(q, q_offset), shifted(r, r_offset)
        block = _core.dot_f32_block(given_q, given_r)
        assert block.shape == (7, 23)
        assert (np.abs(block - exact) <= bound).all()
        # One pair has one answer, wherever it stands: in a block of any size or gathered.
        for n in (1, 2, 4, 5, 8, 23):
            assert np.array_equal(_core.dot_f32_gather(given_q[2:3], given_r[:n]), block[2, :n])
            assert np.array_equal(_core.dot_f32_block(given_q[:n], given_r[:n]), block[: min(n, 7), :n])
        pairs = _core.dot_f32_pairs(given_q, given_r[:7])
        assert (np.abs(pairs - np.diagonal(exact[:, :7])) <= np.diagonal(bound[:, :7])).all()


@pytest.mark.parametrize("dim", LENGTHS)
def test_l2sqr_f32(target: str, dim: int) -> None:
    rng = np.random.default_rng(dim)
    q, r = odd_rows(rng, 7, dim), odd_rows(rng, 23, dim)
    r[9] = q[0]
    exact = l2sqr_matrix(q, r)
    norms = np.linalg.norm(q.astype(float), axis=1)[:, None] + np.linalg.norm(r.astype(float), axis=1)[None]
    bound = (dim + 4) * U * 1.001 * exact + dim * 2.0**-124 * (1 + norms)
    for q_offset, r_offset in [(0, 0), (1, 0), (5, 7)]:
        given_q, given_r = shifted(q, q_offset), shifted(r, r_offset)
        block = _core.l2sqr_f32_block(given_q, given_r)
        assert (np.abs(block - exact) <= bound).all()
        assert block[0, 9] == 0
        for n in (1, 5, 8, 23):
            assert np.array_equal(_core.l2sqr_f32_gather(given_q[2:3], given_r[:n]), block[2, :n])
        pairs = _core.l2sqr_f32_pairs(given_q, given_r[:7])
        assert (np.abs(pairs - np.diagonal(exact[:, :7])) <= np.diagonal(bound[:, :7])).all()


@pytest.mark.parametrize("dim", [*LENGTHS, 131071])
def test_dot_i8_is_exact(target: str, dim: int) -> None:
    rng = np.random.default_rng(dim)
    q, r = (rng.integers(-127, 128, (n, dim)).astype(np.int8) for n in (5, 11))
    q[1], r[1], r[2] = -127, -127, 127
    exact = int_dot_matrix(q, r)
    for q_offset, r_offset in itertools.product((0, 1, 17), (0, 31)):
        given_q, given_r = shifted(q, q_offset), shifted(r, r_offset)
        block = _core.dot_i8_block(given_q, given_r)
        assert block.dtype == np.int32
        assert np.array_equal(block, exact)
        assert np.array_equal(_core.dot_i8_gather(given_q[1:2], given_r), exact[1])
        assert np.array_equal(_core.dot_i8_pairs(given_q, given_r[:5]), np.diagonal(exact[:, :5]))


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 5, 16, 31, 64, 384, 385])
def test_scan_i8_lets_through_what_reaches_the_cut(target: str, dim: int) -> None:
    """Every query count of a group and beyond, every fill of a block; the products themselves are exact integers."""
    rng = np.random.default_rng(dim)
    narrow = _core.scan_i8_code_max() == 127
    assert narrow == (target in {"scalar", "avxvnni", "avx512vnni", "amx", "neon_dotprod", "neon_i8mm"})
    code_max = min(_core.scan_i8_code_max(), (2**31 - 1) // (128 * (dim + 3)))
    for nq, n in [(1, 1), (2, 15), (3, 16), (4, 17), (5, 40), (6, 33), (7, 128), (11, 5), (12, 31), (13, 32), (25, 49)]:
        q = rng.integers(-code_max, code_max + 1, (nq, dim)).astype(np.int16)
        low = rng.integers(-127, 128, (nq, dim)).astype(np.int8)
        r = rng.integers(-128, 128, (n, dim)).astype(np.int8)
        q[0], r[0] = code_max, -128
        scale, error = rng.random(n).astype(np.float32), rng.random(n).astype(np.float32)
        add = rng.standard_normal(n).astype(np.float32)
        factor, slack = np.float32(1e-3 / code_max), np.float32(0.25)
        exact, exact_low = int_dot_matrix(q, r), int_dot_matrix(low, r) * narrow

        beside = slack * error.astype(float) + add
        first, fine = (factor * (scale.astype(float) * products) + beside for products in (exact, exact + exact_low / 254))
        doubt, fine_doubt = (2.0**-20 * (np.abs(reach - beside) + slack * error + np.abs(add)) for reach in (first, fine))
        cut = np.float32(np.median(first))
        fine_cut = np.float32(cut + 1e-4)
        sure, possible = first >= cut + doubt, first >= cut - doubt
        if narrow:
            sure, possible = sure & (fine >= fine_cut + fine_doubt), possible & (fine >= fine_cut - fine_doubt)
        found = _core.scan_i8(q, low, r, scale, error, add, factor, slack, cut, fine_cut)
        found = found[found[:, 1] < n]
        hits = set(map(tuple, found[:, :2].tolist()))
        assert len(hits) == len(found)
        assert np.array_equal(found[:, 2], exact[found[:, 0], found[:, 1]])
        assert np.array_equal(found[:, 3], exact_low[found[:, 0], found[:, 1]])
        assert set(zip(*np.nonzero(sure), strict=True)) <= hits <= set(zip(*np.nonzero(possible), strict=True))
        everything = _core.scan_i8(q, low, r, scale, error, add, factor, slack, -np.inf, -np.inf)
        assert len(everything) == nq * (-(-n // 16) * 16)


def test_scan_i8_refuses_codes_too_wide_for_the_target(target: str) -> None:
    row, terms = np.ones((1, 4), np.int8), np.ones(1, np.float32)
    with pytest.raises(nf.InputError, match="code -32768 given"):
        _core.scan_i8(np.full((1, 4), -32768, np.int16), row, row, terms, terms, terms, 1.0, 1.0, 0.0, 0.0)


def test_no_read_beyond_the_row(target: str) -> None:
    """A masked tail must not let what lies behind a row into the sum: NaN there would show."""
    for dim in (1, 5, 8, 13, 31, 100):
        memory = np.full((6, dim + 16), np.nan, np.float32)
        flat = memory.ravel()[: 6 * dim].reshape(6, dim)
        flat[...] = 1
        assert (_core.dot_f32_block(flat[:3], flat) == dim).all()
        assert (_core.l2sqr_f32_block(flat[:3], flat) == 0).all()


def test_nan_and_infinity_propagate(target: str) -> None:
    q, r = np.ones((1, 19), np.float32), np.ones((3, 19), np.float32)
    r[0, 18], r[1, 3] = np.nan, np.inf
    assert np.array_equal(_core.dot_f32_block(q, r), [[np.nan, np.inf, 19]], equal_nan=True)
    assert np.array_equal(_core.l2sqr_f32_block(q, r), [[np.nan, np.inf, 0]], equal_nan=True)


def test_kernels_refuse_other_dtypes_and_layouts() -> None:
    rows = np.ones((4, 8), np.float32)
    with pytest.raises(TypeError):
        _core.dot_f32_block(rows.astype(np.float64), rows)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        _core.dot_f32_block(rows[:, ::2], rows[:, ::2])
    with pytest.raises(nf.InputError, match="columns"):
        _core.dot_f32_block(rows, np.ones((4, 9), np.float32))


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_score(target: str, metric: str) -> None:
    rng = np.random.default_rng(3)
    q, r = rng.standard_normal((9, 70)).astype(np.float32), rng.standard_normal((300, 70)).astype(np.float32)
    q[0], r[5] = 0, 0
    got = nf.score(q, r, metric=metric)  # type: ignore[arg-type]
    if metric == "cosine":
        exact, scale = dot_matrix(unit_rows(q), unit_rows(r)), 1.0
        assert (got[0] == 0).all()
        assert (got[:, 5] == 0).all()
    else:
        exact = dot_matrix(q, r) if metric == "ip" else -l2sqr_matrix(q, r)
        scale = float(np.linalg.norm(q, axis=1).max() + np.linalg.norm(r, axis=1).max()) ** 2
    assert got.dtype == np.float32
    assert (np.abs(got - exact) <= (70 + 8) * U * scale).all()


def test_score_beyond_float32_is_not_nan() -> None:
    q = np.array([[3e38, -3e38]], np.float32) / 2
    assert nf.score(q, np.array([[1e38, 1e38]], np.float32), metric="ip").tolist() == [[0.0]]
    assert nf.score(q, q, metric="l2").tolist() == [[0.0]]


def test_score_accepts_one_row_and_no_rows() -> None:
    assert nf.score(np.ones(3, np.float32), np.ones((0, 3), np.float32)).shape == (1, 0)
    assert nf.score(np.ones((0, 3), np.float32), np.ones((2, 3), np.float32)).shape == (0, 2)
    with pytest.raises(nf.InputError, match="vectors: row 1 holds NaN in column 2"):
        nf.score(np.ones(3, np.float32), np.array([[1, 1, 1], [1, 1, np.nan]], np.float32))


def test_crc32c_of_the_known_string() -> None:
    assert _core.crc32c(b"123456789") == 0xE3069283
    assert _core.crc32c(b"") == 0
