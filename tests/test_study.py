"""What the report shows beside the verdict, against plain loops: parts, slices, sizes, latency, maps, and what is kept of the vectors."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

import oracle_metrics
import oracles
from fake_encoder import BagEncoder
from nearfield.data.dataset import Dataset
from nearfield.evaluate.evaluate import evaluate
from nearfield.evaluate.results import EvalReport
from nearfield.evaluate.significance import bootstrap, paired
from nearfield.evaluate.study import gather, latency, sizes
from nearfield.evaluate.study.parts import parts_of, ranges
from nearfield.evaluate.study.projection import _nearest, _turned
from nearfield.index.flat import FlatIndex
from test_evaluate import make_data

DIM = 160
GOOD, BAD = BagEncoder("good", dim=DIM), BagEncoder("bad", dim=DIM, blur=4.0)


def sourced(data: Dataset, sources: Sequence[str]) -> Dataset:
    return replace(data, groups={identity: f"{sources[i % len(sources)]}.m{i}" for i, identity in enumerate(data.doc_ids)})


DATA = sourced(make_data(), ["alpha", "beta", "gamma"])


@pytest.fixture(scope="module")
def report() -> EvalReport:
    return evaluate(DATA, GOOD, compare=BAD, study=True, threads=1)


@pytest.fixture
def no_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what stands beside the map, which takes a second."""
    monkeypatch.setattr(gather, "MAP_DOCUMENTS", 0)


@pytest.fixture(autouse=True)
def short_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "SECONDS", 0.02)


def documents(ids: Sequence[str], groups: dict[str, str] | None = None) -> Dataset:
    return Dataset("d", "memory", list(ids), [f"{'word ' * (i % 9)}end" for i in range(len(ids))], groups=groups or {})


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        ([f"{'cgov' if i % 3 else 'nihs'}-{i:04}_1" for i in range(90)], ["cgov", "nihs"]),
        ([f"https://host/{'guide' if i % 3 else 'api'}/{i}" for i in range(90)], ["https://host/guide", "https://host/api"]),
        ([f"{'abcdefghijk'[i % 11]}:{i}" for i in range(110)], [*"abcdefg", "other"]),
    ],
)
def test_parts_are_the_beginnings_of_ids_where_these_divide(ids: list[str], names: list[str]) -> None:
    parts = parts_of(documents(ids))
    assert parts.by == "beginning of the id"
    assert parts.names == names
    for identity, part in zip(ids, parts.of, strict=True):
        assert parts.names[part] == "other" or identity.startswith(parts.names[part])


@pytest.mark.parametrize(
    "ids",
    [
        [f"c{i:05}" for i in range(90)],  # numbers
        [f"doc-{i}" for i in range(90)],  # one beginning
        [f"{i}-x" for i in range(90)],  # as many beginnings as documents
        [f"big-{i}" if i else "small-0" for i in range(90)],  # nearly all in one
        [""],
        [],
    ],
)
def test_ids_that_tell_nothing_leave_the_length(ids: list[str]) -> None:
    data = documents(ids)
    parts = parts_of(data)
    assert parts.by == "length of the document"
    assert len(parts.of) == len(ids)
    for text, part in zip(data.doc_texts, parts.of, strict=True):
        bounds = [int(word) for word in parts.names[part].split() if word.isdigit()]
        assert bounds[0] <= len(text.split()) <= bounds[-1]


def test_known_sources_come_before_ids() -> None:
    ids = [f"{'ab'[i % 2]}/{i}" for i in range(60)]
    parts = parts_of(documents(ids, {identity: f"{'xyz'[i % 3]}.module{i}" for i, identity in enumerate(ids)}))
    assert (parts.by, parts.names) == ("source", ["x", "y", "z"])
    assert parts.of.tolist() == [i % 3 for i in range(60)]


def test_ranges_keep_equal_values_together_and_hold_every_value() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 7, 50, 200):
        for top in (1, 3, 40):
            counts = rng.integers(0, top, size).tolist()
            names, of = ranges(counts)
            assert 1 <= len(names) == len(set(of.tolist())) <= 4
            for a, b in zip(counts, of, strict=True):
                bounds = [int(word) for word in names[b].split() if word.isdigit()]
                assert bounds[0] <= a <= bounds[-1]
                assert all(other == b for value, other in zip(counts, of, strict=True) if value == a)
    quarters = np.bincount(ranges(list(range(100)))[1])
    assert quarters.tolist() == [25, 25, 25, 25]


