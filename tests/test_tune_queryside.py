"""Queries tuned alone: the loss against a slow oracle, the documents untouched, and the bundle's second tower on every backend."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import nearfield as nf
from nearfield.bundle import QUERY_MAP, Bundle
from nearfield.cli import main
from nearfield.config import ExportConfig, TuneConfig
from nearfield.data.dataset import Dataset
from nearfield.encode.bundled import mapped
from nearfield.encode.fingerprint import space_fingerprint
from nearfield.encode.spec import read_spec
from nearfield.encode.tower import Tower
from nearfield.errors import FormatError, InputError
from nearfield.export.export import export_bundle
from nearfield.export.writer import update
from nearfield.tune.batches import Batches
from nearfield.tune.objective import step_loss
from nearfield.tune.pairs import TrainingPairs
from nearfield.tune.queryside import FixedDocuments
from nearfield.tune.train import train
from test_tune_train import FAST, code_book, plain_texts

QUERY = dataclasses.replace(FAST, query_only=True, epochs=4)

pytestmark = pytest.mark.usefixtures("one_thread")


def some_pairs(documents: int = 9) -> TrainingPairs:
    rng = np.random.default_rng(3)
    texts = [[1, int(token), 2] for token in rng.integers(5, 40, documents)]
    pairs = np.array([(0, 4), (1, 2), (2, 4), (0, 3), (3, 8)], np.int64)
    relevant = [frozenset({3, 4}), frozenset({2}), frozenset({4, 7}), frozenset({8})]
    ids = [f"d{row}" for row in range(documents)]
    return TrainingPairs([[1, 9, 2]] * 4, texts, pairs, relevant, [(), (6,), (), ()], 5, document_ids=ids)


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_loss_is_the_softmax_over_every_training_document(symmetric: bool) -> None:
    """In one direction: the documents stay as they are, and have no query to find."""
    pairs, rng = some_pairs(), np.random.default_rng(0)
    vectors = rng.normal(size=(9, 8)).astype(np.float32)
    config = TuneConfig(batch_size=3, query_only=True, symmetric=symmetric)
    fixed = FixedDocuments(pairs, lambda ids: vectors[[int(i[1:]) for i in ids]], config, torch.device("cpu"))
    np.testing.assert_array_equal(fixed.table.numpy(), vectors)
    batches = Batches(pairs, config)
    for step in range(len(batches)):
        batch = batches[step]
        queries = rng.normal(size=(len(batch.queries), 8)).astype(np.float32)
        found = step_loss(torch.cat([torch.from_numpy(queries), fixed.table]), fixed.against(batch), config)
        unit = [row / np.linalg.norm(row) for row in vectors.astype(np.float64)]
        losses = []
        for pair in range(len(batch)):
            query_row, own = int(batch.query_rows[batch.query_of[pair]]), int(batch.document_rows[batch.target[pair]])
            asked = queries[batch.query_of[pair]].astype(np.float64)
            asked /= np.linalg.norm(asked)
            scores = {row: float(asked @ unit[row]) / 0.05 for row in range(9) if row == own or row not in pairs.relevant[query_row]}
            largest = max(scores.values())
            losses.append(largest + np.log(sum(np.exp(score - largest) for score in scores.values())) - scores[own])
        assert found.item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_a_large_corpus_keeps_what_the_pairs_need(monkeypatch: pytest.MonkeyPatch) -> None:
    from nearfield.tune import queryside

    monkeypatch.setattr(queryside, "MOST_ROWS", 6)
    asked: list[list[str]] = []

    def vectors(ids: Any) -> Any:
        asked.append(list(ids))
        return np.eye(9, dtype=np.float32)[[int(i[1:]) for i in ids]]

    fixed = FixedDocuments(some_pairs(), vectors, TuneConfig(query_only=True), torch.device("cpu"))
    assert len(fixed.table) == 6
    assert {"d2", "d3", "d4", "d6", "d8"} <= set(asked[0])


def test_queries_learn_and_documents_stay(tmp_path: Path, tiny_model: Path) -> None:
    result = train(code_book(), tiny_model, QUERY, work=tmp_path, guard=plain_texts(), progress=False)
    assert result.dev["tuned"] > result.dev["base"] + 0.1
    assert result.pieces == 0
    assert result.guard is not None
    before, after = load_file(tiny_model / "model.safetensors"), load_file(result.model / "model.safetensors")
    assert any(not torch.equal(before[name], tensor) for name, tensor in after.items())


def test_vectors_that_are_given_count_by_their_direction(tmp_path: Path, tiny_model: Path) -> None:
    rows, config = Tower.load(tiny_model).encode(code_book().doc_texts), dataclasses.replace(QUERY, epochs=1)
    runs = [
        train(code_book(), tiny_model, config, work=tmp_path / str(scale), progress=False, documents=scale * rows)
        for scale in (np.float32(1), np.float32(4))
    ]
    one, four = (load_file(run.model / "model.safetensors") for run in runs)
    assert all(torch.equal(one[name], four[name]) for name in one)
    other = train(code_book(), tiny_model, config, work=tmp_path / "other", progress=False, documents=rows[::-1].copy())
    assert other.dev["base"] != runs[0].dev["base"]


def test_a_run_repeats_to_the_same_bits(tmp_path: Path, tiny_model: Path) -> None:
    config = dataclasses.replace(QUERY, epochs=1, anchor=0.5, matryoshka=(16,), symmetric=True)
    runs = [train(code_book(), tiny_model, config, work=tmp_path / name, progress=False) for name in ("one", "two")]
    one, two = (load_file(run.model / "model.safetensors") for run in runs)
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mined_negatives": 2}, "mined_negatives: 2"),
        ({"distill": 0.5, "teacher": "cross-encoder"}, "distill: 0.5"),
        ({"gradcache": True}, "gradcache: True"),
    ],
)
def test_what_changes_documents_is_refused(tmp_path: Path, tiny_model: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=f"{words} given together with query_only"):
        train(code_book(), tiny_model, dataclasses.replace(QUERY, **options), work=tmp_path, progress=False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[:-1], r"shape \(189, 32\) given, float \(190, 32\) expected"),
        (lambda rows: rows[:, :5], r"shape \(190, 5\) given"),
        (lambda rows: rows.astype(np.int64), "int64 of shape"),
        (lambda rows: np.where(np.arange(190)[:, None] == 7, np.nan, rows), "row 7 holds NaN or infinity"),
    ],
)
def test_wrong_document_vectors_are_refused(tmp_path: Path, tiny_model: Path, change: Callable[[Any], Any], words: str) -> None:
    rows = np.random.default_rng(0).normal(size=(190, 32)).astype(np.float32)
    with pytest.raises(InputError, match=words):
        train(code_book(), tiny_model, QUERY, work=tmp_path, progress=False, documents=change(rows))


@pytest.fixture(scope="module")
def bundle(tiny_model_of: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole way: tuned, exported, measured."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("query-only")
    book = code_book(60, 20)
    qrels = book.qrels | {"test": {i: {i: 1} for i in book.query_ids[-10:]}}
    data = dataclasses.replace(book, qrels=qrels | {"dev": {i: {i: 1} for i in book.query_ids[60:70]}})
    config = dataclasses.replace(QUERY, query_only=False, epochs=2)
    report = nf.tune(data, base=tiny_model_of(), out=folder / "bundle", config=config, query_only=True, progress=False, threads=1)
    assert any("an index made with it stays valid" in note for note in report.notes)
    assert report.evaluation.model.fingerprint == report.evaluation.compare.fingerprint  # type: ignore[union-attr]
    assert not (folder / "bundle.work").exists()
    return folder / "bundle"


def test_the_bundle_holds_two_towers_and_the_bases_fingerprint(bundle: Path, tiny_model_of: Callable[..., Path]) -> None:
    base, opened = tiny_model_of(), Bundle.open(bundle)
    assert opened.manifest["format_version"] == 2
    assert opened.fingerprint == space_fingerprint(base, read_spec(base))
    assert opened.query is not None
    assert (opened.query["tower"], opened.query["map"]) == (True, False)
    assert opened.query["fingerprint"] == space_fingerprint(bundle / "query", read_spec(bundle / "query")) != opened.fingerprint
    assert {"onnx/query.onnx", "onnx/query.int8.onnx", "query/model.safetensors", "golden-query.npz"} <= set(opened.manifest["files"])
    assert opened.query["parity"]["fp32"]["passed"]
    assert "retrieval" in opened.query["parity"]["int8"]
    assert "queries, fp32: within" in (bundle / "report.html").read_text()
    assert "load `query/` for queries" in (bundle / "README.md").read_text()
    assert json.loads((bundle / "run.json").read_text())["config"]["query_only"] is True
    assert nf.evaluate  # the public name stays


@pytest.mark.parametrize(
    ("backend", "precision", "limit"), [("onnx", "fp32", 1e-5), ("native", "fp32", 1e-5), ("torch", "fp32", 1e-5), ("onnx", "int8", 0.1)]
)
def test_queries_go_through_their_own_tower(bundle: Path, backend: Any, precision: Any, limit: float) -> None:
    texts = [*code_book(60, 20).query_texts[:7], "", "w " * 300]
    towers = {kind: Tower.load(bundle / folder).encode(texts, kind=kind) for kind, folder in (("document", "model"), ("query", "query"))}
    assert np.abs(towers["document"] - towers["query"]).max() > 0.01
    with nf.Encoder(bundle, backend=backend, precision=precision, threads=1) as encoder:
        assert (encoder.backend, encoder.precision) == (backend, precision)
        for kind, expected in towers.items():
            found = encoder.encode(texts, kind=kind)  # type: ignore[arg-type]
            assert np.abs(found - expected).max() <= limit
            np.testing.assert_allclose(found[2:3], encoder.encode(texts[2], kind=kind), atol=1e-5 if precision == "fp32" else 0.0)  # type: ignore[arg-type]
        assert encoder.truncated == 0
        encoder.encode(texts, kind="query")
        assert encoder.truncated == 1
        np.testing.assert_array_equal(np.asarray(encoder.queries(texts[:3])), encoder.encode(texts[:3], kind="query"))
        assert encoder.encode(texts, kind="query", dim=8).shape == (9, 8)
        assert encoder.self_check() <= (1e-5 if precision == "fp32" else 0.2)
        encoder.warmup()
    with pytest.raises(InputError, match="closed"):
        encoder.encode("a", kind="query")


def test_an_index_of_the_base_serves_the_bundle(bundle: Path, tiny_model_of: Callable[..., Path]) -> None:
    data = code_book(60, 20)
    with nf.Encoder(tiny_model_of(), backend="torch") as base, nf.Encoder(bundle) as tuned:
        index = nf.FlatIndex(base.dim, fingerprint=base.fingerprint)
        index.add(base.encode(data.doc_texts), ids=data.doc_ids)
        hits = nf.Searcher(tuned, index).search(data.query_texts[:5], 3)
        expected = tuned.encode(data.query_texts[:5], kind="query") @ base.encode(data.doc_texts).T
        assert [row[0] for row in hits.ids.tolist()] == [data.doc_ids[i] for i in expected.argmax(axis=1)]


def change(bundle: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    edit(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda m: m.pop("query"), "version 2 without a query side"),
        (lambda m: m.update(format_version=1), "version 1 with a query side"),
        (lambda m: m.update(query=[1]), "a table with tower and map"),
        (lambda m: m["query"].update(tower="yes"), "a table with tower and map"),
        (lambda m: m["query"].update(tower=False), "neither tower nor map"),
        (lambda m: m["query"].update(map=True), "query needs query-map.npz"),
        (lambda m: m["files"].pop("query/model.safetensors"), "query needs query/model.safetensors"),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(
    bundle: Path, tmp_path: Path, edit: Callable[[dict[str, Any]], None], words: str
) -> None:
    copy = shutil.copytree(bundle, tmp_path / "copy")
    change(copy, edit)
    with pytest.raises(FormatError, match=words):
        Bundle.open(copy)


@pytest.mark.parametrize(
    "name", ["query/model.safetensors", "query/config.json", "onnx/query.onnx", "onnx/query.int8.onnx", "golden-query.npz"]
)
@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
def test_damaged_or_short_query_files_are_refused(bundle: Path, tmp_path: Path, name: str, where: float) -> None:
    copy = shutil.copytree(bundle, tmp_path / "copy")
    path = copy / name
    data = bytearray(path.read_bytes())
    data[int(where * (len(data) - 1))] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match=name.replace(".", r"\.")):
        nf.Encoder(copy)
    path.write_bytes(data[:-3])
    with pytest.raises(FormatError, match=name.replace(".", r"\.")):
        Bundle.open(copy, verify=False)
    path.unlink()
    with pytest.raises(FormatError, match=name.replace(".", r"\.")):
        nf.Encoder(copy)


def test_a_bundle_that_is_exported_again_keeps_its_query_side(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", str(bundle), "--out", str(tmp_path / "again"), "--int8", "none", "--quiet"])
    assert ended.value.code == 0
    texts = code_book(60, 20).query_texts[:3]
    with nf.Encoder(bundle, threads=1) as one, nf.Encoder(tmp_path / "again", threads=1) as again:
        assert one.fingerprint == again.fingerprint
        np.testing.assert_allclose(again.encode(texts, kind="query"), one.encode(texts, kind="query"), atol=1e-5)
        np.testing.assert_allclose(again.encode(texts), one.encode(texts), atol=1e-5)


def test_a_finished_bundle_keeps_its_query_side(bundle: Path, tmp_path: Path) -> None:
    copy = Bundle.open(shutil.copytree(bundle, tmp_path / "copy"))
    with pytest.raises(InputError, match="query"):
        update(copy, query=None)
    assert update(copy, verdict=None).query == copy.query


def test_a_map_is_applied_to_queries_alone(tiny_model: Path, tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).normal(0, 0.2, (32, 32)).astype(np.float32)
    made = export_bundle(tiny_model, tmp_path / "b", progress=False, settings=ExportConfig(int8="none"), query_map=matrix)
    assert made.query is not None
    assert (made.query["tower"], made.query["map"]) == (False, True)
    tower, texts = Tower.load(tiny_model), ["one two", "three", ""]
    rows = tower.encode(texts, kind="query").astype(np.float64)
    expected = rows + rows @ matrix.astype(np.float64)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    for backend in ("onnx", "native", "torch"):
        with nf.Encoder(made.path, backend=backend, threads=1) as encoder:  # type: ignore[arg-type]
            np.testing.assert_allclose(encoder.encode(texts, kind="query"), expected, atol=2e-5)
            np.testing.assert_allclose(encoder.encode(texts), tower.encode(texts), atol=1e-5)
            np.testing.assert_array_equal(np.asarray(encoder.queries(texts)), encoder.encode(texts, kind="query"))
            assert encoder.self_check() < 1e-5


def test_mapped_rows_have_the_same_bits_in_any_batch() -> None:
    rng = np.random.default_rng(0)
    rows, matrix = rng.normal(size=(17, 48)).astype(np.float32), rng.normal(size=(48, 48)).astype(np.float32)
    whole = mapped(rows, matrix)
    for start, stop in ((0, 1), (3, 9), (16, 17)):
        np.testing.assert_array_equal(mapped(rows[start:stop], matrix), whole[start:stop])
    assert mapped(rows[:0], matrix).shape == (0, 48)


@pytest.mark.parametrize("matrix", [np.eye(31, dtype=np.float32), np.eye(32), np.full((32, 32), np.nan, np.float32)])
def test_a_wrong_map_is_refused(tiny_model: Path, tmp_path: Path, matrix: Any) -> None:
    with pytest.raises(InputError, match="query map: float"):
        export_bundle(tiny_model, tmp_path / "b", progress=False, settings=ExportConfig(int8="none"), query_map=matrix)


def test_a_tower_of_another_shape_is_refused(tiny_model: Path, tiny_model_of: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="given for queries"):
        export_bundle(
            tiny_model, tmp_path / "b", progress=False, settings=ExportConfig(int8="none"), query_model=tiny_model_of(normalize=False)
        )
    assert not (tmp_path / "b").exists()


def test_the_map_file_is_checked(tiny_model: Path, tmp_path: Path) -> None:
    matrix = np.eye(32, dtype=np.float32)
    made = export_bundle(tiny_model, tmp_path / "b", progress=False, settings=ExportConfig(int8="none"), query_map=matrix)
    np.savez(made.path / QUERY_MAP, matrix=np.eye(31, dtype=np.float32))
    data = (made.path / QUERY_MAP).read_bytes()
    import hashlib

    change(made.path, lambda m: m["files"].update({QUERY_MAP: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}}))
    with pytest.raises(FormatError, match=r"query-map\.npz: float32 of shape \(31, 31\)"):
        nf.Encoder(made.path)


def test_data_without_the_document_is_no_surprise(tmp_path: Path, tiny_model: Path) -> None:
    """A training label on an unknown document is left out, as for both towers."""
    book = code_book()
    data = Dataset("book", "memory", book.doc_ids, book.doc_texts, book.query_ids, book.query_texts,
                   {**book.qrels, "train": {**book.qrels["train"], "0": {"0": 1, "nowhere": 1}}})  # fmt: skip
    assert train(data, tiny_model, dataclasses.replace(QUERY, epochs=1), work=tmp_path, progress=False).pairs == 160
