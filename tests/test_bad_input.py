"""What no caller should give: for each case the right answer or one line that says what, where and how to mend it. Never a crash.

Wrong rows, ids and settings of FlatIndex.add and search are also tested in test_flat.py, those of HNSWIndex in test_hnsw.py.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nearfield as nf

DIM = 4
ROWS = np.random.default_rng(1).standard_normal((6, DIM)).astype(np.float32)
QUERIES = np.random.default_rng(2).standard_normal((3, DIM)).astype(np.float32)
INDEXES: list[type[Any]] = [nf.FlatIndex, nf.HNSWIndex]
NAN, INF = np.nan, np.inf


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    """A warning of numpy's is not the line that a caller should read."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture(params=INDEXES)
def index(request: pytest.FixtureRequest) -> Any:
    made = request.param(DIM, metric="ip")
    made.add(ROWS)
    return made


def with_value(value: float, row: int = 2, column: int = 1, dtype: Any = np.float32) -> np.ndarray:
    values = np.ones((4, DIM), dtype)
    values[row, column] = value
    return values


def assert_refused(call: Callable[[], object], line: str) -> None:
    """One line, exactly this one (``...`` stands for any end)."""
    with pytest.raises(nf.InputError) as caught:
        call()
    said = str(caught.value)
    assert "\n" not in said
    assert re.fullmatch(re.escape(line).replace(re.escape("..."), ".*"), said), said


# Every array of vectors passes one door; X stands for the argument's name.
VECTORS: list[tuple[str, Any, str]] = [
    ("NaN", with_value(NAN), "X: row 2 holds NaN in column 1, finite values expected: leave the row out or repair it"),
    ("infinity", with_value(-INF, 3, 0), "X: row 3 holds infinity in column 0, finite values expected: leave the row out or repair it"),
    ("norm", with_value(3e38) + with_value(3e38, 2, 3), "X: row 2 has a norm beyond float32 (3.4e38): scale the vectors down"),
    ("float64", with_value(1e300, dtype=float), "X: row 2 holds 1e+300 in column 1, beyond float32 (3.4e38): scale the vectors down"),
    ("float64 infinity", with_value(INF, dtype=float), "X: row 2 holds infinity in column 1, ..."),
    ("object", ROWS.astype(object), "X: dtype object given, a float array expected (float32 is borrowed without a copy): ..."),
    ("complex", ROWS.astype(complex), "X: dtype complex128 given, a float array expected ..."),
    ("bool", ROWS > 0, "X: dtype bool given, a float array expected ..."),
    ("str", ROWS.astype(str), "X: dtype <U32 given, a float array expected ..."),
    (
        "integers",
        np.ones((2, DIM), int),
        "X: dtype int64 given, ...: convert with X.astype('float32') if the values mean what floats would",
    ),
    ("datetime", np.ones((2, DIM), "m8[s]"), "X: dtype timedelta64[s] given, a float array expected ..."),
    ("masked", np.ma.masked_less(ROWS, 0), "X: masked values given, which stand for no numbers: fill them or leave their rows out"),
    ("ragged", [[1.0, 2.0], [1.0]], "X: list given of which numpy makes no array (...): rows of one length expected"),
    ("none", None, "X: dtype object given, a float array expected ..."),
    ("one number", 1.5, "X: shape () given, (n, dim) or (dim,) expected"),
    ("0-d", np.array(1.5, np.float32), "X: shape () given, (n, dim) or (dim,) expected"),
    ("3-d", ROWS[None], "X: shape (1, 6, 4) given, (n, dim) or (dim,) expected"),
]
COLUMNS: list[tuple[str, Any, str]] = [
    ("narrow", ROWS[:, :3], "X: 3 columns given (shape (6, 3)), 4 expected"),
    ("narrow row", ROWS[0, :3], "X: 3 columns given (shape (1, 3)), 4 expected"),
    ("no columns", np.empty((2, 0)), "X: 0 columns given (shape (2, 0)), 4 expected"),
]
DOORS: dict[str, tuple[str, Callable[[Any, Any], object]]] = {
    "add": ("vectors", lambda index, values: index.add(values)),
    "search": ("queries", lambda index, values: index.search(values)),
    "score": ("queries", lambda index, values: index.score(values, np.zeros((len(np.atleast_2d(values)), 1), int))),
}
FREE: dict[str, tuple[str, Callable[[Any], object]]] = {
    "score queries": ("queries", lambda values: nf.score(values, ROWS)),
    "score vectors": ("vectors", lambda values: nf.score(QUERIES, values)),
    "score candidates": ("queries", lambda values: nf.score(values, ROWS, candidates=np.zeros((4, 1), int))),
    "score of candidates": ("vectors", lambda values: nf.score(QUERIES[0], values, candidates=[0, 1, 3, 2])),
    "topk queries": ("queries", lambda values: nf.topk(values, ROWS, 2)),
    "topk vectors": ("vectors", lambda values: nf.topk(QUERIES, values, 2)),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("values", "line"), [case[1:] for case in VECTORS + COLUMNS], ids=[case[0] for case in VECTORS + COLUMNS])
