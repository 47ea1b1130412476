"""The one-bit scan: its kernels against integers, its rotation against orthogonality, its probability against the sphere's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import nearfield as nf
from nearfield import _core
from oracles import sphere_tail, table_sums

TARGETS = [row["name"] for row in _core.targets() if row["built"] and row["runs_here"]]


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> Iterator[str]:
    _core.force_target(request.param)
    yield request.param
    _core.force_target("")


@pytest.mark.parametrize("groups", [4, 8, 12, 96, 256])
def test_scan_1bit_lets_through_what_reaches_the_cut(target: str, groups: int) -> None:
    """Every query count of a group and beyond, up to the largest entries a 16-bit sum can hold; the sums themselves are exact."""
    rng = np.random.default_rng(groups)
    # Targets that only bring faster integer products leave this kernel to those they extend.
    parents = {"avxvnni": "avx2", "avx512vnni": "avx512", "amx": "avx512", "neon_dotprod": "scalar", "neon_i8mm": "scalar"}
    assert _core.kernel_targets()["scan_1bit"] == parents.get(target, target)
    largest = min(255, 65535 // groups)
    for nq, n in [(1, 32), (2, 64), (3, 128), (5, 32), (6, 96), (7, 32), (13, 64)]:
        tables = rng.integers(0, largest + 1, (nq, 16 * groups)).astype(np.uint8)
        tables[0] = largest
        patterns = rng.integers(0, 16, (n, groups)).astype(np.uint8)
        factor, error = rng.random(n).astype(np.float32), rng.random(n).astype(np.float32)
        add = rng.standard_normal(n).astype(np.float32)
        step, shift, slack = np.float32(0.03), np.float32(-2.5), np.float32(0.25)
        exact = table_sums(tables, patterns)
        terms = factor * (step * exact.astype(float)), factor * float(shift), slack * error.astype(float) + add
        reach = terms[0] + terms[1] + terms[2]
        doubt = 2.0**-21 * (np.abs(terms[0]) + np.abs(terms[1]) + slack * error + np.abs(add))
        cut = np.float32(np.median(reach))
        found = _core.scan_1bit(tables, patterns, factor, error, add, step, shift, slack, cut)
        hits = set(map(tuple, found[:, :2].tolist()))
        assert len(hits) == len(found)
        assert np.array_equal(found[:, 2], exact[found[:, 0], found[:, 1]])
        assert set(zip(*np.nonzero(reach >= cut + doubt), strict=True)) <= hits <= set(zip(*np.nonzero(reach >= cut - doubt), strict=True))
        assert len(_core.scan_1bit(tables, patterns, factor, error, add, step, shift, slack, -np.inf)) == nq * n


def test_scan_1bit_refuses_what_does_not_fit() -> None:
    terms = np.zeros(32, np.float32)
    with pytest.raises(nf.InputError, match="whole"):
        _core.scan_1bit(np.zeros((1, 48), np.uint8), np.zeros((32, 3), np.uint8), terms, terms, terms, 1, 0, 0, 0)


@pytest.mark.parametrize("dim", [1, 2, 8, 33, 384])
def test_the_rotation_is_orthogonal(target: str, dim: int) -> None:
    matrix = _core.rotate(np.eye(dim, dtype=np.float32), 5).astype(np.float64)
    # Each float32 entry is off by 2^-25 of itself at most: so is the length of a row, and an inner product of two by twice that.
    assert np.abs(matrix @ matrix.T - np.eye(dim)).max() <= 2.0**-23
    assert np.array_equal(_core.rotate(np.eye(dim, dtype=np.float32), 5), matrix.astype(np.float32))
    if dim > 1:
        assert not np.allclose(_core.rotate(np.eye(dim, dtype=np.float32), 6), matrix)


def test_the_rotation_is_uniform() -> None:
    """A fixed vector lands uniformly on the sphere: mean 0, covariance 1 / dim, and as often beyond any height as the sphere says."""
    dim, draws = 8, 4000
    given = np.eye(dim, dtype=np.float32)[[3]]
    landed = np.concatenate([_core.rotate(given, seed) for seed in range(draws)]).astype(np.float64)
    assert np.abs(landed.mean(axis=0)).max() < 5 / np.sqrt(dim * draws)
    assert np.abs(landed.T @ landed / draws - np.eye(dim) / dim).max() < 5 * np.sqrt(2 / draws) / dim
    for height in (0.2, 0.5, 0.7):
        expected = sphere_tail(dim, height)
        assert np.abs((landed > height).mean(axis=0) - expected).max() < 4.5 * np.sqrt(expected / draws)


@pytest.mark.parametrize("dims", [7, 31, 383, 2047])
def test_the_reach_is_rare_and_not_much_too_far(dims: int) -> None:
    for chance in (0.2, 1e-2, 1e-4, 1e-7):
        tail = sphere_tail(dims, _core.sphere_reach(dims, chance))
        assert tail <= chance * (1 + 1e-6)
        assert tail >= chance * (0.35 if chance > 0.1 else 0.8)
