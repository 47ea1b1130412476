"""The loss against its float64 oracle, what it masks, and its gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import oracle_tune as oracle
from nearfield.tune.losses import drift, info_nce


def random_case(seed: int, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    queries, documents = rng.normal(size=(rows, 8)), rng.normal(size=(columns, 8))
    target = rng.integers(0, columns, rows)
    return queries, documents, target, rng.random((rows, columns)) < 0.3


def as_torch(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.tensor(a, dtype=torch.float32 if a.dtype == np.float64 else None) for a in arrays]


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 4), (5, 3), (6, 9)])
def test_agrees_with_the_oracle(rows: int, columns: int, symmetric: bool) -> None:
    for seed in range(5):
        case = random_case(seed, rows, columns)
        got = float(info_nce(*as_torch(*case), temperature=0.07, symmetric=symmetric))
        # float32 logits of up to 1 / 0.07 carry an error of about 14 * 2^-24 each.
        assert got == pytest.approx(oracle.info_nce(*case, temperature=0.07, symmetric=symmetric), abs=2e-5)


def test_a_relevant_document_of_another_row_is_no_negative() -> None:
    queries, documents, target, _ = random_case(0, 4, 4)
    target = np.arange(4)
    alone = np.eye(4, dtype=bool)
    shared = alone.copy()
    shared[0, 1] = True
    plain, masked = (float(info_nce(*as_torch(queries, documents, target, r), temperature=0.1)) for r in (alone, shared))
    assert masked < plain
    moved = documents.copy()
    moved[1] = -documents[1]
    rows = [0]
    before = info_nce(*as_torch(queries[rows], documents, target[rows], shared[rows]), temperature=0.1)
    after = info_nce(*as_torch(queries[rows], moved, target[rows], shared[rows]), temperature=0.1)
    assert float(before) == float(after)


def test_a_query_that_shares_the_document_is_no_negative_of_it() -> None:
    queries, documents, _, _ = random_case(1, 2, 2)
    target, relevant = np.array([0, 0]), np.array([[True, False], [True, False]])
    got = float(info_nce(*as_torch(queries, documents, target, relevant), temperature=0.1, symmetric=True))
    one_way = float(info_nce(*as_torch(queries, documents, target, relevant), temperature=0.1))
    assert got == pytest.approx(one_way / 2, abs=1e-6)


def test_zero_where_no_negative_is_left() -> None:
    loss = info_nce(
        torch.ones(2, 3), torch.ones(1, 3), torch.zeros(2, dtype=torch.long), torch.ones(2, 1, dtype=torch.bool), temperature=0.05
    )
    assert float(loss) == 0


def test_gradient_agrees_with_finite_differences_of_the_oracle() -> None:
    queries, documents, target, relevant = random_case(3, 4, 6)
    tensors = as_torch(queries, documents, target, relevant)
    tensors[0].requires_grad_(True)
    info_nce(*tensors, temperature=0.2, symmetric=True).backward()
    for i, j in [(0, 0), (1, 3), (3, 7)]:
        up, down = queries.copy(), queries.copy()
        up[i, j] += 1e-5
        down[i, j] -= 1e-5
        slope = (
            oracle.info_nce(up, documents, target, relevant, 0.2, True) - oracle.info_nce(down, documents, target, relevant, 0.2, True)
        ) / 2e-5
        assert float(tensors[0].grad[i, j]) == pytest.approx(slope, abs=1e-5)


def test_scale_of_the_vectors_does_not_matter() -> None:
    case = random_case(4, 3, 5)
    scaled = (case[0] * 7, case[1] * 0.01, *case[2:])
    assert float(info_nce(*as_torch(*case), temperature=0.05)) == pytest.approx(
        float(info_nce(*as_torch(*scaled), temperature=0.05)), rel=1e-5
    )


def test_drift_is_the_mean_distance_to_the_base() -> None:
    rng = np.random.default_rng(5)
    vectors, base = rng.normal(size=(7, 5)), rng.normal(size=(7, 5))
    expected = 0.0
    for row, start in zip(vectors, base, strict=True):
        expected += (1 - float(row @ start) / float(np.sqrt(row @ row) * np.sqrt(start @ start))) / len(vectors)
    found = drift(torch.tensor(vectors, dtype=torch.float32), torch.tensor(base, dtype=torch.float32))
    assert found.item() == pytest.approx(expected, abs=1e-6)
    assert drift(torch.tensor(base), 3 * torch.tensor(base)).item() == pytest.approx(0, abs=1e-7)
