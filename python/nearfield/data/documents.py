"""A file of documents, or of queries: ids, texts, and what becomes of ids that are missing or come twice."""

from __future__ import annotations

from nearfield.data.fields import DOCUMENT_COLUMNS, Fields
from nearfield.data.rows import iterate, place


def read_documents(fields: Fields, *, need_id: bool = False, titles: dict[str, str] | None = None) -> tuple[list[str], list[str]]:
    """Returns ``(ids, texts)`` of a file with the columns ``_id``, ``title`` and ``text``.

    Args:
        fields: the file, its column names and its notes.
        need_id: rows without ``_id`` are left out (in a BEIR folder judgements refer to it); otherwise the row number is the id.
        titles: filled with the titles by id, where it is given.

    Raises:
        InputError: an empty file, or no row that can be used.
    """
    rows: dict[str, int] = {}
    texts: list[str] = []
    for row, values in iterate(fields.path, fields.notes, {fields.names[c] for c in DOCUMENT_COLUMNS}):
        title = fields.optional(row, values, "title")
        if title is None:
            continue
        # A title alone is a document too; a text that is missing or null is noted as such.
        given = values.get(fields.names["text"])
        bare = title and isinstance(given, str) and not given.strip()
        text = "" if bare else fields.text(row, values, "text")
        identity = fields.identity(row, values) if text is not None else None
        if text is None or identity is None:
            continue
        if not identity:
            if need_id:
                fields.note("missing-field", row, f"no {fields.names['_id']!r}, row left out")
                continue
            if fields.names["_id"] in values:
                fields.note("empty-id", row, f"{fields.names['_id']!r} is empty, the row number is the id", warning=True)
            identity = str(row)
        if identity in rows:
            first = place(fields.path, rows[identity])
            fields.note("duplicate-id", row, f"id {identity[:60]!r} is that of {first} already, the first is kept, this row left out")
            continue
        rows[identity] = row
        if title and text and titles is not None:
            titles[identity] = title
        texts.append(f"{title} {text}" if title and text else title or text)
    fields.close(len(rows))
    return list(rows), texts