def ndcg_by_loops(encoder: BagEncoder) -> dict[str, float]:
    rows, asked = encoder.encode(DATA.doc_texts), encoder.encode(DATA.query_texts, kind="query")
    order = np.argsort(-(asked.astype(np.float64) @ rows.astype(np.float64).T), axis=1, kind="stable")
    return {
        query: oracle_metrics.ndcg([DATA.doc_ids[i] for i in ranked[:100]], DATA.qrels["test"][query], 10)
        for query, ranked in zip(DATA.query_ids, order, strict=True)
    }


def test_slices_are_those_of_plain_loops(report: EvalReport) -> None:
    assert report.study is not None
    after, before = ndcg_by_loops(GOOD), ndcg_by_loops(BAD)
    by_length, by_part = report.study.slicings
    lengths = {query: len(text.split()) for query, text in zip(DATA.query_ids, DATA.query_texts, strict=True)}
    expected = {f"{count} words": [q for q in DATA.query_ids if lengths[q] == count] for count in (3, 4)}
    homes: dict[str, list[str]] = {"alpha": [], "beta": [], "gamma": []}
    for query in DATA.query_ids:
        judged = DATA.qrels["test"][query]
        best = max(DATA.doc_ids, key=lambda d: judged.get(d, 0))  # the first of the highest grade
        homes[DATA.groups[best].split(".")[0]].append(query)
    for slicing, groups in ((by_length, expected), (by_part, homes)):
        assert {one.name for one in slicing.slices} == {name for name, queries in groups.items() if queries}
        assert sum(one.queries for one in slicing.slices) == report.queries
        for one in slicing.slices:
            new, old = ([values[q] for q in groups[one.name]] for values in (after, before))
            assert one.queries == len(new)
            assert one.before is not None
            assert one.change is not None
            assert one.after.mean == pytest.approx(np.mean(new), abs=1e-9)
            assert one.before.mean == pytest.approx(np.mean(old), abs=1e-9)
            assert one.after.low == pytest.approx(bootstrap(new).low, abs=1e-9)
            assert one.change.low == pytest.approx(paired(old, new).low, abs=1e-9)
            assert one.change.p == pytest.approx(paired(old, new).p)
            sure = one.change.p <= 0.05 and (one.change.low > 0 or one.change.high < 0)
            verdict = "not sure" if not sure else "better" if one.change.mean > 0 else "worse"
            assert one.word == ("too few queries" if one.queries < 20 else verdict)
    assert {one.word for slicing in report.study.slicings for one in slicing.slices} >= {"better", "too few queries"}


def test_swapped_models_are_worse_in_the_same_slices(report: EvalReport, no_map: None) -> None:
    swapped = evaluate(DATA, BAD, compare=GOOD, study=True, threads=1)
    assert report.study is not None
    assert swapped.study is not None
    turn = {"better": "worse", "worse": "better"}
    for one, other in zip(report.study.slicings[0].slices, swapped.study.slicings[0].slices, strict=True):
        assert other.word == turn.get(one.word, one.word)


