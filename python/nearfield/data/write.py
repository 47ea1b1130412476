"""A `Dataset` as a BEIR folder, which `nearfield.data.read.read` reads back with the same fingerprint."""

from __future__ import annotations

import json
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from nearfield.data.beir import HEADER
from nearfield.data.dataset import Dataset
from nearfield.errors import InputError


def write_beir(dataset: Dataset, folder: str | PathLike[str]) -> None:
    """Writes corpus.jsonl, queries.jsonl and qrels/<split>.tsv; hard negatives are judgements with score 0.

    Judgement files in the folder that are not among the dataset's splits are removed, so that the folder holds this dataset alone.
    Hard negatives of a query stand in its split, or in the first split where no split has the query.

    Raises:
        InputError: an id with a tab or a line end, which a TSV cannot hold; a folder that cannot be written.

    >>> import tempfile
    >>> from nearfield.data.read import read
    >>> data = Dataset("tiny", "memory", ["d1"], ["a cat"], ["q1"], ["meow?"], {"test": {"q1": {"d1": 1}}})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_beir(data, folder)
    ...     read(folder).fingerprint == data.fingerprint
    True
    """
    folder = Path(folder)
    for identity in (*dataset.doc_ids, *dataset.query_ids):
        if any(c in identity for c in "\t\r\n"):
            raise InputError(f"{dataset.name}: id {identity[:60]!r} has a tab or a line end, which qrels/*.tsv cannot hold: rename it")
    try:
        (folder / "qrels").mkdir(parents=True, exist_ok=True)
        _write_lines(folder / "corpus.jsonl", _objects(dataset.doc_ids, dataset.doc_texts, title=True))
        if dataset.query_ids:
            _write_lines(folder / "queries.jsonl", _objects(dataset.query_ids, dataset.query_texts, title=False))
        else:
            (folder / "queries.jsonl").unlink(missing_ok=True)
        for old in (folder / "qrels").glob("*.tsv"):
            if old.stem not in dataset.qrels:
                old.unlink()
        for split, lines in _tables(dataset).items():
            _write_lines(folder / "qrels" / f"{split}.tsv", lines)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror or error}") from error


def _objects(ids: list[str], texts: list[str], *, title: bool) -> Iterable[str]:
    for identity, text in zip(ids, texts, strict=True):
        fields = {"_id": identity, "title": "", "text": text} if title else {"_id": identity, "text": text}
        yield json.dumps(fields, ensure_ascii=False)


def _tables(dataset: Dataset) -> dict[str, list[str]]:
    tables = {split: ["\t".join(HEADER)] for split in dataset.qrels}
    if dataset.hard_negatives and not tables:
        tables["train"] = ["\t".join(HEADER)]
    for split, qrels in dataset.qrels.items():
        tables[split] += [f"{query}\t{doc}\t{grade}" for query, judged in qrels.items() for doc, grade in judged.items()]
    for query, docs in dataset.hard_negatives.items():
        split = next((name for name, qrels in dataset.qrels.items() if query in qrels), next(iter(tables)))
        tables[split] += [f"{query}\t{doc}\t0" for doc in docs]
    return tables


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(line + "\n" for line in lines)