def test_vectors_at_an_index(index: Any, door: str, values: Any, line: str) -> None:
    what, call = DOORS[door]
    if door == "score" and line.startswith("X: list"):
        values = np.array([0.0])  # a length is needed to ask; the array's own door is the same
        line = "X: 1 columns given (shape (1, 1)), 4 expected"
    assert_refused(lambda: call(index, values), line.replace("X", what))
    assert len(index) == len(ROWS)


@pytest.mark.parametrize("door", FREE)
@pytest.mark.parametrize(("values", "line"), [case[1:] for case in VECTORS], ids=[case[0] for case in VECTORS])
def test_vectors_at_a_function(door: str, values: Any, line: str) -> None:
    what, call = FREE[door]
    assert_refused(lambda: call(values), line.replace("X", what))


def test_the_functions_compare_columns() -> None:
    for call in (lambda q, r: nf.score(q, r), lambda q, r: nf.topk(q, r, 1), lambda q, r: nf.score(q, r, candidates=[[0]] * 3)):
        assert_refused(lambda call=call: call(QUERIES[:, :3], ROWS), "queries: 3 columns given (shape (3, 3)), 4 expected")


# Ways in which the same values may lie in memory.


def unaligned(values: np.ndarray) -> np.ndarray:
    memory = np.empty(values.nbytes + 1, np.uint8)
    view = memory[1:].view(values.dtype).reshape(values.shape)
    view[...] = values
    assert view.flags.aligned == (values.itemsize == 1)
    return view


def read_only(values: np.ndarray) -> np.ndarray:
    copy = values.copy()
    copy.flags.writeable = False
    return copy


def spread(values: np.ndarray) -> np.ndarray:
    wide = np.full((values.shape[0] * 2, values.shape[-1] * 3), values.flat[0] * 0, values.dtype)
    wide[::2, ::3] = values
    return wide[::2, ::3]


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sliced": spread,
    "transposed": lambda values: np.ascontiguousarray(values.T).T,
    "backwards": lambda values: np.ascontiguousarray(values[::-1, ::-1])[::-1, ::-1],
    "byte-swapped": lambda values: values.astype(values.dtype.newbyteorder()),
    "read-only": read_only,
    "unaligned": unaligned,
    "float64": lambda values: values.astype(np.float64) if values.dtype.kind == "f" else values,
    "longdouble": lambda values: values.astype(np.longdouble) if values.dtype.kind == "f" else values,
    "list": lambda values: values.tolist(),
    "matrix": lambda values: values.view(type("Sub", (np.ndarray,), {})),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same(index: Any, layout: str) -> None:
    """Vectors, queries, ids, masks and biases, laid out in all ways; a borrowed array is neither changed nor kept."""
    lay = LAYOUTS[layout]
    rng = np.random.default_rng(4)
    mask, bias = rng.random((3, 6)) < 0.6, rng.standard_normal((3, 6)).astype(np.float32)
    ids = rng.integers(-1, 6, (3, 5))
    wanted = index.search(QUERIES, 4, filter=mask, bias=bias)
    made = type(index)(DIM, metric="ip")
    made.add(lay(ROWS), ids=lay(np.arange(6)[None])[0])
    assert np.array_equal(made.get(lay(np.arange(6)[None])[0]), ROWS)
    hits = made.search(lay(QUERIES), 4, filter=lay(mask), bias=lay(bias))
    assert np.array_equal(hits.ids, wanted.ids)
    assert np.array_equal(hits.scores, wanted.scores, equal_nan=True)
    scores = index.score(QUERIES, ids)
    assert np.array_equal(made.score(lay(QUERIES), lay(ids)), scores, equal_nan=True)
    assert np.array_equal(nf.score(lay(QUERIES), lay(ROWS), metric="ip", candidates=lay(ids)), scores, equal_nan=True)
    assert np.array_equal(nf.score(lay(QUERIES), lay(ROWS)), nf.score(QUERIES, ROWS))
    assert np.array_equal(nf.topk(lay(QUERIES), lay(ROWS), 3).ids, nf.topk(QUERIES, ROWS, 3).ids)


