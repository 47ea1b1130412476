"""nf.topk against a float64 oracle: exact over rows that are not an index, and refused where they are no numbers."""

from __future__ import annotations

import numpy as np
import pytest

import nearfield as nf
from oracles import assert_ranked, rank, scores, swap_tolerance, unit_rows
from test_flat import METRICS


@pytest.mark.parametrize("metric", METRICS)
def test_topk_is_the_oracle(metric: str) -> None:
    rng = np.random.default_rng(4)
    rows, queries = rng.standard_normal((500, 24)).astype(np.float32), rng.standard_normal((6, 24)).astype(np.float32)
    stored = unit_rows(rows) if metric == "cosine" else rows
    exact = scores(queries, stored, metric)
    hits = nf.topk(queries, rows, 12, metric=metric)  # type: ignore[arg-type]
    for i in range(6):
        assert_ranked(hits.ids[i], exact[i], rank(exact[i], 12), swap_tolerance(queries, stored, metric))
    assert nf.topk(queries[0], rows[:3], 5, metric=metric).counts.tolist() == [3]  # type: ignore[arg-type]
    with pytest.raises(nf.InputError, match="device"):
        nf.topk(queries, rows, 3, device="tpu")


@pytest.mark.parametrize("metric", METRICS)
def test_topk_refuses_bad_rows_whatever_is_asked(metric: str) -> None:
    """Rows are looked at while they are scanned, by one thread or several, and where no query scans them."""
    for value, what in ((np.nan, "NaN"), (np.inf, "infinity")):
        rows = np.ones((700, 9), np.float32)
        rows[650, 4] = value
        for nq in (0, 1, 100):
            with pytest.raises(nf.InputError, match=f"vectors: row 650 holds {what} in column 4"):
                nf.topk(np.ones((nq, 9), np.float32), rows, 3, metric=metric)  # type: ignore[arg-type]
    rows = np.random.default_rng(2).standard_normal((700, 9)).astype(np.float32)
    rows[300:400] *= np.float32(1e-25)
    rows[400:500] *= np.float32(1e25)
    queries = rows[[5, 350, 450]]
    stored = unit_rows(rows) if metric == "cosine" else rows
    exact = scores(queries, stored, metric)
    hits = nf.topk(queries, rows, 150, metric=metric)  # type: ignore[arg-type]
    for i in range(3):
        assert_ranked(hits.ids[i], exact[i], rank(exact[i], 150), swap_tolerance(queries, stored, metric))
