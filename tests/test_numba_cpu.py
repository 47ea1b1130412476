"""The Numba twin of the scorer against the native engine, bit for bit, and callers' own scoring functions; needs numba."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from nearfield import _core
from oracles import scores as oracle_scores
from oracles import unit_rows
from test_gather import assert_same_bits, hard_rows

numba = pytest.importorskip("numba")

from nearfield.kernels import choice, numba_cpu, numba_exact  # noqa: E402

METRICS = ["cosine", "ip", "l2"]
TESTS = Path(__file__).parent
# Every test of these files passes on the twin, except those that ask what the native scan left out.
FILES = [
    "test_flat.py",
    "test_topk.py",
    "test_gather.py",
    "test_kernels.py",
    "test_bad_input.py",
    "test_concurrency.py",
    "test_searcher.py",
]


def both(monkeypatch: pytest.MonkeyPatch, call: Any) -> tuple[Any, Any]:
    """What the native engine and the twin answer."""
    monkeypatch.delenv(choice.VARIABLE, raising=False)
    native = call()
    monkeypatch.setenv(choice.VARIABLE, "numba")
    twin = call()
    monkeypatch.delenv(choice.VARIABLE)
    return native, twin


def assert_same_hits(a: nf.Hits, b: nf.Hits) -> None:
    assert np.array_equal(a.ids, b.ids)
    assert_same_bits(a.scores, b.scores)
    assert np.array_equal(a.counts, b.counts)


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("metric", METRICS)
def test_search_gives_the_native_bits(metric: Any, storage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    for dim in (1, 7, 8, 24, 37):
        index = nf.FlatIndex(dim, metric=metric, storage=storage)
        index.add(hard_rows(rng, 500, dim))
        index.add(rng.integers(-1, 2, (200, dim)).astype(np.float32))  # ties
        index.delete(rng.choice(700, 100, replace=False))
        queries = np.vstack([hard_rows(rng, 9, dim), rng.integers(-1, 2, (4, dim))]).astype(np.float32)
        live = len(index)
        for mask in (None, rng.random(live) < 0.4, rng.random((13, live)) < 0.1, np.zeros(live, bool)):
            for bias in (None, rng.integers(0, 3, live).astype(np.float32), rng.standard_normal((13, live)).astype(np.float32)):
                for k in (1, 10, live + 3):
                    native, twin = both(monkeypatch, lambda: index.search(queries, k, filter=mask, bias=bias, threads=2))  # noqa: B023
                    assert_same_hits(native, twin)
                    allowed = np.full(13, live) if mask is None else np.broadcast_to(mask, (13, live)).sum(axis=1)
                    assert twin.rescored.tolist() == allowed.tolist()  # the twin ran: it excludes nothing
        exact, certain = index.search(queries, 10), both(monkeypatch, lambda: index.search(queries, 10, guarantee=0.5))[1]  # noqa: B023
        assert_same_hits(exact, certain)
        ids = rng.choice(index.ids, (13, 60))
        ids[rng.random(ids.shape) < 0.2] = -1
        assert_same_bits(*both(monkeypatch, lambda: index.score(queries, ids)))  # noqa: B023


@pytest.mark.parametrize("metric", METRICS)
def test_arrays_give_the_native_answers(metric: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    rows, queries = hard_rows(rng, 700, 19), hard_rows(rng, 12, 19)
    for k in (1, 25, 900):
        assert_same_hits(*both(monkeypatch, lambda: nf.topk(queries, rows, k, metric=metric)))  # noqa: B023
    candidates = rng.integers(-1, 700, (12, 50))
    assert_same_bits(*both(monkeypatch, lambda: nf.score(queries, rows, metric=metric, candidates=candidates)))
    native, twin = both(monkeypatch, lambda: nf.score(queries, rows, metric=metric))
    with np.errstate(over="ignore"):
        exact = oracle_scores(queries, unit_rows(rows) if metric == "cosine" else rows, metric).astype(np.float32)
    assert (np.abs(twin - exact) <= np.spacing(np.abs(exact)))[np.isfinite(exact)].all()
    rows, queries = rng.standard_normal((2, 90, 19)).astype(np.float32)
    native, twin = both(monkeypatch, lambda: nf.score(queries, rows, metric=metric))
    assert not np.array_equal(native, twin)  # the native product is float32 for such rows: two engines answered


def test_threads_share_the_queries_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(choice.VARIABLE, "numba")
    monkeypatch.setenv("NEARFIELD_THREADS", "5")
    parts: list[tuple[int, int]] = []
    scan = numba_exact.scan
    monkeypatch.setattr(
        numba_cpu, "kernels", SimpleNamespace(**vars(numba_exact) | {"scan": lambda *given: parts.append(given[0].shape) or scan(*given)})
    )
    rng = np.random.default_rng(4)
    index = nf.FlatIndex(64)
    index.add(rng.standard_normal((5000, 64)).astype(np.float32))
    queries, biases = rng.standard_normal((13, 64)).astype(np.float32), rng.standard_normal((13, 5000)).astype(np.float32)
    alone = index.search(queries, 8, bias=biases, threads=1)
    assert parts == [(13, 64)]
    assert_same_hits(alone, index.search(queries, 8, bias=biases, threads=5))
    assert sorted(parts[1:]) == [(2, 64), (2, 64), (3, 64), (3, 64), (3, 64)]


def test_refusals_are_the_native_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = np.ones((3, 4), np.float32), np.ones((3, 4), np.float32)
    bad[2, 1] = np.nan
    calls = [
        lambda: nf.topk(bad, good, 1),
        lambda: nf.topk(good, bad, 1),
        lambda: nf.score(bad, good),
        lambda: nf.score(good, bad, metric="ip"),
        lambda: nf.score(good, bad, candidates=[[0, -1], [1, 0], [0, 2]]),
        lambda: nf.score(good, good, candidates=[[0, -1], [1, 3], [0, 2]]),
        lambda: nf.score(bad, good, candidates=[[], [], []]),
    ]
    for call in calls:
        messages = []
        for name in choice.BACKENDS:
            monkeypatch.setenv(choice.VARIABLE, name)
            with pytest.raises(nf.InputError) as caught:
                call()
            messages.append(str(caught.value))
        assert messages[0] == messages[1]


def test_choosing(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, scorer in (("", "native"), ("native", "native"), ("numba", "numba")):
        monkeypatch.setenv(choice.VARIABLE, given)
        assert nf.info()["native"]["scorer"] == scorer
    monkeypatch.setenv(choice.VARIABLE, "fortran")
    one = np.ones((1, 2), np.float32)
    index = nf.FlatIndex(2)
    index.add(one)
    for call in (lambda: nf.score(one, one), lambda: nf.topk(one, one, 1), lambda: index.search(one), lambda: index.score(one, [[0]])):
        with pytest.raises(nf.InputError, match="NEARFIELD_BACKEND: 'fortran' given, one of native, numba expected"):
            call()
    monkeypatch.setenv(choice.VARIABLE, "numba")
    for module in ("nearfield.kernels.numba_cpu", "nearfield.kernels.numba_exact"):
        monkeypatch.delattr(module)
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(nf.MissingExtraError, match=r"pip install 'nearfield\[numba\]'"):
        nf.topk(one, one, 1)


def test_numba_loads_only_where_it_is_chosen() -> None:
    script = """