def test_float16_is_converted_exactly(index: Any) -> None:
    half = QUERIES.astype(np.float16)
    assert np.array_equal(index.search(half).scores, index.search(half.astype(np.float32)).scores, equal_nan=True)
    assert np.array_equal(nf.score(half, half), nf.score(half.astype(np.float32), half.astype(np.float32)))


def test_memory_mapped_and_zero_stride_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    same = np.broadcast_to(ROWS[0], (6, DIM))
    for kind in INDEXES:
        index = kind(DIM, metric="ip")
        index.add(mapped)
        assert np.array_equal(index.get(range(6)), ROWS)
        index.add(same, ids=range(6))
        assert index.search(QUERIES[0], 6).ids.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert np.array_equal(nf.topk(mapped, mapped, 2).ids, nf.topk(ROWS, ROWS, 2).ids)
    scores = nf.score(same, mapped, candidates=np.broadcast_to(3, (6, 1)))
    assert np.array_equal(scores, nf.score(ROWS[:1], ROWS, candidates=[3]).repeat(6, 0))


def test_no_rows_and_no_columns(index: Any) -> None:
    none = np.empty((0, DIM), np.float32)
    for empty in (none, [], np.empty(0)):
        index.add(empty)
        index.add(empty, ids=[])
        index.delete([])
        assert len(index) == 6
        assert index.search(empty, 3).ids.shape == (0, 3)
        assert index.score(empty, []).shape == (0, 0)
        assert nf.score(empty, ROWS).shape == (0, 6)
        assert nf.score(QUERIES, empty).shape == (3, 0)
        assert nf.score(QUERIES, empty, candidates=[[-1]] * 3).shape == (3, 1)
        assert nf.topk(empty, ROWS, 3).ids.shape == (0, 3)
        assert nf.topk(QUERIES, empty, 3).counts.tolist() == [0, 0, 0]
    assert index.get([]).shape == (0, DIM)
    # Without columns every inner product is an empty sum.
    assert nf.score(np.empty((2, 0)), np.empty((3, 0)), metric="ip").tolist() == [[0] * 3] * 2
    assert nf.topk(np.empty((1, 0)), np.empty((3, 0)), 2).ids.tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("k", "line"),
    [
        *[(k, f"k: {k!r} given, a whole number >= 1 expected") for k in (0, -3, True, np.True_, 2.0, None)],
        (np.float32(2), "k: ... given, a whole number >= 1 expected"),
        (np.int64(0), "k: 0 given, a whole number >= 1 expected"),
        ("2", "k: '2' given, a whole number >= 1 expected"),
        (2**40, f"k: {2**40} results for ... queries are more than {2**32} places: use a smaller k or fewer queries"),
        (2**70, f"k: {2**70} results for ... queries are more than {2**32} places: use a smaller k or fewer queries"),
    ],
)
def test_k(index: Any, k: Any, line: str) -> None:
    for queries in (QUERIES, QUERIES[:0]):
        assert_refused(lambda queries=queries: index.search(queries, k), line)
        assert_refused(lambda queries=queries: nf.topk(queries, ROWS, k), line)


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.int64, np.uint64])
def test_k_of_numpy_and_beyond_n(index: Any, kind: Any) -> None:
    """``n`` results, counted, where ``k`` is more."""
    for hits in (index.search(QUERIES, kind(9)), nf.topk(QUERIES, ROWS, kind(9), metric="ip")):
        assert hits.ids.shape == hits.scores.shape == (3, 9)
        assert hits.counts.tolist() == [6, 6, 6]
        assert (np.sort(hits.ids[:, :6]) == np.arange(6)).all()
        assert (hits.ids[:, 6:] == -1).all()
        assert np.isnan(hits.scores[:, 6:]).all()


