"""Every reader with good and bad rows; what becomes of each broken row; random bytes never give anything but a Dataset or an InputError."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nearfield.data.dataset import Dataset, Finding
from nearfield.data.fields import parse_columns
from nearfield.data.read import read
from nearfield.data.write import write_beir
from nearfield.errors import FormatError, InputError

GOOD = b'{"_id": "a", "title": "T", "text": "one"}\n'


def put(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def kinds(data: Dataset) -> list[str]:
    return [f.kind for f in data.findings if f.kind != "rows-left-out"]


def only(data: Dataset, kind: str) -> Finding:
    (finding,) = [f for f in data.findings if f.kind == kind]
    return finding


@pytest.mark.parametrize(
    ("row", "kind", "says"),
    [
        (b'{"text": "x"', "bad-json", "column 13"),
        (b'{"text": 1' + b"0" * 5000 + b"}", "bad-json", "ValueError"),
        (b"[" * 200_000, "bad-json", "RecursionError"),
        (b'["text"]', "wrong-type", "an array"),
        (b"3", "wrong-type", "a number"),
        (b'{"_id": "b"}', "missing-field", "'text'"),
        (b'{"_id": "b", "text": null}', "wrong-type", "null"),
        (b'{"_id": "b", "text": 5}', "wrong-type", "a number"),
        (b'{"_id": "b", "text": ["x"]}', "wrong-type", "an array"),
        (b'{"_id": "b", "text": " \\n"}', "empty-text", "'text' is empty"),
        (b'{"_id": [1], "text": "x"}', "wrong-type", "'_id'"),
        (b'{"_id": 1.5, "text": "x"}', "wrong-type", "'_id'"),
        (b'{"_id": true, "text": "x"}', "wrong-type", "a boolean"),
        (b'{"_id": "b", "title": 7, "text": "x"}', "wrong-type", "'title'"),
        (b'{"text": "caf\xe9"}', "non-utf8", "0xe9 at byte 14"),
        (b'{"_id": "a", "text": "again"}', "duplicate-id", "docs.jsonl:1 already"),
    ],
)
def test_a_broken_json_row_is_left_out_and_named(tmp_path: Path, row: bytes, kind: str, says: str) -> None:
    data = read(put(tmp_path, "docs.jsonl", GOOD + row + b'\n{"_id": "z", "text": "last"}\n'))
    assert (data.doc_ids, data.doc_texts) == (["a", "z"], ["T one", "last"])
    finding = only(data, kind)
    assert finding.where == "docs.jsonl:2"
    assert says in finding.message
    assert finding.severity == "error"
    assert only(data, "rows-left-out").message == "1 of 3 rows left out, 2 used"


def test_what_can_be_used_is_used_and_told(tmp_path: Path) -> None:
    rows = (
        b'\xef\xbb\xbf{"text": "no id"}\r\n\r\n{"_id": 7, "title": null, "text": "number"}\n'
        b'{"_id": "", "text": "a\\ud800b"}\n{"_id": "t", "title": "alone", "text": ""}'
    )
    data = read(put(tmp_path, "docs.jsonl", rows))
    assert dict(zip(data.doc_ids, data.doc_texts, strict=True)) == {"1": "no id", "7": "number", "4": "a\ufffdb", "t": "alone"}
    assert kinds(data) == ["byte-order-mark", "blank-line", "lone-surrogate", "empty-id"]
    assert only(data, "lone-surrogate").where == "docs.jsonl:4"
    assert data.qrels == {}


def test_surrogate_pairs_are_not_touched(tmp_path: Path) -> None:
    data = read(put(tmp_path, "docs.jsonl", b'{"text": "\\ud83d\\ude00"}'))
    assert data.doc_texts == ["\U0001f600"]
    assert data.findings == []


@pytest.mark.parametrize(
    ("row", "kind", "says"),
    [
        ('"Who?","The',  "bad-csv", "not closed"),
        ('"Who" ?,x', "bad-csv", "line 4"),
        ("Who?", "wrong-width", "1 fields given, 2 expected"),
        ("Who?,x,y", "wrong-width", "3 fields given"),
        ("Who?,", "empty-text", "'answer'"),
        (" ,x", "empty-text", "'question'"),
        (b"Who?,caf\xe9", "non-utf8", "0xe9 at byte 4 of column 2"),
    ],
)  # fmt: skip
def test_a_broken_csv_row_is_left_out_and_named(tmp_path: Path, row: str | bytes, kind: str, says: str) -> None:
    row = row.encode() if isinstance(row, str) else row
    content = b'question,answer\r\n"Who ""meows""?","The cat,\nof course"\r\n' + row
    data = read(put(tmp_path, "pairs.csv", content), columns={"query": "question", "positive": "answer"})
    assert (data.query_texts, data.doc_texts) == (['Who "meows"?'], ["The cat,\nof course"])
    finding = only(data, kind)
    assert finding.where == "pairs.csv row 3"
    assert says in finding.message


def test_tsv_takes_quotes_as_they_are(tmp_path: Path) -> None:
    data = read(put(tmp_path, "docs.tsv", '_id\ttext\n1\t"open quote\n2\tplain\n3\n'))
    assert data.doc_texts == ['"open quote', "plain"]
    assert only(data, "wrong-width").where == "docs.tsv:4"


def test_a_field_of_more_than_128_kib_is_read(tmp_path: Path) -> None:
    data = read(put(tmp_path, "docs.csv", "text\n" + "word " * 50_000 + "\n"))
    assert len(data.doc_texts[0]) == 250_000


def test_pairs_share_documents_and_queries(tmp_path: Path) -> None:
    rows = [
        {"query": "q", "positive": "p", "negative": ["n", "m"]},
        {"query": "q", "positive": "p2", "negative": "n", "score": 2},
        {"query": "r", "positive": "p", "score": 0},
        {"query": "r", "positive": "m", "score": 0.2, "negative": None},
    ]
    data = read(put(tmp_path, "pairs.jsonl", "\n".join(map(json.dumps, rows))))
    q, r = data.query_ids
    p, n, m, p2 = data.doc_ids
    assert data.doc_texts == ["p", "n", "m", "p2"]
    assert data.qrels == {"train": {q: {p: 1, p2: 2}, r: {m: 1}}}
    assert data.hard_negatives == {q: [n, m], r: [p]}
    assert kinds(data) == ["rounded-score"]
    turned = read(put(tmp_path, "turned.jsonl", "\n".join(map(json.dumps, reversed(rows)))))
    assert turned.qrels == data.qrels


def test_contradictory_pairs_are_told(tmp_path: Path) -> None:
    rows = [{"query": "q", "positive": "p"}, {"query": "q", "positive": "n", "negative": "p"}, {"query": "q", "positive": "p", "score": 3}]
    data = read(put(tmp_path, "pairs.jsonl", "\n".join(map(json.dumps, rows))))
    assert data.hard_negatives == {}
    assert [f.where for f in data.findings if f.kind == "contradictory-judgement"] == ["pairs.jsonl:3", "pairs.jsonl:2"]


@pytest.mark.parametrize("score", ['"high"', "NaN", "1e999", "true", "[1]"])
def test_a_score_that_is_no_number(tmp_path: Path, score: str) -> None:
    content = '{"query": "q", "positive": "p", "score": ' + score + '}\n{"query": "r", "positive": "p"}\n'
    data = read(put(tmp_path, "pairs.jsonl", content))
    assert data.query_texts == ["r"]
    assert only(data, "wrong-type").where == "pairs.jsonl:1"


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    texts = pyarrow.array(["one", None, " ", "caf\u00e9"])
    parquet.write_table(pyarrow.table({"text": texts, "extra": [[1.0]] * 4, "_id": [5, 6, 7, 8]}), tmp_path / "docs.parquet")
    data = read(tmp_path / "docs.parquet")
    assert dict(zip(data.doc_ids, data.doc_texts, strict=True)) == {"5": "one", "8": "caf\u00e9"}
    assert [(f.kind, f.where) for f in data.findings[:2]] == [("wrong-type", "docs.parquet row 2"), ("empty-text", "docs.parquet row 3")]


def test_parquet_with_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    raw = pyarrow.array([b"good", b"caf\xe9", b"fine"], pyarrow.binary()).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"text": raw}), tmp_path / "docs.parquet")
    data = read(tmp_path / "docs.parquet")
    assert data.doc_texts == ["good", "fine"]
    assert only(data, "non-utf8").where == "docs.parquet row 2"


def beir(folder: Path, **changes: bytes | None) -> Path:
    files: dict[str, bytes | None] = {
        "corpus.jsonl": b'{"_id": "d1", "title": "", "text": "one"}\n{"_id": "d2", "text": "two"}\n{"_id": "d3", "text": ""}\n',
        "queries.jsonl": b'{"_id": "q1", "text": "first?"}\n{"_id": "q2", "text": "second?"}\n',
        "qrels/train.tsv": b"query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\n",
        "qrels/validation.tsv": b"query-id\tcorpus-id\tscore\nq2\td2\t2\nq2\td3\t1\nq9\td1\t1\nq2\td1\n",
    }
    for name, content in (files | changes).items():
        if content is not None:
            put(folder, name, content)
    return folder


def test_beir_folder(tmp_path: Path) -> None:
    data = read(beir(tmp_path))
    assert data.doc_ids == ["d1", "d2"]
    assert data.qrels == {"train": {"q1": {"d1": 1}}, "dev": {"q2": {"d2": 2}}}
    assert data.hard_negatives == {"q1": ["d2"]}
    assert kinds(data) == ["empty-text", "renamed-split", "unknown-id", "unknown-id", "wrong-width"]
    assert [f.where for f in data.findings if f.kind == "unknown-id"] == ["validation.tsv:3", "validation.tsv:4"]
    assert data.queries_of("dev") == (["q2"], ["second?"])
    with pytest.raises(InputError, match="it has dev, train"):
        data.queries_of("test")


def test_qrels_without_header_are_read_and_told(tmp_path: Path) -> None:
    data = read(beir(tmp_path, **{"qrels/test.tsv": b"q1\td2\t1\nq2\td1\t1\n"}))
    assert data.qrels["test"] == {"q1": {"d2": 1}, "q2": {"d1": 1}}
    assert "no-header" in kinds(data)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("docs.jsonl", None, "no such file"),
        ("docs.txt", b"x", "one of .jsonl"),
        ("docs.jsonl", b"", "an empty file"),
        ("docs.csv", b"", "an empty file"),
        ("docs.csv", b"text\n", "an empty file"),
        ("docs.jsonl", b"\xff\xfe{\x00", "UTF-16"),
        ("docs.jsonl", b'[{"text": "x"}]', "JSON array"),
        ("docs.jsonl", b"\x80\n\x81\n", r"no row that can be used.*docs.jsonl:1.*0x80"),
        ("docs.jsonl", b'{"text": ""}\n', r"no row that can be used \(1 left out\)"),
        ("docs.jsonl", b'{"body": "x", "q": 1}\n', r"columns 'body', 'q' found, 'text' \(documents\).*--columns"),
        ("docs.csv", b"question;answer\na;b\n", "semicolon"),
        ("docs.csv", b"text,text\na,b\n", "twice"),
        ("docs.csv", b"te\xe9xt,b\na,b\nc,d\n", r"row 1: the header cannot be read: byte 0xe9"),
        ("docs.parquet", b"PAR1 not really", "not a Parquet file"),
        ("folder/readme.md", b"x", "without corpus.jsonl .readme.md found"),
        ("folder/corpus.jsonl", b"", "an empty file"),
        ("folder/corpus.jsonl", b'{"text": "x"}\n', "no row that can be used.*no '_id'"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    path = tmp_path / name if content is None else put(tmp_path, name, content)
    with pytest.raises(InputError, match=says) as caught:
        read(path.parent if path.parent.name == "folder" else path)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, FormatError) == ("Parquet file that" in str(caught.value) or name.endswith(".parquet"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"queries.jsonl": None}, "no queries.jsonl"),
        ({"qrels/test.tsv": b"a\tb\tc\n"}, "'a', 'b', 'c' found, query-id corpus-id score"),
        ({"qrels/test.tsv": b"query-id\tcorpus-id\tscore\nx\ty\t1\n"}, "no row that can be used"),
    ],
)
def test_beir_folders_that_are_refused(tmp_path: Path, changes: dict[str, bytes | None], says: str) -> None:
    with pytest.raises(InputError, match=says):
        read(beir(tmp_path, **changes))


def test_columns(tmp_path: Path) -> None:
    path = put(tmp_path, "docs.csv", "key,body\nk,x\n")
    assert read(path, columns=parse_columns("_id=key, text=body")).doc_ids == ["k"]
    for text in ("query", "=x", "query=", "colour=x"):
        with pytest.raises(InputError, match="columns"):
            parse_columns(text)
    with pytest.raises(InputError, match="BEIR"):
        read(beir(tmp_path / "beir"), columns={"text": "body"})


def test_findings_stay_few_and_counted(tmp_path: Path) -> None:
    data = read(put(tmp_path, "docs.jsonl", b'{"text": ""}\n' * 1000 + GOOD))
    assert len(data.findings) == 22
    assert data.findings[20].message == "980 more of kind empty-text, not listed"
    assert data.findings[21].message == "1,000 of 1,001 rows left out, 1 used"


def test_missing_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"nearfield\[parquet\]"):
        read(put(tmp_path, "docs.parquet", b"x"))


def test_round_trip(tmp_path: Path) -> None:
    data = read(beir(tmp_path / "in"))
    data.doc_texts[0] = 'tab\t, newline\n, \u2028, \U0001f600 and "quotes" \\'
    put(tmp_path, "out/qrels/old.tsv", "left from before")
    write_beir(data, tmp_path / "out")
    again = read(tmp_path / "out")
    assert again.fingerprint == data.fingerprint
    assert again.findings == []
    assert (again.doc_texts, again.qrels, again.hard_negatives) == (data.doc_texts, data.qrels, data.hard_negatives)
    assert read(again) is again
    again.doc_ids[0] = "a\tb"
    with pytest.raises(InputError, match="has a tab"):
        write_beir(again, tmp_path / "out")


def test_fingerprint_depends_on_every_part_of_the_content() -> None:
    def make(docs: list[str], queries: list[str], grade: int = 1, negatives: dict[str, list[str]] | None = None, name: str = "n") -> str:
        ids = [str(i) for i in range(len(docs))], [str(i) for i in range(len(queries))]
        return Dataset(name, "s", ids[0], docs, ids[1], queries, {"train": {"0": {"0": grade}}}, negatives or {}).fingerprint

    prints = [
        make(["ab", "c"], ["q"]),
        make(["a", "bc"], ["q"]),
        make(["ab", "c"], ["r"]),
        make(["ab", "c"], ["q"], 2),
        make(["ab", "c"], ["q"], 1, {"0": ["1"]}),
    ]
    assert len(set(prints)) == 5
    assert make(["ab", "c"], ["q"], name="other") == prints[0]


ROWS = [b'{"text": "x"}', b'{"_id": "1", "text": "y"}', b'{"query": "q", "positive": "p"}']
MARKS = [b'"\\ud800"', b"\n", b"\r\n", b"\xef\xbb\xbf", b'"', b"\t", b",", b"text"]
NAMES = st.sampled_from(["_id", "text", "title", "query", "positive", "score"])
LEAVES = st.none() | st.booleans() | st.floats() | st.text(max_size=5)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner), max_leaves=6)
PIECE = st.binary(max_size=20) | st.sampled_from(ROWS + MARKS) | VALUES.map(lambda value: json.dumps(value).encode() + b"\n")


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(PIECE, max_size=12), suffix=st.sampled_from([".jsonl", ".csv", ".tsv"]))
def test_random_bytes_give_a_dataset_or_an_input_error(tmp_path: Path, pieces: list[bytes], suffix: str) -> None:
    path = put(tmp_path, "fuzz" + suffix, b"".join(pieces))
    try:
        data = read(path)
    except InputError:
        return
    assert data.doc_ids
    assert len(set(data.doc_ids)) == len(data.doc_ids)
    assert all(text.strip() for text in data.doc_texts + data.query_texts)
    "".join(data.doc_ids + data.doc_texts + data.query_texts).encode("utf-8")