def test_sizes_are_those_of_a_slow_search_over_the_stored_rows(report: EvalReport) -> None:
    assert report.study is not None
    assert [(s.dim, s.storage) for s in report.study.sizes] == [
        (d, s) for d in (64, 128, DIM) for s in ("float32", "bfloat16", "int8", "1 bit")
    ]
    rows, asked = GOOD.encode(DATA.doc_texts), GOOD.encode(DATA.query_texts, kind="query")
    judged = [DATA.qrels["test"][query] for query in DATA.query_ids]
    full = [oracle_metrics.ndcg(list(r), j, 10) for r, j in zip(lists(asked, oracles.unit_rows(rows)), judged, strict=True)]
    for size in report.study.sizes:
        stored = oracles.unit_rows(rows[:, : size.dim])
        if size.storage != "float32":
            index = FlatIndex(size.dim, storage="int8" if size.storage == "1 bit" else size.storage)
            index.add(rows[:, : size.dim])
            stored = index.get(np.arange(len(rows)))
        signs = np.where(rows[:, : size.dim] > 0, 1.0, -1.0) if size.storage == "1 bit" else None
        ranked = lists(asked[:, : size.dim], stored, signs)
        values = [oracle_metrics.ndcg(list(r), j, 10) for r, j in zip(ranked, judged, strict=True)]
        assert size.metric.mean == pytest.approx(np.mean(values), abs=1e-9)
        assert size.queries == len(values)
        if (size.dim, size.storage) == (DIM, "float32"):
            assert size.change is None
            assert size.metric.low == pytest.approx(report.model.metrics["ndcg@10"].low)
        else:
            assert size.change is not None
            assert size.change.mean == pytest.approx(np.mean(values) - np.mean(full), abs=1e-9)
            assert size.change.low == pytest.approx(paired(full, values).low, abs=1e-9)
    assert report.study.sizes[0].change is not None
    assert report.study.sizes[0].change.mean < 0
    assert len({size.metric.mean for size in report.study.sizes if size.dim == DIM}) > 1