@pytest.mark.parametrize("threads", [0, -1, True, 1.0, "2", 2**17])
def test_threads(index: Any, threads: Any) -> None:
    line = f"threads: {threads!r} given, a whole number from 1 to 65536 expected"
    index_type = type(index)
    for call in (
        lambda: index.search(QUERIES, threads=threads),
        lambda: index.score(QUERIES[0], [1], threads=threads),
        lambda: index.add(ROWS, threads=threads),
        lambda: index_type(DIM, threads=threads),
        lambda: nf.score(QUERIES, ROWS, threads=threads),
    ):
        assert_refused(call, line)
    assert len(index) == 6
    assert index.search(QUERIES, threads=np.int16(2)).counts.tolist() == [6, 6, 6]


FILTERS: list[tuple[Any, str]] = [
    (np.ones(5, bool), "filter: shape (5,) given, (6,) or (3, 6) expected: one value for each of index.ids"),
    (np.ones((2, 6), bool), "filter: shape (2, 6) given, (6,) or (3, 6) expected: one value for each of index.ids"),
    (np.ones((1, 3, 6), bool), "filter: shape (1, 3, 6) given, (6,) or (3, 6) expected: one value for each of index.ids"),
    (np.array(True), "filter: shape () given, (6,) or (3, 6) expected: one value for each of index.ids"),
    ([True, False], "filter: shape (2,) given, (6,) or (3, 6) expected: one value for each of index.ids"),
    ([[True], [True, False]], "filter: list given of which numpy makes no array (...): rows of one length expected"),
    ([[1, 0, 1, 1, 0, 0]], "filter: dtype int64 given, ids or a boolean mask expected"),
    (np.ones(6, np.float32), "filter: dtype float32 given, int64 >= 0 or str expected, one for each row"),
    (np.ones((3, 6), np.uint8), "filter: shape (3, 6) given, a sequence of ids expected"),
    (True, "filter: True given, a sequence of ids expected: wrap it in a list"),
    (3, "filter: 3 given, a sequence of ids expected: wrap it in a list"),
    ("a", "filter: one str given, a sequence of ids expected: wrap it in a list"),
    (["a"], "filter: str ids given, but this index has int ids"),
    ([1, -2], "filter: row 1 is -2, a number from 0 to 2^63 - 1 expected"),
    ([1, 2.5], "filter: 2.5 given in row 1, int64 >= 0 or str expected, one for each row"),
    ([1, "a"], "filter: 'a' given in row 1, int64 >= 0 or str expected, one for each row"),
    (["a", 1], "filter: row 1 is 1, a str expected as in row 0: one index holds one kind of ids"),
]


@pytest.mark.parametrize(("value", "line"), FILTERS)
def test_filters(index: Any, value: Any, line: str) -> None:
    assert_refused(lambda: index.search(QUERIES, filter=value), line)


def test_unknown_ids_in_a_filter_match_nothing(index: Any) -> None:
    assert np.sort(index.search(QUERIES[0], 3, filter=[4, 77, 2, 2**62]).ids).tolist() == [[-1, 2, 4]]
    assert index.search(QUERIES, 3, filter={77}).counts.tolist() == [0, 0, 0]


