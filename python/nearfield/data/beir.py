"""A BEIR folder: corpus.jsonl, and where there are queries queries.jsonl and qrels/<split>.tsv."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nearfield.data.dataset import SPLITS, Dataset, Qrels
from nearfield.data.documents import read_documents
from nearfield.data.fields import Fields, resolve_columns
from nearfield.data.notes import Notes
from nearfield.data.rows import Row, place, records
from nearfield.errors import InputError

HEADER = ("query-id", "corpus-id", "score")

# Other names in use for the split that training is watched on.
_DEV_NAMES = ("validation", "valid", "val")


def read_beir(folder: Path) -> Dataset:
    """Reads a BEIR folder; see `nearfield.data.read.read` for what becomes of broken rows.

    Raises:
        InputError: no corpus.jsonl, an empty corpus, judgements without queries.jsonl, a judgement file with the wrong columns.
    """
    notes, names = Notes(), resolve_columns(None)
    corpus, queries = folder / "corpus.jsonl", folder / "queries.jsonl"
    if not corpus.is_file():
        inside = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise InputError(
            f"{folder}: a folder without corpus.jsonl ({inside} found); a BEIR folder has corpus.jsonl, queries.jsonl, qrels/*.tsv"
        )
    tables = sorted((folder / "qrels").glob("*.tsv"))
    if tables and not queries.is_file():
        raise InputError(f"{folder}: qrels/ but no queries.jsonl: the judgements refer to queries that are not there")
    titles: dict[str, str] = {}
    doc_ids, doc_texts = read_documents(Fields(corpus, notes, names), need_id=True, titles=titles)
    data = Dataset(folder.resolve().name, str(folder), doc_ids, doc_texts, titles=titles)
    if queries.is_file():
        data.query_ids, data.query_texts = read_documents(Fields(queries, notes, names), need_id=True)
    known = (set(data.query_ids), set(doc_ids))
    for table in tables:
        _read_split(table, data, known, notes)
    for query, docs in data.hard_negatives.items():
        positive = {doc for qrels in data.qrels.values() for doc in qrels.get(query, {})}
        data.hard_negatives[query] = [doc for doc in docs if doc not in positive]
    data.hard_negatives = {query: docs for query, docs in data.hard_negatives.items() if docs}
    judged = {query for qrels in data.qrels.values() for query in qrels}
    if without := len(data.query_ids) - len(judged):
        notes.add("unjudged-query", "queries.jsonl", "queries.jsonl", f"{without:,} queries have no relevant document in any split", "info")
    data.findings = notes.findings()
    return data


def _read_split(table: Path, data: Dataset, known: tuple[set[str], set[str]], notes: Notes) -> None:
    fields = Fields(table, notes, resolve_columns(None))
    split = table.stem
    if split in _DEV_NAMES and not (table.parent / "dev.tsv").exists() and "dev" not in data.qrels:
        notes.add("renamed-split", table.name, table.name, f"the split {split!r} is taken as 'dev'", "info")
        split = "dev"
    elif split not in SPLITS:
        notes.add("unknown-split", table.name, table.name, f"a split of another name than {', '.join(SPLITS)}, kept as {split!r}", "info")
    qrels: Qrels = {}
    used = 0
    for row, values in _judgements(fields):
        query, doc = values["query-id"], values["corpus-id"]
        missing = f"query {query[:60]!r}" if query not in known[0] else f"document {doc[:60]!r}" if doc not in known[1] else ""
        if missing:
            fields.note("unknown-id", row, f"{missing} is not in the data, row left out")
            continue
        grade = fields.grade(row, values)
        if grade is None:
            continue
        used += 1
        _judge(qrels, data, fields, row, query, doc, grade)
    if not used and not notes.errors(table.name):
        notes.add("empty-split", table.name, table.name, "no judgements, the split is left away", "warning")
        return
    fields.close(used)
    if qrels:
        data.qrels[split] = qrels


def _judge(qrels: Qrels, data: Dataset, fields: Fields, row: int, query: str, doc: str, grade: int) -> None:
    if grade <= 0:
        listed = data.hard_negatives.setdefault(query, [])
        if doc not in listed:
            listed.append(doc)
        if doc in qrels.get(query, {}):
            fields.note("contradictory-judgement", row, f"grade {grade} for a pair that is relevant above, kept as relevant", warning=True)
        return
    kept = qrels.setdefault(query, {}).setdefault(doc, grade)
    if kept != grade:
        fields.note(
            "contradictory-judgement", row, f"the same pair as before with grade {grade}, the first grade {kept} is kept", warning=True
        )
    elif doc in data.hard_negatives.get(query, ()):
        fields.note(
            "contradictory-judgement", row, f"grade {grade} for a pair that is not relevant elsewhere, kept as relevant", warning=True
        )


def _judgements(fields: Fields) -> Iterator[tuple[int, Row]]:
    """Yields ``(row number, {"query-id", "corpus-id", "score"})``; the score column may be absent (then every pair is relevant)."""
    header: list[str] | None = None
    for row, values in records(fields.path, fields.notes):
        if header is None:
            header = [value.strip() for value in values]
            if set(HEADER[:2]) <= set(header):
                continue
            if len(values) != 3 or not _is_number(values[2]):
                found = ", ".join(repr(value[:40]) for value in header)
                raise InputError(
                    f"{place(fields.path, row)}: header {found} found, {' '.join(HEADER)} (tab between) expected in {fields.path}"
                )
            header = list(HEADER)
            fields.note("no-header", row, "no header line, read as query-id, corpus-id, score", warning=True)
        if len(values) == len(header):
            yield row, dict(zip(header, values, strict=True))
        else:
            fields.note("wrong-width", row, f"{len(values)} fields given, {len(header)} expected (tab between), row left out")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
