"""Files to rows: JSON lines, CSV, TSV and Parquet, read as a stream; a broken row becomes a finding and the next one is read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from nearfield.data.notes import Notes
from nearfield.errors import FormatError, InputError, MissingExtraError

Row = dict[str, Any]

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
PARQUET_SUFFIXES = (".parquet", ".pq")
SUFFIXES = (*JSON_SUFFIXES, ".csv", ".tsv", *PARQUET_SUFFIXES)

# A row longer than this is a damaged file (a missing newline, an unclosed quote), not a document: War and Peace has 3 MiB. It bounds the
# memory that a row can take: JSON made for the purpose ("[[],[],...") needs 25 times its length as Python objects.
MAX_ROW_BYTES = 16 << 20

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def place(path: Path, row: int) -> str:
    """Returns how a finding names a row: ``corpus.jsonl:17`` by line, ``data.csv row 5`` as a spreadsheet counts (the header is row 1).

    >>> place(Path("folder/data.csv"), 5)
    'data.csv row 5'
    """
    return f"{path.name}:{row}" if path.suffix.lower() in (*JSON_SUFFIXES, ".tsv") else f"{path.name} row {row}"


def iterate(path: Path, notes: Notes, wanted: Collection[str]) -> Iterator[tuple[int, Row]]:
    """Yields ``(row number, fields)`` of every row that can be taken apart; the others go to ``notes``.

    Args:
        path: the file; its suffix says what it is.
        notes: where broken rows are recorded.
        wanted: the columns needed; only Parquet leaves the others unread.

    Raises:
        InputError: no such file, a suffix that is not known, UTF-16, a JSON array, no header.
        FormatError: a Parquet file that cannot be opened.
        MissingExtraError: Parquet without pyarrow.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: suffix {suffix or '(none)'} given, one of {' '.join(SUFFIXES)} or a BEIR folder expected")
    if not path.is_file():
        raise InputError(f"{path}: no such file; a JSONL, CSV, TSV or Parquet file or a BEIR folder is expected")
    try:
        if suffix in PARQUET_SUFFIXES:
            yield from _parquet(path, notes, wanted)
        elif suffix in JSON_SUFFIXES:
            yield from _json_lines(path, notes)
        else:
            yield from _table(path, notes)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


@contextmanager
def _open(path: Path, notes: Notes) -> Iterator[BinaryIO]:
    """Opens the file behind a UTF-8 byte-order mark, which is noted; refuses UTF-16, which is not noted row by row."""
    with path.open("rb") as file:
        start = file.read(3)
        if start[:2] in _UTF16:
            raise InputError(f"{path}: UTF-16 given, UTF-8 expected: convert it with iconv -f UTF-16 -t UTF-8")
        if start == _BOM:
            notes.add("byte-order-mark", path.name, place(path, 1), "a UTF-8 byte-order mark, skipped", "info")
        else:
            file.seek(0)
        yield file


def _lines(file: BinaryIO, path: Path, notes: Notes) -> Iterator[tuple[int, bytes]]:
    """Yields ``(line number, bytes without the line end)``; a line that does not end is cut off and noted."""
    number = 0
    while line := file.readline(MAX_ROW_BYTES):
        number += 1
        if len(line) == MAX_ROW_BYTES and not line.endswith(b"\n"):
            while (rest := file.readline(MAX_ROW_BYTES)) and not rest.endswith(b"\n"):
                pass
            notes.add("long-row", path.name, place(path, number), f"a line of more than {MAX_ROW_BYTES >> 20} MiB, left out")
            continue
        yield number, line.rstrip(b"\r\n")


def _decode(data: bytes, path: Path, number: int, notes: Notes) -> str | None:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"byte 0x{data[error.start]:02x} at byte {error.start + 1} of the row is not UTF-8, row left out"
        notes.add("non-utf8", path.name, place(path, number), message)
        return None


def _json_lines(path: Path, notes: Notes) -> Iterator[tuple[int, Row]]:
    with _open(path, notes) as file:
        for number, data in _lines(file, path, notes):
            where = place(path, number)
            if not data.strip():
                notes.add("blank-line", path.name, where, "a blank line, skipped", "info")
                continue
            if number == 1 and data.lstrip()[:1] == b"[":
                raise InputError(f"{path}: a JSON array given, one JSON object on each line expected: jq -c '.[]' converts it")
            text = _decode(data, path, number, notes)
            if text is None:
                continue
            try:
                value = json.loads(text)
            except json.JSONDecodeError as error:
                notes.add("bad-json", path.name, where, f"not JSON: {error.msg} at column {error.colno}, row left out")
            except (RecursionError, ValueError) as error:
                notes.add("bad-json", path.name, where, f"JSON that cannot be taken in ({type(error).__name__}), row left out")
            else:
                if isinstance(value, dict):
                    yield number, value
                else:
                    notes.add("wrong-type", path.name, where, f"{json_type(value)} given, a JSON object expected, row left out")


def json_type(value: object) -> str:
    """Returns how JSON calls the type of ``value``.

    >>> json_type([1])
    'an array'
    """
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def records(path: Path, notes: Notes) -> Iterator[tuple[int, list[str]]]:
    """Yields ``(row number, fields)`` of a CSV or TSV file, the header first.

    CSV follows RFC 4180. In TSV a tab always separates and a newline always ends: quotes are ordinary characters there.

    Raises:
        InputError: the header is broken: without it no row can be understood.
    """
    before, started = notes.errors(path.name), False
    for number, fields in _records(path, notes):
        if not started and notes.errors(path.name) > before:
            first = next(f for f in reversed(notes.findings()) if f.severity == "error")
            raise InputError(f"{first.where}: the header cannot be read: {first.message.removesuffix(', row left out')}")
        started = True
        yield number, fields