BIASES: list[tuple[Any, str]] = [
    (np.array([0, 0, 0, NAN, 0, 0]), "bias: NaN or infinity given (place 3 is nan), finite float32 values expected: ..."),
    (
        with_value(INF, 2, 1).repeat(2, 1)[:3, :6],
        "bias: NaN or infinity given (row 2, place 2 is inf), finite float32 values expected: ...",
    ),
    (np.full(6, -1e39), "bias: NaN or infinity given (place 0 is -1e+39), finite float32 values expected: use filter to leave rows out"),
    (0.5, "bias: shape () given, (6,) or (3, 6) expected: one value for each of index.ids"),
    (NAN, "bias: NaN or infinity given (its value is nan), finite float32 values expected: use filter to leave rows out"),
    (np.ones(5), "bias: shape (5,) given, (6,) or (3, 6) expected: one value for each of index.ids"),
    (np.ones((2, 6)), "bias: shape (2, 6) given, (6,) or (3, 6) expected: one value for each of index.ids"),
    (np.ones(6, bool), "bias: dtype bool given, numbers expected"),
    (np.ones(6, complex), "bias: dtype complex128 given, numbers expected"),
    (["1"] * 6, "bias: dtype <U1 given, numbers expected"),
    ([[1.0], [1.0, 2.0]], "bias: list given of which numpy makes no array (...): rows of one length expected"),
]


@pytest.mark.parametrize(("value", "line"), BIASES)
def test_biases(index: Any, value: Any, line: str) -> None:
    assert_refused(lambda: index.search(QUERIES, bias=value), line)


@pytest.mark.parametrize(
    ("ids", "line"),
    [
        (5, "ids: 5 given, a sequence of ids expected: wrap it in a list"),
        (np.int64(5), "ids: np.int64(5) given, a sequence of ids expected: wrap it in a list"),
        (np.array(5), "ids: array(5) given, a sequence of ids expected: wrap it in a list"),
        ("a", "ids: one str given, a sequence of ids expected: wrap it in a list"),
        ([3, 77, 78], "ids: 77 (row 1) is not in the index"),
        (["a"], "ids: 'a' (row 0) is not in the index"),
        ([1.0], "ids: 1.0 given in row 0, int64 >= 0 or str expected, one for each row"),
        ([1, None], "ids: None given in row 1, int64 >= 0 or str expected, one for each row"),
        ([[1], [2]], "ids: [1] given in row 0, int64 >= 0 or str expected, one for each row"),
        ([1, 2**63], f"ids: {2**63} given in row 1, int64 >= 0 or str expected, one for each row"),
        (np.array([1, 2**63], np.uint64), f"ids: row 1 is {2**63}, a number from 0 to 2^63 - 1 expected"),
        (np.ones(2, bool), "ids: dtype bool given, int64 >= 0 or str expected, one for each row"),
    ],
)
def test_ids_of_get_and_delete(index: Any, ids: Any, line: str) -> None:
    assert_refused(lambda: index.get(ids), line)
    assert_refused(lambda: index.delete(ids), line)
    assert len(index) == 6


SHAPE = "ids: shape {} given, (3, m) expected: as many candidates for each query, -1 for none"
CANDIDATES: list[tuple[Any, str]] = [
    ([[1], [77], [2]], "ids: 77 (row 1, place 0) is not in the index: give -1 or None for none"),
    ([["a"], [None], [None]], "ids: str ids given, but this index has int ids: one index holds one kind"),
    ([[1], [-2], [3]], "ids: row 1, place 0 is -2, an id (int64 >= 0 or str), or -1 or None for none, expected"),
    (np.array([[1], [-2], [3]]), "ids: row 1, place 0 is -2, a number from 0 to 2^63 - 1, or -1 for none, expected"),
    (np.full((3, 1), 2**63, np.uint64), f"ids: row 0, place 0 is {2**63}, a number from 0 to 2^63 - 1, or -1 for none, expected"),
    ([[1, "a"], [1, 2], [1, 2]], "ids: row 0, place 1 is 'a', ids of one kind, or -1 or None for none, expected"),
    ([[1], [True], [1]], "ids: row 1, place 0 is True, an id (int64 >= 0 or str), or -1 or None for none, expected"),
    ([[1.0], [2.0], [3.0]], "ids: row 0, place 0 is 1.0, an id (int64 >= 0 or str), or -1 or None for none, expected"),
    (np.ones((3, 1)), "ids: dtype float64 given, int64 expected, with -1 for none"),
    ([1, 2, 3], SHAPE.format("(3,)")),
    ([[1, 2]], SHAPE.format("(1, 2)")),
    ([[1], [1, 2], [1]], SHAPE.format("(3,)")),
    ([np.ones((2, 3)), np.ones((2, 4))], "ids: list given of which numpy makes no array (...): rows of one length expected"),
    (np.ones((3, 1, 1), int), SHAPE.format("(3, 1, 1)")),
    (7, SHAPE.format("()")),
    ("abc", SHAPE.format("()")),
    (None, SHAPE.format("()")),
]