def lists(queries: np.ndarray, stored: np.ndarray, signs: np.ndarray | None = None) -> list[list[str]]:
    """The ten best; with signs, of the hundred best by these."""
    scores = queries.astype(np.float64) @ stored.astype(np.float64).T
    if signs is not None:
        by_sign = np.argsort(-(queries.astype(np.float64) @ signs.T), axis=1, kind="stable")
        np.put_along_axis(scores, by_sign[:, 100:], -np.inf, axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    return [[DATA.doc_ids[i] for i in row] for row in order]


def test_signs_find_candidates_that_int8_rows_put_in_order() -> None:
    rng = np.random.default_rng(0)
    rows, queries = rng.normal(size=(300, 48)).astype(np.float32), rng.normal(size=(5, 48)).astype(np.float32)
    rows[17] = 0
    names = [f"d{i}" for i in range(300)]
    index = FlatIndex(48, storage="int8")
    index.add(rows)
    found = sizes.by_signs(queries, rows, names, 4)
    for query, listed in zip(queries.astype(np.float64), found, strict=True):
        by_sign = sorted(range(300), key=lambda i: (-sum(q if v > 0 else -q for q, v in zip(query, rows[i], strict=True)), i))[:40]
        stored = index.get(np.array(sorted(by_sign))).astype(np.float64)
        order = sorted(zip(-(stored @ query), sorted(by_sign), strict=True))
        assert listed.tolist() == [names[i] for _, i in order[:4]]
    few = sizes.by_signs(queries, rows[:3], names[:3], 4)
    assert few.shape == (5, 4)
    assert [row[3] for row in few] == [None] * 5


def test_large_corpora_are_asked_fewer_queries(monkeypatch: pytest.MonkeyPatch, no_map: None) -> None:
    monkeypatch.setattr(sizes, "PAIRS", 12 * len(DATA.doc_ids))
    study = evaluate(DATA, GOOD, study=True, threads=1).study
    assert study is not None
    assert {size.queries for size in study.sizes} == {12}
    assert "12 of 40 (drawn by seed 0)" in study.sizes_asked
    monkeypatch.setattr(sizes, "PAIRS", 1)
    study = evaluate(DATA, GOOD, study=True, threads=1).study
    assert study is not None
    assert {size.queries for size in study.sizes} == {1}


def test_latency_tells_the_steps_apart_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(BagEncoder):
        def encode(self, texts, *, kind="document", progress=False):  # type: ignore[no-untyped-def]
            time.sleep(0.02)
            return super().encode(texts, kind=kind, progress=progress)

    monkeypatch.setattr(latency, "SECONDS", 0.2)
    rows = GOOD.encode(DATA.doc_texts)
    encoder = Slow("slow", dim=DIM)
    start = time.perf_counter()
    one, many = latency.measure_latency(encoder, DATA.query_texts[:3], rows, k=10, threads=1)
    assert time.perf_counter() - start < 5
    assert (one.rows, many.rows) == (1, 32)
    assert set(encoder.calls) == {("query", 1), ("query", 32)}
    for found in (one, many):
        assert 3 <= found.calls <= 11
        assert 20 <= found.encode[0] <= found.encode[1]
        assert 0 < found.search[0] <= found.search[1]
        assert found.total[0] >= found.encode[0]
    monkeypatch.setattr(latency, "SECONDS", 0.0)
    assert latency.measure_latency(encoder, ["wind"], rows, k=10)[0].calls == 3


def test_maps_repeat_and_their_figures_are_those_of_loops(report: EvalReport) -> None:
    assert report.study is not None
    drawn = report.study.map
    assert drawn is not None
    assert drawn.before is not None
    assert (len(drawn.part), drawn.documents) == (150, 150)
    assert [drawn.parts[part] for part in drawn.part] == [DATA.groups[identity].split(".")[0] for identity in DATA.doc_ids]
    for side, encoder in ((drawn.before, BAD), (drawn.after, GOOD)):
        assert len(side.points) == 150 + len(drawn.marks)
        assert all(0 <= x <= 1000 and 0 <= y <= 1000 for x, y in side.points)
        vectors = encoder.encode(DATA.doc_texts).astype(np.float64)
        same, kept = [], []
        for i in range(150):
            others = [j for j in range(150) if j != i]
            near = sorted(others, key=lambda j: -float(vectors[i] @ vectors[j]))[:10]
            close = sorted(
                others, key=lambda j: (side.points[i][0] - side.points[j][0]) ** 2 + (side.points[i][1] - side.points[j][1]) ** 2
            )
            same.append(sum(drawn.part[j] == drawn.part[i] for j in near) / 10)
            kept.append(len(set(near) & set(close[:10])) / 10)
        assert side.same_part == pytest.approx(np.mean(same), abs=1e-3)
        # points are rounded to whole numbers, which swaps a few neighbours
        assert side.kept == pytest.approx(np.mean(kept), abs=0.02)
        assert side.kept > 0.2
    counts = np.bincount(drawn.part)
    assert drawn.by_chance == pytest.approx(sum(c / 150 * (c - 1) / 149 for c in counts))
    # No turn brings the second map nearer to the first.
    first, second = (np.array(side.points, float) for side in (drawn.before, drawn.after))
    np.testing.assert_allclose(_turned(second, onto=first), second - second.mean(axis=0), atol=20)
    again = evaluate(DATA, GOOD, compare=BAD, study=True, threads=1).study
    assert again is not None
    assert replace(drawn, seconds=0.0) == replace(again.map, seconds=0.0)  # type: ignore[type-var]


def test_marks_stand_at_their_query_and_document(report: EvalReport) -> None:
    assert report.study is not None
    drawn = report.study.map
    assert drawn is not None
    changes = {f"W{i}": change for i, change in enumerate(report.wins[:5], 1)} | {f"L{i}": c for i, c in enumerate(report.losses[:5], 1)}
    assert [mark.name for mark in drawn.marks] == list(changes)
    for place, mark in enumerate(drawn.marks):
        assert mark.query == changes[mark.name].query
        assert mark.query_point == 150 + place
        assert DATA.doc_ids[mark.document_point] == changes[mark.name].document_id


def test_a_sample_of_a_large_corpus_holds_the_marked_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, np.ndarray] = {}
    draw = gather.draw

    def spy(after, before, part, marks, parts, **options):  # type: ignore[no-untyped-def]
        seen.update(after=after, before=before)
        return draw(after, before, part, marks, parts, **options)

    monkeypatch.setattr(gather, "MAP_DOCUMENTS", 30)
    monkeypatch.setattr(gather, "draw", spy)
    found = evaluate(DATA, GOOD, compare=BAD, study=True, threads=1)
    assert found.study is not None
    drawn = found.study.map
    assert drawn is not None
    assert 30 <= len(drawn.part) <= 40
    assert f"{len(drawn.part)} documents" in drawn.how
    texts = dict(zip(DATA.doc_ids, DATA.doc_texts, strict=True))
    for mark, change in zip(drawn.marks, [*found.wins[:5], *found.losses[:5]], strict=True):
        for name, encoder in (("after", GOOD), ("before", BAD)):
            np.testing.assert_array_equal(seen[name][mark.document_point], encoder.encode([texts[change.document_id]])[0])
            np.testing.assert_array_equal(seen[name][mark.query_point], encoder.encode([change.query], kind="query")[0])