import sys
import numpy as np
import nearfield as nf
assert nf.topk(np.eye(2), np.eye(2), 1).ids.tolist() == [[0], [1]] and nf.rerank
print("numba" in sys.modules)
"""
    for name, loaded in (("native", "False\n"), ("numba", "True\n")):
        environment = os.environ | {choice.VARIABLE: name}
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, env=environment)
        assert (done.stdout, done.returncode) == (loaded, 0), done.stderr


def test_kernels_compile_where_no_folder_can_hold_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def njit(cache: bool = False, **options: Any) -> Any:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return numba.njit(**options)

    monkeypatch.setattr(numba_exact, "njit", njit)
    assert numba_exact.compiled(lambda a: a + 1)(1) == 2


FORK = """
import os, sys
import numpy as np
import nearfield as nf
index = nf.FlatIndex(64, threads=4)
index.add(np.random.default_rng(0).standard_normal((9000, 64)).astype(np.float32))
queries = np.random.default_rng(1).standard_normal((40, 64)).astype(np.float32)
expected = index.search(queries).ids.tolist()
if os.fork() == 0:
    sys.exit(7 if index.search(queries).ids.tolist() == expected else 1)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_the_twin_works_in_a_forked_child() -> None:
    environment = os.environ | {choice.VARIABLE: "numba", "NEARFIELD_THREADS": "4"}
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=120, env=environment)
    assert (done.stdout, done.returncode) == ("7\n", 0), done.stderr


@pytest.mark.slow
def test_the_scorers_tests_pass_on_the_twin() -> None:
    environment = os.environ | {choice.VARIABLE: "numba"}
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *(str(TESTS / file) for file in FILES)]
    done = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, timeout=580, env=environment)
    assert done.returncode == 0, done.stdout[-5000:]
    skipped = re.findall(r"SKIPPED \[(\d+)\] tests/([\w.]+):.*: (.*)", done.stdout)
    left_out = [(file, int(count)) for count, file, why in skipped if "native scorer" in why]
    assert {file for file, _ in left_out} == {"test_flat.py"}, skipped
    assert sum(count for _, count in left_out) == 12, skipped


@numba.njit  # type: ignore[untyped-decorator]
def weighted(query: Any, vector: Any) -> Any:
    total = 0.0
    for i in range(len(query)):
        total += query[i] * vector[i] * (1 + i % 3)  # whole numbers: exact, and often equal
    return total