@pytest.mark.parametrize(("ids", "line"), CANDIDATES)
def test_candidates_of_an_index(index: Any, ids: Any, line: str) -> None:
    assert_refused(lambda: index.score(QUERIES, ids), line)


@pytest.mark.parametrize(
    ("positions", "line"),
    [
        ([[1], [6], [2]], "candidates: row 1, place 0 is 6, a position below 6, or -1 for none, expected"),
        ([[1], [-2], [2]], "candidates: row 1, place 0 is -2, a number from 0 to 2^63 - 1, or -1 for none, expected"),
        ([[1.0]] * 3, "candidates: dtype float64 given, int64 expected, with -1 for none"),
        ([[True]] * 3, "candidates: dtype bool given, int64 expected, with -1 for none"),
        ([[None]] * 3, "candidates: dtype object given, int64 expected, with -1 for none"),
        ([["a"]] * 3, "candidates: dtype <U1 given, int64 expected, with -1 for none"),
        ([[1], [1, 2], [1]], "candidates: list given of which numpy makes no array (...): rows of one length expected"),
        ([1, 2, 3], "candidates: shape (3,) given, (3, m) expected: as many candidates for each query, -1 for none"),
    ],
)
def test_candidates_of_the_function(positions: Any, line: str) -> None:
    assert_refused(lambda: nf.score(QUERIES, ROWS, candidates=positions), line)


@pytest.mark.parametrize("metric", ["dot", None, ["ip"]])
def test_metrics(metric: Any) -> None:
    line = f"metric: {metric!r} given, one of cosine, ip, l2 expected"
    assert_refused(lambda: nf.score(QUERIES, ROWS, metric=metric), line)
    assert_refused(lambda: nf.topk(QUERIES, ROWS, 1, metric=metric), line)
    for kind in INDEXES:
        assert_refused(lambda kind=kind: kind(DIM, metric=metric), line)


# More than 2^31 elements. Fresh zeros are pages of the system's one zero page until they are written, so they cost no memory.


def test_candidates_beyond_2_to_the_31_elements() -> None:
    rows = np.zeros((2**31 + 3, 1), np.float32)
    rows[-1] = 3
    assert nf.score(np.ones(1, np.float32), rows, metric="ip", candidates=[2**31 + 2, 0, -1]).ravel()[:2].tolist() == [3, 0]
    line = f"candidates: row 0, place 0 is {2**31 + 3}, a position below {2**31 + 3}, or -1 for none, expected"
    assert_refused(lambda: nf.score(np.ones(1, np.float32), rows, candidates=[2**31 + 3]), line)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_more_than_2_to_the_31_elements() -> None:
    """Some two minutes of scanning; int8 rows, which are their codes alone, take 2.2 GiB."""
    rows = np.zeros((2**20 + 2, 2048), np.float32)
    rows[-1, -1], rows[-2, 0] = 254, 127  # exact in codes
    query = np.ones(2048, np.float32)
    best = [[2**20 + 1, 2**20]]
    assert nf.topk(query, rows, 2, metric="ip").ids.tolist() == best
    assert np.flatnonzero(nf.score(query, rows, metric="ip")).tolist() == best[0][::-1]
    index = nf.FlatIndex(2048, metric="ip", storage="int8")
    index.add(rows)
    hits = index.search(query, 2)
    assert hits.ids.tolist() == best
    assert hits.scores.tolist() == [[254, 127]]
    assert index.score(query, best).tolist() == [[254, 127]]
    rows[-1, -1] = NAN
    line = f"vectors: row {2**20 + 1} holds NaN in column 2047, finite values expected: leave the row out or repair it"
    graph = nf.HNSWIndex(2048, metric="ip")
    for call in (
        lambda: nf.topk(query, rows, 2, metric="ip"),
        lambda: nf.score(query, rows, metric="ip"),
        lambda: graph.add(rows),
    ):
        assert_refused(call, line)
