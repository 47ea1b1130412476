"""Searcher and the index folder: right answers, and a refusal with a reason for everything that does not belong together."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import nearfield as nf
from fake_encoder import BagEncoder
from nearfield import _core, files
from nearfield.errors import FingerprintError, FormatError, InputError
from nearfield.search import folder as folder_module
from nearfield.search.folder import IndexFolder, check_replaceable, write_index_folder
from nearfield.search.searcher import Searcher

TEXTS = ["wind over the river", "rain on stone", "a lamp of glass", "bread and salt\u2028with \x00 \ud83d and \U0001f600", "north wind"]
IDS = ["w", "r", "l", "b\n", "n"]
ENCODER = BagEncoder()


def build(out: Path, encoder: BagEncoder = ENCODER, **options: object) -> IndexFolder:
    return write_index_folder(out, IDS, TEXTS, encoder.encode(TEXTS), model="bag", fingerprint=encoder.fingerprint, **options)  # type: ignore[arg-type]


def flat(fingerprint: str | None = ENCODER.fingerprint, dim: int = 64):  # type: ignore[no-untyped-def]
    from nearfield.index.flat import FlatIndex

    index = FlatIndex(dim, fingerprint=fingerprint)
    index.add(np.eye(3, dim, dtype=np.float32))
    return index


def test_answers_are_the_exact_ones(tmp_path: Path) -> None:
    built = build(tmp_path / "index")
    queries = ["the wind", "glass lamp", "salt"]
    expected = np.argsort(-(ENCODER.encode(queries, kind="query").astype(float) @ ENCODER.encode(TEXTS).T.astype(float)), axis=1)[:, :2]
    for index in (built, tmp_path / "index", str(tmp_path / "index"), built.index):
        hits = Searcher(ENCODER, index).search(queries, 2)
        assert hits.ids.tolist() == [[IDS[i] for i in row] for row in expected]
        assert hits.counts.tolist() == [2, 2, 2]


def test_one_text_none_and_more_than_there_are(tmp_path: Path) -> None:
    searcher = Searcher(ENCODER, build(tmp_path / "index"))
    assert searcher.search("the wind", 3).ids.shape == (1, 3)
    assert searcher.search([], 3).ids.shape == (0, 3)
    hits = searcher.search("the wind", 9)
    assert hits.counts.tolist() == [5]
    assert hits.ids[0, 5:].tolist() == [None] * 4


def test_the_indexs_own_options_pass_through(tmp_path: Path) -> None:
    searcher = Searcher(ENCODER, build(tmp_path / "index"))
    assert searcher.search("the wind", 5, filter=["r", "l"]).counts.tolist() == [2]


def test_queries_are_encoded_as_queries(tmp_path: Path) -> None:
    encoder = BagEncoder()
    Searcher(encoder, build(tmp_path / "index")).search("wind")
    assert encoder.calls == [("query", 1)]


def test_another_models_index_is_refused_with_both_names(tmp_path: Path) -> None:
    other = BagEncoder("other", blur=0.5)
    build(tmp_path / "index")
    with pytest.raises(FingerprintError) as caught:
        Searcher(other, tmp_path / "index")
    for part in (other.fingerprint[:16], ENCODER.fingerprint[:16], "other", str(tmp_path / "index")):
        assert part in str(caught.value)
    with pytest.raises(FingerprintError):
        Searcher(other, flat())


def test_an_index_without_fingerprint_is_taken_and_its_columns_still_checked() -> None:
    assert Searcher(ENCODER, flat(None)).search("wind", 1).counts.tolist() == [1]
    with pytest.raises(InputError, match="32 columns, but bag makes vectors of 64"):
        Searcher(ENCODER, flat(None, dim=32))


def test_what_was_opened_here_is_closed_also_after_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    from nearfield.search import searcher as module

    opened = BagEncoder("opened", blur=1.0)
    monkeypatch.setattr(module, "open_encoder", lambda model, threads: opened if model == "path" else model)
    with pytest.raises(FingerprintError):
        Searcher("path", flat())
    assert opened.closed
    opened.closed = False
    with Searcher("path", flat(None)):
        pass
    assert opened.closed
    with Searcher(ENCODER, flat(None)):
        pass
    assert not ENCODER.closed


def test_folder_gives_every_text_back(tmp_path: Path) -> None:
    build(tmp_path / "index")
    opened = IndexFolder.open(tmp_path / "index")
    assert [opened.text(document) for document in IDS] == TEXTS
    assert len(opened) == 5
    assert opened.fingerprint == ENCODER.fingerprint
    assert opened.info["kind"] == "flat"
    with pytest.raises(InputError, match="no document 'x'"):
        opened.text("x")


def test_model_path_is_kept_absolute_and_a_name_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bundle").mkdir()
    monkeypatch.chdir(tmp_path)
    made = write_index_folder("index", IDS, TEXTS, ENCODER.encode(TEXTS), model="bundle", fingerprint="f")
    assert made.model == str(tmp_path / "bundle")
    assert build(tmp_path / "other").model == "bag"


def test_large_corpora_get_a_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "FLAT_BELOW", 5)
    monkeypatch.setattr(folder_module, "ADD_BLOCK", 2)
    build(tmp_path / "index")
    opened = IndexFolder.open(tmp_path / "index")
    assert type(opened.index).__name__ == "HNSWIndex"
    assert [opened.text(document) for document in IDS] == TEXTS
    assert Searcher(ENCODER, opened).search("glass lamp", 1).ids.tolist() == [["l"]]


def test_replaces_an_index_folder_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "index"
    build(out)
    write_index_folder(out, ["only"], ["wind"], ENCODER.encode(["wind"]), model="bag", fingerprint=ENCODER.fingerprint)
    assert len(IndexFolder.open(out)) == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("x")
    for name in ("mine", "file"):
        with pytest.raises(InputError, match="name another"):
            build(tmp_path / name)
        with pytest.raises(InputError):
            check_replaceable(tmp_path / name)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    (tmp_path / "empty").mkdir()
    build(tmp_path / "empty")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "index", "mine"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_folder_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    out = tmp_path / "index"
    build(out)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(folder_module, "_write_texts", fail)
    with pytest.raises((InputError, KeyboardInterrupt)):
        build(out)
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    assert IndexFolder.open(out).text("w") == TEXTS[0]


def test_an_interrupt_between_the_renames_brings_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "index"
    build(out)
    real, calls = os.rename, []

    def rename(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(source, target)

    # Two folders are exchanged in one step where the system can do that.
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        build(out)
    assert len(calls) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    assert len(IndexFolder.open(out)) == 5


@pytest.mark.parametrize(
    ("ids", "texts", "rows", "words"),
    [([], [], 0, "none given"), (["a"], ["x", "y"], 1, "1 ids, 2 texts and 1 vectors"), (["a", "a"], ["x", "y"], 2, "1 ids stand twice")],
)
def test_refused_documents(tmp_path: Path, ids: list[str], texts: list[str], rows: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        write_index_folder(tmp_path / "i", ids, texts, np.ones((rows, 4), np.float32), model="m", fingerprint="f")
    assert list(tmp_path.iterdir()) == []


def edit(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        info = json.loads((folder / "index.json").read_text())
        change(info)
        (folder / "index.json").write_text(json.dumps(info))

    return apply


def cut(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-1]) and None


def flip(name: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        raw = bytearray((folder / name).read_bytes())
        raw[len(raw) // 2] ^= 4
        (folder / name).write_bytes(bytes(raw))

    return apply


DAMAGE = {
    "no info": lambda folder: (folder / "index.json").unlink(),
    "info not JSON": lambda folder: (folder / "index.json").write_text("{"),
    "info of nested brackets": lambda folder: (folder / "index.json").write_text("[" * 100_000),
    "info not UTF-8": lambda folder: (folder / "index.json").write_bytes(b'{"format": "\xff"}'),
    "another format": edit(lambda info: info.update(format="else")),
    "newer version": edit(lambda info: info.update(format_version=99)),
    "version of a wrong type": edit(lambda info: info.update(format_version=True)),
    "unknown kind": edit(lambda info: info.update(kind="tree")),
    "negative documents": edit(lambda info: info.update(documents=-1)),
    "too many documents": edit(lambda info: info.update(documents=6)),
    "another fingerprint": edit(lambda info: info.update(fingerprint="0" * 64)),
    "no files": edit(lambda info: info.update(files={})),
    "index missing": lambda folder: (folder / "index.bin").unlink(),
    "index cut": cut("index.bin"),
    "index flipped": flip("index.bin"),
    "texts missing": lambda folder: (folder / "documents.jsonl").unlink(),
    "texts cut": cut("documents.jsonl"),
    "texts flipped": flip("documents.jsonl"),
    "offsets cut": cut("documents.offsets"),
    "offsets flipped": flip("documents.offsets"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named_in_one_line(tmp_path: Path, name: str) -> None:
    build(tmp_path / "index")
    DAMAGE[name](tmp_path / "index")
    with pytest.raises(FormatError) as caught:
        IndexFolder.open(tmp_path / "index")
    assert str(tmp_path / "index") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unverified_texts_never_give_another_documents_text(tmp_path: Path) -> None:
    build(tmp_path / "index")
    path = tmp_path / "index" / "documents.offsets"
    offsets = np.fromfile(path, "<i8")
    for wrong in (offsets[::-1], np.roll(offsets, 1), np.full(6, 1 << 62), np.full(6, -5)):
        wrong.astype("<i8").tofile(path)
        opened = IndexFolder.open(tmp_path / "index", verify=False)
        for document in IDS:
            with pytest.raises(FormatError, match="build the index again"):
                opened.text(document)


def test_a_damaged_or_newer_index_folder_is_not_replaced_silently(tmp_path: Path) -> None:
    build(tmp_path / "index")
    DAMAGE["newer version"](tmp_path / "index")
    with pytest.raises(InputError, match="upgrade nearfield"):
        build(tmp_path / "index")


def test_a_real_model_end_to_end(tiny_model: Path, tmp_path: Path) -> None:
    from nearfield.encode.encoder import Encoder

    ids, texts = IDS[:3], TEXTS[:3]
    with Encoder(tiny_model, threads=1) as encoder:
        write_index_folder(tmp_path / "index", ids, texts, encoder.encode(texts), model=tiny_model, fingerprint=encoder.fingerprint)
    opened = IndexFolder.open(tmp_path / "index")
    with Searcher(opened.model, opened, threads=1) as searcher:
        # the query is a document word for word and the model has no prompts, so its vector is the document's own
        assert searcher.search(TEXTS[2], 1).ids.tolist() == [["l"]]
    copied = shutil.copytree(tmp_path / "index", tmp_path / "copy")
    assert IndexFolder.open(copied).text("l") == TEXTS[2]


# --- text to ids in one call -------------------------------------------------------------------------------------------

PLAIN = [text.replace("\ud83d", "?") for text in TEXTS]


@pytest.fixture(scope="module")
def native(tiny_bundle: Path) -> Iterator[nf.Encoder]:
    with nf.Encoder(tiny_bundle, backend="native", precision="fp32") as encoder:
        yield encoder


def index_of(kind: str, encoder: nf.Encoder):  # type: ignore[no-untyped-def]
    index = nf.FlatIndex(encoder.dim) if kind == "flat" else nf.HNSWIndex(encoder.dim)
    index.add(encoder.encode(PLAIN), ids=IDS)
    return index.freeze() if kind == "frozen" else index


@pytest.mark.parametrize("kind", ["flat", "hnsw", "frozen"])
def test_texts_encoded_inside_a_search_give_what_their_vectors_give(native: nf.Encoder, kind: str) -> None:
    index = index_of(kind, native)
    texts = ["the wind", "", "glass lamp \U0001f600", "bread " * 1_000]
    expected = index.search(native.encode(texts, kind="query"), 3)
    queries = native.queries(texts)
    assert isinstance(queries, _core.TextQueries)
    for hits in (index.search(queries, 3), nf.Searcher(native, index).search(texts, 3)):
        assert hits.ids.tolist() == expected.ids.tolist()
        assert hits.scores.tobytes() == expected.scores.tobytes()
    assert (len(queries), queries.dim, queries.truncated) == (4, native.dim, 1)
    assert np.asarray(queries).tobytes() == native.encode(texts, kind="query").tobytes()
    masked = index.search(queries, 3, filter=["r", "l"])
    assert masked.counts.tolist() == [2] * 4
    if kind != "flat":
        assert len(index.explain(queries, 3).scans) == 4
    assert nf.Searcher(native, index).search([], 3).ids.shape == (0, 3)


def test_a_searcher_encodes_nothing_before_the_search(native: nf.Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    index = index_of("frozen", native)
    expected = nf.Searcher(native, index).search("wind", 2).ids.tolist()

    def called(*given: object, **options: object) -> None:
        raise AssertionError("encoded in a call of its own")

    monkeypatch.setattr(native._native, "encode", called)
    assert nf.Searcher(native, index).search("wind", 2).ids.tolist() == expected


def test_many_texts_and_other_backends_are_encoded_first(native: nf.Encoder, tiny_bundle: Path) -> None:
    assert isinstance(native.queries(["a"] * 1_025), np.ndarray)
    with nf.Encoder(tiny_bundle, backend="onnx") as encoder:
        assert isinstance(encoder.queries(["a"]), np.ndarray)


def test_what_a_search_cannot_encode_is_said_as_an_encoder_says_it(native: nf.Encoder) -> None:
    index = index_of("frozen", native)
    for bad in ("a \ud800", 7):
        with pytest.raises(InputError) as alone:
            native.encode([bad])  # type: ignore[list-item]
        with pytest.raises(InputError) as inside:
            nf.Searcher(native, index).search([bad])  # type: ignore[list-item]
        assert str(inside.value) == str(alone.value)
    with pytest.raises(InputError, match=rf"texts of a model with vectors of {native.dim} columns given, 3 columns expected"):
        nf.HNSWIndex(3).search(native.queries("a"))  # type: ignore[arg-type]


def test_a_damaged_model_is_found_inside_a_search(tiny_model_of: Callable[..., Path], tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = shutil.copytree(tiny_model_of(), tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    for name in [each for each in weights if each.endswith(("word_embeddings.weight", "position_embeddings.weight"))]:
        weights[name] = np.full_like(weights[name], 3e38)  # finite, but not their sum
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with nf.Encoder(folder, backend="native", precision="fp32") as encoder:
        index = nf.FlatIndex(encoder.dim)
        index.add(np.eye(3, encoder.dim, dtype=np.float32))
        with pytest.raises(FormatError, match="the model gives NaN or infinity for text 0: its weights are damaged"):
            index.search(encoder.queries("wind"))