def test_clusters_stay_apart_and_turning_undoes_a_turn() -> None:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((50, 2))
    turn = np.array([[np.cos(1.0), -np.sin(1.0)], [-np.sin(1.0), -np.cos(1.0)]])  # a rotation and a reflection
    np.testing.assert_allclose(_turned(points @ turn + 7, onto=points), points - points.mean(axis=0), atol=1e-9)
    assert _nearest(np.array([[9.0, 1, 2], [1, 9, 3], [2, 3, 9]])).tolist() == [[2, 1], [2, 0], [1, 0]]
    texts = ["wind rain cloud storm snow" if i % 2 else "bread salt butter flour milk" for i in range(60)]
    data = Dataset("two", "memory", [f"{'ab'[i % 2]}/{i}" for i in range(60)], [f"{t} {i}" for i, t in enumerate(texts)], ["q"], ["wind"],
                   {"test": {"q": {"b/1": 1}}})  # fmt: skip
    study = evaluate(data, GOOD, study=True, threads=1).study
    assert study is not None
    assert study.map is not None
    assert study.map.after.same_part == 1.0
    assert study.map.before is None
    flat = np.array(study.map.after.points[:60], float)
    centres = [flat[part::2].mean(axis=0) for part in (0, 1)]
    assert all(np.argmin([np.linalg.norm(point - centre) for centre in centres]) == i % 2 for i, point in enumerate(flat))


def test_without_scikit_learn_one_line_says_how_to_get_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    study = evaluate(DATA, GOOD, study=True, threads=1).study
    assert study is not None
    assert study.map is None
    assert study.map_note == "a map of the corpus needs scikit-learn, which is not installed: pip install 'nearfield[report]'."


@pytest.mark.parametrize("size", [1, 3])
def test_three_queries_and_three_documents(size: int) -> None:
    ids = [f"d{i}" for i in range(size)]
    data = Dataset("few", "memory", ids, ["wind rain", "stone", "lamp"][:size], ids, ["wind", "stone", ""][:size],
                   {"test": {identity: {identity: 1} for identity in ids}})  # fmt: skip
    found = evaluate(data, GOOD, compare=BAD, study=True, threads=1)
    assert found.study is not None
    assert found.study.map_note == f"A map needs at least 20 documents; this corpus has {size}."
    assert {one.word for slicing in found.study.slicings for one in slicing.slices} == {"too few queries"}
    json.loads(found.to_json())


def test_a_judgement_of_an_unknown_document_has_no_part(no_map: None) -> None:
    data = replace(DATA, qrels={"test": {**DATA.qrels["test"], "q0": {"nowhere": 1}}})
    study = evaluate(data, GOOD, study=True, threads=1).study
    assert study is not None
    assert [one.queries for one in study.slicings[1].slices if one.name == "not in the corpus"] == [1]


def test_a_study_changes_no_other_figure_and_is_reachable_by_script(report: EvalReport) -> None:
    plain = evaluate(DATA, GOOD, compare=BAD, threads=1)
    assert plain.study is None
    with_study, without = report.to_dict(), plain.to_dict()
    assert without.pop("study") is None
    study = with_study.pop("study")
    for values in (with_study, without):
        values.pop("seconds")
        for system in (values["model"], values["compare"], *values["baselines"]):
            system.pop("seconds")
    assert with_study == without
    assert set(study) == {"slicings", "sizes", "sizes_asked", "latencies", "map", "map_note"}
    assert study["sizes"][0]["dim"] == 64
    assert study["map"]["after"].keys() == {"same_part", "kept"}
    assert len(report.to_json()) < 60_000


def test_texts_are_encoded_once(no_map: None) -> None:
    encoder = BagEncoder("counted", dim=DIM)
    evaluate(DATA, encoder, study=True, threads=1)
    assert [call for call in encoder.calls if call[0] == "document"] == [("document", 150)]
    assert [rows for kind, rows in encoder.calls if kind == "query" and rows > 32] == [40]