def _records(path: Path, notes: Notes) -> Iterator[tuple[int, list[str]]]:
    with _open(path, notes) as file:
        if path.suffix.lower() == ".tsv":
            for number, data in _lines(file, path, notes):
                text = _decode(data, path, number, notes)
                if text:
                    yield number, text.split("\t")
                elif text == "":
                    notes.add("blank-line", path.name, place(path, number), "a blank line, skipped", "info")
            return
        # The module's limit is one for the whole process and 128 KiB at the start; it is only ever raised here.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))
        lines = _BoundedLines(io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline=""))
        reader = csv.reader(lines, strict=True)
        number = 0
        while True:
            number += 1
            lines.characters = 0
            try:
                fields = next(reader)
            except StopIteration:
                return
            except _LongRow:
                notes.add("long-row", path.name, place(path, number), f"a row of more than {MAX_ROW_BYTES >> 20} MiB, left out")
            except csv.Error as error:
                message = f"not CSV: {error} (line {reader.line_num:,} of the file), row left out; look for a quote that is not closed"
                notes.add("bad-csv", path.name, place(path, number), message)
            else:
                if not fields:
                    notes.add("blank-line", path.name, place(path, number), "a blank line, skipped", "info")
                elif _escaped(fields, path, number, notes):
                    yield number, fields


class _LongRow(Exception):
    """A row of CSV beyond the limit."""


class _BoundedLines:
    """Lines for ``csv.reader``, which itself would take in a line, or a quoted field over many lines, of any length.

    Attributes:
        characters: of the present row so far; set to 0 before each.
    """

    def __init__(self, text: io.TextIOWrapper) -> None:
        self.text, self.characters = text, 0

    def __iter__(self) -> _BoundedLines:
        return self

    def __next__(self) -> str:
        line = self.text.readline(MAX_ROW_BYTES)
        if not line:
            raise StopIteration
        self.characters += len(line)
        if self.characters < MAX_ROW_BYTES:
            return line
        while line and not line.endswith(("\n", "\r")):
            line = self.text.readline(MAX_ROW_BYTES)
        raise _LongRow


def _escaped(fields: list[str], path: Path, number: int, notes: Notes) -> bool:
    """Returns whether all fields were UTF-8; bytes that were not arrive as lone surrogates, which UTF-8 itself cannot hold."""
    for column, value in enumerate(fields, 1):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            byte = ord(value[error.start]) - 0xDC00
            offset = len(value[: error.start].encode("utf-8")) + 1
            message = f"byte 0x{byte:02x} at byte {offset} of column {column} is not UTF-8, row left out"
            notes.add("non-utf8", path.name, place(path, number), message)
            return False
    return True


def _table(path: Path, notes: Notes) -> Iterator[tuple[int, Row]]:
    header: list[str] | None = None
    for number, fields in records(path, notes):
        if header is None:
            header = fields
            if len(set(header)) < len(header):
                raise InputError(
                    f"{path}: the header names a column twice ({', '.join(map(repr, header))}); every column needs its own name"
                )
        elif len(fields) != len(header):
            message = f"{len(fields)} fields given, {len(header)} expected as in the header, row left out"
            notes.add("wrong-width", path.name, place(path, number), message)
        else:
            yield number, dict(zip(header, fields, strict=True))


def columns_of(path: Path) -> list[str] | None:
    """Returns the column names of a CSV, TSV or Parquet file; None for JSON lines, where every row has its own, and without a header."""
    suffix = path.suffix.lower()
    if suffix in PARQUET_SUFFIXES:
        return list(_open_parquet(path).schema_arrow.names)
    if suffix in (".csv", ".tsv") and path.is_file():
        return next((fields for _, fields in records(path, Notes())), None)
    return None


def _open_parquet(path: Path) -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError(f"reading {path.name}", "parquet", "pyarrow") from error
    try:
        file = parquet.ParquetFile(path)
        _ = file.schema_arrow.names  # read here, so that names that are not UTF-8 are refused here
    except Exception as error:  # Arrow's own, OSError, UnicodeDecodeError
        raise FormatError(f"{path}: not a Parquet file that can be opened: {_first_line(error)}") from error
    return file


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _parquet(path: Path, notes: Notes, wanted: Collection[str]) -> Iterator[tuple[int, Row]]:
    file = _open_parquet(path)
    present = [name for name in file.schema_arrow.names if name in wanted]
    number = 0
    try:
        for batch in file.iter_batches(batch_size=1024, columns=present) if present else ():
            try:
                rows = batch.to_pylist()
            except UnicodeDecodeError:
                rows = [_parquet_row(batch, i, path, number + i + 1, notes) for i in range(batch.num_rows)]
            for row in rows:
                number += 1
                if row is not None:
                    yield number, row
    except Exception as error:  # Arrow's own (MemoryError among them), OSError, and ValueError for dates beyond Python's
        raise FormatError(f"{path}: damaged after row {number:,}: {_first_line(error)}") from error


def _parquet_row(batch: Any, i: int, path: Path, number: int, notes: Notes) -> Row | None:
    try:
        return {name: column[i].as_py() for name, column in zip(batch.schema.names, batch.columns, strict=True)}
    except UnicodeDecodeError as error:
        message = f"byte 0x{error.object[error.start]:02x} at byte {error.start + 1} of a field is not UTF-8, row left out"
        notes.add("non-utf8", path.name, place(path, number), message)
        return None
