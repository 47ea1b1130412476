"""The one door for data: a JSONL, CSV, TSV or Parquet file, or a BEIR folder, becomes a `Dataset`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from nearfield.data.beir import read_beir
from nearfield.data.dataset import Dataset
from nearfield.data.documents import read_documents
from nearfield.data.fields import PAIR_COLUMNS, Fields, resolve_columns
from nearfield.data.notes import Notes
from nearfield.data.rows import Row, columns_of, iterate
from nearfield.errors import InputError


def read(path: str | PathLike[str] | Dataset, *, columns: Mapping[str, str] | None = None) -> Dataset:
    """Reads documents or pairs; what cannot be used is left out, counted and listed in ``findings``, never mended in silence.

    Args:
        path: a ``.jsonl`` (``.ndjson``, ``.json`` with an object on each line), ``.csv``, ``.tsv`` or ``.parquet`` file, or a BEIR folder
            (``corpus.jsonl``, and where there are queries ``queries.jsonl`` and ``qrels/*.tsv``). A `Dataset` is returned as it is.
        columns: our column name -> the file's, for example ``{"query": "question", "positive": "answer"}``. Not for BEIR folders.

    Documents have ``text``, optionally ``title`` (joined by a space in front) and ``_id`` (default: the row number). Pairs have
    ``query`` and ``positive``, optionally ``negative`` (a text or a list of texts) and ``score`` (a grade; 0 and below make the
    pair a hard negative). In pairs identical texts are one document or query, with an id made from the text, and all
    judgements are the split ``"train"``. Ids that are missing in a document file are row numbers.

    Returns:
        The dataset. Texts and ids can always be encoded as UTF-8; no text is blank; ids are unique.

    Raises:
        InputError: no such file, wrong columns, an empty corpus, not one row that can be used.
        FormatError: a Parquet file that cannot be opened.
        MissingExtraError: Parquet without pyarrow.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "pairs.csv"
    ...     _ = file.write_text("question,answer\\nWho meows?,The cat.\\nWho barks?,\\n")
    ...     data = read(file, columns={"query": "question", "positive": "answer"})
    >>> data.query_texts, data.doc_texts
    (['Who meows?'], ['The cat.'])
    >>> print(data.findings[0].where, data.findings[0].message)
    pairs.csv row 3 'answer' is empty, row left out
    """
    if isinstance(path, Dataset):
        return path
    path = Path(path)
    names = resolve_columns(columns)
    if path.is_dir():
        if columns:
            raise InputError(f"{path}: columns given for a BEIR folder, whose names are fixed (_id, title, text): leave --columns away")
        return read_beir(path)
    notes = Notes()
    if _holds_pairs(path, names):
        data = _read_pairs(Fields(path, notes, names))
    else:
        titles: dict[str, str] = {}
        ids, texts = read_documents(Fields(path, notes, names), titles=titles)
        data = Dataset(path.stem, str(path), ids, texts, titles=titles)
    data.findings = notes.findings()
    return data


def _holds_pairs(path: Path, names: Mapping[str, str]) -> bool:
    """Says whether the file holds pairs (True) or documents, by its header or by the first JSON row that has the columns of either."""
    pairs, document = {names["query"], names["positive"]}, {names["text"]}
    header = columns_of(path)
    notes, seen = Notes(), dict.fromkeys(header or [])
    found: Iterator[Row] = iter([dict(seen)]) if header is not None else (row for _, row in iterate(path, notes, ()))
    any_row = False
    for row in found:
        any_row = True
        if pairs <= row.keys():
            return True
        if document <= row.keys():
            return False
        if len(seen) < 20:
            seen.update(dict.fromkeys(row))
    if not any_row:
        first = notes.first()
        raise InputError(f"{path}: " + (f"no row that can be used; {first.where}: {first.message}" if first else "an empty file"))
    listed = ", ".join(repr(name) for name in list(seen)[:20]) or "none"
    hint = " (is the separator a semicolon? a comma is expected)" if len(seen) == 1 and ";" in listed else ""
    raise InputError(
        f"{path}: columns {listed} found{hint}, {names['text']!r} (documents) or {names['query']!r} and {names['positive']!r} (pairs) "
        f"expected: name them with --columns {_example(list(seen))}"
    )


def _example(found: list[str]) -> str:
    theirs = [name for name in found if name.isidentifier()]
    return f"query={theirs[0]},positive={theirs[1]}" if len(theirs) > 1 else f"text={theirs[0] if theirs else 'THEIRS'}"


def _text_id(letter: str, text: str) -> str:
    """An id from the text alone, so that it survives reordering; 64 bits give 5 million texts a collision with p < 1e-6."""
    return letter + hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


@dataclass
class _Pairs:
    """Judgements by text while a file of pairs is read."""

    docs: dict[str, str] = field(default_factory=dict)
    queries: dict[str, str] = field(default_factory=dict)
    grades: dict[str, dict[str, int]] = field(default_factory=dict)
    negatives: dict[str, dict[str, int]] = field(default_factory=dict)

    def doc(self, text: str) -> str:
        return self.docs.setdefault(text, _text_id("d", text))


def _read_pairs(fields: Fields) -> Dataset:
    pairs, used = _Pairs(), 0
    wanted = {fields.names[c] for c in PAIR_COLUMNS}
    for row, values in iterate(fields.path, fields.notes, wanted):
        query = fields.text(row, values, "query")
        positive = fields.text(row, values, "positive") if query is not None else None
        grade = fields.grade(row, values) if positive is not None else None
        negatives = fields.texts(row, values, "negative") if grade is not None else None
        if query is None or positive is None or grade is None or negatives is None:
            continue
        used += 1
        query_id = pairs.queries.setdefault(query, _text_id("q", query))
        _judge(pairs, fields, row, query_id, pairs.doc(positive), grade)
        for text in negatives:
            pairs.negatives.setdefault(query_id, {}).setdefault(pairs.doc(text), row)
    fields.close(used)
    _drop_contradictions(pairs, fields)
    path = fields.path
    return Dataset(
        path.stem, str(path), list(pairs.docs.values()), list(pairs.docs), list(pairs.queries.values()), list(pairs.queries),
        {"train": pairs.grades} if pairs.grades else {}, {q: list(d) for q, d in pairs.negatives.items() if d},
    )  # fmt: skip


def _judge(pairs: _Pairs, fields: Fields, row: int, query_id: str, doc_id: str, grade: int) -> None:
    if grade <= 0:
        pairs.negatives.setdefault(query_id, {}).setdefault(doc_id, row)
        return
    kept = pairs.grades.setdefault(query_id, {}).setdefault(doc_id, grade)
    if kept != grade:
        fields.note(
            "contradictory-judgement", row, f"the same pair as before with grade {grade}, the first grade {kept} is kept", warning=True
        )


def _drop_contradictions(pairs: _Pairs, fields: Fields) -> None:
    for query_id, docs in pairs.negatives.items():
        for doc_id in [d for d in docs if d in pairs.grades.get(query_id, {})]:
            message = "the same document is positive and negative for one query, kept as positive"
            fields.note("contradictory-judgement", docs.pop(doc_id), message, warning=True)
