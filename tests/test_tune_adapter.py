"""The linear adapter: what it can learn, what dev may refuse, its gradient against loops, its file, and bad input."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nearfield.errors import FormatError, InputError
from nearfield.tune.adapter import ALPHAS, Adapter, _softmax_loss, fit_adapter

RNG = np.random.default_rng(0)
DIM = 12
DOCUMENTS = RNG.normal(size=(80, DIM)).astype(np.float32)
# Queries see their documents through a linear map that a provider's model knows nothing of.
DISTORTION = (np.eye(DIM) + 1.2 * RNG.normal(size=(DIM, DIM)) / math.sqrt(DIM)).astype(np.float32)
QUERIES = DOCUMENTS @ DISTORTION
OWN = [[i] for i in range(80)]


def found(queries: Any, rows: range) -> float:
    unit = DOCUMENTS / np.linalg.norm(DOCUMENTS, axis=1, keepdims=True)
    return float((np.argmax(queries @ unit.T, axis=1) == np.array(rows)).mean())


def test_a_linear_change_is_undone_for_queries_that_were_not_seen() -> None:
    train, test = range(60), range(60, 80)
    adapter = fit_adapter(QUERIES[:60], DOCUMENTS, OWN[:60], epochs=200, learning_rate=0.02, weight_decay=0.0)
    assert found(adapter.apply(QUERIES[:60]), train) > 0.9
    before = found(QUERIES[60:], test)
    assert found(adapter.apply(QUERIES[60:]), test) >= before + 0.2
    again = fit_adapter(QUERIES[:60], DOCUMENTS, OWN[:60], epochs=200, learning_rate=0.02, weight_decay=0.0)
    assert np.array_equal(adapter.matrix, again.matrix)


def test_dev_may_refuse_all_of_it() -> None:
    wrong = [[(i + 7) % 80] for i in range(60)]
    adapter = fit_adapter(DOCUMENTS[:60], DOCUMENTS, wrong, dev=(DOCUMENTS[60:], OWN[60:]), epochs=50, learning_rate=0.05)
    assert adapter.alpha == 0
    assert set(adapter.dev) == set(ALPHAS)
    assert adapter.dev[0] == 1.0 > adapter.dev[1]
    unit = DOCUMENTS / np.linalg.norm(DOCUMENTS, axis=1, keepdims=True)
    np.testing.assert_allclose(adapter.apply(DOCUMENTS), unit, atol=1e-6)


def test_a_guard_limits_the_share() -> None:
    dev, guard = (QUERIES[60:], OWN[60:]), (DOCUMENTS[:60], DOCUMENTS, OWN[:60])
    options: dict[str, Any] = {"dev": dev, "epochs": 200, "learning_rate": 0.02, "weight_decay": 0.0}
    free = fit_adapter(QUERIES[:60], DOCUMENTS, OWN[:60], **options)
    held = fit_adapter(QUERIES[:60], DOCUMENTS, OWN[:60], guard=guard, allowed_drop=0.0, **options)
    wide = fit_adapter(QUERIES[:60], DOCUMENTS, OWN[:60], guard=guard, allowed_drop=1.0, **options)
    assert free.alpha > held.alpha
    assert np.array_equal(free.matrix, wide.matrix)
    unit = DOCUMENTS / np.linalg.norm(DOCUMENTS, axis=1, keepdims=True)
    assert (np.argmax(held.apply(DOCUMENTS[:60]) @ unit.T, axis=1) == np.arange(60)).all()


def test_the_loss_agrees_with_loops_and_leaves_other_answers_out() -> None:
    rng = np.random.default_rng(1)
    rows, table, added = rng.normal(size=(3, 4)), rng.normal(size=(6, 4)), rng.normal(size=(4, 4))
    relevant = [[0], [1, 2], [5]]
    total, count = 0.0, 0
    for i in range(3):
        moved = rows[i] + rows[i] @ added
        moved /= math.sqrt(moved @ moved)
        scores = [float(moved @ table[j]) / 0.1 for j in range(6)]
        for answer in relevant[i]:
            seen = [scores[j] for j in range(6) if j == answer or j not in relevant[i]]
            total += math.log(sum(math.exp(s) for s in seen)) - scores[answer]
            count += 1
    loss = _softmax_loss(*(torch.from_numpy(a) for a in (rows, added, table)), relevant, 0.1)
    assert loss.item() == pytest.approx(total / count, rel=1e-9)


def test_the_file_holds_what_was_saved_and_others_are_refused(tmp_path: Path) -> None:
    adapter = Adapter(RNG.normal(size=(5, 5)).astype(np.float32), {}, 0.5)
    adapter.save(tmp_path / "a.npz")
    loaded = Adapter.load(tmp_path / "a.npz")
    assert np.array_equal(loaded.matrix, adapter.matrix)
    assert loaded.alpha == 0.5
    np.savez(tmp_path / "b.npz", matrix=np.zeros((2, 3), np.float32), alpha=1.0)
    (tmp_path / "c.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:100])
    np.savez(tmp_path / "d.npz", matrix=np.full((2, 2), np.nan, np.float32), alpha=1.0)
    for name in ("b", "c", "d"):
        with pytest.raises(FormatError, match=f"{name}.npz"):
            Adapter.load(tmp_path / f"{name}.npz")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"queries": QUERIES[0]}, "queries: shape"),
        ({"queries": np.full((80, DIM), np.nan)}, "queries: row 0 holds NaN"),
        ({"documents": DOCUMENTS[:, :5]}, "documents: 5 dimensions given, 12 expected"),
        ({"relevant": OWN[:10]}, "answers of 10 queries given, 80 expected"),
        ({"relevant": [[], *OWN[1:]]}, "query 0 has no answer"),
        ({"relevant": [[80], *OWN[1:]]}, "query 0 names document row 80, rows from 0 to 79 expected"),
    ],
)
def test_bad_input_is_one_line(change: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"queries": QUERIES, "documents": DOCUMENTS, "relevant": OWN} | change
    with pytest.raises(InputError, match=words) as caught:
        fit_adapter(**given)
    assert "\n" not in str(caught.value)


def test_vectors_of_another_model_are_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(2, 3\) given, \(n, 5\) expected"):
        Adapter(np.zeros((5, 5), np.float32), {}, 1.0).apply(np.zeros((2, 3)))
