"""One field of one row: taken as it is where it can be used, noted with file and row where it cannot."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nearfield.data.notes import Notes
from nearfield.data.rows import Row, json_type, place
from nearfield.errors import InputError

DOCUMENT_COLUMNS = ("_id", "title", "text")
PAIR_COLUMNS = ("query", "positive", "negative", "score")


def resolve_columns(columns: Mapping[str, str] | None) -> dict[str, str]:
    """Returns canonical column name -> the name in the file, for all seven.

    Raises:
        InputError: a canonical name that does not exist.

    >>> resolve_columns({"query": "question"})["query"]
    'question'
    """
    names = {name: name for name in (*DOCUMENT_COLUMNS, *PAIR_COLUMNS)}
    for ours, theirs in (columns or {}).items():
        if ours not in names:
            raise InputError(f"columns: {ours!r} given, one of {', '.join(names)} expected before the equals sign (query=question)")
        names[ours] = theirs
    return names


def parse_columns(text: str) -> dict[str, str]:
    """Returns the mapping that ``--columns query=question,positive=answer`` means.

    Raises:
        InputError: not of the form ``ours=theirs,ours=theirs``.

    >>> parse_columns("query=question,positive=answer")
    {'query': 'question', 'positive': 'answer'}
    """
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if any(not equals or not ours.strip() or not theirs.strip() for ours, equals, theirs in pairs):
        raise InputError(f"--columns {text!r}: ours=theirs,ours=theirs expected, for example query=question,positive=answer")
    mapping = {ours.strip(): theirs.strip() for ours, _, theirs in pairs}
    resolve_columns(mapping)
    return mapping


@dataclass
class Fields:
    """Takes fields out of the rows of one file.

    Attributes:
        path: the file, for the place of a finding.
        notes: where findings go.
        names: canonical column name -> the name in the file.
    """

    path: Path
    notes: Notes
    names: Mapping[str, str]

    def note(self, kind: str, row: int, message: str, *, warning: bool = False) -> None:
        """Records a finding about row ``row``."""
        self.notes.add(kind, self.path.name, place(self.path, row), message, "warning" if warning else "error")

    def close(self, used: int) -> None:
        """Notes how many rows were left out once the file is read.

        Raises:
            InputError: no row could be used; the first finding says why.
        """
        left_out = self.notes.errors(self.path.name)
        if not used:
            first = self.notes.first()
            why = f"no row that can be used ({left_out:,} left out); {first.where}: {first.message}" if first else "an empty file"
            raise InputError(f"{self.path}: {why}")
        if left_out:
            message = f"{left_out:,} of {left_out + used:,} rows left out, {used:,} used"
            self.notes.add("rows-left-out", self.path.name, self.path.name, message, "warning")

    def text(self, row: int, fields: Row, column: str) -> str | None:
        """Returns a required text, or None (noted) where it is missing, null, of another type, or blank."""
        name = self.names[column]
        if name not in fields:
            self.note("missing-field", row, f"no {name!r}, row left out")
            return None
        value = fields[name]
        if not isinstance(value, str):
            self.note("wrong-type", row, f"{name!r} is {json_type(value)}, a string expected, row left out")
            return None
        if not value.strip():
            self.note("empty-text", row, f"{name!r} is empty, row left out")
            return None
        return self.encodable(row, name, value)

    def optional(self, row: int, fields: Row, column: str) -> str | None:
        """Returns an optional text; ``""`` where it is absent, null or blank, None (noted) where its type is wrong."""
        value = fields.get(self.names[column])
        if value is None or (isinstance(value, str) and not value.strip()):
            return ""
        return self.text(row, fields, column)

    def texts(self, row: int, fields: Row, column: str) -> list[str] | None:
        """Returns an optional text or list of texts as a list; None (noted) where a type is wrong."""
        value = fields.get(self.names[column])
        if not isinstance(value, list):
            one = self.optional(row, fields, column)
            return None if one is None else [one] if one else []
        result: list[str] = []
        for item in value:
            text = self.optional(row, {self.names[column]: item}, column)
            if text is None:
                return None
            result += [text] if text else []
        return result

    def identity(self, row: int, fields: Row) -> str | None:
        """Returns the ``_id`` as a string; ``""`` where there is none, None (noted) where it is neither a string nor a whole number."""
        name = self.names["_id"]
        value = fields.get(name)
        if value is None or value == "":
            return ""
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            self.note("wrong-type", row, f"{name!r} is {json_type(value)}, a string or a whole number expected, row left out")
            return None
        return self.encodable(row, name, value if isinstance(value, str) else str(value))

    def grade(self, row: int, fields: Row, column: str = "score") -> int | None:
        """Returns a relevance grade; 1 where there is none, None (noted) where it is not a finite number.

        Grades are whole numbers: 0 and below mean not relevant, a fraction is rounded but never down to 0, and noted.
        """
        name = self.names[column]
        value = fields.get(name)
        if value is None or value == "":
            return 1
        try:
            number = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            self.note("wrong-type", row, f"{name!r} is {str(value)[:40]!r}, a finite number expected, row left out")
            return None
        whole = max(1, round(number)) if number > 0 else min(0, math.ceil(number))
        if whole != number and number > 0:
            self.note("rounded-score", row, f"{name!r} is {number:g}, taken as grade {whole}: grades are whole numbers", warning=True)
        return whole

    def encodable(self, row: int, name: str, value: str) -> str:
        """Returns ``value``; lone surrogates, which UTF-8 cannot hold, become U+FFFD and are noted."""
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            self.note("lone-surrogate", row, f"{name!r} has a lone surrogate at character {error.start + 1}, made U+FFFD", warning=True)
            return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in value)
        return value