def test_rerank_is_a_plain_loop() -> None:
    rng = np.random.default_rng(5)
    vectors, queries = rng.integers(-2, 3, (60, 9)).astype(np.float32), rng.integers(-2, 3, (8, 9)).astype(np.float32)
    candidates = rng.integers(-1, 60, (8, 30))
    vectors.flags.writeable = False
    hits = nf.rerank(queries, vectors, candidates, score=weighted)
    ties = 0
    for row, query in enumerate(queries):
        given = [at for at in candidates[row].tolist() if at >= 0]
        scored = [weighted.py_func(query, vectors[at]) for at in given]
        order = sorted(range(len(given)), key=lambda place: -scored[place])  # stable
        ties += len(given) - len({scored[place] for place in order})
        assert hits.ids[row].tolist() == [given[place] for place in order] + [-1] * (30 - len(given))
        np.testing.assert_allclose(hits.scores[row, : len(given)], np.sort(scored)[::-1], rtol=1e-6)
        assert np.isnan(hits.scores[row, len(given) :]).all()
    assert hits.counts.tolist() == (candidates >= 0).sum(axis=1).tolist()
    assert ties > 50
    assert nf.rerank(queries[0], vectors, nf.topk(queries[0], vectors, 5).ids, score=weighted).counts.tolist() == [5]
    assert nf.rerank(queries[:0], vectors, np.empty((0, 4), int), score=weighted).ids.shape == (0, 4)


def test_rerank_refuses_what_it_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = np.ones((1, 2), np.float32), np.ones((2, 2), np.float32)

    @numba.njit  # type: ignore[untyped-decorator]
    def of_one(query: Any) -> Any:
        return query[0]

    @numba.njit  # type: ignore[untyped-decorator]
    def no_number(query: Any, vector: Any) -> Any:
        return query

    @numba.njit  # type: ignore[untyped-decorator]
    def not_a_number(query: Any, vector: Any) -> Any:
        return np.nan

    for score, candidates, reason in [
        (len, [[0]], "a function made by @numba.njit expected"),
        (weighted.py_func, [[0]], "a function made by @numba.njit expected"),
        (of_one, [[0]], r"numba cannot call of_one\(query, vector\)"),
        (no_number, [[0]], r"numba cannot call no_number\(query, vector\)"),
        (not_a_number, [[-1, 1]], r"score: NaN for query 0 and its candidate 1 \(place 1\)"),
        (weighted, [[0, 2]], "candidates: row 0, place 1 is 2, a position below 2, or -1 for none, expected"),
        (weighted, [[-2]], "candidates: row 0, place 0 is -2"),
        (weighted, [[0.5]], "candidates: dtype float64"),
        (weighted, [[0], [1]], "candidates: shape"),
    ]:
        with pytest.raises(nf.InputError, match=reason) as caught:
            nf.rerank(one, two, candidates, score=score)
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setitem(sys.modules, "numba.extending", None)
    monkeypatch.delitem(sys.modules, "nearfield.kernels.numba_rerank", raising=False)
    with pytest.raises(nf.MissingExtraError, match=r"nearfield\[numba\]"):
        nf.rerank(one, two, [[0]], score=weighted)


def test_sums_are_the_engines_to_the_last_bit() -> None:
    """Values whose sum depends on the order: one lane more or another tree would show."""
    rng = np.random.default_rng(6)
    different = 0
    for dim in [*range(1, 40)] * 5:
        q, r = ((rng.standard_normal(dim) * 10.0 ** rng.integers(-6, 7, dim)).astype(np.float32) for _ in range(2))
        store = _core.FlatStore(dim, "ip", "float32")
        store.append(r[None], np.empty(0, np.int64))
        found = numba_exact.summed(q, r, False)
        rounded = -np.float32(found)  # as a bias it leaves the last bits of float64 for float32 to show
        shown = store.search(q[None], 1, 1, None, np.array([[rounded]]))[1][0, 0]
        assert shown == np.float32(found + np.float64(rounded))
        different += found != sum(np.float64(a) * np.float64(b) for a, b in zip(q, r, strict=True))
    assert different > 50


def test_the_documented_example(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (TESTS.parent / "docs" / "numba.md").read_text(encoding="utf-8"), re.S)
    names: dict[str, Any] = {}
    exec(compile(example, "numba.md", "exec"), names)
    assert capsys.readouterr().out.count("\n") == 5
    hits, found, aged = names["hits"], names["found"], names["aged"]
    assert [sorted(row) for row in hits.ids.tolist()] == [sorted(row) for row in found.ids.tolist()]
    expected = np.einsum("qd,qmd->qm", names["queries"], aged[hits.ids][:, :, :64]) - aged[hits.ids][:, :, 64] / 3000
    np.testing.assert_allclose(hits.scores, expected, rtol=1e-4)
    assert not np.array_equal(hits.ids, found.ids)
